"""Prompts drawn from a mask, as a user would give them (paper section 2.3): points, jittered boxes."""

import numpy as np


def sample_points(
    mask: np.ndarray, rng: np.random.Generator, max_extra: int, max_negative: int
) -> tuple[np.ndarray, np.ndarray]:
    """One positive point, and in half of the draws more points of both signs.

    Args:
        mask: (d, h, w) bool.
        rng: the only source of chance.
        max_extra: at most so many more positive points.
        max_negative: at most so many negative points.

    Returns:
        points (P, 3) float32 voxels and point_labels (P,) int64, with P = 1 + max_extra + max_negative; places
        that no point takes are labelled -1 (ignored), all of them for an empty mask.
    """
    size = 1 + max_extra + max_negative
    points = np.zeros((size, 3), np.float32)
    labels = np.full(size, -1, np.int64)
    inside = np.flatnonzero(mask)
    if not len(inside):
        return points, labels
    many = rng.random() < 0.5
    positive = 1 + (int(rng.integers(0, max_extra + 1)) if many else 0)
    negative = int(rng.integers(0, max_negative + 1)) if many else 0
    picked = [rng.choice(inside, positive)]
    if negative:
        picked.append(_outside(mask, rng, negative))
    flat = np.concatenate(picked)
    points[: len(flat)] = np.stack(np.unravel_index(flat, mask.shape), axis=1)
    labels[:positive] = 1
    labels[positive : len(flat)] = 0
    return points, labels


def sample_box(mask: np.ndarray, rng: np.random.Generator, jitter: float) -> np.ndarray:
    """The mask's bounding box (6,) float32 d0, h0, w0, d1, h1, w1, each side moved by up to ``jitter`` of its length.

    The box stays inside the array and holds at least one voxel; it is all zeros for an empty mask.
    """
    if not mask.any():
        return np.zeros(6, np.float32)
    corners = []
    for axis in range(3):
        along = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        reach = jitter * (along[-1] - along[0] + 1)
        low, high = along[[0, -1]] + rng.uniform(-reach, reach, 2)
        last = mask.shape[axis] - 1
        low = np.clip(np.rint(low), 0, last)
        corners.append((low, np.clip(np.rint(high), low, last)))
    return np.array([c[0] for c in corners] + [c[1] for c in corners], np.float32)


def _outside(mask: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    """Voxels outside the mask; a full mask has none."""
    drawn = rng.integers(0, mask.size, 4 * count)
    return drawn[~mask.reshape(-1)[drawn]][:count]
