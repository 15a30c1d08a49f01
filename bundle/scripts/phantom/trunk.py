"""What the phantom leaves unlabelled: the body's frame and wall, bones, vessels, airways, muscles, bowel and couch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .anatomy import BLOOD, COLON, MUSCLE, ORGANS, SPINE, TRUNK, Patient
from .shapes import AIR, FAT, Block, Canvas, ellipsoid, spline_noise, tube


def make_canvas(patient: Patient, axes: Sequence[np.ndarray], rng: np.random.Generator) -> Canvas:
    """The patient's frame: scaled, and bent by a coarse and a fine smooth field."""
    scaled = [np.asarray(a) / s for a, s in zip(axes, patient.scale, strict=True)]
    draw = patient.rng(0)
    warp = [
        np.float32(bend) * spline_noise(draw, scaled, 95) + np.float32(1.3) * spline_noise(draw, scaled, 32)
        for bend in (patient.bend, 0.8 * patient.bend, patient.bend)
    ]
    warp = tilt(scaled, warp, draw.normal(0, 0.035, 3))
    canvas = Canvas(scaled, warp, rng)
    canvas.folds = spline_noise(draw, scaled, 26)
    a, b = (np.interp(canvas.z, TRUNK[:, 0], TRUNK[:, column]).astype(np.float32) for column in (1, 2))
    canvas.wall = superellipse(canvas.x, canvas.y, a, b, patient.squareness)
    canvas.dome = canvas.z - diaphragm(canvas.x, canvas.y) - patient.breath
    return canvas


def tilt(axes: Sequence[np.ndarray], warp: Sequence[np.ndarray], angles: np.ndarray) -> list[np.ndarray]:
    """Add a small turn of the whole patient (radians about x, y, z) to the displacement."""
    x, y, z = np.meshgrid(*(np.asarray(a, np.float32) for a in axes), indexing="ij", sparse=True)
    p, q, r = angles.tolist()
    return [warp[0] + q * z - r * y, warp[1] + r * x - p * z, warp[2] + p * y - q * x]


def superellipse(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray, power: float) -> np.ndarray:
    """Distance to |x / a|^n + |y / b|^n = 1, about right near the border."""
    return (((np.abs(x) / a) ** power + (np.abs(y) / b) ** power) ** (1 / power) - 1) * np.sqrt(a * b)


