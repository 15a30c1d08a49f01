"""Where to look: window placement along an axis, windows of a volume, and what the zoom-out view saw at full size.

All of it is integers and no network: a box of voxels, called an *extent*, is an int array (2, 3) of its first and its
last voxel, both inclusive, in the axes (D, H, W) of the volume.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
import torch
from torch.nn import functional as F

from .prompts import box_of

Triple = tuple[int, int, int]
Resize = Literal["nearest", "nearest-exact"]


@dataclass(frozen=True, order=True)
class Window:
    """A cut of fixed size and the voxels of the volume that it shows; the rest of it is zero.

    Args:
        start: voxel of the volume under the window's voxel (0, 0, 0); negative where the window is padded in front.
        first: first voxel of the volume that is shown.
        last: last voxel of the volume that is shown, inclusive.
    """

    start: Triple
    first: Triple
    last: Triple

    @classmethod
    def at(cls, start: Sequence[int], size: Triple, shown: np.ndarray) -> "Window":
        """The window of ``size`` at ``start``, showing what it has in common with the extent ``shown``."""
        first, last = np.maximum(shown[0], start), np.minimum(shown[1], np.add(start, size) - 1)
        return cls(_triple(start), _triple(first), _triple(last))

    @property
    def extent(self) -> np.ndarray:
        """The voxels of the volume that are shown."""
        return np.array([self.first, self.last])

    @property
    def in_volume(self) -> tuple[slice, ...]:
        """Slices of the shown voxels in the volume."""
        return slices(self.extent)

    @property
    def in_window(self) -> tuple[slice, ...]:
        """Slices of the shown voxels in the window."""
        return slices(self.extent - self.start)

    def cut(self, image: torch.Tensor, size: Triple) -> torch.Tensor:
        """Cut the window (1, 1, *size) from ``image`` (1, 1, D, H, W)."""
        window = image.new_zeros((1, 1, *size))
        window[0, 0][self.in_window] = image[0, 0][self.in_volume]
        return window


class CoarseView:
    """The logits of one target in the zoom-out view, read at full size.

    A nearest resize is one index map per axis, so questions about the full-size mask are answered in the small grid.

    Args:
        logits: (d, h, w) in the zoom-out grid.
        shape: (D, H, W) of the volume.
        resize: torch's way back to full size. The released code makes the view by ``nearest-exact`` and goes back by
            ``nearest``, which lands a voxel off and loses single slices of a volume of few; ``nearest-exact`` undoes
            its own resize.
    """

    def __init__(self, logits: torch.Tensor, shape: Sequence[int], resize: Resize = "nearest-exact") -> None:
        self.logits = logits
        self._mask = (logits > 0).cpu().numpy()
        self._maps = [nearest_map(n, size, resize) for n, size in zip(logits.shape, shape, strict=True)]

    def full_size(self) -> torch.Tensor:
        """The logits (D, H, W), exactly as ``interpolate(mode=resize)`` gives them."""
        d, h, w = (torch.from_numpy(index).to(self.logits.device) for index in self._maps)
        return self.logits.index_select(2, w).index_select(1, h).index_select(0, d)

    def extent(self, within: np.ndarray) -> np.ndarray | None:
        """The extent of the full-size mask inside the extent ``within``; None where there is no mask."""
        maps = [index[lo : hi + 1] for index, lo, hi in zip(self._maps, *within, strict=True)]
        shown = [np.unique(index) for index in maps]  # in a small volume some voxels of the grid are never read
        box = box_of(self._mask[np.ix_(*shown)])
        if box is None:
            return None
        ranges = [
            (np.searchsorted(index, seen[int(a)], "left"), np.searchsorted(index, seen[int(b)], "right") - 1)
            for index, seen, a, b in zip(maps, shown, *box, strict=True)
        ]
        found: np.ndarray = np.array(ranges).T + within[0]
        return found


def axis_starts(a: int, b: int, window: int, size: int, overlap: float, snap: bool = True) -> list[int]:
    """Starts of the fewest windows that cover the voxels a to b (inclusive) of an axis.

    An axis shorter than the window gets one window, padded as evenly as can be. Otherwise windows stay inside the
    axis. So that encodings recur from prompt to prompt, starts snap to the quarter-window grid of the axis (or flush
    with its end) where as many windows still cover a to b; else they lie centred on a to b as published.

    Args:
        a: first voxel to cover.
        b: last voxel to cover.
        window: length of the window in voxels.
        size: length of the axis in voxels.
        overlap: least share of a window that its neighbour shows too, in [0, 1).
        snap: whether starts may snap.
    """
    if size < window:
        return [-((window - size) // 2)]
    interval = scan_interval(window, overlap)
    snapped = _snapped_starts(a, b, window, size, interval) if snap else None
    return snapped or _centred_starts(a, b, window, size, interval)


def published_range(a: int, b: int, window: int, size: int) -> tuple[int, int]:
    """The released ROI of an axis: a to b grown by the same number of voxels on both sides, clipped to the volume."""
    grow = max(0, window - (b - a + 1)) // 2
    return max(0, a - grow), min(size - 1, b + grow)


def dense_starts(lo: int, hi: int, window: int, interval: int) -> list[int]:
    """Windows from ``lo`` on at ``interval``, the last one flush with ``hi``, as MONAI's sliding window lies."""
    last = hi - window + 1
    return [*range(lo, last, interval), last]


