"""Geometry of the phantom: signed distances (mm, negative inside), smooth noise and the canvas to paint on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

Point = Sequence[float] | np.ndarray
Points = Sequence[Point] | np.ndarray
Radii = float | Sequence[float] | np.ndarray
Coordinates = tuple[np.ndarray, np.ndarray, np.ndarray]
FAT, AIR = -100.0, -1000.0


@dataclass(frozen=True)
class Pose:
    """How one patient's organ differs from the table: moved, scaled and turned about its centre."""

    centre: np.ndarray
    shift: np.ndarray
    scale: np.ndarray
    rotation: np.ndarray


@dataclass(frozen=True)
class Block:
    """The sub-volume around one organ, in the organ's own frame.

    Attributes:
        where: slices of the block in the volume.
        xyz: coordinates in mm (right, anterior, superior) as the tables use them.
        height: anterior coordinate of the table, never warped: fluid levels lie flat in it.
        wall: mm to the body cavity's border, negative inside.
        dome: mm above the diaphragm, negative in the abdomen.
        grain: texture with unit variance.
    """

    where: tuple[slice, slice, slice]
    xyz: Coordinates
    height: np.ndarray
    wall: np.ndarray
    dome: np.ndarray
    grain: np.ndarray


class Canvas:
    """Image and label under work, with the patient coordinates of every voxel."""

    def __init__(self, axes: Sequence[np.ndarray], warp: Sequence[np.ndarray], rng: np.random.Generator) -> None:
        """Start with air.

        Args:
            axes: three vectors, mm along each axis of the grid in the patient's unwarped frame.
            warp: three (i, j, k) displacements in mm.
            rng: source of the texture.
        """
        self.axes = [np.asarray(a, np.float32) for a in axes]
        shape = tuple(len(a) for a in axes)
        self.x, self.y, self.z = (
            d + a.reshape([-1 if k == n else 1 for k in range(3)])
            for n, (a, d) in enumerate(zip(self.axes, warp, strict=True))
        )
        self.reach = [float(np.abs(d).max()) for d in warp]
        self.hu = np.full(shape, AIR, np.float32)
        self.label = np.zeros(shape, np.uint8)
        self.grain = grain(rng, shape)
        self.wall = self.dome = self.folds = self.hu

    def block(self, lo: Point, hi: Point, pose: Pose | None = None) -> Block | None:
        """Cut out the box lo..hi (table mm), or None where the scan does not reach it."""
        box = np.array([lo, hi], np.float64)
        if pose is not None:
            slack = 0.12 * np.ptp(box, axis=0).max()
            box = (box - pose.centre) * pose.scale + pose.centre + pose.shift + [[-slack], [slack]]
        i, j, k = (
            slice(*np.searchsorted(a, [low - reach, high + reach]))
            for a, reach, low, high in zip(self.axes, self.reach, *box, strict=True)
        )
        where = (i, j, k)
        if any(s.start >= s.stop for s in where):
            return None
        xyz = (self.x[where], self.y[where], self.z[where])
        height = np.broadcast_to(self.axes[1][None, where[1], None], xyz[0].shape)
        frame = xyz if pose is None else unpose(xyz, pose)
        return Block(where, frame, height, self.wall[where], self.dome[where], self.grain[where])

    def fill(self, block: Block, inside: np.ndarray, hu: np.ndarray | float, value: int | None = 0) -> None:
        """Paint where `inside` holds; `value` None leaves the label as it is."""
        self.hu[block.where][inside] = hu[inside] if isinstance(hu, np.ndarray) else hu
        if value is not None:
            self.label[block.where][inside] = value

    def stroke(
        self,
        points: Points,
        radii: Radii,
        hu: float | Callable[[Block, np.ndarray], np.ndarray],
        only: int | None = None,
        in_belly: bool = False,
    ) -> None:
        """Paint an unlabelled tube.

        Args:
            points: the tube's course in mm.
            radii: one radius, or one per point.
            hu: a value, or a function of the block and the distance.
            only: paint inside this label alone, and leave it.
            in_belly: stay within the cavity, under the diaphragm.
        """
        course, border = np.asarray(points), float(np.max(radii)) + 3
        block = self.block(course.min(axis=0) - border, course.max(axis=0) + border)
        if block is None:
            return
        distance = tube(block.xyz, course, radii)
        inside = distance < 0
        if only is not None:
            inside &= self.label[block.where] == only
        if in_belly:
            inside &= (block.wall < -3) & (block.dome < -5)
        self.fill(block, inside, hu(block, distance) if callable(hu) else hu, 0 if only is None else None)


