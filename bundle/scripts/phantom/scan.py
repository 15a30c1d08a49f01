"""One generated scan: a patient seen through a grid, a kernel, noise and, at times, streaks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from .anatomy import ORGANS, STRUCTURES, Patient, draw_patient
from .organs import paint_liver_vessels, paint_organ, paint_tumor
from .shapes import spline_noise
from .trunk import (
    make_canvas,
    paint_bones,
    paint_bowel,
    paint_chest,
    paint_muscles,
    paint_pelvis,
    paint_table,
    paint_trunk,
)

IN_PLANE, SLICES = (112, 176), (48, 112)  # voxels of a scan whose shape nobody chose
IN_PLANE_MM, SLICE_MM = (1.8, 3.2), (2.5, 6.0)
SMALLEST_STRUCTURE = 60  # voxels; what the scan only grazes is left unlabelled

# Where the scan begins and ends (mm, 0 is the lowest thoracic vertebra), and how often.
SCAN_RANGES = {
    "thorax and abdomen": (-215, 245, 0.35),
    "whole trunk": (-385, 240, 0.15),
    "abdomen and pelvis": (-385, 75, 0.2),
    "abdomen": (-205, 80, 0.15),
    "thorax": (-105, 250, 0.15),
}


@dataclass(frozen=True)
class Phantom:
    """One generated scan.

    Attributes:
        image: (i, j, k) int16 Hounsfield units; i, j, k grow to the patient's right, front and head.
        label: (i, j, k) uint8, 0 is background.
        names: value -> name of every structure present in the label; None for a shape without one.
        affine: (4, 4) voxel indices to RAS mm.
    """

    image: np.ndarray
    label: np.ndarray
    names: dict[int, str | None]
    affine: np.ndarray


@dataclass(frozen=True)
class Grid:
    """Voxel positions: `axes` are three vectors of mm in the patient's frame, `spacing` is (3,) mm."""

    axes: list[np.ndarray]
    spacing: np.ndarray


def make_phantom(
    seed: int,
    shape: tuple[int, int, int] | None = None,
    spacing: tuple[float, float, float] | None = None,
) -> Phantom:
    """Generate the CT of patient `seed`.

    Args:
        seed: the patient and the scan; the same seed gives the same bytes.
        shape: voxels (i, j, k); drawn when None.
        spacing: mm; when None it follows from the body's size and the shape.

    Raises:
        ValueError: for a negative seed, an empty shape or a spacing that is not positive.
    """
    check(seed, shape, spacing)
    patient = draw_patient(seed)
    rng = np.random.default_rng([seed, 1])
    grid = choose_grid(patient, rng, shape, spacing)
    hu, label = paint(patient, grid.axes, rng)
    image = scan(hu, grid, rng)
    drop_small(label)
    names: dict[int, str | None] = {int(v): STRUCTURES[int(v)] for v in np.unique(label) if v}
    affine = np.diag([*grid.spacing, 1.0])
    affine[:3, 3] = np.round(rng.uniform(-300, 300, 3), 2)
    return Phantom(image, label, names, affine)


def check(seed: int, shape: tuple[int, ...] | None, spacing: tuple[float, ...] | None) -> None:
    """Refuse what no scanner has."""
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be 0 or more.")
    if shape is not None and (len(shape) != 3 or min(shape) < 1):
        raise ValueError(f"shape is {tuple(shape)}; it must be three positive voxel counts.")
    if spacing is not None and (len(spacing) != 3 or min(spacing) <= 0):
        raise ValueError(f"spacing is {tuple(spacing)}; it must be three positive lengths in mm.")


