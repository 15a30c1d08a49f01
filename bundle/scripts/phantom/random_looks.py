"""What the inside of a random shape looks like: Hounsfield units, texture, rim, slope and spots."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from .shapes import Block, Canvas, spline_noise

# HU from, to, most of the fine texture, how often
TISSUES = {
    "gas": (-1000, -880, 10, 0.05),
    "lung": (-880, -500, 70, 0.06),
    "fat": (-125, -70, 12, 0.12),
    "fluid": (-5, 25, 5, 0.1),
    "soft": (25, 75, 14, 0.31),
    "enhanced": (75, 170, 18, 0.19),
    "vessel": (170, 420, 15, 0.06),
    "bone": (150, 750, 90, 0.1),
    "dense": (800, 2600, 60, 0.01),
}
BRIGHT = ("vessel", "bone", "dense")
RIMMED = {"bone": 0.7, "soft": 0.1, "fluid": 0.25, "enhanced": 0.2, "gas": 0.5, "fat": 0.1}


@dataclass(frozen=True)
class Look:
    """How a shape is filled.

    Attributes:
        hu: mean inside.
        fine: HU of the voxel texture.
        coarse: HU of the texture with `pitch` mm between its knots.
        pitch: see above.
        slope: HU from one end of the shape to the other.
        rim: HU above `hu` within `rim_width` mm of the surface.
        rim_width: mm, 0 for none.
        spots: HU above `hu` where the coarse texture is high; 0 for none.
    """

    hu: float
    fine: float = 0
    coarse: float = 0
    pitch: float = 10
    slope: float = 0
    rim: float = 0
    rim_width: float = 0
    spots: float = 0

    def fill(self, canvas: Canvas, block: Block, distance: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """HU of every voxel of the block, whether it lies inside or not."""
        hu = self.hu + np.float32(self.fine) * block.grain
        if self.coarse > 0 or self.spots:
            axes = [a[w] - a[w].mean() for a, w in zip(canvas.axes, block.where, strict=True)]
            reach = [float(np.abs(a).max()) + 1 for a in axes]
            noise = spline_noise(rng, axes, max(self.pitch, 0.04 * max(reach)), reach)
            hu += np.float32(self.coarse) * noise
            if self.spots:
                hu[noise > 1.1] += np.float32(self.spots)
        if self.slope:
            axis = int(rng.integers(3))
            q = block.xyz[axis]
            hu += np.float32(self.slope) * (q - q.mean()) / max(float(np.ptp(q)), 1e-3)
        if self.rim_width > 0:
            hu[distance > -self.rim_width] += np.float32(self.rim)
        return np.asarray(np.clip(hu, -1024, 3071), np.float32)


def draw_look(
    rng: np.random.Generator, around: float, least: float, thickness: float, finest: float, large: bool = False
) -> Look:
    """A random look that can be told from its surroundings.

    Args:
        rng: of the look.
        around: median HU outside the shape.
        least: HU by which the mean differs from `around`.
        thickness: mm of the shape, which limits the rim.
        finest: mm of the grid.
        large: a shape that fills a good part of the field is seldom bright, as no organ of that size is.
    """
    odds = np.array([t[3] * (0.15 if large and name in BRIGHT else 1) for name, t in TISSUES.items()])
    name = str(rng.choice(list(TISSUES), p=odds / odds.sum()))
    low, high, fine, _ = TISSUES[name]
    hu = float(rng.uniform(low, high))
    if -200 < around < 250 and rng.random() < 0.45:  # a neighbour of low contrast
        name, hu = "soft", around + float(rng.choice([-1, 1]) * rng.uniform(least, 3 * least + 20))
        fine = 14
    elif abs(hu - around) < least:
        hu = around + float(np.sign(hu - around) or 1) * least
    look = Look(hu, rng.uniform(0, fine), pitch=max(rng.uniform(0.4, 1.5) * thickness, 2 * finest))
    if rng.random() < 0.4:
        look = replace(look, coarse=rng.uniform(0.3, 1.2) * max(fine, 8))
    if rng.random() < 0.25:
        look = replace(look, slope=rng.uniform(-0.6, 0.6) * least)
    if rng.random() < 0.12:
        look = replace(look, spots=rng.uniform(-1, 1) * (300 if name in ("bone", "gas") else 60))
    if rng.random() < RIMMED.get(name, 0) and thickness > 2.2 * finest:
        height = {"bone": rng.uniform(150, 700), "gas": 40 - hu}.get(name, rng.uniform(-40, 80))
        look = replace(look, rim=height, rim_width=finest * rng.uniform(1, max(1.05, 0.3 * thickness / finest)))
    return look


def resemble(look: Look, rng: np.random.Generator, by: float) -> Look:
    """The same look, up to `by` HU apart."""
    return replace(look, hu=look.hu + float(rng.uniform(-by, by)))