def unpose(xyz: Coordinates, pose: Pose) -> Coordinates:
    """From the patient's frame to the table's frame of one organ."""
    offset = (pose.centre + pose.shift).tolist()
    moved = [q - o for q, o in zip(xyz, offset, strict=True)]
    matrix = (pose.rotation.T / pose.scale[:, None]).tolist()
    x, y, z = (
        row[0] * moved[0] + row[1] * moved[1] + row[2] * moved[2] + c
        for row, c in zip(matrix, pose.centre.tolist(), strict=True)
    )
    return x, y, z


def ellipsoid(xyz: Coordinates, centre: Sequence[float], radii: Sequence[float]) -> np.ndarray:
    """Distance to an axis-aligned ellipsoid, exact on its surface alone."""
    r = np.sqrt(sum(((q - c) / s) ** 2 for q, c, s in zip(xyz, centre, radii, strict=True)))
    return (r - 1) * float(np.prod(radii)) ** (1 / 3)


def tube(xyz: Coordinates, points: Points, radii: Radii) -> np.ndarray:
    """Distance to a smooth tube through the points, its radius running from point to point."""
    course = smooth_course(points, np.broadcast_to(radii, len(points)))
    distance = np.full(xyz[0].shape, np.inf, np.float32)
    for start, stop in zip(course[:-1], course[1:], strict=True):
        np.minimum(distance, capsule(xyz, start, stop), out=distance)
    return distance


def capsule(xyz: Coordinates, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Distance to a segment whose ends are (x, y, z, radius)."""
    step = stop - start
    along = (step[:3] / max(float(step[:3] @ step[:3]), 1e-6)).tolist()
    moved = [q - s for q, s in zip(xyz, start.tolist()[:3], strict=True)]
    t = np.clip(sum(m * a for m, a in zip(moved, along, strict=True)), 0, 1)
    square = sum((m - t * s) ** 2 for m, s in zip(moved, step.tolist()[:3], strict=True))
    return np.sqrt(square) - (float(start[3]) + t * float(step[3]))


def smooth_course(points: Points, radii: np.ndarray, per_segment: int = 3) -> np.ndarray:
    """A Catmull-Rom curve through the points: (n, 4) rows of x, y, z, radius."""
    knots = np.column_stack([np.asarray(points, np.float64), radii])
    before, after = 2 * knots[:1] - knots[1:2], 2 * knots[-1:] - knots[-2:-1]
    padded = np.concatenate([before, knots, after])
    t = np.arange(per_segment)[:, None] / per_segment
    p, q, r, s = (padded[n : n + len(knots) - 1, None] for n in range(4))
    curve = q + t * ((r - p) + t * ((2 * p - 5 * q + 4 * r - s) + t * (3 * q - 3 * r + s - p))) / 2
    return np.concatenate([curve.reshape(-1, 4), knots[-1:]])


def spline_noise(
    rng: np.random.Generator, axes: Sequence[np.ndarray], pitch: float, reach: Sequence[float] = (300, 300, 520)
) -> np.ndarray:
    """Smooth noise of unit variance at the tensor grid of `axes` (mm), with knots every `pitch` mm up to `reach`.

    The knots lie in the patient, so that one generator state means one field on whatever grid it is seen.
    """
    counts = (2 * np.array(reach, np.float64) / pitch).astype(int) + 4
    field = rng.standard_normal(counts).astype(np.float32)
    for axis, count, half in zip(axes, counts, reach, strict=True):
        weights = bspline_weights((np.asarray(axis) + half) / pitch + 1, int(count))
        field = np.tensordot(field, weights, axes=(0, 1))
    return field * np.float32(3.0)


def bspline_weights(positions: np.ndarray, count: int) -> np.ndarray:
    """Uniform cubic B-spline weights: (n, count)."""
    d = np.abs(np.clip(positions, 0, count - 1)[:, None] - np.arange(count))
    return np.where(d < 1, 2 / 3 - d**2 + d**3 / 2, np.clip(2 - d, 0, None) ** 3 / 6).astype(np.float32)


def grain(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Tissue texture of unit variance, a few voxels coarse."""
    noise = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 1.2, truncate=2.5)
    return noise / max(float(noise.std()), 1e-6)
