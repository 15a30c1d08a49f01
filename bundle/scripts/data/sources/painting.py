"""Masks of single structures become one label map; where they overlap, the later one is seen, and that is counted."""

from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

Overlaps = dict[str, int]


def paint(
    masks: Iterable[tuple[int, NDArray[np.bool_]]], shape: tuple[int, ...], names: Mapping[str, str | None]
) -> tuple[NDArray[np.int16], Overlaps]:
    """Paint masks one after another.

    Args:
        masks: value and mask (i, j, k) of each structure, lowest first; a value may come several times.
        shape: (i, j, k).
        names: value -> name, for the sentences alone; a structure without one is called after its value.

    Returns:
        The label map (i, j, k), and ``{"liver tumor over liver": voxels}`` for every pair that overlaps.
    """
    label = np.zeros(shape, np.int16)
    hidden: Counter[str] = Counter()
    for value, mask in masks:
        under, counts = np.unique(label[mask], return_counts=True)
        for other, count in zip(under.tolist(), counts.tolist(), strict=True):
            if other not in (0, value):
                hidden[f"{_name(value, names)} over {_name(other, names)}"] += count
        label[mask] = value
    return label, dict(sorted(hidden.items()))


def majority(masks: Iterable[NDArray[np.bool_]]) -> NDArray[np.bool_]:
    """What at least half of the raters have marked, each (i, j, k)."""
    votes: NDArray[np.int32] | None = None
    raters = 0
    for mask in masks:
        votes = mask.astype(np.int32) if votes is None else votes + mask
        raters += 1
    if votes is None:
        raise ValueError("label: no rater has marked the structure")
    return (votes > 0) & (2 * votes >= raters)


def _name(value: int, names: Mapping[str, str | None]) -> str:
    return names.get(str(value)) or f"structure {value}"
