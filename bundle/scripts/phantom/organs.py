"""The phantom's labelled organs: what shape each has, what its inside looks like, and what grows in the liver."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .anatomy import (
    AORTA,
    BLOOD,
    CAVA,
    GALLBLADDER,
    ORGANS,
    PANCREAS,
    SPINE,
    STOMACH,
    TRACHEA,
    TUMOR,
    TUMOR_ODDS,
    VERTEBRAE,
    Patient,
)
from .shapes import FAT, Block, Canvas, ellipsoid, tube


def paint_organ(canvas: Canvas, patient: Patient, name: str) -> None:
    """Clear a gap of fat, then paint what the organ's shape holds with what its inside looks like."""
    organ, pose = ORGANS[name], patient.poses.get(name)
    block = None if pose is None else canvas.block(organ.lo, organ.hi, pose)
    if block is None:
        return
    distance = SHAPES[name](block)
    if organ.gap:
        apart = (canvas.hu[block.where] > -700) & (canvas.label[block.where] != ORGANS["heart"].value)
        canvas.fill(block, (distance < organ.gap) & apart, FAT)
    hu = patient.hu[name] + organ.grain * block.grain
    if name in INSIDES:
        hu = INSIDES[name](block, distance, hu, patient)
    canvas.fill(block, distance < 0, hu, organ.value)


def paint_liver_vessels(canvas: Canvas, patient: Patient) -> None:
    """Hepatic and portal veins inside the liver, which stay liver; the portal vein's stem, which is not."""
    rng, liver = patient.rng(4), ORGANS["liver"].value
    portal = min(patient.contrast(BLOOD["portal"]), patient.hu["liver"] + 55)
    canvas.stroke([(10, 16, -125), (14, 16, -70), (30, 10, -42)], [6, 7, 7], portal)
    canvas.stroke([(14, 14, -62), (-30, 8, -48), (-80, -22, -24)], [5, 4, 4], portal)
    for _ in range(9):
        root = np.array([28, 8, -40]) if rng.random() < 0.55 else np.array([26, 4, 32])
        tip = np.array([rng.uniform(-20, 112), rng.uniform(-50, 60), rng.uniform(-55, 35)])
        canvas.stroke([root, (root + tip) / 2 + rng.normal(0, 8, 3), tip], [5, 3.2, 1.5], portal, only=liver)


def paint_tumor(canvas: Canvas, patient: Patient) -> None:
    """One to three lesions somewhere in the liver, mostly darker than it."""
    rng = patient.rng(5)
    inside = np.flatnonzero(canvas.label == ORGANS["liver"].value)
    if rng.random() >= TUMOR_ODDS or len(inside) == 0:
        return
    for _ in range(rng.integers(1, 4)):
        at = np.unravel_index(inside[int(rng.random() * len(inside))], canvas.label.shape)
        centre = [float(axis[at]) for axis in (canvas.x, canvas.y, canvas.z)]
        radii = rng.uniform(8, 26) * rng.uniform(0.8, 1.2, 3)
        contrast = rng.uniform(-55, -18) if rng.random() < 0.8 else rng.uniform(20, 40)
        block = canvas.block(centre - radii - 4, centre + radii + 4)
        assert block is not None  # its centre is a voxel of the scan
        distance = ellipsoid(block.xyz, centre, radii.tolist()) + 1.2 * block.grain
        hu = patient.hu["liver"] + contrast * np.clip(0.7 - 0.06 * distance, 0.5, 1.2) + 6 * block.grain
        canvas.fill(block, (distance < 0) & (canvas.label[block.where] == ORGANS["liver"].value), hu, TUMOR)


def lung(side: int) -> Callable[[Block], np.ndarray]:
    """The cavity above the diaphragm, beside the mediastinum."""

    def shape(block: Block) -> np.ndarray:
        x, y, z = block.xyz
        middle = np.interp(y, [-80, -40, 0, 40, 75], [27, 25, 36, 22, 7]).astype(np.float32)
        return np.maximum(np.maximum(block.wall + 2, 2 - block.dome), middle - side * x)

    return shape


