"""Random solids as signed distances (mm, negative inside): what the shapes of ``random_shapes`` look like outside."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from .shapes import Block, Canvas, Coordinates, Pose, capsule, ellipsoid, smooth_course, spline_noise, unpose

Knots = tuple[np.ndarray, ...]  # (n, 4) rows of x, y, z and radius
FAR = 1e3


@dataclass(frozen=True)
class Form:
    """A solid about its own origin, in mm; x is its long axis.

    Attributes:
        reach: radius of a sphere that holds it.
        thickness: mm, about the smallest.
        distance: of a solid given by a formula, else None.
        courses: of a solid given by tubes: (n, 4) rows of x, y, z and radius.
        rough: mm by which smooth noise moves the surface.
        pitch: mm between the knots of that noise.
    """

    reach: float
    thickness: float
    distance: Callable[[Coordinates], np.ndarray] | None = None
    courses: Knots = ()
    rough: float = 0.0
    pitch: float = 10.0


def draw_form(rng: np.random.Generator, volume: float, finest: float) -> Form:
    """A random solid.

    Args:
        rng: of the form.
        volume: mm³, met within a factor of about three.
        finest: mm; nothing is thinner, so that the grid still shows it in one piece.
    """
    drawers = (superquadric, blob, lobes, tube, tree, plate, crescent, spiked)
    drawer = rng.choice(np.array(drawers, object), p=[0.24, 0.22, 0.14, 0.11, 0.07, 0.06, 0.08, 0.08])
    return drawer(rng, max((3 * volume / (4 * np.pi)) ** (1 / 3), finest), finest)  # type: ignore[no-any-return]


def superquadric(rng: np.random.Generator, r: float, finest: float) -> Form:
    """An ellipsoid, or one on the way to a box."""
    a, b, c = half_axes(rng, r, finest, 2.2)
    power = 2.0 if rng.random() < 0.5 else float(rng.uniform(1.7, 6))

    def distance(xyz: Coordinates) -> np.ndarray:
        total = sum((np.abs(q) / s) ** power for q, s in zip(xyz, (a, b, c), strict=True))
        return np.asarray((total ** (1 / power) - 1) * c)

    rough = rng.uniform(0, 0.25) * c
    return Form(1.5 * a + rough, c, distance, rough=rough, pitch=rng.uniform(0.5, 1.2) * r)


def blob(rng: np.random.Generator, r: float, finest: float) -> Form:
    """Thresholded smooth noise, kept near the origin by an ellipsoid."""
    a, b, c = half_axes(rng, r, finest, 1.8)
    rough = rng.uniform(0.3, 0.6) * c
    pitch = max(rng.uniform(0.35, 0.9) * r, 2 * finest)
    return Form(a + 2.2 * rough, c, lambda xyz: ellipsoid(xyz, (0, 0, 0), (a, b, c)), rough=rough, pitch=pitch)


def lobes(rng: np.random.Generator, r: float, finest: float) -> Form:
    """Two to six ellipsoids grown together."""
    count = int(rng.integers(2, 7))
    radii = [half_axes(rng, r * rng.uniform(0.5, 0.8), finest, 1.5) for _ in range(count)]
    centres = rng.normal(0, 0.5 * r, (count, 3))
    melt = max(0.12 * r, 0.5 * finest)

    def distance(xyz: Coordinates) -> np.ndarray:
        solids = [ellipsoid(xyz, c, h) for c, h in zip(centres.tolist(), radii, strict=True)]
        parts = [np.exp(-solid.clip(-20 * melt, 20 * melt) / melt) for solid in solids]
        return np.asarray(-melt * np.log(sum(parts)))

    reach = float(np.linalg.norm(centres, axis=1).max()) + max(h[0] for h in radii) + melt
    return Form(reach, 0.6 * r, distance, rough=rng.uniform(0, 0.12) * r, pitch=0.7 * r)


def tube(rng: np.random.Generator, r: float, finest: float) -> Form:
    """A vessel, a rib, a loop of bowel: a long tube that wanders."""
    slender = rng.uniform(6, 28)
    radius = max(r * (4 / (3 * slender)) ** (1 / 3), finest)
    length = min(4 / 3 * r**3 / radius**2, 30 * radius)
    return Form(length, radius, courses=(walk(rng, length, radius, rng.uniform(0.05, 0.6)),))


def tree(rng: np.random.Generator, r: float, finest: float) -> Form:
    """A vessel that branches."""
    radius = max(0.35 * r, 1.3 * finest)
    trunk = walk(rng, 7 * radius, radius, 0.3)
    branches = [trunk]
    for _ in range(int(rng.integers(2, 6))):
        root = trunk[rng.integers(len(trunk))]
        turn = Rotation.from_quat(rng.standard_normal(4)).as_matrix()
        branch = walk(rng, rng.uniform(3, 6) * radius, max(0.6 * radius, finest), 0.3)
        branch[:, :3] = (branch[:, :3] - branch[0, :3]) @ turn.T + root[:3]
        branches.append(branch)
    reach = max(float(np.linalg.norm(b[:, :3], axis=1).max()) for b in branches) + 2 * radius
    return Form(reach, max(0.6 * radius, finest), courses=tuple(branches))


def plate(rng: np.random.Generator, r: float, finest: float) -> Form:
    """A thin bent sheet: a diaphragm, a shoulder blade, a layer of muscle."""
    half = max(rng.uniform(0.12, 0.25) * r, 0.9 * finest)
    wide = float(np.sqrt(2 * r**3 / (3 * half)))
    a, b = wide * np.exp(rng.uniform(-0.25, 0.25, 2))
    bend = rng.uniform(-0.5, 0.5, 2) / wide

    def distance(xyz: Coordinates) -> np.ndarray:
        x, y, z = xyz
        sheet = np.abs(z - bend[0] * x**2 - bend[1] * y**2) - half
        return np.maximum(sheet, (np.sqrt((x / a) ** 2 + (y / b) ** 2) - 1) * min(a, b))

    return Form(1.2 * max(a, b) + half, half, distance, rough=0.3 * half, pitch=0.5 * wide)


def crescent(rng: np.random.Generator, r: float, finest: float) -> Form:
    """A bean, a horseshoe or nearly a ring: a thick short tube, bent."""
    arc, radius = rng.uniform(0.8, 5.2), max(0.55 * r, finest)
    length = max(4 / 3 * r**3 / radius**2, 3 * radius)
    angles = np.linspace(-arc / 2, arc / 2, 7)
    bow = length / arc
    thick = radius * rng.uniform(0.7, 1.1, 7)
    course = np.column_stack([bow * np.sin(angles), bow * (np.cos(angles) - 1), np.zeros(7), thick])
    course[:, 1] -= course[:, 1].mean()
    return Form(float(np.linalg.norm(course[:, :3], axis=1).max()) + 2 * radius, radius, courses=(course,),
                rough=rng.uniform(0, 0.2) * radius, pitch=r)  # fmt: skip


def spiked(rng: np.random.Generator, r: float, finest: float) -> Form:
    """A body with processes and at times an arch, as a vertebra has them."""
    a, b, c = half_axes(rng, 0.8 * r, finest, 1.4)
    courses = [np.array([[-0.4 * a, 0, 0, c], [0, 0, 0, b], [0.4 * a, 0, 0, c]])]
    for _ in range(int(rng.integers(2, 7))):
        way = rng.normal(0, 1, 3)
        way /= np.linalg.norm(way)
        side = rng.normal(0, 0.4, 3)
        radii = np.maximum(rng.uniform(0.15, 0.4) * r * np.array([1.2, 1.0, 0.7]), finest)
        ends = r * np.array([0.5, 1.0, rng.uniform(1.3, 2.2)])
        courses.append(np.column_stack([ends[:, None] * way + ((ends / r - 0.5) ** 2)[:, None] * side * r, radii]))
    return Form(3 * r, max(0.3 * r, finest), courses=tuple(courses))


def half_axes(rng: np.random.Generator, r: float, finest: float, most: float) -> tuple[float, float, float]:
    """Half axes from long to short, with the volume of a sphere of radius r and a ratio of up to `most` to it."""
    stretch = np.sort(rng.uniform(-1, 1, 3) * np.log(most))[::-1]
    a, b, c = np.maximum(r * np.exp(stretch - stretch.mean()), finest).tolist()
    return a, b, c


def walk(rng: np.random.Generator, length: float, radius: float, bend: float) -> np.ndarray:
    """A course of five knots along x that wanders by `bend` of its length: (5, 4)."""
    side = np.cumsum(rng.normal(0, bend * length / 5, (5, 2)), axis=0)
    taper = np.linspace(1, rng.uniform(0.6, 1), 5) * rng.uniform(0.85, 1.15, 5)
    return np.column_stack([np.linspace(-0.5, 0.5, 5) * length, side - side.mean(axis=0), radius * taper])


def render(
    canvas: Canvas, form: Form, centre: np.ndarray, rotation: np.ndarray, rng: np.random.Generator, margin: float
) -> tuple[Block, np.ndarray] | None:
    """The form on the canvas.

    Args:
        canvas: where, with its warp.
        form: the solid.
        centre: (3,) mm.
        rotation: (3, 3) from the form's frame to the canvas.
        rng: of the surface's roughness.
        margin: mm around the solid where the distance is still wanted; beyond it may be anything positive.

    Returns:
        The block around it and the distance there, or None where the scan does not reach it.
    """
    courses = [np.column_stack([c[:, :3] @ rotation.T + centre, c[:, 3]]) for c in form.courses]
    margin += 2.5 * form.rough
    if courses:
        knots = np.concatenate(courses)
        lo = (knots[:, :3] - 1.2 * knots[:, 3:]).min(axis=0) - margin
        hi = (knots[:, :3] + 1.2 * knots[:, 3:]).max(axis=0) + margin
    else:
        lo, hi = centre - form.reach - margin, centre + form.reach + margin
    block = canvas.block(lo, hi)
    if block is None:
        return None
    if form.distance is not None:
        here = unpose(block.xyz, Pose(np.zeros(3), centre, np.ones(3), rotation))
        distance = np.asarray(form.distance(here), np.float32)
    else:
        distance = strokes(block, courses, margin)
    if form.rough > 0:
        axes = [a[w] - c for a, w, c in zip(canvas.axes, block.where, centre, strict=True)]
        reach = [float(np.abs(a).max()) for a in axes]
        distance += np.float32(form.rough) * spline_noise(rng, axes, max(form.pitch, 0.04 * max(reach)), reach).clip(
            -2.2, 2.2
        )
    return block, distance


def strokes(block: Block, courses: list[np.ndarray], margin: float) -> np.ndarray:
    """Distance to the nearest tube, each piece looked at around itself alone: elsewhere it is FAR."""
    x, y, z = block.xyz
    distance = np.full(x.shape, FAR, np.float32)
    ends = [(q.min(axis=(1, 2)), q.min(axis=(0, 2)), q.min(axis=(0, 1)))[n] for n, q in enumerate((x, y, z))]
    tops = [(q.max(axis=(1, 2)), q.max(axis=(0, 2)), q.max(axis=(0, 1)))[n] for n, q in enumerate((x, y, z))]
    for course in courses:
        curve = smooth_course(course[:, :3], course[:, 3])
        for start, stop in zip(curve[:-1], curve[1:], strict=True):
            border = max(start[3], stop[3]) + margin
            lo, hi = np.minimum(start, stop)[:3] - border, np.maximum(start, stop)[:3] + border
            near = [np.flatnonzero((t >= low) & (e <= high))
                    for e, t, low, high in zip(ends, tops, lo, hi, strict=True)]  # fmt: skip
            if all(len(n) for n in near):
                i, j, k = (slice(n[0], n[-1] + 1) for n in near)
                piece = distance[i, j, k]
                np.minimum(piece, capsule((x[i, j, k], y[i, j, k], z[i, j, k]), start, stop), out=piece)
    return distance
