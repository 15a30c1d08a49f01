"""Folders of mask slices: DICOM as in 3D-IRCADb, PNG or TIF as in CHAOS."""

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...transforms import load_volume, series_files, slice_position
from .grids import Affine, onto_grid

PICTURES = (".png", ".tif", ".tiff")


def read_slices(folder: str, slices_of: str | None, shape: tuple[int, ...], affine: Affine) -> NDArray[np.bool_]:
    """Read the mask that a folder holds slice by slice.

    DICOM slices lie where their headers say, and may be a part of the image's. Pictures say nothing of that: the n-th
    by name is the slice that the n-th file by name of the image's folder holds, wherever that lies and whatever its
    instance number; CHAOS' own evaluation scripts pair them so. Numbers in names count as numbers. DICOM slices that
    all state one position are taken likewise. Rows of a picture are the rows of the DICOM image.

    Args:
        folder: of the mask.
        slices_of: folder with the image's DICOM series.
        shape: (i, j, k) of the image.
        affine: (4, 4) of the image, to RAS mm.

    Returns:
        (i, j, k) on the image's grid.

    Raises:
        ValueError: one line, for slices that cannot be read or are not those of the image.
    """
    names = sorted((name for name in os.listdir(folder) if not name.startswith(".")), key=_natural)
    pictures = [os.path.join(folder, name) for name in names if name.lower().endswith(PICTURES)]
    if pictures:
        return _by_name(folder, pictures, _picture, slices_of, shape)
    files = series_files(Path(folder))
    positions = [slice_position(file) for file in files]
    if len(files) > 1 and np.ptp(positions) < 1e-3:
        return _by_name(folder, sorted(files, key=_natural), _dicom_slice, slices_of, shape)
    volume = load_volume(folder)
    return onto_grid(_marked(volume[0].numpy()), np.asarray(volume.affine, float), shape, affine, part=True)


def _by_name(
    folder: str,
    files: Sequence[str],
    read: Callable[[str], NDArray[np.bool_]],
    slices_of: str | None,
    shape: tuple[int, ...],
) -> NDArray[np.bool_]:
    """Stack slices whose place is that of the image's slice of the same rank by name."""
    in_order = [] if slices_of is None else series_files(Path(slices_of))
    if len(files) != len(in_order) or len(files) != shape[2]:
        raise ValueError(f"label grid differs from the image's: {folder} holds {len(files)} slices, not {shape[2]}")
    place = {file: k for k, file in enumerate(in_order)}
    mask = np.zeros(shape, bool)
    for file, partner in zip(files, sorted(in_order, key=_natural), strict=True):
        rows = read(file)
        if rows.shape != (shape[1], shape[0]):
            size = f"{rows.shape[1]}x{rows.shape[0]} pixels instead of {shape[0]}x{shape[1]}"
            raise ValueError(f"label grid differs from the image's: {file} has {size}")
        mask[:, :, place[partner]] = rows.T
    return mask


def _picture(file: str) -> NDArray[np.bool_]:
    """Rows and columns of what is not black; a picture with a palette counts by colour."""
    try:
        with Image.open(file) as picture:
            pixels = np.asarray(picture.convert("RGB") if picture.mode in ("P", "PA", "RGBA", "LA") else picture)
    except Exception as error:  # noqa: BLE001  whatever a damaged file makes the library say
        raise ValueError(f"label: {file} cannot be read ({str(error)[:160]})") from error
    return pixels.any(axis=-1) if pixels.ndim == 3 else pixels > 0


def _dicom_slice(file: str) -> NDArray[np.bool_]:
    import itk

    try:
        return _marked(np.squeeze(itk.array_from_image(itk.imread(file, itk.F)), axis=0))
    except Exception as error:  # noqa: BLE001
        raise ValueError(f"label: {file} cannot be read") from error


def _marked(values: NDArray[Any]) -> NDArray[np.bool_]:
    """What is above the background, which is 0, or lower where a CT's rescaling is left in the header of a mask."""
    if not np.isfinite(values).all():
        raise ValueError("label: a mask holds NaN or infinite voxels")
    return values > min(0.0, float(values.min()))


def _natural(path: str) -> list[tuple[int, str]]:
    """Sort key by file name: image_2 comes before image_10."""
    parts = re.split(r"(\d+)", os.path.basename(path))
    return [(int(part), "") if part.isdecimal() else (0, part) for part in parts]
