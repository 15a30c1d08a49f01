"""A label on its image's grid: axes are exchanged and turned round, and nothing is interpolated."""

from typing import Any

import numpy as np
from nibabel.orientations import apply_orientation, inv_ornt_aff, io_orientation
from numpy.typing import NDArray

Affine = NDArray[np.float64]

TOLERANCE = 0.1  # voxels that a corner may be off: what rounding in headers does, and no shift that would show


def onto_grid(
    voxels: NDArray[Any], affine: Affine, shape: tuple[int, ...], image_affine: Affine, part: bool = False
) -> NDArray[Any]:
    """Bring label voxels onto the grid of their image.

    Args:
        voxels: (i, j, k) of the label as stored.
        affine: (4, 4) of the label, to RAS mm.
        shape: (i, j, k) of the image.
        image_affine: (4, 4) of the image, to RAS mm.
        part: the label may cover a part of the grid; the rest is 0.

    Returns:
        (i, j, k) on the image's grid.

    Raises:
        ValueError: one line that says how the grids differ, where the label's voxels are not voxels of the image.
    """
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine)) < 1e-12:
        raise ValueError("label does not say where its voxels lie: its affine has no inverse")
    orientation = io_orientation(np.linalg.inv(image_affine) @ affine)
    if np.isnan(orientation).any():
        raise ValueError("label grid differs from the image's: one of its axes is none of the image's")
    turned = apply_orientation(voxels, orientation)
    turned_affine = affine @ inv_ornt_aff(orientation, voxels.shape)
    if part:
        turned, turned_affine = _in_whole(turned, turned_affine, shape, image_affine)
    if turned.shape != tuple(shape) or _off(turned_affine, image_affine, shape) > TOLERANCE:
        raise ValueError(f"label grid differs from the image's: {_how(turned, turned_affine, shape, image_affine)}")
    return turned


def _in_whole(voxels: NDArray[Any], affine: Affine, shape: tuple[int, ...], image: Affine) -> tuple[NDArray, Affine]:
    """A part of the grid, laid into zeros where it belongs; unchanged where it does not fit in."""
    start = np.rint((np.linalg.inv(image) @ affine[:, 3])[:3]).astype(int)
    end = start + voxels.shape
    if (start < 0).any() or (end > shape).any():
        return voxels, affine
    whole = np.zeros(shape, voxels.dtype)
    whole[tuple(slice(a, b) for a, b in zip(start, end, strict=True))] = voxels
    moved = affine.copy()
    moved[:3, 3] -= affine[:3, :3] @ start
    return whole, moved


def _off(affine: Affine, image: Affine, shape: tuple[int, ...]) -> float:
    """The largest distance, in voxels of the image, between the same corners of both grids."""
    corners = np.stack(np.meshgrid(*[(0, n - 1) for n in shape], indexing="ij"), axis=-1).reshape(-1, 3)
    places = np.linalg.inv(image) @ affine @ np.c_[corners, np.ones(len(corners))].T
    return float(np.abs(places[:3].T - corners).max())


def _how(voxels: NDArray[Any], affine: Affine, shape: tuple[int, ...], image: Affine) -> str:
    """What differs, in words; the label's axes are those of the image already."""
    said = []
    if voxels.shape != tuple(shape):
        said.append(f"shape {_sizes(voxels.shape)} instead of {_sizes(shape)}")
    spacing, expected = (np.linalg.norm(a[:3, :3], axis=0) for a in (affine, image))
    if np.abs(spacing / expected - 1).max() > 1e-3:
        said.append(f"spacing {_numbers(spacing)} instead of {_numbers(expected)} mm")
    cosines = np.sum((affine[:3, :3] / spacing) * (image[:3, :3] / expected), axis=0).clip(-1, 1)
    angle = float(np.degrees(np.arccos(cosines)).max())
    if angle > 0.05:
        said.append(f"turned by {angle:.3g} degrees")
    shift = affine[:3, 3] - image[:3, 3]
    if np.abs(shift).max() > 1e-3:
        said.append(f"origin off by {np.linalg.norm(shift):.3g} mm ({_numbers(shift)} in RAS)")
    return ", ".join(said) or f"its far corner is {_off(affine, image, shape):.2g} voxels away"


def _sizes(shape: tuple[int, ...]) -> str:
    return "x".join(str(n) for n in shape)


def _numbers(values: NDArray[np.float64]) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
