"""Anatomy of the phantom: the tables of organs and landmarks, and the patient that varies them.

All lengths are mm in one standard adult: x to the right, y to the front, z to the head; x = 0 is the midline,
y = 0 the middle of the trunk, z = 0 the lowest thoracic vertebra. A patient scales, bends and shifts this frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from .shapes import Pose


@dataclass(frozen=True)
class Organ:
    """One row of the table.

    Attributes:
        value: in the label map.
        lo, hi: corners of a box that holds the organ.
        hu: means in the native, arterial and portal phase.
        spread: standard deviation of that mean between patients.
        grain: standard deviation of the texture inside.
        shift: mm the organ may move along each axis.
        size: the organ's scale lies between 1 / (1 + size) and 1 + size.
        turn: degrees it may turn.
        gap: mm of fat kept around it.
        breath: share of the diaphragm's movement it follows.
        missing: probability that this patient has none.
    """

    value: int
    lo: tuple[float, float, float]
    hi: tuple[float, float, float]
    hu: tuple[float, float, float]
    spread: float
    grain: float = 4
    shift: float = 8
    size: float = 0.2
    turn: float = 8
    gap: float = 1
    missing: float = 0
    breath: float = 0.7


# Painted from top to bottom: what comes later lies in front. Columns: value, box from, to, HU native, arterial and
# portal, spread, grain, shift, size, turn, gap, missing, breath.
ORGANS = {
    "right lung": Organ(6, (5, -95, -75), (140, 95, 260), (-820, -815, -815), 45, 25, 0, 0, 0, 0, breath=0),
    "left lung": Organ(5, (-140, -95, -75), (-5, 95, 260), (-820, -815, -815), 45, 25, 0, 0, 0, 0, breath=0),
    "liver": Organ(1, (-75, -85, -125), (140, 95, 70), (56, 72, 108), 9, 4, 8, 0.14, 6),
    "gallbladder": Organ(11, (25, 15, -95), (75, 85, -35), (12, 12, 12), 6, 2, 7, 0.3, 12, 0.5, 0.1),
    "stomach": Organ(8, (-115, -65, -95), (40, 95, 55), (42, 70, 75), 8, 4, 9, 0.25, 10),
    "spleen": Organ(2, (-140, -100, -80), (-45, 30, 65), (49, 112, 118), 9, 4, 7, 0.25, 10, 1.5),
    "pancreas": Organ(12, (-100, -35, -110), (60, 50, -5), (42, 100, 92), 8, 7, 7, 0.16, 8, 1.5),
    "left kidney": Organ(3, (-100, -85, -130), (-25, -5, 10), (34, 150, 178), 14, 4, 9, 0.17, 10, 4, 0.02),
    "right kidney": Organ(4, (25, -85, -145), (100, -5, -5), (34, 150, 178), 14, 4, 9, 0.17, 10, 4, 0.02),
    "heart": Organ(7, (-98, -40, 0), (62, 85, 150), (42, 105, 105), 8, 4, 6, 0.16, 10, 3),
    "spine": Organ(14, (-50, -125, -420), (50, -15, 270), (170, 175, 180), 45, 25, 0, 0, 0, 0, breath=0),
    "aorta": Organ(9, (-50, -65, -170), (40, 50, 195), (42, 300, 155), 30, 4, 3, 0.06, 2, 1, breath=0),
    "inferior vena cava": Organ(10, (0, -30, -170), (50, 30, 75), (40, 85, 140), 15, 5, 3, 0.06, 2, 0, breath=0),
    "trachea": Organ(15, (-20, -40, 130), (25, 15, 280), (-985, -985, -985), 8, 4, 3, 0.06, 2, 0, breath=0),
    "urinary bladder": Organ(13, (-60, -25, -385), (60, 70, -285), (6, 6, 8), 5, 2, 7, 0.4, 8, 1, 0.02, breath=0),
}
TUMOR = 16
STRUCTURES = {organ.value: name for name, organ in ORGANS.items()} | {TUMOR: "liver tumor"}
TUMOR_ODDS = 0.4

# Trunk cross-sections by height: z, then half axes of the body cavity and of the muscle wall around it.
TRUNK = np.array([
    # z   cavity x   y   wall x   y
    [-430, 70, 50, 162, 108],
    [-350, 88, 68, 162, 112],
    [-290, 104, 80, 160, 110],
    [-190, 124, 88, 148, 106],
    [-50, 130, 92, 148, 110],
    [60, 130, 92, 150, 112],
    [140, 120, 86, 158, 112],
    [210, 92, 66, 170, 104],
    [250, 56, 42, 176, 94],
    [290, 25, 22, 150, 86],
])  # fmt: skip
# Spine: z, y of the vertebral bodies' centres, half width and half depth.
SPINE = np.array([
    [-430, -55, 8, 5],
    [-385, -78, 14, 8],
    [-320, -88, 34, 14],
    [-270, -68, 36, 17],
    [-235, -52, 25, 18],
    [-130, -42, 24, 18],
    [-50, -48, 22, 17],
    [60, -58, 18, 15],
    [150, -58, 16, 13],
    [260, -44, 14, 11],
])  # fmt: skip
VERTEBRAE = ([-240, -60, 250], [0, 5, 17])  # z, count of vertebrae from the sacrum up

AORTA = ([(5, 20, 92), (16, 26, 122), (12, 14, 156), (-6, -8, 168), (-22, -32, 152), (-25, -38, 118),
          (-22, -36, 45), (-12, -24, -20), (-7, -16, -80), (-6, -12, -150)],
         [15, 15, 14, 13, 12.5, 12, 11.5, 11, 10, 9])  # fmt: skip
CAVA = ([(17, -10, -150), (20, -12, -90), (25, -12, -40), (27, -4, 8), (24, 4, 42), (22, 8, 60)],
        [10, 12, 12.5, 12.5, 13, 13])  # fmt: skip
STOMACH = ([(-58, -28, 24), (-72, -8, 4), (-70, 25, -28), (-48, 50, -55), (-14, 58, -64), (20, 44, -58)],
           [29, 31, 28, 23, 17, 9])  # fmt: skip
PANCREAS = ([(34, 10, -94), (32, 17, -68), (8, 26, -58), (-20, 20, -48), (-52, 2, -38), (-82, -18, -28)],
            [13, 14, 9, 10, 10, 7])  # fmt: skip
GALLBLADDER = ([(36, 26, -48), (44, 44, -58), (52, 62, -74)], [5, 13, 14])
TRACHEA = ([(2, 2, 275), (1, -4, 210), (2, -16, 142)], [9, 9, 9.5])
COLON = [
    [(78, 5, -245), (92, 2, -190), (96, 2, -140), (84, 20, -108)],
    [(84, 30, -105), (50, 66, -120), (0, 76, -130), (-50, 66, -105), (-92, 20, -70)],
    [(-98, 0, -75), (-102, -10, -140), (-96, -5, -200), (-72, 10, -255)],
    [(-70, 10, -258), (-30, 25, -280), (5, 0, -285), (0, -42, -305), (0, -48, -370)],
]
BLOOD = {"venous": (40, 95, 145), "portal": (42, 95, 165)}
MUSCLE = (52, 58, 63)


@dataclass(frozen=True)
class Patient:
    """What one seed draws of the anatomy.

    Attributes:
        scale: of the skeleton along x, y, z.
        fat: mm under the skin at the sides, in front and behind.
        squareness: exponent of the trunk's superellipse.
        breath: mm the diaphragm stands above its mean.
        breast: mm it stands out, 0 for none.
        marbling: share of fat between the muscles.
        bend: mm of the smooth field that bends the whole body.
        phase: 0 native, 1 arterial, 2 portal; a scan may lie between two.
        poses: of each organ that this patient has.
        hu: of each organ.
    """

    seed: int
    scale: np.ndarray
    fat: np.ndarray
    squareness: float
    breath: float
    phase: float
    bend: float
    breast: float
    marbling: float
    poses: dict[str, Pose]
    hu: dict[str, float]

    @property
    def width(self) -> float:
        """Of the body at its widest, mm."""
        return float(2 * (156 + self.fat[0]) * self.scale[0])

    def rng(self, stage: int) -> np.random.Generator:
        """A stream of its own for each stage, so that no organ disturbs another's draws."""
        return np.random.default_rng([self.seed, 100 + stage])

    def contrast(self, means: Sequence[float]) -> float:
        """HU in this patient's phase, from the means of the three."""
        return float(np.interp(self.phase, [0, 1, 2], means))


