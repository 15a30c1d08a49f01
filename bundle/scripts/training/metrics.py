"""Which part of a training output a metric reads."""

from collections.abc import Callable
from typing import Any

import torch


def masks_of(combination: str | None, combinations: tuple[str, ...]) -> Callable[[dict[str, Any]], tuple]:
    """An ignite ``output_transform``: predicted and true masks of one prompt combination, of all for None.

    Only prompts whose mask is not empty count: Dice says nothing about an absent structure.
    """

    def transform(output: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        weights, masks = output["label"]["weights"], output["label"]["masks"]
        counted = (weights > 0) & masks.flatten(1).any(dim=1)
        if combination is not None:
            counted = counted & torch.tensor([c == combination for c in combinations], device=masks.device)[:, None]
        if not counted.any():  # a metric takes no empty batch, but skips a pair of empty masks
            nothing = torch.zeros_like(masks[:1], dtype=torch.float32)
            return nothing, nothing
        truth = masks.expand(len(combinations), *masks.shape)
        return (output["pred"]["logits"] > 0)[counted].float(), truth[counted].float()

    return transform
