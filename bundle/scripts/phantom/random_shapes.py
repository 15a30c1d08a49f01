"""Volumes of random labelled shapes without names, so that a network learns to segment what a box or a click marks.

The phantoms of ``scan`` are anatomy: a network can learn their sixteen structures by heart. Here nothing recurs:
shapes, intensities, textures, contrasts, noise and resolution are drawn anew for each seed, in the spirit of
SynthSeg (Billot et al., Medical Image Analysis 2023) and SynthMorph (Hoffmann et al., IEEE TMI 2022).
"""

from __future__ import annotations

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter

from .random_groups import add_clutter, add_shapes
from .random_looks import TISSUES
from .random_scene import Scene, largest
from .scan import SMALLEST_STRUCTURE, Grid, Phantom, check, noise, streaks
from .shapes import AIR, FAT, Canvas, spline_noise
from .trunk import superellipse

IN_PLANE, SLICES = (96, 160), (48, 96)  # voxels of a volume whose shape nobody chose
IN_PLANE_MM, SLICE_MM = (0.6, 3.0), (0.7, 5.0)
STRUCTURES = (8, 30)  # labelled shapes at least and at most, in a volume of that size
BODY_ODDS = 0.7  # of a body with air around it
BACKGROUND = ("fat", "fluid", "soft", "enhanced")


def make_random_shapes(seed: int, shape: tuple[int, int, int] | None = None) -> Phantom:
    """Generate a volume of random shapes.

    Args:
        seed: the same seed gives the same bytes.
        shape: voxels (i, j, k) of the stored volume; drawn when None.

    Returns:
        Image, label 1..K, names of None, and an affine whose axes lie in any order and direction. Each value is one
        piece, corners counting as contact.

    Raises:
        ValueError: for a negative seed or an empty shape.
    """
    check(seed, shape, None)
    rng = np.random.default_rng([seed, 7])
    order = rng.permutation(3)  # stored axis of each painted one: two in the plane, then the slices
    painted = None if shape is None else (shape[order[0]], shape[order[1]], shape[order[2]])
    grid, thick = choose_grid(rng, painted)
    sigma = float(np.exp(rng.uniform(np.log(3), np.log(32))))
    canvas = paint(rng, grid, thick, sigma)
    image = scan(canvas.hu, grid, thick, sigma, rng)
    label = finish(canvas.label[:, :, ::thick])
    spacing = grid.spacing * [1, 1, thick]
    image, label, affine = store(image, label, spacing, order, rng)
    return Phantom(image, label, {int(v): None for v in np.unique(label) if v}, affine)


def choose_grid(rng: np.random.Generator, shape: tuple[int, int, int] | None) -> tuple[Grid, int]:
    """A grid to paint on, and how many of its slices make one of the scan: thick slices hold more than one."""
    counts = np.array([*[rng.integers(IN_PLANE[0], IN_PLANE[1] + 1)] * 2, rng.integers(SLICES[0], SLICES[1] + 1)])
    if rng.random() < 0.5:
        counts[1] = rng.integers(IN_PLANE[0], IN_PLANE[1] + 1)
    counts = counts if shape is None else np.array(shape)
    in_plane = float(np.exp(rng.uniform(*np.log(IN_PLANE_MM))))
    slab = in_plane * max(counts[:2]) * rng.uniform(0.35, 1.4) / counts[2]
    pitch = np.round([in_plane, in_plane, np.clip(slab, *SLICE_MM)], 3)
    thick = 2 if pitch[2] > 1.4 * in_plane else 1
    fine = pitch / [1, 1, thick]
    axes = [s * (np.arange(n) - (n - 1) / 2) for s, n in zip(fine, counts * [1, 1, thick], strict=True)]
    return Grid(axes, fine), thick


