"""BCE + Dice per decoded prompt, true masks and pseudo masks: which count, and how much."""

import torch
from ignite.engine import Engine, Events
from monai.losses import DiceLoss
from torch import nn
from torch.nn import functional as F

from .dense import dense_loss


class PromptLoss(nn.Module):
    """The published loss (paper sections 2.5 and B): true masks + ``pseudo_weight`` x pseudo masks.

    Each is BCE + Dice of a decoded prompt, averaged over those that count. The paper adds them up, which is the same
    but for a factor as long as all six prompts count; a mean keeps the size of a step where some do not. Dice has +1
    in the denominator and runs over one mask at a time. From fresh weights a network first learns to draw nothing, and
    with few foreground voxels it stays there long; a BCE in which foreground and background weigh the same leads out of
    it, and gives way to the published one over the first epochs.

    Args:
        pseudo_weight: of the pseudo masks, where the forward call decoded some.
        balanced_epochs: epochs over which the balanced BCE fades out; 0 is the published loss throughout.
        dense_weight: share of dense supervision (``dense_loss``), where the forward call has its classes.
    """

    def __init__(self, pseudo_weight: float = 0.1, balanced_epochs: int = 0, dense_weight: float = 0.0) -> None:
        super().__init__()
        self.pseudo_weight = pseudo_weight
        self.dense_weight = dense_weight
        self.balanced_epochs = balanced_epochs
        self.balance = 1.0 if balanced_epochs else 0.0
        self.dice = DiceLoss(sigmoid=True, smooth_nr=0, smooth_dr=1, reduction="none")

    def attach(self, engine: Engine) -> None:
        """As a handler: follow the epochs."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda e: self.set_epoch(e.state.epoch))

    def set_epoch(self, epoch: int) -> None:
        """Set the share of the balanced BCE in ``epoch``, counted from 1."""
        self.balance = max(0.0, 1 - (epoch - 1) / self.balanced_epochs) if self.balanced_epochs else 0.0

    def forward(self, output: dict[str, torch.Tensor], target: dict[str, torch.Tensor]) -> torch.Tensor:
        """Weighted mean over combinations and masks.

        Args:
            output: of ``EncodeOnceDecodeMany``: ``logits`` (S, N, 1, d, h, w) and, where there are such,
                ``pseudo_logits`` (M, 1, d, h, w) and ``classes``.
            target: ``masks`` (N, 1, d, h, w), ``weights`` (S, N), 0 where a mask has no such prompt, and
                ``pseudo_masks`` (M, 1, d, h, w), empty where a view had none, and ``classes``.
        """
        logits, weights = output["logits"], target["weights"]
        masks = target["masks"].float().repeat(len(weights), 1, 1, 1, 1)
        loss = self._mean(logits.flatten(0, 1), masks, weights.flatten())
        if "pseudo_logits" in output:
            masks = target["pseudo_masks"].float()
            there = masks.flatten(1).any(dim=1).float()
            loss = loss + self.pseudo_weight * self._mean(output["pseudo_logits"], masks, there)
        if "classes" in output:
            loss = loss + self.dense_weight * dense_loss(output["classes"], target["classes"])
        return loss

    def _mean(self, logits: torch.Tensor, masks: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        """BCE + Dice of (N, 1, d, h, w) logits, averaged with weights (N,); 0 where none counts."""
        if not len(weights):
            return logits.new_zeros(())
        losses = self._bce(logits, masks) + self.dice(logits, masks).reshape(-1)
        return (losses * weights).sum() / weights.sum().clamp(min=1)

    def _bce(self, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """BCE of each mask, (N,)."""
        bce = F.binary_cross_entropy_with_logits(logits, masks, reduction="none").flatten(1)
        if not self.balance:
            return bce.mean(dim=1)
        inside = masks.flatten(1)
        outside = 1 - inside
        halves = [(bce * part).sum(dim=1) / part.sum(dim=1).clamp(min=1) for part in (inside, outside)]
        return self.balance * (halves[0] + halves[1]) / 2 + (1 - self.balance) * bce.mean(dim=1)
