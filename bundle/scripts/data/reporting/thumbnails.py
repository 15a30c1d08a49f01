"""A case at a glance: three planes through its structures on one small PNG, turned as radiologists look at them."""

import colorsys
import io
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ...results.view import PLANES, Plane, View, choose_planes, turn
from ...vocabulary import Vocabulary
from ..quality.statistics import plane_counts, sample_step
from ..whole_files import whole_file

WIDTH, HEIGHT, GAP = 480, 176, 4  # pixels
PANEL_SHAPE = (0.5, 1.4)  # width by height; a plane that is thinner or flatter is letterboxed
LARGEST = 40_000  # bytes
PALETTES = (160, 96, 64, 40, 24, 12)  # numbers of colours; the first that is small enough is taken
FILL, EDGE = 0.35, 0.9  # opacity of a structure and of its outline
INK = (236, 238, 241)

Color = tuple[int, int, int]
Picture = NDArray[np.float32]


def write_thumbnail(
    path: Path, image: MetaTensor, label: NDArray[Any] | None, colors: Mapping[int, Color] | None = None
) -> None:
    """Write the thumbnail of one case; the same voxels give the same bytes, of which there are less than 40 kB.

    Args:
        path: the PNG, which appears whole or not at all.
        image: (1, i, j, k) with its affine to RAS mm.
        label: (i, j, k) of label values on its grid, 0 for none; None where the case has no label.
        colors: of the label values, see ``colors_of``; any other value has a colour of its own.
    """
    affine = np.asarray(image.affine, dtype=np.float64)
    view = turn(image.detach().cpu().numpy()[0], affine, [])
    seen = np.zeros(view.image.shape, np.int8) if label is None else _turned(label, affine)
    table = _color_table(int(seen.max(initial=0)), colors or {})
    canvas = Image.new("RGB", (WIDTH, HEIGHT))
    indices = _planes(view, seen)
    for plane, (x, y, width, height) in zip(PLANES, _panels(view), strict=True):
        index = indices[plane.normal]
        gray = _gray(_cut(view.image, plane, index), view.window)
        spacing = view.spacing[[plane.down, plane.across]]
        panel = _panel(gray, _cut(seen, plane, index), spacing, (height, width), table)
        canvas.paste(Image.fromarray(panel), (x, y))
        ImageDraw.Draw(canvas).text(
            (x + 3, y + height // 2), plane.letters[0], fill=INK, anchor="lm", stroke_width=1, stroke_fill=(0, 0, 0)
        )
    with whole_file(path) as part:
        part.write_bytes(_encoded(canvas))


def colors_of(labels: Mapping[str, str | None], vocabulary: Vocabulary) -> dict[int, Color]:
    """The vocabulary's colour of each label value that has a name."""
    return {int(value): vocabulary.color(name) for value, name in labels.items() if name}


def _turned(label: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[Any]:
    """The label in display axes, a view of its voxels."""
    return turn(label, affine, []).image


def _cut(volume: NDArray[Any], plane: Plane, index: int) -> NDArray[Any]:
    """The picture (down, across) of a plane; a view, for a copy of the turned volume would take seconds."""
    return np.moveaxis(volume, plane.normal, 0)[index].T


def _planes(view: View, label: NDArray[Any]) -> list[int]:
    """Index of the plane across each display axis that shows the structures best, found on a coarser grid."""
    step = sample_step(label.shape)
    counts = plane_counts(label[step])
    areas = [[count[value] for count in counts] for value in np.flatnonzero(counts[0].sum(axis=1))]
    coarse = choose_planes(replace(view, areas=areas))
    return [part.start + part.step * index for part, index in zip(step, coarse, strict=True)] if areas else coarse


def _panels(view: View) -> list[tuple[int, int, int, int]]:
    """(x, y, width, height) in pixels of three panels side by side, equally high, in the middle of the canvas."""
    extent = view.spacing * view.image.shape
    shapes = np.clip([extent[plane.across] / extent[plane.down] for plane in PLANES], *PANEL_SHAPE)
    height = int(min((WIDTH - 2 * GAP) / shapes.sum(), HEIGHT))
    widths = [int(shape * height) for shape in shapes]
    x = (WIDTH - sum(widths) - 2 * GAP) // 2
    return [(x + sum(widths[:n]) + n * GAP, (HEIGHT - height) // 2, widths[n], height) for n in range(3)]


def _gray(plane: NDArray[Any], window: tuple[float, float]) -> Picture:
    low, high = window
    return np.clip(np.nan_to_num((plane.astype(np.float32) - low) / (high - low)), 0, 1) * np.float32(255)


def _panel(
    gray: Picture, label: NDArray[Any], spacing: NDArray[np.float64], size: tuple[int, int], table: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """A plane (rows, columns) as colours (height, width, 3), true to scale and in the middle of a black panel."""
    extent = spacing * gray.shape
    rows, columns = (max(1, int(n)) for n in np.floor(extent * min(np.asarray(size) / extent) + 1e-9))
    small = np.asarray(Image.fromarray(gray).resize((columns, rows), Image.Resampling.BILINEAR))
    down, across = ((np.arange(new) + 0.5) * old // new for new, old in zip((rows, columns), gray.shape, strict=True))
    values = label[np.ix_(down.astype(int), across.astype(int))]
    alpha = np.where(values > 0, np.where(_outline(values), EDGE, FILL), 0)[..., None]
    picture = (1 - alpha) * small[..., None] + alpha * table[np.maximum(values, 0)]
    panel = np.zeros((*size, 3), np.uint8)
    top, left = (size[0] - rows) // 2, (size[1] - columns) // 2
    panel[top : top + rows, left : left + columns] = np.rint(np.clip(picture, 0, 255))
    return panel


def _outline(values: NDArray[Any]) -> NDArray[np.bool_]:
    """Pixels (rows, columns) beside one of another value."""
    padded = np.pad(values, 1, mode="edge")
    beside = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    return np.logical_or.reduce([other != values for other in beside])


def _color_table(largest: int, colors: Mapping[int, Color]) -> NDArray[np.uint8]:
    """(largest + 1, 3): the colour of each value, far from its neighbours' where none is given."""
    table = np.zeros((largest + 1, 3), np.uint8)
    for value in range(1, largest + 1):
        own = [round(255 * channel) for channel in colorsys.hsv_to_rgb(value * 0.618034 % 1, 0.75, 0.95)]
        table[value] = colors.get(value, own)
    return table


def _encoded(canvas: Image.Image) -> bytes:
    """The PNG with as many colours as its size allows."""
    content = b""
    for count in PALETTES:
        file = io.BytesIO()
        reduced = canvas.quantize(count, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
        reduced.save(file, "PNG", optimize=True)
        content = file.getvalue()
        if len(content) < LARGEST:
            break
    return content
