"""A label map read from a viewer's or the server's file, and laid on the voxels of a DICOM series or an image file.

Voxels are moved by geometry alone: axes are swapped and turned, and never interpolated.
"""

from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from lib.dicom_series import Series

_RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
_OFF_VOXELS = 0.1

Labels = NDArray[np.uint8] | NDArray[np.uint16]
_LARGEST = np.iinfo(np.uint16).max


def labels_on_series(path: Path, series: Series) -> Labels:
    """The label values of a file on the slices of a series, as (slice, row, column).

    Raises:
        ValueError: the file is no label map, or lies on another grid than the series.
    """
    labels, affine = _read(path)
    return _lay(labels, np.linalg.inv(series.affine) @ affine, series.shape)


def label_values(path: Path) -> list[int]:
    """The values of a file other than 0, ascending.

    Raises:
        ValueError: the file is no label map.
    """
    return sorted({int(value) for plane in _read(path)[0].T for value in np.unique(plane)} - {0})


def values_on_image(path: Path, image: Path) -> list[int]:
    """The values of a label map other than 0, ascending, if it has the voxels of an image file, in any order of axes.

    Raises:
        ValueError: the file is no label map, or lies on another grid than the image.
    """
    labels, affine = _read(path)
    try:
        shape, image_affine = _grid_of(image)
    except (OSError, RuntimeError, EOFError, nib.filebasedimages.ImageFileError):
        raise ValueError("image: the file cannot be read; it must be NIfTI or NRRD") from None
    _lay(labels, np.linalg.inv(image_affine) @ affine, shape, "image")
    return [int(value) for value in np.unique(labels) if value]


def _grid_of(image: Path) -> tuple[tuple[int, int, int], NDArray[np.float64]]:
    """Shape (i, j, k) and affine to LPS of an image file, whose voxels are not read."""
    if image.name.endswith((".nii", ".nii.gz")):
        found = nib.load(image)
        i, j, k = found.shape[:3]
        return (i, j, k), _RAS_TO_LPS @ found.affine
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(image))
    reader.ReadImageInformation()
    i, j, k = reader.GetSize()[:3]
    return (i, j, k), _affine_of(reader)


def _read(path: Path) -> tuple[Labels, NDArray[np.float64]]:
    """Label values in stored order and the affine to LPS."""
    try:
        values, affine = _read_nifti(path) if path.name.endswith((".nii", ".nii.gz")) else _read_itk(path)
    except (OSError, RuntimeError, EOFError, nib.filebasedimages.ImageFileError):
        raise ValueError("label_map: the file cannot be read; it must be NIfTI or NRRD") from None
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.ndim != 3:
        raise ValueError(f"label_map: it has {values.ndim} axes; it must have 3")
    return _as_labels(values), affine


def _as_labels(values: NDArray[np.generic]) -> Labels:
    whole = values.dtype.kind in "biu" or np.array_equal(np.rint(values), values)
    if not whole or values.min() < 0 or values.max() > _LARGEST:
        raise ValueError(f"label_map: it holds values that are no labels; they must be integers from 0 to {_LARGEST}")
    return values.astype(np.uint8 if values.max() < 256 else np.uint16, copy=False)


def _read_nifti(path: Path) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    image = nib.load(path)
    return np.asanyarray(image.dataobj), _RAS_TO_LPS @ image.affine


def _read_itk(path: Path) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    image = sitk.ReadImage(str(path))
    if image.GetNumberOfComponentsPerPixel() != 1 or image.GetDimension() != 3:
        raise ValueError("label_map: its segments overlap; each voxel must have one label")
    return sitk.GetArrayFromImage(image).T, _affine_of(image)


def _affine_of(image: sitk.Image | sitk.ImageFileReader) -> NDArray[np.float64]:
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return affine


def _lay(labels: Labels, to_series: NDArray[np.float64], shape: tuple[int, int, int], of: str = "series") -> Labels:
    """Turn the labels by a map of their voxels to (column, row, slice) of a series of this shape."""
    steps = to_series[:3, :3] / np.linalg.norm(to_series[:3, :3], axis=0)
    axes = np.abs(steps).argmax(axis=0)  # axis of the series along which each axis of the labels runs
    last = np.asarray(labels.shape) - 1
    if sorted(axes) != [0, 1, 2] or tuple(np.asarray(labels.shape)[np.argsort(axes)]) != shape:
        raise _other_grid(of)
    forward = steps[axes, range(3)] > 0
    for corner in np.ndindex(2, 2, 2):
        voxel = corner * last
        expected = np.empty(3)
        expected[axes] = np.where(forward, voxel, last - voxel)
        if np.abs(to_series[:3, :3] @ voxel + to_series[:3, 3] - expected).max() > _OFF_VOXELS:
            raise _other_grid(of)
    turned = labels[tuple(slice(None) if ahead else slice(None, None, -1) for ahead in forward)]
    return np.ascontiguousarray(turned.transpose(np.argsort(axes)).T)


def _other_grid(of: str) -> ValueError:
    return ValueError(f"label_map: it lies on another grid than the {of}; it must have the voxels of the {of}")
