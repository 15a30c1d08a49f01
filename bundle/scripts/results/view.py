"""A case turned the way radiologists look at it, and the planes that show its targets best."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from ..prompts.geometry import Floats, Prompt, box_of, map_box, map_points

# display axes grow to the patient's left, back and feet
DISPLAY_AXES = "LPI"
SOFT_TISSUE = (-160.0, 240.0)  # HU
SOFT_TISSUE_PERCENTILES = (10, 97)  # what comes closest to it in a normalised CT


@dataclass(frozen=True, eq=False)
class PreviewTarget:
    """What is drawn of one target.

    Attributes:
        name: shown in the legend, character by character.
        mask: (i, j, k), non-zero on the target.
        color: red, green, blue, each 0 to 255.
        prompt: its points and box, in voxels of the mask.
    """

    name: str
    mask: NDArray[Any]
    color: tuple[int, int, int]
    prompt: Prompt


@dataclass(frozen=True)
class Plane:
    """One of the three planes: its normal, what runs across and down the picture, and the letters at its edges.

    Attributes:
        name: as it is called.
        normal: display axis.
        across: display axis.
        down: display axis.
        letters: the patient's sides at image left, right, top and bottom.
    """

    name: str
    normal: int
    across: int
    down: int
    letters: str


PLANES = (Plane("axial", 2, 0, 1, "RLAP"), Plane("coronal", 1, 0, 2, "RLSI"), Plane("sagittal", 0, 1, 2, "APSI"))


@dataclass(frozen=True, eq=False)
class View:
    """A case in display axes.

    Attributes:
        image: (l, p, i) intensities.
        window: the intensities shown black and white.
        spacing: (3,) mm.
        targets: masks and prompts on the turned grid.
        areas: of every target, for each axis, its voxels in every plane across that axis.
        stored: for each display axis, the stored axis (0 to 2) and whether it runs the other way.
    """

    image: NDArray[Any]
    window: tuple[float, float]
    spacing: Floats
    targets: list[PreviewTarget]
    areas: list[list[NDArray[np.int64]]]
    stored: list[tuple[int, bool]]

    def stored_index(self, axis: int, index: int) -> tuple[str, int]:
        """Which plane of the stored image a plane across a display axis is: "i", "j" or "k", and its index."""
        stored, flipped = self.stored[axis]
        return "ijk"[stored], self.image.shape[axis] - 1 - index if flipped else index

    def cut(self, volume: NDArray[Any], plane: Plane, index: int) -> NDArray[Any]:
        """The picture (down, across) of a plane."""
        return np.moveaxis(volume, plane.normal, 0)[index].T  # a view; of the axes left, across comes first


def turn(image: NDArray[Any], affine: NDArray[Any], targets: Sequence[PreviewTarget]) -> View:
    """Turn a case to display axes, without copying a volume.

    Args:
        image: (i, j, k) intensities, in HU or normalised.
        affine: (4, 4) from its voxels to RAS mm.
        targets: on the grid of the image.
    """
    display = nib.orientations.axcodes2ornt(tuple(DISPLAY_AXES))
    transform = nib.orientations.ornt_transform(nib.io_orientation(affine), display)
    from_display = nib.orientations.inv_ornt_aff(transform, image.shape)
    turned = [_turn_target(target, transform, np.linalg.inv(from_display)) for target in targets]
    return View(
        image=nib.apply_orientation(image, transform),
        window=window_of(image),
        spacing=nib.affines.voxel_sizes(np.asarray(affine, dtype=np.float64) @ from_display),
        targets=turned,
        areas=[_areas(target.mask) for target in turned],
        stored=[(int(stored), bool(transform[stored, 1] < 0)) for stored in np.argsort(transform[:, 0])],
    )


def window_of(image: NDArray[Any]) -> tuple[float, float]:
    """The intensities to show black and white: a soft tissue window, by percentiles where there are no HU."""
    step = max(1, round((image.size / 2e6) ** (1 / 3)))
    sample = image[::step, ::step, ::step]
    low, high = float(sample.min()), float(sample.max())
    if low < -500:
        return SOFT_TISSUE
    foreground = sample[sample > low]
    if foreground.size > 1:
        low, high = (float(value) for value in np.percentile(foreground, SOFT_TISSUE_PERCENTILES))
    return low, max(high, low + 1e-6)


def choose_planes(view: View) -> list[int]:
    """Per display axis the plane that shows the targets best, each measured by its own largest cross-section.

    Where nothing was found the planes go through a prompt, and without one through the middle.
    """
    found = [areas for areas in view.areas if areas[0].any()]
    if not found:
        return _prompted_voxel([target.prompt for target in view.targets], view.image.shape)
    indices = []
    for axis in range(3):
        score = np.sum([np.sqrt(areas[axis] / areas[axis].max()) for areas in found], axis=0)
        best = np.flatnonzero(score >= score.max() - 1e-9)
        indices.append(int(best[len(best) // 2]))
    return indices


def _turn_target(target: PreviewTarget, transform: Floats, matrix: Floats) -> PreviewTarget:
    prompt = target.prompt
    box = None if prompt.box is None else map_box(prompt.box, matrix)
    turned = replace(prompt, points=map_points(prompt.points, matrix), box=box)
    return replace(target, mask=nib.apply_orientation(target.mask, transform), prompt=turned)


def _areas(mask: NDArray[Any]) -> list[NDArray[np.int64]]:
    areas = [np.zeros(size, dtype=np.int64) for size in mask.shape]
    box = box_of(mask)
    if box is None:
        return areas
    inside = tuple(slice(int(low), int(high) + 1) for low, high in box.T)
    for area, extent, others in zip(areas, inside, ((1, 2), (0, 2), (0, 1)), strict=True):
        area[extent] = np.count_nonzero(mask[inside], axis=others)
    return areas


def _prompted_voxel(prompts: Sequence[Prompt], shape: Sequence[int]) -> list[int]:
    last = np.asarray(shape) - 1
    places = [place for prompt in prompts for place in _places(prompt)]
    voxel = np.clip(np.rint(places[0]), 0, last) if places else np.asarray(shape) // 2
    return [int(index) for index in voxel]


def _places(prompt: Prompt) -> list[Floats]:
    """Where a prompt points, surest first."""
    box = [] if prompt.box is None else [prompt.box.mean(axis=0)]
    return [*prompt.points[prompt.point_labels == 1], *box, *prompt.points[prompt.point_labels != 1]]