def draw_patient(seed: int) -> Patient:
    """Draw body, contrast phase and every organ's pose and density."""
    rng = np.random.default_rng([seed, 0])
    stature, breath = rng.uniform(0.87, 1.12), rng.uniform(-14, 20)
    phase = float(np.clip(rng.choice([0, 1, 2], p=[0.3, 0.25, 0.45]) + rng.normal(0, 0.12), 0, 2))
    poses, hu = {}, {}
    for name, organ in ORGANS.items():
        dye = 0.45 + 0.55 * min(phase, 1)  # without contrast patients are more alike
        mean = np.interp(phase, [0, 1, 2], organ.hu) + dye * organ.spread * rng.standard_normal()
        pose, present = draw_pose(rng, organ, breath), rng.random() >= organ.missing
        hu[name] = float(mean)
        if present:
            poses[name] = pose
    hu["right lung"] = hu["left lung"] + 8 * rng.standard_normal()
    hu["right kidney"] = hu["left kidney"] + 4 * rng.standard_normal()
    fat = rng.gamma(2.2, 7.0) + np.array([5, 3, 5]) + rng.uniform(0, 5, 3)
    return Patient(
        seed=seed,
        scale=stature * rng.uniform(0.93, 1.07, 3),
        fat=fat.clip(4, 55),
        squareness=rng.uniform(2.1, 2.7),
        breath=breath,
        phase=phase,
        bend=rng.uniform(3, 7),
        breast=max(0.0, rng.uniform(-25, 25)),
        marbling=rng.uniform(0.02, 0.14),
        poses=poses,
        hu=hu,
    )


def draw_pose(rng: np.random.Generator, organ: Organ, breath: float) -> Pose:
    """Shift, scale (a common factor and one per axis) and turn within the organ's limits."""
    reach = np.log1p(organ.size)
    scale = np.exp(rng.uniform(-reach, reach) + rng.uniform(-0.3, 0.3, 3) * reach)
    shift = rng.uniform(-1, 1, 3) * organ.shift + [0, 0, organ.breath * breath]
    rotation = Rotation.from_euler("xyz", rng.uniform(-1, 1, 3) * organ.turn, degrees=True).as_matrix()
    return Pose(np.add(organ.lo, organ.hi) / 2, shift, scale, rotation)