def paint(rng: np.random.Generator, grid: Grid, thick: int, sigma: float) -> Canvas:
    """Background, clutter and labelled shapes, without the scanner's blur and noise of `sigma` HU."""
    extent = float(max(np.ptp(a) for a in grid.axes)) + 1
    bend = rng.uniform(0, 0.02) * extent
    axes = [np.asarray(a) for a in grid.axes]
    warp = [np.float32(bend) * field(rng, axes, 0.3) for _ in range(3)]
    canvas = Canvas(axes, warp, rng)
    paint_tissue(canvas, rng)
    canvas.wall = paint_body(canvas, rng, extent) if rng.random() < BODY_ODDS else np.full_like(canvas.hu, -1e3)
    most = int(rng.integers(STRUCTURES[0] + 4, STRUCTURES[1] + 1))
    scene = Scene(canvas, rng, sigma, most)
    add_clutter(scene, int(rng.integers(5, 30)))
    for _ in range(4 * most):
        if scene.full:
            break
        add_shapes(scene)
    add_clutter(scene, int(rng.integers(0, 12)))
    return canvas


def field(rng: np.random.Generator, axes: list[np.ndarray], share: float) -> np.ndarray:
    """Smooth noise with knots every `share` of the longest side."""
    reach = [float(np.abs(a).max()) + 1 for a in axes]
    return spline_noise(rng, axes, 2 * share * max(reach), reach)


def paint_tissue(canvas: Canvas, rng: np.random.Generator) -> None:
    """A patchwork of tissues, for what lies between the shapes."""
    best = np.full(canvas.hu.shape, -np.inf, np.float32)
    for _ in range(int(rng.integers(1, 6))):
        low, high, fine, _ = TISSUES[str(rng.choice(BACKGROUND, p=[0.45, 0.05, 0.4, 0.1]))]
        here = field(rng, canvas.axes, rng.uniform(0.06, 0.35)) + rng.uniform(-0.5, 0.5)
        where = here > best
        hu = np.float32(rng.uniform(low, high)) + np.float32(rng.uniform(0.2, 1) * fine) * canvas.grain
        canvas.hu[where] = hu[where]
        np.maximum(best, here, out=best)
    if rng.random() < 0.6:  # strands of fat
        strands = np.abs(field(rng, canvas.axes, rng.uniform(0.03, 0.1))) < rng.uniform(0.03, 0.12)
        canvas.hu[strands] = FAT + 8 * canvas.grain[strands]


def paint_body(canvas: Canvas, rng: np.random.Generator, extent: float) -> np.ndarray:
    """An outline with air around it, skin, fat, at times a wall of muscle and a couch; mm to the innermost layer."""
    a, b = (max(0.5 * float(np.ptp(q)), 1.0) * rng.uniform(0.75, 1.15) for q in canvas.axes[:2])
    swell = 1 + 0.12 * field(rng, [canvas.axes[2]] * 3, 0.4)[0, 0]
    middle = rng.normal(0, 0.04, 2) * extent
    x, y = canvas.x - np.float32(middle[0]), canvas.y - np.float32(middle[1])
    depth = superellipse(x, y, a * swell, b * swell, rng.uniform(1.9, 3.2))
    depth += np.float32(0.012 * extent) * field(rng, canvas.axes, 0.15)
    skin, fat = rng.uniform(0.8, 2.5), rng.uniform(0.0, 0.07) * extent
    muscle = rng.uniform(0.01, 0.05) * extent if rng.random() < 0.6 else 0.0
    canvas.hu[depth > -fat - muscle - skin] = rng.uniform(40, 65)
    layer = (depth > -fat - skin) & (depth < -skin)
    canvas.hu[layer] = FAT + 8 * canvas.grain[layer]
    canvas.hu[depth > 0] = AIR
    if rng.random() < 0.35:
        top = -b - rng.uniform(0, 0.06) * extent + canvas.x**2 * rng.uniform(0, 1.5) / extent
        couch = np.abs(canvas.y - top) < rng.uniform(0.5, 1.5) * max(float(np.diff(canvas.axes[1][:2]).sum()), 1)
        canvas.hu[couch & (depth > 0)] = rng.uniform(-300, 200)
    return np.asarray(depth + skin + rng.uniform(0, 1) * (fat + muscle))


