"""Multi-size training: what part of a volume a view shows, and how it becomes a window of the network."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from ..data.storage.stored_grid import StoredGrid

MARGIN = (1.2, 2.0)  # a fitted view is so many times as long as the structure that it shows


@dataclass(frozen=True)
class View:
    """A box of a volume that is resized to the window; what lies outside the volume is padded with zeros.

    Attributes:
        start: (D, H, W) first voxel inside the volume.
        stop: (D, H, W) one beyond the last voxel inside the volume.
        padding: as ``torch.nn.functional.pad`` takes it.
        roi_size: (d, h, w) of the window.
        flips: axes that are mirrored.
    """

    start: tuple[int, ...]
    stop: tuple[int, ...]
    padding: tuple[int, ...]
    roi_size: tuple[int, ...]
    flips: tuple[int, ...] = ()

    def of(self, volume: torch.Tensor | StoredGrid) -> torch.Tensor:
        """What the view shows of ``volume`` (D, H, W): (*roi_size), resized to the nearest voxel.

        A volume in memory and the same on disk show the same; of the latter only what is shown is read. Intensities
        become float32, whole numbers keep their type.
        """
        inside, places = zip(*(self._along(axis) for axis in range(3)), strict=True)
        voxels = torch.from_numpy(volume.take(places)) if isinstance(volume, StoredGrid) else _taken(volume, places)
        dtype = torch.float32 if voxels.is_floating_point() else voxels.dtype
        shown = torch.zeros(self.roi_size, dtype=dtype, device=voxels.device)
        shown[inside] = voxels.to(dtype)
        return shown.flip(self.flips) if self.flips else shown

    def _along(self, axis: int) -> tuple[slice, NDArray[np.int64]]:
        """Where in the window the volume is, and which of its voxels each of these shows."""
        before, after = self.padding[2 * (2 - axis)], self.padding[2 * (2 - axis) + 1]
        length = self.stop[axis] - self.start[axis]
        nearest = nearest_voxels(before + length + after, self.roi_size[axis])
        first, last = np.searchsorted(nearest, (before, before + length)).tolist()
        return slice(first, last), nearest[first:last] - before + self.start[axis]


@lru_cache(maxsize=4096)
def nearest_voxels(length: int, size: int) -> NDArray[np.int64]:
    """Which of ``length`` voxels each of ``size`` shows: torch's nearest-exact as whole numbers that never fall."""
    voxels = torch.arange(length, dtype=torch.float32).reshape(1, 1, -1)
    nearest = F.interpolate(voxels, size, mode="nearest-exact").flatten().numpy().astype(np.int64)
    nearest.flags.writeable = False  # it is kept
    return nearest


def draw_view(
    shape: Sequence[int],
    roi_size: Sequence[int],
    centre: np.ndarray | None,
    rng: np.random.Generator,
    whole: float = 0.4,
    window: float = 0.4,
    flip: float = 0.0,
    fit: float = 0.0,
    extent: np.ndarray | None = None,
) -> View:
    """Draw a view: the whole volume as in zooming out, a window at full resolution as in zooming in, or between.

    Between lie a structure with a margin, as in zooming to fit, and anything else.

    Args:
        shape: (D, H, W) of the volume.
        roi_size: (d, h, w) of the window.
        centre: a voxel that the view shows somewhere; None takes any.
        rng: the only source of chance.
        whole: share of views of the whole volume.
        window: share of views at full resolution.
        flip: probability of mirroring, for each axis.
        fit: share of views that fit ``extent``; the rest has any size between the whole volume and a window.
        extent: (2, 3) first and last voxel of a structure; None leaves the share of ``fit`` to the rest.
    """
    full, roi = np.array(shape), np.array(roi_size)
    kind = rng.random()
    if extent is not None and whole + window <= kind < whole + window + fit:
        return _fitted(extent, full, roi, rng, flip)
    if kind < whole:
        size = full
    elif kind < whole + window:
        size = roi
    else:
        low = np.minimum(roi, full)
        size = np.rint(low + rng.random(3) * (full - low)).astype(int)
    if centre is None:
        centre = rng.integers(0, full)
    inside = np.minimum(size, full)
    start = np.clip(centre - rng.integers(0, inside), 0, full - inside)
    padding = [int(n) for total in reversed(size - inside) for n in (total // 2, total - total // 2)]
    return View(_ints(start), _ints(start + inside), tuple(padding), _ints(roi), _flips(rng, flip))


def _fitted(extent: np.ndarray, full: np.ndarray, roi: np.ndarray, rng: np.random.Generator, flip: float) -> View:
    """A structure with a margin, never less than a window where the volume has it, off its middle by up to a tenth."""
    length = extent[1] - extent[0] + 1
    size = np.minimum(np.maximum(np.ceil(length * rng.uniform(*MARGIN)).astype(int), roi), full)
    middle = (extent[0] + extent[1] + 1) / 2 + rng.uniform(-0.1, 0.1, 3) * length
    start = np.clip(np.rint(middle - size / 2).astype(int), 0, full - size)
    return View(_ints(start), _ints(start + size), (0,) * 6, _ints(roi), _flips(rng, flip))


def _flips(rng: np.random.Generator, flip: float) -> tuple[int, ...]:
    return tuple(axis for axis in range(3) if rng.random() < flip) if flip else ()


def _ints(values: np.ndarray) -> tuple[int, ...]:
    return tuple(int(v) for v in values)


def _taken(volume: torch.Tensor, places: Sequence[NDArray[np.int64]]) -> torch.Tensor:
    """The voxels of ``volume`` (D, H, W) at all combinations of ``places``; a part of it where they are neighbours."""
    for axis, chosen in enumerate(places):
        if len(chosen) and len(chosen) == chosen[-1] - chosen[0] + 1:
            volume = volume.narrow(axis, int(chosen[0]), len(chosen))
        else:
            volume = volume.index_select(axis, torch.from_numpy(chosen).to(volume.device))
    return volume