def diaphragm(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Height of the two domes: the left lower, steep to the sides and to the back."""
    side = 60 * (np.clip(np.abs(x) - 65, 0, None) / 62) ** 2
    back = 95 * (np.clip(20 - y, 0, None) / 105) ** 2
    front = 45 * (np.clip(y - 20, 0, None) / 75) ** 2
    return 42 + 6 * np.tanh(x / 30) - side - back - front


def paint_trunk(canvas: Canvas, patient: Patient) -> None:
    """Skin, fat, muscle wall and the cavity's fat."""
    everything = canvas.block((-999,) * 3, (999,) * 3)
    if everything is None:
        return
    x, y, z = everything.xyz
    a, b = (np.interp(z, TRUNK[:, 0], TRUNK[:, column]).astype(np.float32) for column in (3, 4))
    side, front, back = patient.fat.tolist()
    muscle = superellipse(x, y, a, b, patient.squareness)
    skin = superellipse(x, y - (front - back) / 2, a + side, b + (front + back) / 2, patient.squareness)
    gland = np.zeros(skin.shape, bool)
    if patient.breast > 0:
        breast = ellipsoid((np.abs(x), y, z), (74, 92 + front, 92), (62, 30 + patient.breast, 60))
        skin, gland = np.minimum(skin, breast), (breast < -9) & (canvas.folds > 0.5)
    meat = patient.contrast(MUSCLE) + 6 * canvas.grain
    canvas.fill(everything, skin < 0, 25.0)
    canvas.fill(everything, skin < -2.5, np.where(gland, 30.0, FAT) + 4 * canvas.grain)
    septa = np.abs(canvas.folds) < patient.marbling
    canvas.fill(everything, (muscle < 0) & (skin < -3), np.where(septa, 0.7 * FAT, meat))
    canvas.fill(everything, (canvas.wall < 0) & (muscle < -6), FAT + 6 * canvas.grain)


def paint_bones(canvas: Canvas, patient: Patient) -> None:
    """Ribs, costal cartilage, breastbone and shoulder blades: unlabelled."""
    chest = canvas.block((-150, -120, -110), (150, 120, 270))
    if chest is None:
        return
    x, y, z = chest.xyz
    tilted = z + 0.55 * y
    turn = np.abs(np.mod(tilted / 26, 1) - 0.5) * 26
    cage = (chest.wall > 1) & (chest.wall < 9) & (tilted > -72) & (z < 235) & (y < 45 + 0.55 * (tilted + 72))
    front = np.abs(x) < 22 + np.clip(100 - z, 0, 110) * 0.4
    bone = 330 + 45 * chest.grain + 40 * np.abs(chest.wall - 5)
    canvas.fill(chest, cage & (turn < 6) & ~((y > 0) & front), bone)
    canvas.fill(chest, cage & (turn < 6) & (y > 0) & front & (np.abs(x) > 12), 95.0)
    canvas.fill(chest, (np.abs(x) < 18) & (y > 0) & (np.abs(chest.wall - 4) < 6) & (z > 35) & (z < 195), bone - 120)
    blade = ellipsoid((np.abs(x) - 0.5 * (y + 80), y + 0.45 * (np.abs(x) - 95), z), (98, -92, 165), (38, 5, 62))
    canvas.fill(chest, (blade < 0) & (chest.wall > 10), 380 + 60 * chest.grain)


def paint_chest(canvas: Canvas, patient: Patient) -> None:
    """Vessels and airways between and inside the lungs, and the gullet."""
    blood, vein = patient.hu["aorta"], patient.contrast(BLOOD["venous"])
    rng = patient.rng(1)
    for side, lung in ((1, ORGANS["right lung"].value), (-1, ORGANS["left lung"].value)):
        for _ in range(30):
            hilum = np.array([side * 38, -8, 112]) + rng.normal(0, 7, 3)
            tip = np.array([side * rng.uniform(50, 115), rng.uniform(-80, 65), rng.uniform(-5, 215)])
            middle = (hilum + tip) / 2 + rng.normal(0, 12, 3)
            canvas.stroke([hilum, middle, tip], [rng.uniform(2.5, 5), 2.2, 1.2], rng.uniform(0, 0.6) * blood, only=lung)
    canvas.stroke([(-14, 30, 98), (-16, 18, 128), (-38, -6, 120)], [14, 13, 9], 0.95 * blood)
    canvas.stroke([(-14, 12, 126), (12, 4, 124), (40, -6, 114)], [12, 11, 9], 0.95 * blood)
    canvas.stroke([(28, 8, 92), (28, 12, 140), (26, 16, 185)], 9, vein if rng.random() < 0.7 else 2 * blood)
    canvas.stroke([(24, 16, 185), (36, 8, 225), (40, 6, 270)], 7, vein)
    canvas.stroke([(-8, 0, 165), (-22, 0, 210), (-28, 0, 270)], 5, blood)
    canvas.stroke([(8, 10, 165), (18, 4, 210), (24, 2, 270)], 6, blood)
    canvas.stroke([(-2, -24, 270), (-4, -30, 130), (-10, -22, 60), (-24, -18, 25)], 7, 42.0)
    canvas.stroke([(2, -16, 145), (20, -16, 126), (46, -12, 106)], [7.5, 6.5, 4], AIR)
    canvas.stroke([(2, -16, 145), (-24, -18, 122), (-50, -14, 102)], [7, 6, 4], AIR)


def paint_muscles(canvas: Canvas, patient: Patient) -> None:
    """Beside the spine: the back muscles and the psoas."""
    muscle = patient.contrast(MUSCLE)

    def flesh(block: Block, distance: np.ndarray) -> np.ndarray:
        septa = np.abs(canvas.folds[block.where]) < 0.8 * patient.marbling
        return np.where(septa | (distance > -1.5), 0.6 * FAT, muscle + 6 * block.grain)

    for side in (1, -1):
        back = [(side * 30, float(y) - 34, float(z)) for z, y in SPINE[3:, :2]]
        canvas.stroke(back, [18, 20, 21, 20, 17, 15, 15], flesh)
        canvas.stroke([(side * 30, -40, -55), (side * 42, -34, -150), (side * 58, -8, -260), (side * 80, 10, -350)],
                      [8, 19, 20, 12], flesh)  # fmt: skip
        if side > 0 or patient.rng(2).random() < 0.9:
            canvas.stroke([(side * 22, -26, 6), (side * 30, -20, -28)], [9, 4], muscle - 8)


def paint_bowel(canvas: Canvas, patient: Patient) -> None:
    """Loops of small bowel and the frame of the colon: gas in front, fluid or stool behind."""
    rng = patient.rng(3)
    wall, vein = patient.contrast((40, 62, 75)), patient.contrast(BLOOD["venous"])
    for _ in range(rng.integers(40, 70)):
        root = np.array([4, -14, rng.uniform(-200, -110)])
        at = np.array([rng.uniform(-76, 76), rng.uniform(-8, 76), rng.uniform(-295, -90)])
        canvas.stroke([root, (root + at) / 2 + rng.normal(0, 10, 3), at], [2.6, 2, 1.5], vein, in_belly=True)
        steps = rng.normal(0, [20, 12, 16], (3, 3)).cumsum(axis=0)
        filling = rng.choice([wall - 5, rng.uniform(5, 35), 250.0], p=[0.5, 0.45, 0.05])
        gas = rng.uniform(-3, 8) if rng.random() < 0.2 else 99.0
        canvas.stroke(at + steps, rng.uniform(8, 13), bowel(wall, filling, 3, 2.0, at[1] + gas), in_belly=True)
    for knots in COLON:
        course = np.array(knots) + rng.normal(0, 7, (len(knots), 3))
        level = float(course[:, 1].mean()) + rng.uniform(-12, 18)
        stool = bowel(wall, rng.uniform(10, 60), 55, 2.5, level)
        canvas.stroke(course, rng.uniform(13, 22, len(course)), stool, in_belly=True)


def bowel(wall: float, filling: float, grain: float, thickness: float, level: float) -> Callable:
    """HU of a hollow tube: wall, and a filling with gas above the level."""

    def fill(block: Block, distance: np.ndarray) -> np.ndarray:
        lumen = np.where(block.height > level, -930.0, filling + grain * np.minimum(block.grain, 1))
        return np.where(distance > -thickness, wall, lumen)

    return fill


def paint_pelvis(canvas: Canvas, patient: Patient) -> None:
    """Hip bones, thigh heads, iliac vessels and what lies behind the bladder."""
    for side in (1, -1):
        artery = [(side * 4 - 6, -14, -150), (side * 34, -24, -215), (side * 62, 22, -320), (side * 66, 42, -400)]
        vein = [(side * 3 + 14, -18, -152), (side * 32, -36, -215), (side * 56, 12, -320), (side * 58, 34, -400)]
        canvas.stroke(vein, [9, 8, 7, 7], patient.contrast(BLOOD["venous"]))
        canvas.stroke(artery, [8, 7, 6, 5], patient.hu["aorta"])
    block = canvas.block((-150, -110, -430), (150, 90, -170))
    if block is None:
        return
    x, y, z = block.xyz
    mirrored = (np.abs(x), y, z)
    leaf = 0.76 * (mirrored[0] - 84) - 0.55 * (y + 18) - 0.34 * (z + 245) + 0.004 * (y + 18) ** 2
    wing = np.maximum(np.abs(leaf) - 6, ellipsoid(mirrored, (84, -14, -240), (68, 66, 62)))
    ring = tube(mirrored, [(88, -4, -300), (76, 22, -345), (8, 50, -368)], [17, 11, 9])
    seat = tube(mirrored, [(88, -12, -300), (68, -42, -350), (56, -30, -395)], [19, 14, 13])
    thigh = tube(mirrored, [(94, 6, -336), (122, -2, -362), (132, -6, -430)], [23, 15, 17])
    for distance in (np.minimum(np.minimum(wing, ring), seat), thigh):
        canvas.fill(block, distance < 2, FAT)
        canvas.fill(block, distance < 0, np.where(distance > -3, 650.0, 230 + 35 * block.grain))
    behind = ellipsoid(block.xyz, (0, -4, -348), (26, 17, 24))
    canvas.fill(block, behind < 0, patient.contrast((42, 60, 75)) + 5 * block.grain)


def paint_table(canvas: Canvas, patient: Patient) -> None:
    """The couch: a shallow trough under the back, where there is air."""
    x, y = canvas.axes[0][:, None, None], canvas.axes[1][None, :, None]
    top = -112 - float(patient.fat[2]) - 9 + x**2 / 1500
    couch = (y < top) & (y > top - 22) & (np.abs(x) < 205)
    shell = couch & ((y > top - 3.5) | (y < top - 18.5))
    air = canvas.hu < -950
    air &= canvas.label == 0
    canvas.hu[air & couch] = -920
    canvas.hu[air & shell] = -120
