"""The preview of a result: three planes through the targets on one PNG, so that an error shows at a glance.

Planes hang as radiologists hang them, however the volume is stored: patient's right at image left, front up (axial)
or left (sagittal), head up. Volumes are turned as views, never copied; no global state of matplotlib is touched.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray

from ..prompts.geometry import Floats, Prompt
from .view import PLANES, Plane, PreviewTarget, View, choose_planes, turn

WIDTH, DPI = 1500, 100  # pixels, and pixels per inch
MARGIN, GAP, TITLE, ROW, FOOTER = 16, 8, 42, 26, 32  # pixels
PANEL_HEIGHT = 520  # pixels at most
PANEL_SHAPE = (0.55, 1.3)  # width by height; a plane that is thinner or flatter is letterboxed
COLUMNS, COLUMN_WIDTH, ENTRIES = 5, 400, 60  # of the legend
BACKGROUND, INK, FAINT = "#101216", "#eceef1", "#8d939b"
POSITIVE, NEGATIVE = "#3dff5c", "#ff5050"
NEAR = 2  # voxels; a prompt farther from the plane is drawn faint
FAR_ALPHA = 0.3
# of the plane's name, and of the letters at image left, right, top and bottom, in parts of the panel
LABEL_PLACES = (
    ("left", "top", 0.02, 0.98),
    ("left", "center", 0.015, 0.5),
    ("right", "center", 0.985, 0.5),
    ("center", "top", 0.5, 0.985),
    ("center", "bottom", 0.5, 0.015),
)

Entry = tuple[str, str, tuple[int, int, int] | None]  # name, size, and a colour if anything was found


def draw_preview(
    path: str | Path,
    image: NDArray[Any],
    affine: NDArray[Any],
    targets: Sequence[PreviewTarget],
    title: str = "",
    footer: str = "",
) -> Path:
    """Write the preview of one case.

    Args:
        path: the PNG.
        image: (i, j, k) intensities, in HU or normalised.
        affine: (4, 4) from its voxels to RAS mm.
        targets: on the grid of the image; those with an empty mask are listed as not found.
        title: above the planes.
        footer: below the legend.
    """
    view = turn(image, affine, targets)
    indices = choose_planes(view)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")  # the font lacks a script: a box stands for the character
        panels = _panels(view)
        legend = _legend(view, abs(float(np.linalg.det(np.asarray(affine)[:3, :3]))) / 1000)
        sheet = _Sheet(TITLE + panels[0][2] + GAP + ROW * -(-len(legend) // COLUMNS) + FOOTER)
        for plane, (x, width, height) in zip(PLANES, panels, strict=True):
            axes = sheet.axes(x, TITLE, width, height)
            _draw_plane(axes, view, plane, indices[plane.normal], (width, height))
        _write_title(sheet, title, [target.prompt for target in targets])
        _write_legend(sheet, legend, TITLE + panels[0][2] + GAP + ROW / 2)
        sheet.write(footer, MARGIN, sheet.height - FOOTER / 2, 9, FAINT, WIDTH - 2 * MARGIN)
        return sheet.save(Path(path))


def _panels(view: View) -> list[tuple[float, float, float]]:
    """(x, width, height) in pixels of the three panels, side by side and equally high."""
    extent = view.spacing * view.image.shape
    shapes = np.clip([extent[plane.across] / extent[plane.down] for plane in PLANES], *PANEL_SHAPE)
    height = min((WIDTH - 2 * MARGIN - 2 * GAP) / shapes.sum(), PANEL_HEIGHT)
    widths = shapes * height
    x = (WIDTH - widths.sum() - 2 * GAP) / 2
    return [(float(x + widths[:n].sum() + n * GAP), float(widths[n]), float(height)) for n in range(3)]


def _draw_plane(axes: Axes, view: View, plane: Plane, index: int, size: tuple[float, float]) -> None:
    """Draw one plane into a panel of ``size`` (width, height) pixels, true to scale and centred."""
    low, high = view.window
    values = np.asarray(view.cut(view.image, plane, index), dtype=np.float32)
    axes.imshow(values, cmap="gray", vmin=low, vmax=high, interpolation="bicubic", aspect="auto")
    for target in view.targets:
        _draw_mask(axes, view.cut(target.mask, plane, index), target.color)
    for target in view.targets:
        _draw_prompt(axes, target, plane, index)
    spacing = view.spacing[[plane.across, plane.down]]
    counts = np.array([view.image.shape[plane.across], view.image.shape[plane.down]])
    half = (counts * spacing / size).max() * np.asarray(size) / spacing / 2
    middle = (counts - 1) / 2
    axes.set_xlim(middle[0] - half[0], middle[0] + half[0])
    axes.set_ylim(middle[1] + half[1], middle[1] - half[1])
    _label_plane(axes, view, plane, index)


def _draw_mask(axes: Axes, mask: NDArray[Any], color: tuple[int, int, int]) -> None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return
    block = np.pad(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] != 0, 1).astype(np.float32)
    x, y = np.arange(columns[0] - 1, columns[-1] + 2), np.arange(rows[0] - 1, rows[-1] + 2)
    rgb = tuple(channel / 255 for channel in color)
    axes.contourf(x, y, block, levels=[0.5, 1.5], colors=[rgb], alpha=0.32)
    axes.contour(x, y, block, levels=[0.5], colors=[rgb], linewidths=1.5)


def _draw_prompt(axes: Axes, target: PreviewTarget, plane: Plane, index: int) -> None:
    prompt = target.prompt
    if prompt.box is not None:
        _draw_box(axes, prompt.box, plane, index, target.color)
    near = np.abs(prompt.points[:, plane.normal] - index) <= NEAR
    positive = prompt.point_labels == 1
    for label, color, marker in ((positive, POSITIVE, "+"), (~positive, NEGATIVE, "x")):
        for chosen, alpha in ((label & ~near, FAR_ALPHA), (label & near, 1.0)):
            x, y = prompt.points[chosen][:, [plane.across, plane.down]].T
            outline = [withStroke(linewidth=4.5, foreground="black", alpha=alpha)]
            size = 12 if marker == "+" else 9
            axes.plot(x, y, marker, c=color, alpha=alpha, ms=size, mew=2.2, path_effects=outline)


def _draw_box(axes: Axes, box: Floats, plane: Plane, index: int, color: tuple[int, int, int]) -> None:
    corner, (width, height) = box[0] - 0.5, (box[1] - box[0] + 1)[[plane.across, plane.down]]
    near = box[0, plane.normal] - NEAR <= index <= box[1, plane.normal] + NEAR
    style: dict[str, Any] = {"fill": False, "linewidth": 1.6, "linestyle": (0, (5, 3))}
    style |= {"edgecolor": [0.4 + 0.6 * channel / 255 for channel in color], "alpha": 1.0 if near else FAR_ALPHA}
    axes.add_patch(Rectangle((corner[plane.across], corner[plane.down]), width, height, **style))


def _label_plane(axes: Axes, view: View, plane: Plane, index: int) -> None:
    """Name the plane with its index in the stored image, and the patient's sides at the edges."""
    letter, number = view.stored_index(plane.normal, index)
    words = (f"{plane.name}   {letter} = {number}", *plane.letters)
    for word, (ha, va, x, y), size in zip(words, LABEL_PLACES, (9.5, 11, 11, 11, 11), strict=True):
        style: dict[str, Any] = {"transform": axes.transAxes, "ha": ha, "va": va, "size": size, "color": INK}
        axes.text(x, y, word, path_effects=[withStroke(linewidth=2.5, foreground="black")], usetex=False, **style)


