"""Where the structures of a label map lie: enough to place a view on one without reading the map."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

CENTRES = 256  # voxels kept of each structure for a view to be placed on


class Rows(Protocol):
    """Voxels (n, 3) that are read one by one, from memory or from a file."""

    def __getitem__(self, row: int, /) -> NDArray[np.int32]:
        """One voxel (3,)."""


@dataclass(frozen=True, slots=True)
class Places:
    """Some structures of a label map.

    Attributes:
        values: (n,) label values.
        extents: (n, 2, 3) first and last voxel of each.
        bounds: (n, 2) from which row of ``centres`` to which its own voxels are.
        centres: some voxels of each; never empty for a structure.
    """

    values: NDArray[np.int32]
    extents: NDArray[np.int32]
    bounds: NDArray[np.int32]
    centres: Rows

    def __len__(self) -> int:
        """How many structures there are."""
        return len(self.values)

    def of(self, values: Sequence[int]) -> "Places":
        """Those of ``values`` that are there, in that order."""
        index = {value: number for number, value in enumerate(self.values.tolist())}
        chosen = [index[value] for value in values if value in index]
        return Places(self.values[chosen], self.extents[chosen], self.bounds[chosen], self.centres)

    def centre(self, rng: np.random.Generator) -> NDArray[np.int32]:
        """A voxel (3,) of a random structure."""
        first, last = self.bounds[int(rng.integers(len(self)))].tolist()
        return self.centres[first + int(rng.choice(last - first))]

    def extent(self, rng: np.random.Generator) -> NDArray[np.int32]:
        """First and last voxel (2, 3) of a random structure."""
        return self.extents[int(rng.integers(len(self)))]


def find_places(label: NDArray) -> Places:
    """Find every structure of a label map (D, H, W) of whole numbers, 0 for none, in the order of their values."""
    rng = np.random.default_rng(0)
    boxes = ndimage.find_objects(label)
    values = [value for value, box in enumerate(boxes, start=1) if box is not None]
    extents = [[[s.start, s.stop - 1] for s in boxes[value - 1]] for value in values]
    centres = [_voxels_of(label, value, boxes[value - 1], rng) for value in values]
    ends = np.cumsum([0, *map(len, centres)])
    return Places(
        np.array(values, np.int32),
        np.array(extents, np.int32).reshape(-1, 3, 2).transpose(0, 2, 1),
        np.stack([ends[:-1], ends[1:]], axis=1).astype(np.int32),
        np.concatenate([np.empty((0, 3)), *centres]).astype(np.int32),
    )


def no_places() -> Places:
    """No structure at all."""
    return Places(*(np.empty(shape, np.int32) for shape in ((0,), (0, 2, 3), (0, 2), (0, 3))))


def _voxels_of(label: NDArray, value: int, box: tuple[slice, ...], rng: np.random.Generator) -> NDArray:
    """Up to ``CENTRES`` voxels (n, 3) of a structure, which lies in ``box``."""
    flat = np.flatnonzero(label[box] == value)
    picked = rng.choice(flat, min(CENTRES, len(flat)), replace=False)
    inside = np.unravel_index(picked, [side.stop - side.start for side in box])
    return np.stack(inside, axis=1) + [side.start for side in box]
