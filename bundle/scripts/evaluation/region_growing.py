"""Region growing inside the user's box: what a classic gets out of the same image and the same box, without a network.

A network that needs a box should beat it. It stands where an inferer stands, so that it is scored like any mode.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from ..prompts import Prompt

MODE = "region_growing"  # its name among the modes of a report
LEAST_DEVIATION = 1e-3  # of the full range of intensities, where the middle of a box is flat
TO_DEVIATION = 1.4826  # from the median absolute deviation, for a normal distribution


class RegionGrowingInferer:
    """Answers prompts that hold a box.

    Args:
        deviations: how far from the median of the middle of the box an intensity may lie, in standard deviations that
            the median absolute deviation stands for: the border of the target may reach into the middle.
        central: part of each side of the box that counts as its middle, in (0, 1].
    """

    def __init__(self, deviations: float = 2.0, central: float = 1 / 3) -> None:
        self.deviations = deviations
        self.central = central

    def __call__(
        self,
        inputs: torch.Tensor,
        network: Any,
        prompts: Sequence[Prompt],
        text_vectors: Sequence[torch.Tensor | None],
        report: dict[str, Any] | None = None,
    ) -> torch.Tensor:
        """What stands for logits, above 0 in the mask of every target.

        Args:
            inputs: (1, 1, D, H, W) volume.
            network: not used.
            prompts: one per target, with a box in voxels of the volume; nothing else of it is used.
            text_vectors: not used.
            report: receives what an inferer reports; nothing is encoded here.

        Returns:
            (1, targets, D, H, W) float32.

        Raises:
            ValueError: for a prompt without a box.
        """
        volume = inputs[0, 0].cpu().numpy()
        logits = np.full((1, len(prompts), *volume.shape), -1, dtype=np.float32)
        for result, prompt in zip(logits[0], prompts, strict=True):
            box = _slices(prompt)
            result[box][grow(volume[box], self.deviations, self.central)] = 1
        if report is not None:
            told = [{"windows": 0, "message": None} for _ in prompts]
            report.update(encoder_runs=0, decoder_runs=0, targets=told)
        return torch.from_numpy(logits)


def grow(box: NDArray[Any], deviations: float, central: float) -> NDArray[np.bool_]:
    """The connected region around the middle of a box, of intensities like those of the middle.

    It grows from the voxel of the middle that lies deepest among such intensities; then it is closed, and its holes
    are filled.

    Args:
        box: (d, h, w) intensities.
        deviations: see ``RegionGrowingInferer``.
        central: likewise.

    Returns:
        (d, h, w).
    """
    middle = _middle(box.shape, central)
    centre = np.median(box[middle])
    spread = max(TO_DEVIATION * float(np.median(np.abs(box[middle] - centre))), LEAST_DEVIATION)
    alike = np.abs(box - centre) <= deviations * spread
    depth = np.asarray(ndimage.distance_transform_edt(np.pad(alike, 1)))[1:-1, 1:-1, 1:-1][middle]
    deepest = np.unravel_index(int(depth.argmax()), depth.shape)
    regions, _ = ndimage.label(alike)
    region = regions == regions[middle][deepest]
    closed = ndimage.binary_closing(np.pad(region, 1))[1:-1, 1:-1, 1:-1]
    return np.asarray(ndimage.binary_fill_holes(closed))


def _middle(shape: Sequence[int], central: float) -> tuple[slice, ...]:
    """The central part of each axis, at least a voxel of it."""
    edges = [int(n * (1 - central) / 2) for n in shape]
    return tuple(slice(edge, n - edge) for n, edge in zip(shape, edges, strict=True))


def _slices(prompt: Prompt) -> tuple[slice, ...]:
    if prompt.box is None:
        raise ValueError(f"target {prompt.name!r} has no box; {MODE} takes boxes alone")
    first, last = np.rint(prompt.box).astype(np.int64)
    return tuple(slice(int(a), int(b) + 1) for a, b in zip(first, last, strict=True))
