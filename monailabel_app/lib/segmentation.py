"""What came out for one image, and what a user can mend."""

from dataclasses import dataclass, field

import numpy as np

Start = tuple[int, int, int] | None


class UserMistake(ValueError):
    """What the user can mend, in one sentence."""


@dataclass(frozen=True)
class Segmentation:
    """What came out for one image.

    Args:
        label: (i, j, k) uint8 in the stored grid, t + 1 where target t has the voxel.
        affine: (4, 4) from stored voxels to RAS mm.
        model_label: (D, H, W), the same in the model's frame.
        model_points: per target (P, 4) points in the model's frame, each with its label.
        starts: per target where its windows begin.
        refined: whether a former mask was mended.
        messages: what the user should know.
        latencies: seconds per stage, and what was found in the memory.
        weights: which weights drew it; empty where that is not known.
    """

    label: np.ndarray
    affine: np.ndarray
    model_label: np.ndarray
    model_points: list[np.ndarray]
    starts: list[list[Start]]
    refined: bool
    messages: list[str]
    latencies: dict[str, float]
    weights: dict[str, str] = field(default_factory=dict)
