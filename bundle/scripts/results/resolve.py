"""Where targets overlap: logits become one mask per target and one label map."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.data import MetaTensor
from monai.transforms import Transform


class ResolveTargetsd(Transform):
    """Turn the logits ``pred`` into ``masks`` and ``label``, in the model frame and ready for ``Invertd``.

    See ``resolve_targets``. Both carry the meta data of ``image``. ``pred`` becomes None: it is by far the largest
    tensor of a case, and the engine would hold on to one that is merely left out.
    """

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Resolve (1, T, D, H, W) logits."""
        d = dict(data)
        masks, label = resolve_targets(plain(d["pred"])[0])
        for key, value in (("masks", masks), ("label", label)):
            d[key] = MetaTensor(value).copy_meta_from(d["image"])
        return d | {"pred": None}


def resolve_targets(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Masks of all targets, and the label map in which the strongest has a voxel.

    Args:
        logits: (T, D, H, W); a mask is where they are above 0.

    Returns:
        Masks (T, D, H, W) uint8, and the label map (1, D, H, W), uint8 or from 256 targets uint16: t + 1 where the
        mask of target t is on and its logit is the highest (the earlier target's at a tie), else 0. Both on the CPU.
    """
    best = torch.zeros_like(logits[0])
    label = torch.zeros_like(best, dtype=torch.int32)
    masks = torch.empty(logits.shape, dtype=torch.uint8)
    for index, target in enumerate(logits):
        masks[index] = target > 0
        higher = target > best
        best[higher] = target[higher]
        label[higher] = index + 1
    return masks, label[None].cpu().to(torch.uint8 if len(logits) < 256 else torch.uint16)


def plain(tensor: torch.Tensor) -> torch.Tensor:
    """Without meta data, which would slow down every operation and be copied with every part."""
    return tensor.as_tensor() if isinstance(tensor, MetaTensor) else tensor
