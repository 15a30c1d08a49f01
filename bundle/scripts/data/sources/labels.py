"""The label map of a case, from whatever its data set keeps: a map, a file a structure, raters, sparse masks."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray

from ...transforms import load_volume
from .grids import Affine, onto_grid
from .painting import Overlaps, majority, paint
from .slices import read_slices
from .sparse_masks import read_sparse

MAX_VALUE = np.iinfo(np.int16).max
IN_PARTS = (".seg.nrrd",)  # 3D Slicer keeps of a segmentation only the box that is not empty


def read_label(
    source: Mapping[str, Any], image: MetaTensor, labels: Mapping[str, str | None] | None = None
) -> tuple[NDArray[np.int16], Overlaps]:
    """Read the label of a case onto the grid of its image.

    Args:
        source: ``label`` of a raw case.
        image: (1, i, j, k) with its affine, as ``read_image`` gives it.
        labels: value -> name, for the names in the second result.

    Returns:
        The label map (i, j, k) in the image's stored order; and for structures in masks of their own that overlap,
        ``{"liver tumor over liver": voxels}``.

    Raises:
        ValueError: one line, for what cannot be read, is no label, or lies on another grid ("label grid differs from
            the image's: ...").
    """
    shape, affine = tuple(image.shape[1:]), np.asarray(image.affine, dtype=float)
    kind = source["kind"]
    if kind == "map":
        return _on_grid(source["path"], shape, affine), {}
    masks: Iterable[tuple[int, NDArray[np.bool_]]]
    if kind == "files":
        masks = ((each["value"], _mask(each, shape, affine)) for each in source["files"])
    elif kind == "raters":
        masks = _agreed(source, shape, affine)
    elif kind == "sparse":
        masks = read_sparse(source["path"], source.get("channels"), shape)
    else:
        raise ValueError(f"label: its kind is {kind!r}; allowed are map, files, raters and sparse")
    return paint(masks, shape, labels or {})


def _agreed(source: Mapping[str, Any], shape: tuple[int, ...], affine: Affine) -> Iterator[tuple[int, NDArray]]:
    for raters in source["value_sets"]:
        yield raters[0]["value"], majority(_mask(each, shape, affine) for each in raters)


def _mask(entry: Mapping[str, Any], shape: tuple[int, ...], affine: Affine) -> NDArray[np.bool_]:
    path = entry["path"]
    if not os.path.isdir(path):
        return _on_grid(path, shape, affine) > 0
    with _named(path):
        return read_slices(path, entry.get("slices_of"), shape, affine)


def _on_grid(path: str, shape: tuple[int, ...], affine: Affine) -> NDArray[np.int16]:
    """One file of whole numbers on the image's grid."""
    with _named(path):
        volume = load_volume(path)
        voxels, part = _whole_numbers(_one_map(volume, path), path), path.lower().endswith(IN_PARTS)
        return onto_grid(voxels, np.asarray(volume.affine, dtype=float), shape, affine, part)


@contextmanager
def _named(path: str) -> Iterator[None]:
    """Make what goes wrong inside an error of the label that names its path."""
    try:
        yield
    except ValueError as error:
        said = re.sub("^image: ", "label: ", str(error))
        raise ValueError(said if path in said else f"{said} ({path})") from error


def _one_map(volume: MetaTensor, path: str) -> NDArray[np.float32]:
    """Voxels (i, j, k), of which a single slice is one."""
    voxels = volume.as_tensor().numpy()
    if voxels.ndim == 3:
        voxels = voxels[..., None]
    if voxels.ndim != 4 or voxels.shape[0] != 1:
        raise ValueError(f"label: {path} must be one 3D map; it has the shape {voxels.shape[1:] + voxels.shape[:1]}")
    return voxels[0]


def _whole_numbers(voxels: NDArray[np.float32], path: str) -> NDArray[np.int16]:
    if not np.isfinite(voxels).all():
        raise ValueError(f"label: {path} holds NaN or infinite voxels; a label map holds whole numbers")
    rounded = np.rint(voxels)
    wrong = np.abs(voxels - rounded) > 1e-3
    if wrong.any():
        raise ValueError(f"label: {path} holds {float(voxels[wrong][0]):g}; a label map holds whole numbers")
    if rounded.min() < 0 or rounded.max() > MAX_VALUE:
        out = float(rounded.min() if rounded.min() < 0 else rounded.max())
        raise ValueError(f"label: {path} holds {out:g}; values of a label map are 0 to {MAX_VALUE}")
    return rounded.astype(np.int16)
