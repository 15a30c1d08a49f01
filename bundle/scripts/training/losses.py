"""BCE + Dice per decoded prompt, and which prompts count."""

import torch
from monai.losses import DiceLoss
from torch import nn
from torch.nn import functional as F


class PromptLoss(nn.Module):
    """The published loss (paper section 2.5): BCE + Dice for each prompt combination, averaged over those that count.

    Dice has +1 in the denominator and runs over one mask at a time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.dice = DiceLoss(sigmoid=True, smooth_nr=0, smooth_dr=1, reduction="none")

    def forward(self, logits: torch.Tensor, target: dict[str, torch.Tensor]) -> torch.Tensor:
        """Weighted mean over combinations and masks.

        Args:
            logits: (S, N, 1, d, h, w): S prompt combinations for each of N masks.
            target: ``masks`` (N, 1, d, h, w), and ``weights`` (S, N), 0 where a mask has no such prompt.
        """
        weights = target["weights"]
        s, n = weights.shape
        flat = logits.flatten(0, 1).float()
        masks = target["masks"].float().repeat(s, 1, 1, 1, 1)
        bce = F.binary_cross_entropy_with_logits(flat, masks, reduction="none").mean(dim=(1, 2, 3, 4))
        losses = (bce + self.dice(flat, masks).reshape(-1)).reshape(s, n)
        return (losses * weights).sum() / weights.sum().clamp(min=1)
