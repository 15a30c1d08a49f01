"""The scene that random shapes are painted into: where there is room, and who lies before or behind whom."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from scipy.spatial.transform import Rotation

from .random_forms import Form, render
from .random_looks import Look, draw_look
from .shapes import FAT, Block, Canvas

TOUCHING = np.ones((3, 3, 3), bool)  # corners count as contact
KEEP = 0.5  # of a shape that later ones may not cover


class Scene:
    """Paints shapes on a canvas and keeps each value in one piece.

    Args:
        canvas: with the background; its ``wall`` is negative where shapes may lie.
        rng: of everything drawn here.
        noise: HU of the scanner's noise, which limits how low a contrast may be.
        most: values to give at most.
    """

    def __init__(self, canvas: Canvas, rng: np.random.Generator, noise: float, most: int) -> None:
        self.canvas = canvas
        self.rng = rng
        self.least = max(18.0, noise)
        self.most = most
        self.painted: dict[int, int] = {}  # value -> voxels when it was new
        pitches = [float(np.diff(a).mean()) if len(a) > 1 else 1.0 for a in canvas.axes]
        self.finest = 1.1 * max(pitches)
        self.field = float(np.prod([len(a) * p for a, p in zip(canvas.axes, pitches, strict=True)]))
        self.inside = canvas.wall < 0

    @property
    def full(self) -> bool:
        """No value is left to give."""
        return len(self.painted) >= self.most

    @property
    def smallest(self) -> float:
        """Voxels that a new shape must have."""
        return max(120.0, 0.0004 * self.canvas.hu.size)

    def size(self, low: float, high: float) -> float:
        """A volume in mm³ between two shares of the field, small ones more often."""
        return self.field * float(np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def place(self) -> np.ndarray:
        """A point where shapes may lie, mostly one that is still free: (3,) mm."""
        at = np.zeros(3, int)
        for _ in range(12):
            at = np.array([self.rng.integers(n) for n in self.canvas.hu.shape])
            if self.inside[tuple(at)] and (self.canvas.label[tuple(at)] == 0 or self.rng.random() < 0.25):
                break
        return np.array([float(q[tuple(at)]) for q in (self.canvas.x, self.canvas.y, self.canvas.z)])

    def turn(self) -> np.ndarray:
        """A random rotation: (3, 3)."""
        return np.asarray(Rotation.from_quat(self.rng.standard_normal(4)).as_matrix())

    def one(
        self, form: Form, at: np.ndarray, turn: np.ndarray, look: Look | None, labelled: bool = True
    ) -> Look | None:
        """Paint one shape, with a look of its own unless one is given; the look that was used."""
        drawn = self.draw(form, at, turn)
        if drawn is None:
            return look
        block, distance = drawn
        look = look or self.look(block, distance, form)
        self._halo(block, distance)
        value, _ = self.paint(block, distance, distance < 0, look, labelled)
        if value and self.painted[value] > 8000 and self.rng.random() < 0.35:
            self._vessels(block, value, look)
        return look

    def draw(self, form: Form, at: np.ndarray, turn: np.ndarray) -> tuple[Block, np.ndarray] | None:
        """The block around a form and the distance to it, or None where nothing of it is seen."""
        drawn = render(self.canvas, form, at, turn, self.rng, margin=3 * self.finest)
        return None if drawn is None or drawn[1].min() >= 0 else drawn

    def look(self, block: Block, distance: np.ndarray, form: Form) -> Look:
        """A look that can be told from what lies around the form."""
        shell = self.canvas.hu[block.where][(distance > 0) & (distance < 3 * self.finest)]
        around = float(np.median(shell[::7])) if len(shell) else 0.0
        large = np.count_nonzero(distance < 0) > 0.015 * self.canvas.hu.size
        return draw_look(self.rng, around, self.least, form.thickness, self.finest, large)

    def _halo(self, block: Block, distance: np.ndarray) -> None:
        """A layer of fat around what is about to be painted, as most organs have one."""
        if self.rng.random() < 0.35:
            width = self.finest * self.rng.uniform(0.7, 2.5)
            where = (distance < width) & (self.canvas.label[block.where] == 0) & self.inside[block.where]
            self.canvas.fill(block, where, FAT + 6 * block.grain, None)

    def _vessels(self, block: Block, value: int, look: Look) -> None:
        """Small unlabelled tubes that belong to the shape they run in."""
        corners = [(float(q.min()), float(q.max())) for q in block.xyz]
        hu = look.hu + float(self.rng.choice([-1, 1]) * self.rng.uniform(15, 120))
        for _ in range(int(self.rng.integers(2, 7))):
            ends = np.array([[self.rng.uniform(*c) for c in corners] for _ in range(2)])
            middle = ends.mean(axis=0) + self.rng.normal(0, 0.1, 3) * np.ptp(corners, axis=1)
            radius = self.finest * self.rng.uniform(0.7, 1.8)
            self.canvas.stroke([ends[0], middle, ends[1]], [radius, 0.8 * radius, 0.5 * radius], hu, only=value)

    def paint(
        self,
        block: Block,
        distance: np.ndarray,
        inside: np.ndarray,
        look: Look,
        labelled: bool = True,
    ) -> tuple[int, np.ndarray]:
        """Paint what the shapes before it leave free or give away.

        Args:
            block: where.
            distance: mm to the surface, for the rim.
            inside: what to paint.
            look: how.
            labelled: with a new value, or as background.

        Returns:
            The value, 0 without one, and what was painted.
        """
        labelled = labelled and not self.full
        inside = inside & self.inside[block.where]
        label = self.canvas.label[block.where]
        counts = np.bincount(label[inside], minlength=1)
        for value in np.flatnonzero(counts[1:]) + 1:
            if not labelled or not self._gives_way(block, inside, int(value)):
                inside &= label != value
        inside = largest(inside)
        if np.count_nonzero(inside) < (self.smallest if labelled else 8):
            return 0, np.zeros_like(inside)
        hu = look.fill(self.canvas, block, distance, self.rng)
        value = self.new_value(inside) if labelled else 0
        self.canvas.fill(block, inside, hu, value)
        return value, inside

    def new_value(self, mask: np.ndarray) -> int:
        """A value for the shape in `mask`."""
        value = max(self.painted, default=0) + 1
        self.painted[value] = int(np.count_nonzero(mask))
        return value

    def _gives_way(self, block: Block, inside: np.ndarray, value: int) -> bool:
        """Whether the shape of this value lies behind the new one, and stays in one piece of some size if so."""
        if self.rng.random() < 0.5:
            return False
        everywhere = self.canvas.label == value
        everywhere[block.where] &= ~inside
        left = int(np.count_nonzero(everywhere))
        if left < KEEP * self.painted[value] or left < self.smallest:
            return False
        return np.count_nonzero(largest(everywhere)) > 0.97 * left


def largest(mask: np.ndarray) -> np.ndarray:
    """The largest component of a mask, corners counting as contact; of equals the first."""
    sides = [np.flatnonzero(mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    if not len(sides[0]):
        return mask
    box = tuple(slice(int(side[0]), int(side[-1]) + 1) for side in sides)
    parts, count = ndimage.label(mask[box], TOUCHING)
    if count == 1:
        return mask
    kept = np.zeros_like(mask)
    kept[box] = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    return kept