def liver(block: Block) -> np.ndarray:
    """Two lobes under the diaphragm with a slanting under-surface, notched by its hilum and by the kidney behind."""
    x, y, z = block.xyz
    right = ellipsoid(block.xyz, (70, -2, -18), (66, 80, 84))
    left = ellipsoid(block.xyz, (8, 38, 4), (72, 36, 40))
    under = (-102 + 0.62 * np.clip(98 - x, 0, None) - 0.1 * y - z) * 0.85
    body = np.maximum(np.minimum(right, left), under)
    hilum = ellipsoid(block.xyz, (26, 2, -56), (18, 20, 20))
    renal_bed = ellipsoid(block.xyz, (54, -66, -86), (46, 44, 62))
    return np.maximum(np.maximum(body, -np.minimum(hilum, renal_bed)), np.maximum(block.wall + 5, block.dome + 3))


def spleen(block: Block) -> np.ndarray:
    """A crescent between the ribs and the stomach."""
    outer = ellipsoid(block.xyz, (-92, -38, -8), (48, 62, 64))
    inner = ellipsoid(block.xyz, (-50, -2, -8), (42, 50, 85))
    return np.maximum(np.maximum(outer, -inner), np.maximum(block.wall + 5, block.dome + 3))


def stomach(block: Block) -> np.ndarray:
    """A J from under the left dome across the midline."""
    return np.maximum(tube(block.xyz, *STOMACH), np.maximum(block.wall + 6, block.dome + 4))


def kidney(side: int, z: float) -> Callable[[Block], np.ndarray]:
    """A bean, upper pole towards the spine, with its hilum to the inside and front."""

    def shape(block: Block) -> np.ndarray:
        axial = (block.xyz[0] * side + 0.2 * (block.xyz[2] - z), block.xyz[1] - 0.12 * (block.xyz[2] - z), block.xyz[2])
        bean = ellipsoid(axial, (62, -46, z), (28, 25, 53))
        return np.maximum(bean, -ellipsoid(axial, (40, -36, z), (17, 14, 17)))

    return shape


def heart(block: Block) -> np.ndarray:
    """An egg on the diaphragm whose apex points to the left, front and down."""
    x, y, z = block.xyz
    egg = ellipsoid((x + 0.25 * (y - 20), y + 0.15 * z - 11, z), (-15, 20, 76), (60, 45, 52))
    return np.maximum(egg, 2 - block.dome)


def spine(block: Block) -> np.ndarray:
    """Vertebral bodies and discs, arches, and processes at the height of each vertebra; the canal stays open."""
    x, y, z = block.xyz
    centre, width, depth = (np.interp(z, SPINE[:, 0], SPINE[:, n]).astype(np.float32) for n in (1, 2, 3))
    part = np.abs(vertebra(z) - 0.62)
    waist = 1 - 0.12 * np.clip(0.35 - part, 0, None)
    body = (np.sqrt((x / (width * waist)) ** 2 + ((y - centre) / (depth * waist)) ** 2) - 1) * depth
    back = y - (centre - depth - 6)
    ring = np.hypot(x * 0.8, back)
    arch = np.maximum(ring - 14, part * 30 - 12)
    spinous = np.maximum(np.maximum(np.abs(x) - 3.5, np.abs(back + 22 + 6 * part) - 14), part * 30 - 8)
    sides = np.maximum(np.maximum(np.abs(back) - 4.5, np.abs(x) - width - 12), part * 30 - 5)
    posterior = np.minimum(np.minimum(arch, spinous), sides)
    column = np.minimum(body, np.where(z > -300, posterior, 99))
    return np.maximum(np.maximum(column, 8.5 - ring), -400 - z)


def vertebra(z: np.ndarray) -> np.ndarray:
    """Height within the vertebra: 0 to 0.22 is the disc, the body above it."""
    return np.where(z < VERTEBRAE[0][0], 0.62, np.mod(np.interp(z, *VERTEBRAE), 1)).astype(np.float32)


def bladder(block: Block) -> np.ndarray:
    """A flattened ball behind the pubic bone."""
    return ellipsoid(block.xyz, (0, 20, -332), (38, 30, 29))


