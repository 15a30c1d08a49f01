"""The one forward call of training, and what a batch becomes for it.

Everything that is trained runs inside ``EncodeOnceDecodeMany.forward``: a data-parallel wrapper sees every gradient,
and one image embedding serves all prompt combinations and pseudo masks of Algorithm 1 (paper, section B).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from ..arguments import exit_on_error, one_of
from ..network import SegVol
from .activations import checkpoint_blocks

COMBINATIONS = ("point+text", "box+text", "text", "box", "point", "point+box")

Tensors = dict[str, torch.Tensor]


class EncodeOnceDecodeMany(nn.Module):
    """A SegVol with all prompts of a step on one embedding.

    Args:
        network: the SegVol that is trained.
        bfloat16: compute in bfloat16 where it is safe (autocast), on any device.
        dense_head: names the voxels from the same embedding, for dense supervision.
        checkpoint_activations: compute the image encoder's activations again in the backward pass instead of
            keeping them: less memory, more time, the same gradients. It changes ``network`` for good.
    """

    def __init__(
        self,
        network: SegVol,
        bfloat16: bool = False,
        dense_head: nn.Module | None = None,
        checkpoint_activations: bool = False,
    ) -> None:
        super().__init__()
        self.network = network
        self.use_bfloat16 = bfloat16
        self.dense_head = dense_head
        if checkpoint_activations:
            checkpoint_blocks(network.image_encoder)

    def forward(
        self, image: torch.Tensor, prompts: Tensors, combinations: Sequence[str], pseudo: Tensors | None = None
    ) -> Tensors:
        """Decode every combination for every true mask, and every pseudo mask by its one prompt.

        Args:
            image: (B, 1, d, h, w) in [0, 1].
            prompts: ``points`` (N, P, 3), ``point_labels`` (N, P), ``boxes`` (N, 6), ``text`` (N, text_dim), with N
                a multiple of B.
            combinations: names like ``point+text``.
            pseudo: ``points`` (M, P, 3), ``point_labels`` (M, P) and ``boxes`` (M, 6), with M a multiple of B; None
                for no pseudo masks.

        Returns:
            ``logits`` (S, N, 1, d, h, w), float32; with pseudo prompts ``pseudo_logits`` (2M, 1, d, h, w), those by
            points first; with a dense head ``classes`` (B, K, d/2, h/2, w/2).
        """
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self.use_bfloat16):
            embedding = self.network.encode(image)
            decoded = [self.network.decode(embedding, **_chosen(prompts, name)) for name in combinations]
            pseudo_decoded = [
                self.network.decode(embedding, **_chosen(pseudo, name)) for name in ("point", "box") if pseudo
            ]
            classes = None if self.dense_head is None else self.dense_head(embedding)
        n = len(prompts["boxes"]) if "boxes" in prompts else len(image)
        nothing = image.new_zeros(0, n, 1, *image.shape[2:])
        output = {"logits": torch.stack(decoded).float() if decoded else nothing}
        if pseudo_decoded:
            output["pseudo_logits"] = torch.cat(pseudo_decoded).float()
        if classes is not None:
            output["classes"] = classes.float()
        return output


class PrepareBatch:
    """Turns a collated batch into what a MONAI engine hands to the network and the loss.

    Args:
        text_encoder: name -> vector.
        text_dim: length of the vectors.
        combinations: the prompt combinations to choose from, of ``COMBINATIONS``.
        per_step: at most so many of them a batch decodes, drawn with the batch's first view; None decodes all, as
            Algorithm 1 does. Fewer make room for more views in the same time; 0 leaves dense supervision alone.

    Raises:
        SystemExit: one line, for another combination, and for a negative ``per_step``.
    """

    def __init__(
        self,
        text_encoder: Any,
        text_dim: int,
        combinations: Sequence[str] = COMBINATIONS,
        per_step: int | None = None,
    ) -> None:
        with exit_on_error():
            self.combinations = tuple(one_of(name, COMBINATIONS, "combinations") for name in combinations)
            if per_step is not None and (not isinstance(per_step, int) or per_step < 0):
                raise ValueError(f"combinations_per_step is {per_step!r}; it takes a whole number from 0")
        self.text_encoder = text_encoder
        self.text_dim = text_dim
        self.per_step = len(self.combinations) if per_step is None else min(per_step, len(self.combinations))
        self._resolved: dict[str | None, str | None] = {None: None}

    def __call__(self, batch: dict[str, Any], device: torch.device, non_blocking: bool = False, **_: Any) -> tuple:
        """Returns (image, target, args, kwargs) as ``SupervisedTrainer`` takes them."""
        moved = {k: v.to(device, non_blocking=non_blocking) for k, v in batch.items() if isinstance(v, torch.Tensor)}
        vectors, known = self._vectors_for(batch["names"])
        prompts = {key: moved[key] for key in ("points", "point_labels", "boxes")} | {"text": vectors.to(device)}
        chosen = self._draw(int(batch["draw"]))
        masks = moved["masks"]
        target = {"masks": masks, "weights": _weights(chosen, masks, known.to(device))}
        pseudo = None
        if "pseudo_boxes" in moved:
            pseudo = {key: moved[f"pseudo_{key}"] for key in ("points", "point_labels", "boxes")}
            target["pseudo_masks"] = torch.cat([moved["pseudo_point_masks"], moved["pseudo_box_masks"]])
        if "classes" in moved:
            target["classes"] = moved["classes"]
        return moved["image"], target, (), {"prompts": prompts, "combinations": chosen, "pseudo": pseudo}

    def _vectors_for(self, names: Sequence[str | None]) -> tuple[torch.Tensor, torch.Tensor]:
        """Text vectors (N, text_dim), zeros where there is no text for a name, and (N,) which have one."""
        for name in names:
            if name is not None and name not in self._resolved:
                self._resolved[name] = self._resolve(name)
        resolved = [self._resolved[name] for name in names]
        known = torch.tensor([name is not None for name in resolved])
        vectors = torch.zeros(len(names), self.text_dim)
        if known.any():
            encoded = self.text_encoder([name for name in resolved if name is not None])
            vectors[known] = encoded.to(vectors)
        return vectors, known

    def _resolve(self, name: str) -> str | None:
        try:
            return str(self.text_encoder.resolve(name))
        except ValueError:  # a label that the table has no row for trains by points and boxes alone
            if not hasattr(self.text_encoder, "names"):  # CLIP, which takes any name, has another complaint
                raise
            return None

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


def _chosen(prompts: Mapping[str, torch.Tensor], combination: str) -> Tensors:
    chosen: Tensors = {}
    if "point" in combination:
        chosen |= {"points": prompts["points"], "point_labels": prompts["point_labels"]}
    if "box" in combination:
        chosen["boxes"] = prompts["boxes"]
    if "text" in combination:
        chosen["text"] = prompts["text"]
    return chosen
