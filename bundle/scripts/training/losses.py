"""BCE + Dice per decoded prompt: which prompts count, and how much the rare foreground voxels weigh."""

import torch
from ignite.engine import Engine, Events
from monai.losses import DiceLoss
from torch import nn
from torch.nn import functional as F

from .dense import dense_loss


class PromptLoss(nn.Module):
    """The published loss (paper section 2.5): BCE + Dice for each prompt combination, averaged over those that count.

    Dice has +1 in the denominator and runs over one mask at a time. From fresh weights a network first learns to draw
    nothing, and with few foreground voxels it stays there long; a BCE in which foreground and background weigh the
    same leads out of it, and gives way to the published one over the first epochs.

    Args:
        balanced_epochs: epochs over which the balanced BCE fades out; 0 is the published loss throughout.
        dense_weight: share of dense supervision (``dense_loss``), where the forward call answers with a pair.
    """

    def __init__(self, balanced_epochs: int = 0, dense_weight: float = 0.0) -> None:
        super().__init__()
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

    def forward(
        self, logits: torch.Tensor | tuple[torch.Tensor, torch.Tensor], target: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """Weighted mean over combinations and masks.

        Args:
            logits: (S, N, 1, d, h, w): S prompt combinations for each of N masks; or a pair with those of a dense
                head.
            target: ``masks`` (N, 1, d, h, w), ``weights`` (S, N), 0 where a mask has no such prompt, and ``classes``
                for a dense head.
        """
        if isinstance(logits, tuple):
            prompted, named = logits
            return self(prompted, target) + self.dense_weight * dense_loss(named, target["classes"])
        weights = target["weights"]
        s, n = weights.shape
        if s == 0:
            return logits.new_zeros(())
        flat = logits.flatten(0, 1).float()
        masks = target["masks"].float().repeat(s, 1, 1, 1, 1)
        losses = (self._bce(flat, masks) + self.dice(flat, masks).reshape(-1)).reshape(s, n)
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