def _legend(view: View, voxel_ml: float) -> list[Entry]:
    """What the legend says of every target."""
    entries: list[Entry] = []
    for target, areas in zip(view.targets, view.areas, strict=True):
        voxels = int(areas[0].sum())
        size = f"{_three_digits(voxels * voxel_ml)} ml" if voxels else "not found"
        entries.append((target.name, size, target.color if voxels else None))
    if len(entries) > ENTRIES:
        entries = [*entries[: ENTRIES - 1], (f"and {len(entries) - ENTRIES + 1} more", "", None)]
    return entries


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _write_legend(sheet: "_Sheet", entries: Sequence[Entry], top: float) -> None:
    """Write the entries row by row from ``top``, in columns."""
    width = min((WIDTH - 2 * MARGIN) / max(1, min(COLUMNS, len(entries))), COLUMN_WIDTH)
    for number, (name, size, color) in enumerate(entries):
        x, y = MARGIN + number % COLUMNS * width, top + number // COLUMNS * ROW
        sheet.swatch(x, y, color)
        sheet.write(name, x + 22, y, 11, INK if color else FAINT, width - 34, f"   {size}")


def _write_title(sheet: "_Sheet", title: str, prompts: Sequence[Prompt]) -> None:
    """Write the title, and at the right what the marks of the prompts mean."""
    labels = np.concatenate([np.empty(0), *(prompt.point_labels for prompt in prompts)])
    right = float(WIDTH - MARGIN)
    for shown, word, color in (
        (any(prompt.box is not None for prompt in prompts), "- -  box", INK),
        ((labels != 1).any(), "\N{MULTIPLICATION SIGN}  negative point", NEGATIVE),
        ((labels == 1).any(), "+  positive point", POSITIVE),
    ):
        if shown:
            right -= sheet.write(word, right, TITLE / 2, 9.5, color, WIDTH / 3, ha="right") + 22
    sheet.write(title, MARGIN, TITLE / 2, 13, INK, right - 2 * MARGIN)


