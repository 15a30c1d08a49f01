"""One DICOM series as a volume: its headers in the order of space, and the grid on which the server sees it.

The names and instance numbers of the files say nothing about where a slice lies, so position and orientation alone
decide. What has no one grid (several series, a missing slice, two slices in one place) is refused here, before
anything is drawn on it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.errors import InvalidDicomError

_NEEDED = (
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "FrameOfReferenceUID",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "Rows",
    "Columns",
)
_ONE_VALUE = ("SeriesInstanceUID", "FrameOfReferenceUID", "Rows", "Columns")
_SAME_DIRECTION = 1e-3
# as for the bundle's own images: in mm, and as a part of the usual gap
_GAP_MM, _GAP_PART = 0.1, 0.05


@dataclass(frozen=True, eq=False)
class Series:
    """The slices of one series.

    Attributes:
        slices: headers without pixels, ascending along the normal of the slices.
        affine: (4, 4) from (column, row, slice) to LPS in mm, with slices at right angles to the normal; a tilted
            gantry is read as SimpleITK reads it, so that a mask drawn on the server's image fits.
        shape: columns, rows, slices.
    """

    slices: Sequence[Dataset]
    affine: NDArray[np.float64]
    shape: tuple[int, int, int]


def read_series(folder: Path) -> Series:
    """The series whose files lie in ``folder``.

    Raises:
        ValueError: the folder does not hold the slices of exactly one evenly spaced series.
    """
    headers = [_header(path) for path in sorted(folder.iterdir()) if path.is_file()]
    if not headers:
        raise ValueError("series: the folder holds no file")
    for name in _ONE_VALUE:
        if len({str(header[name].value) for header in headers}) != 1:
            raise ValueError(f"series: its slices differ in {name}; it must be one volume")
    row, column = _directions(headers)
    normal = np.cross(row, column)
    slices = sorted(headers, key=lambda header: float(np.dot(normal, _position(header))))
    down, across = (float(value) for value in slices[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3, :3] = np.stack([row * across, column * down, normal * _slice_spacing(slices, normal)], axis=1)
    affine[:3, 3] = _position(slices[0])
    return Series(slices, affine, (int(slices[0].Columns), int(slices[0].Rows), len(slices)))


def _header(path: Path) -> Dataset:
    try:
        header = dcmread(path, stop_before_pixels=True)
    except (InvalidDicomError, OSError):
        raise ValueError("series: a file in the folder is not DICOM") from None
    if int(header.get("NumberOfFrames", 1) or 1) > 1:
        raise ValueError("series: a file holds several frames; only one slice a file is supported")
    missing = [name for name in _NEEDED if header.get(name) in (None, "")]
    if missing:
        raise ValueError(f"series: a slice has no {missing[0]}")
    return header


def _position(header: Dataset) -> NDArray[np.float64]:
    return np.asarray(header.ImagePositionPatient, float)


def _directions(headers: Sequence[Dataset]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    all_cosines = np.asarray([header.ImageOrientationPatient for header in headers], float)
    if np.abs(all_cosines - all_cosines[0]).max() > _SAME_DIRECTION:
        raise ValueError("series: its slices differ in ImageOrientationPatient; it must be one volume")
    row, column = all_cosines[0, :3], all_cosines[0, 3:]
    return row / np.linalg.norm(row), column / np.linalg.norm(column)


def _slice_spacing(slices: Sequence[Dataset], normal: NDArray[np.float64]) -> float:
    """Distance of neighbouring origins in mm; of a single slice its thickness."""
    if len(slices) == 1:
        return float(slices[0].get("SliceThickness") or 1)
    gaps = np.diff([float(np.dot(normal, _position(header))) for header in slices])
    if gaps.min() < _GAP_PART:
        raise ValueError("series: two slices lie in the same place; each position may hold one slice")
    if gaps.max() - gaps.min() > max(_GAP_MM, _GAP_PART * float(np.median(gaps))):
        apart = f"{gaps.min():g} to {gaps.max():g} mm apart"
        raise ValueError(f"series: its slices lie {apart}; one is missing")
    return float(np.linalg.norm(_position(slices[-1]) - _position(slices[0]))) / (len(slices) - 1)