SHAPES: dict[str, Callable[[Block], np.ndarray]] = {
    "right lung": lung(1),
    "left lung": lung(-1),
    "liver": liver,
    "gallbladder": lambda block: tube(block.xyz, *GALLBLADDER),
    "stomach": stomach,
    "spleen": spleen,
    "pancreas": lambda block: tube(block.xyz, *PANCREAS) + 1.3 * block.grain,
    "left kidney": kidney(-1, -62),
    "right kidney": kidney(1, -76),
    "heart": heart,
    "spine": spine,
    "aorta": lambda block: tube(block.xyz, *AORTA),
    "inferior vena cava": lambda block: tube(block.xyz, *CAVA),
    "trachea": lambda block: tube(block.xyz, *TRACHEA),
    "urinary bladder": bladder,
}


def inside_lung(block: Block, distance: np.ndarray, hu: np.ndarray, patient: Patient) -> np.ndarray:
    """Denser towards the back, where the patient lies."""
    return hu - 0.35 * block.height


def inside_stomach(block: Block, distance: np.ndarray, hu: np.ndarray, patient: Patient) -> np.ndarray:
    """Wall, and fluid or food under a bubble of gas."""
    rng = patient.rng(6)
    level = rng.uniform(5, 60)
    filling = rng.choice([rng.uniform(0, 20), rng.uniform(20, 60), 220.0], p=[0.45, 0.45, 0.1])
    food = rng.choice([3.0, 25.0])
    lumen = np.where(block.height > level, -940.0, filling + food * block.grain)
    return np.where(distance > -rng.uniform(3, 5), hu, lumen)


def inside_kidney(block: Block, distance: np.ndarray, hu: np.ndarray, patient: Patient) -> np.ndarray:
    """Cortex brighter than marrow while contrast arrives; fat and urine in the sinus."""
    side = np.sign(float(block.xyz[0].mean()))
    z = -62 if side < 0 else -76
    frame = (block.xyz[0] * side, *block.xyz[1:])
    sinus = ellipsoid(frame, (50, -42, z), (15, 9, 24)) + 2 * block.grain
    marrow = -9 - 2 * block.grain > distance
    gain = patient.contrast((2, 60, 22))
    return np.where(sinus < 0, np.where(block.grain > 0, 8.0, -60.0), np.where(marrow, hu - gain, hu + gain / 3))


def inside_heart(block: Block, distance: np.ndarray, hu: np.ndarray, patient: Patient) -> np.ndarray:
    """Four chambers of blood in the muscle."""
    blood = patient.hu["aorta"] + 4 * block.grain
    right = blood + patient.contrast((0, -70, -8))
    chambers = [
        ((26, 12, 78), (23, 23, 28), right),
        ((-10, 43, 64), (32, 16, 27), right),
        ((-2, -10, 92), (31, 17, 19), blood),
        ((-44, 12, 62), (21, 20, 29), blood),
    ]
    for centre, radii, filling in chambers:
        hu = np.where(ellipsoid(block.xyz, centre, radii) < 0, filling, hu)
    return hu


def inside_spine(block: Block, distance: np.ndarray, hu: np.ndarray, patient: Patient) -> np.ndarray:
    """Dense shell, spongy inside, soft discs."""
    bone = np.where(distance > -2.5, 420 + 40 * block.grain, hu)
    return np.where((vertebra(block.xyz[2]) < 0.2) & (block.xyz[2] > VERTEBRAE[0][0]), 85 + 5 * block.grain, bone)


def inside_bladder(block: Block, distance: np.ndarray, hu: np.ndarray, patient: Patient) -> np.ndarray:
    """A thin wall around urine."""
    return np.where(distance > -3, 38.0, hu)


INSIDES: dict[str, Callable[[Block, np.ndarray, np.ndarray, Patient], np.ndarray]] = {
    "right lung": inside_lung,
    "left lung": inside_lung,
    "stomach": inside_stomach,
    "left kidney": inside_kidney,
    "right kidney": inside_kidney,
    "heart": inside_heart,
    "spine": inside_spine,
    "urinary bladder": inside_bladder,
}