def choose_grid(
    patient: Patient,
    rng: np.random.Generator,
    shape: tuple[int, int, int] | None,
    spacing: tuple[float, float, float] | None,
) -> Grid:
    """Field of view around the body, random scan range, and what the caller fixed of shape and spacing."""
    lows, highs, odds = zip(*SCAN_RANGES.values(), strict=True)
    chosen = rng.choice(len(odds), p=odds)
    bottom, top = np.array([lows[chosen], highs[chosen]]) * patient.scale[2] + rng.uniform(-15, 15, 2)
    view = np.full(2, patient.width * rng.uniform(1.02, 1.25))
    extent = np.array([*view, top - bottom])
    wanted = np.array([*[rng.uniform(*IN_PLANE_MM)] * 2, rng.uniform(*SLICE_MM)])
    middle = np.array([*rng.uniform(-12, 12, 2), (top + bottom) / 2])
    place = rng.uniform(-0.5, 0.5)  # of a slab that is shorter than the scan range
    if shape is None:
        counts = np.ceil(extent / (spacing or wanted)).astype(int)
        if spacing is None:
            counts = counts.clip(*np.transpose([IN_PLANE, IN_PLANE, SLICES]))
    else:
        counts = np.array(shape)
    pitch = np.array(spacing) if spacing else fit(extent, counts)
    middle[2] += place * max(0.0, extent[2] - counts[2] * pitch[2])
    axes = [m + s * (np.arange(n) - (n - 1) / 2) for m, s, n in zip(middle, pitch, counts, strict=True)]
    return Grid(axes, pitch)


def fit(extent: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Spacing (mm) with which the counts cover the extent; slices stay between thin and twice a thick one."""
    in_plane = extent[0] / counts[:2].max()
    return np.round([in_plane, in_plane, np.clip(extent[2] / counts[2], 1.0, 2 * SLICE_MM[1])], 3)


def paint(patient: Patient, axes: Sequence[np.ndarray], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Paint the patient.

    Args:
        patient: from `draw_patient`.
        axes: three vectors of voxel positions, mm.
        rng: of the fine texture alone.

    Returns:
        (i, j, k) float32 HU without noise, and the (i, j, k) uint8 label.
    """
    canvas = make_canvas(patient, axes, rng)
    paint_trunk(canvas, patient)
    paint_bones(canvas, patient)
    for name in ("right lung", "left lung"):
        paint_organ(canvas, patient, name)
    paint_chest(canvas, patient)
    paint_muscles(canvas, patient)
    paint_bowel(canvas, patient)
    paint_pelvis(canvas, patient)
    for name in list(ORGANS)[2:]:
        paint_organ(canvas, patient, name)
        if name == "liver":
            paint_liver_vessels(canvas, patient)
            paint_tumor(canvas, patient)
    paint_table(canvas, patient)
    return canvas.hu, canvas.label


def scan(hu: np.ndarray, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """The scanner: kernel, beam hardening, noise, at times streaks; (i, j, k) HU -> int16."""
    kernel_mm = rng.uniform(0.6, 2.0)
    image = gaussian_filter(hu, [kernel_mm / s for s in grid.spacing[:2]] + [rng.uniform(0.2, 0.5)], truncate=3)
    image += rng.uniform(0, 4) * spline_noise(rng, grid.axes, 120)
    image += noise(rng, image.shape, float(np.exp(rng.uniform(np.log(4), np.log(30)))))
    if rng.random() < 0.2:
        image += streaks(rng, image.shape)
    return np.rint(np.clip(image, -1024, 3071)).astype(np.int16)


def noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    """White and correlated noise of `sigma` HU together."""
    white = rng.standard_normal(shape, dtype=np.float32)
    soft = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), [0.8, 0.8, 0.0])
    part = rng.uniform(0.2, 0.8)
    both = np.float32(part) * white + np.float32((1 - part) / 0.35) * soft
    return both * np.float32(sigma / max(float(both.std()), 1e-6))


def streaks(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Streaks from side to side, as shoulders and arms leave them in some slices."""
    lines = gaussian_filter1d(rng.standard_normal(shape, dtype=np.float32), shape[0] / 8, axis=0)
    slices = gaussian_filter1d(rng.standard_normal(shape[2]).astype(np.float32), 3).clip(0)
    return lines / max(float(lines.std()), 1e-6) * slices * np.float32(rng.uniform(20, 60))


def drop_small(label: np.ndarray) -> None:
    """Unlabel, in place, what has too few voxels to be called present."""
    counts = np.bincount(label.ravel(), minlength=256)
    label[(counts < SMALLEST_STRUCTURE)[label]] = 0
