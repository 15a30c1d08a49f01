"""What reconstructions are compared with: the truth, and what whoever predicts a mean would reach."""

from collections.abc import Callable
from typing import Any

import torch

Pair = tuple[torch.Tensor, torch.Tensor]


def hidden_voxels(output: dict[str, Any]) -> Pair:
    """An ignite ``output_transform``: the hidden voxels, reconstructed and true, (B, n) each."""
    return _hidden(output["pred"], output), _truth(output)


def mean_of_view(output: dict[str, Any]) -> Pair:
    """The same for a network that answers with the mean of a view's visible voxels."""
    return _constant(_visible(output).mean(dim=1, keepdim=True), output)


def median_of_view(output: dict[str, Any]) -> Pair:
    """The same for their median: of all constants the one that L1 likes best."""
    return _constant(_visible(output).median(dim=1, keepdim=True).values, output)


def mean_of_data(value: float) -> Callable[[dict[str, Any]], Pair]:
    """The same for one that answers with ``value``, the mean of all voxels of the training images."""

    def transform(output: dict[str, Any]) -> Pair:
        truth = _truth(output)
        return torch.full_like(truth, value), truth

    return transform


def _truth(output: dict[str, Any]) -> torch.Tensor:
    return _hidden(output["label"]["image"], output)


def _hidden(volume: torch.Tensor, output: dict[str, Any]) -> torch.Tensor:
    """Of (B, 1, d, h, w) what is hidden, (B, n): every mask hides the same number."""
    return volume.masked_select(output["label"]["mask"]).reshape(len(volume), -1)


def _visible(output: dict[str, Any]) -> torch.Tensor:
    image = output["label"]["image"]
    return image.masked_select(~output["label"]["mask"]).reshape(len(image), -1)


def _constant(values: torch.Tensor, output: dict[str, Any]) -> Pair:
    """Answer with one of ``values`` (B, 1) for each view."""
    truth = _truth(output)
    return values.expand_as(truth), truth
