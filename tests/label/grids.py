"""Images made in a test on any grid, and results as an independent reader sees them."""

from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from numpy.typing import NDArray

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def stored_as(image: nib.Nifti1Image, codes: str) -> nib.Nifti1Image:
    """The same image with its axes permuted and flipped."""
    change = ornt_transform(io_orientation(image.affine), axcodes2ornt(tuple(codes)))
    return image.as_reoriented(change)


def rotated(degrees: float) -> NDArray[np.float64]:
    """A turn about z, then one of half the angle about x."""
    a, b = np.deg2rad([degrees, degrees / 2])
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return about_z @ about_x


def affine_of(
    shape: tuple[int, ...], spacing: tuple[float, ...], centre: tuple[float, ...], degrees: float = 0
) -> NDArray[np.float64]:
    """From voxels to RAS mm, the volume's middle at ``centre``."""
    affine = np.eye(4)
    affine[:3, :3] = rotated(degrees) @ np.diag(spacing)
    affine[:3, 3] = np.array(centre) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def positions(shape: tuple[int, ...], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """(i, j, k, 3) RAS mm of every voxel."""
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    return nib.affines.apply_affine(affine, grid)


def read_with_itk(path: Path | str) -> tuple[NDArray[np.generic], NDArray[np.float64]]:
    """Voxels (i, j, k) and the affine to RAS mm, as SimpleITK reads them."""
    image = SimpleITK.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) @ np.diag(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image).T, LPS @ affine


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())