class _Sheet:
    """The picture, addressed in pixels from its upper left corner."""

    def __init__(self, height: float) -> None:
        self.height = round(height)
        self._figure = Figure(figsize=(WIDTH / DPI, self.height / DPI), dpi=DPI, facecolor=BACKGROUND)
        self._figure.set_layout_engine("none")
        self._canvas = FigureCanvasAgg(self._figure)

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Empty black axes without ticks or frame."""
        bounds = (x / WIDTH, 1 - (y + height) / self.height, width / WIDTH, height / self.height)
        axes = self._figure.add_axes(bounds, facecolor="black", xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        return axes

    def swatch(self, x: float, y: float, color: tuple[int, int, int] | None) -> None:
        """A small filled square, its left edge at x and its middle at y; hollow without a colour."""
        rgb = FAINT if color is None else tuple(channel / 255 for channel in color)
        corner, sides = (x / WIDTH, 1 - (y + 7) / self.height), (14 / WIDTH, 14 / self.height)
        square = Rectangle(corner, *sides, facecolor=rgb if color else "none", edgecolor=rgb, linewidth=1)
        self._figure.add_artist(square)

    def write(
        self, words: str, x: float, y: float, size: float, color: str, width: float, tail: str = "", ha: str = "left"
    ) -> float:
        """Write plain text, cut to ``width`` pixels but for its tail, with its middle at y; return its width."""
        words = " ".join(words.encode("utf-8", "replace").decode("utf-8").split())
        style: dict[str, Any] = {"size": size, "color": color, "ha": ha, "va": "center_baseline"}
        place = (x / WIDTH, 1 - y / self.height)
        text = self._figure.text(*place, words + tail, parse_math=False, usetex=False, **style)
        while words and (drawn := text.get_window_extent().width) > width:
            words = words[: min(len(words) - 1, int(len(words) * width / drawn))]
            text.set_text(words.rstrip() + "\N{HORIZONTAL ELLIPSIS}" + tail)
        return float(text.get_window_extent().width)

    def save(self, path: Path) -> Path:
        """Write the PNG."""
        self._canvas.print_png(path)
        return path
