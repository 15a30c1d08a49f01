"""The one forward call of training, and what a batch becomes for it.

Everything that is trained runs inside ``EncodeOnceDecodeMany.forward``: a data-parallel wrapper sees every gradient,
and one image embedding serves all prompt combinations of Algorithm 1 (paper, section B).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ..network import SegVol

COMBINATIONS = ("point+text", "box+text", "text", "box", "point", "point+box")


class EncodeOnceDecodeMany(nn.Module):
    """A SegVol with the six prompt combinations on one embedding.

    Args:
        network: the SegVol that is trained.
        bfloat16: compute in bfloat16 where it is safe (autocast), on any device.
        dense_head: names the voxels from the same embedding, for dense supervision.
    """

    def __init__(self, network: SegVol, bfloat16: bool = False, dense_head: nn.Module | None = None) -> None:
        super().__init__()
        self.network = network
        self.use_bfloat16 = bfloat16
        self.dense_head = dense_head

    def forward(
        self, image: torch.Tensor, prompts: dict[str, torch.Tensor], combinations: Sequence[str]
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """Decode every combination for every mask.

        Args:
            image: (B, 1, d, h, w) in [0, 1].
            prompts: ``points`` (N, P, 3), ``point_labels`` (N, P), ``boxes`` (N, 6), ``text`` (N, text_dim), with N
                a multiple of B.
            combinations: names like ``point+text``.

        Returns:
            (S, N, 1, d, h, w) logits, float32; with a dense head also its logits (B, K, d/2, h/2, w/2).
        """
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self.use_bfloat16):
            embedding = self.network.encode(image)
            logits = [self.network.decode(embedding, **_chosen(prompts, name)) for name in combinations]
            classes = None if self.dense_head is None else self.dense_head(embedding)
        n = len(prompts["boxes"]) if "boxes" in prompts else len(image)
        stacked = torch.stack(logits).float() if logits else image.new_zeros(0, n, 1, *image.shape[2:])
        return stacked if classes is None else (stacked, classes.float())


class PrepareBatch:
    """Turns a collated batch into what a MONAI engine hands to the network and the loss.

    Args:
        text_encoder: name -> vector.
        combinations: the prompt combinations to choose from.
        per_step: how many of them a batch decodes, drawn with the batch's first view; None decodes all, as
            Algorithm 1 does. Fewer make room for more views in the same time; 0 leaves dense supervision alone.
    """

    def __init__(
        self, text_encoder: Any, combinations: Sequence[str] = COMBINATIONS, per_step: int | None = None
    ) -> None:
        self.text_encoder = text_encoder
        self.combinations = tuple(combinations)
        self.per_step = len(self.combinations) if per_step is None else per_step

    def __call__(self, batch: dict[str, Any], device: torch.device, non_blocking: bool = False, **_: Any) -> tuple:
        """Returns (image, target, args, kwargs) as ``SupervisedTrainer`` takes them."""
        names, known = self._vectors_for(batch["names"])
        prompts = {k: batch[k].to(device, non_blocking=non_blocking) for k in ("points", "point_labels", "boxes")}
        prompts["text"] = self.text_encoder(names).to(device)
        masks = batch["masks"].to(device, non_blocking=non_blocking)
        chosen = self._draw(int(batch["draw"]))
        target = {"masks": masks, "weights": _weights(chosen, masks, known.to(device))}
        if "classes" in batch:
            target["classes"] = batch["classes"].to(device, non_blocking=non_blocking)
        image = batch["image"].to(device, non_blocking=non_blocking)
        return image, target, (), {"prompts": prompts, "combinations": chosen}

    def _vectors_for(self, names: Sequence[str]) -> tuple[list[str], torch.Tensor]:
        resolved, known = [], []
        for name in names:
            try:
                resolved.append(self.text_encoder.resolve(name))
                known.append(True)
            except ValueError:  # a label that the table has no row for trains by points and boxes alone
                if not hasattr(self.text_encoder, "names"):  # CLIP, which takes any name, has another complaint
                    raise
                resolved.append(self.text_encoder.names[0])
                known.append(False)
        return resolved, torch.tensor(known)

    def _draw(self, seed: int) -> tuple[str, ...]:
        if self.per_step == len(self.combinations):
            return self.combinations
        picked = np.random.default_rng(seed).choice(len(self.combinations), self.per_step, replace=False)
        return tuple(self.combinations[i] for i in sorted(picked))


def _weights(combinations: Sequence[str], masks: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
    """(S, N): text counts for known names, points and boxes where there is something to point at."""
    present = masks.flatten(1).any(dim=1)
    rows = []
    for combination in combinations:
        usable = known if "text" in combination else torch.ones_like(known)
        rows.append(usable if combination == "text" else usable & present)
    return torch.stack(rows).float() if rows else masks.new_zeros(0, len(masks), dtype=torch.float32)


def _chosen(prompts: dict[str, torch.Tensor], combination: str) -> dict[str, torch.Tensor]:
    chosen: dict[str, torch.Tensor] = {}
    if "point" in combination:
        chosen |= {"points": prompts["points"], "point_labels": prompts["point_labels"]}
    if "box" in combination:
        chosen["boxes"] = prompts["boxes"]
    if "text" in combination:
        chosen["text"] = prompts["text"]
    return chosen