def scan(hu: np.ndarray, grid: Grid, thick: int, sigma: float, rng: np.random.Generator) -> np.ndarray:
    """The scanner: kernel, slice profile, shading, noise, streaks; (i, j, k * thick) HU -> (i, j, k) int16."""
    kernel = rng.uniform(0.3, 1.0)
    image = gaussian_filter(hu, [kernel, kernel, rng.uniform(0.3, 0.7) * thick], truncate=3)[:, :, ::thick]
    if rng.random() < 0.2:  # a sharp kernel rings
        image = image + rng.uniform(0.3, 1.2) * (image - gaussian_filter(image, [1, 1, 0]))
    axes = [*grid.axes[:2], grid.axes[2][::thick]]
    image = image + rng.uniform(0, 8) * field(rng, axes, 0.35)
    if rng.random() < 0.15:
        image *= 1 + rng.uniform(0.02, 0.12) * field(rng, axes, 0.5)
    image += np.float32(sigma) * texture(rng, image.shape)
    if rng.random() < 0.25:
        image += streaks(rng, image.shape)
    if rng.random() < 0.15:
        image += star(rng, axes)
    if rng.random() < 0.25:  # a smooth kernel
        image = gaussian_filter(image, [0.6, 0.6, 0])
    return np.rint(np.clip(image, -1024, 3071)).astype(np.int16)


def texture(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Noise of unit variance, white or soft, and at times drawn out in a direction, as few photons leave it."""
    grain = noise(rng, shape, 1.0)
    if rng.random() < 0.4:
        side = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), [rng.uniform(2, 6), 0.5, 0.0])
        grain = grain * 0.7 + side * np.float32(0.7 / max(float(side.std()), 1e-6))
    return grain


def star(rng: np.random.Generator, axes: list[np.ndarray]) -> np.ndarray:
    """Rays around a point, as metal leaves them in a few slices."""
    x, y, z = (np.asarray(a, np.float32) for a in axes)
    cx, cy, cz = (rng.uniform(a[0], a[-1]) for a in (x, y, z))
    dx, dy = x[:, None] - np.float32(cx), y[None] - np.float32(cy)
    around = rng.standard_normal(97)
    around[-1] = around[0]
    rays = np.interp(np.arctan2(dy, dx), np.linspace(-np.pi, np.pi, 97), around)
    reach = 0.25 * float(np.ptp(x)) + 1
    rays = rays * np.exp(-np.hypot(dx, dy) / reach) * rng.uniform(30, 150)
    slices = np.exp(-(((z - cz) / (0.12 * float(np.ptp(z)) + 1)) ** 2))
    return np.asarray(rays[:, :, None] * slices, np.float32)


def finish(label: np.ndarray) -> np.ndarray:
    """Values 1..K without gaps, each its largest piece and of a size to be called present."""
    finished = np.zeros_like(label)
    value = 0
    for old in np.unique(label):
        piece = largest(label == old) if old else None
        if piece is not None and np.count_nonzero(piece) >= SMALLEST_STRUCTURE:
            value += 1
            finished[piece] = value
    return finished


def store(
    image: np.ndarray, label: np.ndarray, spacing: np.ndarray, order: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Turn the volume as files have it: painted axis a becomes stored axis `order[a]`, each in either direction.

    Returns:
        Image, label and the (4, 4) affine to RAS mm. In most scans the slices lie along the body, in some they do not.
    """
    world = np.array([0, 1, 2]) if rng.random() < 0.8 else rng.permutation(3)
    affine = np.eye(4)
    affine[:3, :3] = np.diag(spacing)[np.argsort(world)]
    affine[:3, 3] = np.round(rng.uniform(-300, 300, 3), 2)
    turn = np.column_stack([order, rng.choice([-1, 1], 3)])
    affine = affine @ nib.orientations.inv_ornt_aff(turn, image.shape)
    stored = (np.ascontiguousarray(nib.orientations.apply_orientation(v, turn)) for v in (image, label))
    return *stored, affine