def scan_interval(window: int, overlap: float) -> int:
    """Voxels between the starts of neighbouring windows."""
    return max(1, int(window * (1 - overlap)))


def nearest_map(from_size: int, to_size: int, resize: Resize) -> np.ndarray:
    """For each voxel of an axis of ``to_size`` the voxel of ``from_size`` that torch's resize reads."""
    index = torch.arange(from_size, dtype=torch.float32)[None, None]
    return F.interpolate(index, size=to_size, mode=resize)[0, 0].long().numpy()


def whole(shape: Sequence[int]) -> np.ndarray:
    """The extent of a whole volume."""
    return np.array([[0, 0, 0], np.subtract(shape, 1)])


def meet(one: np.ndarray, other: np.ndarray) -> np.ndarray | None:
    """What two extents have in common."""
    first, last = np.maximum(one[0], other[0]), np.minimum(one[1], other[1])
    return np.array([first, last]) if (first <= last).all() else None


def voxels_of(box: np.ndarray) -> np.ndarray:
    """The extent of a continuous box (2, 3): the voxels in which its corners lie and all between, so never none."""
    return np.sort([np.floor(box[0] + 0.5), np.ceil(box[1] - 0.5)], axis=0).astype(int)


def slices(extent: np.ndarray) -> tuple[slice, ...]:
    """Slices of an extent."""
    return tuple(slice(int(lo), int(hi) + 1) for lo, hi in extent.T)


def _centred_starts(a: int, b: int, window: int, size: int, interval: int) -> list[int]:
    """The released ROI, made at least one window long inside the volume, and windows at the interval."""
    lo, hi = published_range(a, b, window, size)
    hi = min(size - 1, max(hi, lo + window - 1))
    lo = max(0, min(lo, hi - window + 1))
    return dense_starts(lo, hi, window, interval)


def _snapped_starts(a: int, b: int, window: int, size: int, interval: int) -> list[int] | None:
    """The snapped placement nearest to centred on a to b, the first of equals; None where there is none."""
    quarter, end = max(1, window // 4), size - window
    step = interval // quarter * quarter
    count = ceil(max(0, b - a + 1 - window) / interval) + 1
    firsts = [start for start in (*range(0, end, quarter), end) if start <= a]
    placements = [[min(first + i * step, end) for i in range(count)] for first in firsts]
    covering = [starts for starts in placements if starts[-1] + window > b]
    return min(covering, key=lambda starts: abs(starts[0] + starts[-1] + window - 1 - a - b), default=None)


def _triple(values: Sequence[int] | np.ndarray) -> Triple:
    d, h, w = (int(value) for value in values)
    return d, h, w
