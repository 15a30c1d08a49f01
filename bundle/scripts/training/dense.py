"""Dense supervision: the image encoder learns to name every voxel, beside or before the prompts.

A ViT that only ever hears about one prompted structure at a time learns slowly. Where the labels of a view name many
structures, a linear head on the image embedding tells it about all of them at once; the head is thrown away afterwards.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.nn import functional as F

UNKNOWN = -1  # a voxel of which the labels say nothing
STRIDE = 2  # voxels of a view per voxel of the head's output, along each axis


class DenseHead(nn.Module):
    """Voxel-wise classes from an image embedding, at half the resolution of the window.

    Args:
        embed_dim: channels of the embedding.
        patch_size: (d, h, w) voxels that one token of the embedding stands for; even numbers.
        classes: structures; class 0 is the background beside them.
    """

    def __init__(self, embed_dim: int, patch_size: Sequence[int], classes: int) -> None:
        super().__init__()
        self.block = tuple(n // STRIDE for n in patch_size)
        self.classes = classes + 1
        self.linear = nn.Linear(embed_dim, self.classes * self.block[0] * self.block[1] * self.block[2])

    def forward(self, embedding: torch.Tensor) -> torch.Tensor:
        """(B, C, *grid) embedding to (B, classes + 1, *half_window) logits."""
        b, _, d, h, w = embedding.shape
        x, y, z = self.block
        logits = self.linear(embedding.permute(0, 2, 3, 4, 1)).reshape(b, d, h, w, self.classes, x, y, z)
        return logits.permute(0, 4, 1, 5, 2, 6, 3, 7).reshape(b, self.classes, d * x, h * y, w * z)


def class_map(
    label: torch.Tensor, names: Mapping[int, str | None], rows: Mapping[str, int], complete: bool
) -> torch.Tensor:
    """What a view's labels say of each voxel of a ``DenseHead``'s output.

    Args:
        label: (d, h, w) label values.
        names: label value -> name, None for a structure without one.
        rows: name -> row of the head's classes, counted from 0; other names are unknown.
        complete: whether every structure of ``rows`` is labelled wherever it is, so that the rest is background.

    Returns:
        int64, ``label.shape / STRIDE``: 0 background, row + 1, or ``UNKNOWN``.
    """
    values = torch.full((int(label.max()) + 1,), UNKNOWN, dtype=torch.int64)
    values[0] = 0 if complete else UNKNOWN
    for value, name in names.items():
        if name is not None and value < len(values) and name in rows:
            values[value] = rows[name] + 1
    return values[label[::STRIDE, ::STRIDE, ::STRIDE].long()]


def dense_loss(logits: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
    """Cross entropy + Dice over the structures that are there; unknown voxels do not count.

    Args:
        logits: (B, K, d, h, w).
        classes: (B, d, h, w) int64, ``UNKNOWN`` where the labels say nothing.
    """
    known = (classes != UNKNOWN).unsqueeze(1)
    truth = F.one_hot(classes.clamp(min=0), logits.shape[1]).permute(0, 4, 1, 2, 3) * known
    log_share = logits.float().log_softmax(dim=1)
    entropy = -(truth * log_share).sum() / known.sum().clamp(min=1)
    share = log_share.exp() * known
    overlap = 2 * (share * truth).sum(dim=(0, 2, 3, 4))
    size, there = (share + truth).sum(dim=(0, 2, 3, 4)), truth.sum(dim=(0, 2, 3, 4)) > 0
    there[0] = False
    dice = 1 - (overlap / (size + 1))[there]
    return entropy + (dice.mean() if len(dice) else 0)
