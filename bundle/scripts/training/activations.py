"""Activation checkpointing: memory for time."""

from functools import partial

from monai.networks.nets import ViT
from torch.utils.checkpoint import checkpoint


def checkpoint_blocks(vit: ViT) -> None:
    """Let the blocks of ``vit`` keep their inputs alone, and compute again in the backward pass."""
    for block in vit.blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
