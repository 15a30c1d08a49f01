"""Which part of a window is hidden: whole units of some patches, the same number in every view."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ...arguments import exit_on_error


class Masking:
    """Random masks of units, larger than a patch, so that a hidden voxel is not told by its nearest neighbours.

    Without a ``unit`` it is two patches along each axis, SimMIM's own choice for a ViT (units of 32 pixels, patches of
    16). SimMIM worked best where a hidden pixel is on average 5 to 10 % of the image's width away from the nearest
    visible one. With 0.6 of such units hidden it is 6 voxels of 64 in the small window, and 11 pixels of 256 in the
    base window with slices four pixels thick.

    Args:
        window_size: (d, h, w) of a window.
        patch_size: (d, h, w) of a patch.
        unit: (d, h, w) voxels that are hidden together: multiples of the patch that divide the window.
        ratio: share of the units that is hidden.

    Raises:
        SystemExit: one line, for a unit or a ratio that does not fit.
    """

    def __init__(
        self, window_size: Sequence[int], patch_size: Sequence[int], unit: Any = None, ratio: Any = 0.6
    ) -> None:
        self.window_size = tuple(window_size)
        with exit_on_error():
            self.unit = _default_unit(window_size, patch_size) if unit is None else _unit(unit, window_size, patch_size)
            self.grid = tuple(n // u for n, u in zip(window_size, self.unit, strict=True))
            self.hidden = _number_of(ratio, math.prod(self.grid))

    def draw(self, rng: np.random.Generator) -> torch.Tensor:
        """(1, d, h, w) bool, True where hidden."""
        units = np.zeros(math.prod(self.grid), bool)
        units[rng.permutation(len(units))[: self.hidden]] = True
        mask = torch.from_numpy(units).reshape(1, *self.grid)
        for axis, voxels in enumerate(self.unit, start=1):
            mask = mask.repeat_interleave(voxels, dim=axis)
        return mask


def _default_unit(window_size: Sequence[int], patch_size: Sequence[int]) -> tuple[int, ...]:
    return tuple(2 * p if n % (2 * p) == 0 else p for n, p in zip(window_size, patch_size, strict=True))


def _unit(value: Any, window_size: Sequence[int], patch_size: Sequence[int]) -> tuple[int, ...]:
    fits = isinstance(value, list | tuple) and len(value) == 3 and all(type(n) is int and n > 0 for n in value)
    if not fits or any(u % p or n % u for u, p, n in zip(value, patch_size, window_size, strict=True)):
        raise ValueError(
            f"mask_unit is {value!r}; it takes three numbers of voxels [d,h,w], each a multiple of the patch "
            f"{list(patch_size)} that divides the window {list(window_size)}"
        )
    return tuple(value)


def _number_of(ratio: Any, units: int) -> int:
    share = isinstance(ratio, int | float) and 0 < ratio < 1
    if not share or not 0 < round(ratio * units) < units:
        raise ValueError(
            f"mask_ratio is {ratio!r}; it takes a share between 0 and 1 that hides some of the {units} units of a "
            "window, and not all"
        )
    return round(ratio * units)
