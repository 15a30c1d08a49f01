"""How random shapes come: alone, hollow, cut into parts, in rows, as twins; and clutter that has no label."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from .random_forms import draw_form
from .random_looks import draw_look, resemble
from .random_scene import Scene, largest
from .shapes import FAT, Block, spline_noise


def add_shapes(scene: Scene) -> None:
    """One shape, a hollow one, a cut one, a row of alike ones, or two that touch."""
    ways = (single, hollow, split, row, twins)
    ways[scene.rng.choice(5, p=[0.56, 0.13, 0.11, 0.12, 0.08])](scene)


def add_clutter(scene: Scene, count: int) -> None:
    """Shapes without a label."""
    for _ in range(count):
        form = draw_form(scene.rng, scene.size(0.0002, 0.01), scene.finest)
        scene.one(form, scene.place(), scene.turn(), None, labelled=False)


def single(scene: Scene) -> None:
    """A shape by itself."""
    scene.one(draw_form(scene.rng, scene.size(0.0008, 0.2), scene.finest), scene.place(), scene.turn(), None)


def row(scene: Scene) -> None:
    """Alike shapes one after another, as vertebrae and ribs are; some touch."""
    rng, turn = scene.rng, scene.turn()
    form = draw_form(rng, scene.size(0.0012, 0.015), scene.finest)
    look, at = None, scene.place()
    step = (2 * max(form.thickness, 1.5 * scene.finest)) * rng.uniform(0.95, 1.6)
    bend = Rotation.from_rotvec(rng.normal(0, 0.15, 3)).as_matrix()
    labelled = rng.random() < 0.9
    for _ in range(int(rng.integers(3, 9))):
        look = scene.one(form, at, turn, look and resemble(look, rng, 10), labelled)
        turn = bend @ turn
        at = at + step * turn[:, 2]


def twins(scene: Scene) -> None:
    """Two shapes of equal look that touch; at times only one has a label."""
    rng = scene.rng
    first = draw_form(rng, scene.size(0.002, 0.06), scene.finest)
    second = draw_form(rng, scene.size(0.002, 0.06), scene.finest)
    at, way = scene.place(), rng.normal(0, 1, 3)
    look = scene.one(first, at, scene.turn(), None)
    there = at + way / np.linalg.norm(way) * (first.thickness + second.thickness) * rng.uniform(0.6, 1.0)
    scene.one(second, there, scene.turn(), look and resemble(look, rng, 4), labelled=rng.random() < 0.7)


def hollow(scene: Scene) -> None:
    """A wall around a lumen; either or both have a label."""
    rng = scene.rng
    form = draw_form(rng, scene.size(0.003, 0.15), scene.finest)
    thick = max(rng.uniform(0.12, 0.45) * form.thickness, 1.2 * scene.finest)
    drawn = scene.draw(form, scene.place(), scene.turn())
    if drawn is None:
        return
    block, distance = drawn
    which = rng.choice(["wall", "lumen", "both", "one"], p=[0.3, 0.25, 0.25, 0.2])
    outer = scene.look(block, distance, form)
    value, solid = scene.paint(block, distance, distance < 0, outer, labelled=which != "lumen")
    core = largest(solid & (distance < -thick))
    if np.count_nonzero(core) < scene.smallest:
        return
    inner = draw_look(rng, outer.hu, scene.least, form.thickness, scene.finest)
    hu = inner.fill(scene.canvas, block, distance + np.float32(thick), rng)
    labelled = which in ("lumen", "both") and not scene.full
    scene.canvas.fill(block, core, hu, scene.new_value(core) if labelled else value if which == "one" else 0)
    if value and which != "one":
        scene.painted[value] -= int(np.count_nonzero(core))


def split(scene: Scene) -> None:
    """A solid cut into touching parts of low contrast, each with its own label."""
    rng = scene.rng
    form = draw_form(rng, scene.size(0.008, 0.25), scene.finest)
    drawn = scene.draw(form, scene.place(), scene.turn())
    if drawn is None:
        return
    block, distance = drawn
    if np.count_nonzero(distance < 0) < 200:
        return
    parts = int(rng.integers(2, 5))
    order, depth = partition(scene, block, distance < 0, parts, form.thickness)
    gap = scene.finest * rng.uniform(0.8, 2) if rng.random() < 0.4 else -1.0
    base = scene.look(block, distance, form)
    if gap > 0:
        free = (scene.canvas.label[block.where] == 0) & scene.inside[block.where]
        scene.canvas.fill(block, (distance < 0) & free, FAT, None)
    cut = np.maximum(distance, gap / 2 - depth)
    for part in range(parts):
        mine = (order == part) & (cut < 0)
        scene.paint(block, cut, mine, resemble(base, rng, rng.choice([2.0, 25.0])), labelled=rng.random() < 0.85)


def partition(
    scene: Scene, block: Block, inside: np.ndarray, parts: int, thickness: float
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a block into cells around so many seeds inside a solid.

    Returns:
        The cell of each voxel, and about how many mm it lies from the next one.
    """
    rng, spots = scene.rng, np.argwhere(inside)
    seeds = [tuple(v) for v in rng.choice(spots, parts, replace=False)]
    power = rng.uniform(-0.2, 0.2, len(seeds)) * thickness
    cells = [np.sqrt(sum((q - q[s]) ** 2 for q in block.xyz)) + p for s, p in zip(seeds, power, strict=True)]
    axes = [a[w] - a[w].mean() for a, w in zip(scene.canvas.axes, block.where, strict=True)]
    reach = [float(np.abs(a).max()) + 1 for a in axes]
    pitch = max(rng.uniform(0.4, 1.0) * thickness, 0.08 * max(reach), 2 * scene.finest)
    cells[0] += np.float32(rng.uniform(0, 0.3) * thickness) * spline_noise(rng, axes, pitch, reach)
    nearest, second, order = cells[0], np.full_like(cells[0], np.inf), np.zeros(cells[0].shape, np.uint8)
    for part, cell in enumerate(cells[1:], 1):
        second = np.minimum(second, np.maximum(nearest, cell))
        order[cell < nearest] = part
        nearest = np.minimum(nearest, cell)
    return order, (second - nearest) / 2
