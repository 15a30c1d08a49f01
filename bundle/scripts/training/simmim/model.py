"""The network of SimMIM around SegVol's image encoder, its one forward call, and its loss.

Z. Xie et al., SimMIM: a Simple Framework for Masked Image Modeling, CVPR 2022: hidden patches become a learned token
before positions are added, and one linear layer answers with the voxels.
"""

from typing import Any

import torch
from monai.losses import MaskedLoss
from torch import nn

from ...arguments import as_path, exit_on_error
from ...checkpoints import load_image_encoder
from ...network import SegVol
from ..activations import checkpoint_blocks


class SimMIM(nn.Module):
    """An image encoder that draws the hidden patches of a window.

    Args:
        network: the SegVol whose image encoder is trained; its parameters keep their names (``image_encoder.*``).
        bfloat16: compute in bfloat16 where it is safe (autocast), on any device.
        checkpoint_activations: compute the blocks' activations again in the backward pass instead of keeping them. It
            changes ``network`` for good.
    """

    def __init__(self, network: SegVol, bfloat16: bool = False, checkpoint_activations: bool = False) -> None:
        super().__init__()
        self.patch_size = network.patch_size
        self.grid_size = network.grid_size
        self.use_bfloat16 = bfloat16
        self.image_encoder = network.image_encoder
        embed_dim = network.text_align.out_features
        self.mask_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        d, h, w = self.patch_size
        self.head = nn.Linear(embed_dim, d * h * w)
        for weight in (self.mask_token, self.head.weight):
            nn.init.trunc_normal_(weight, std=0.02)
        nn.init.zeros_(self.head.bias)
        if checkpoint_activations:
            checkpoint_blocks(network.image_encoder)

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Reconstruct a window of which some patches are hidden.

        Args:
            image: (B, 1, d, h, w) in [0, 1].
            mask: (B, 1, d, h, w) bool, True where hidden, whole patches.

        Returns:
            (B, 1, d, h, w) float32; where nothing was hidden it means nothing.
        """
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self.use_bfloat16):
            tokens = self.head(self._encode(image, self._hidden(mask)))
        return self.to_voxels(tokens.float())

    def to_voxels(self, tokens: torch.Tensor) -> torch.Tensor:
        """(B, patches, voxels of a patch), each in the patch embedding's order, to (B, 1, d, h, w)."""
        b = tokens.shape[0]
        d, h, w = self.grid_size
        x, y, z = self.patch_size
        voxels = tokens.reshape(b, d, h, w, x, y, z).permute(0, 1, 4, 2, 5, 3, 6)
        return voxels.reshape(b, 1, d * x, h * y, w * z)

    def _hidden(self, mask: torch.Tensor) -> torch.Tensor:
        """(B, 1, d, h, w) to (B, patches, 1)."""
        x, y, z = self.patch_size
        return mask[:, 0, ::x, ::y, ::z].flatten(1).unsqueeze(2)

    def _encode(self, image: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """``ViT.forward`` with the mask token in place of hidden patches."""
        vit = self.image_encoder
        embedding = vit.patch_embedding
        tokens = embedding.patch_embeddings(image)
        tokens = torch.where(hidden, self.mask_token.to(tokens.dtype), tokens)
        tokens = embedding.dropout(tokens + embedding.position_embeddings)
        for block in vit.blocks:
            tokens = block(tokens)
        return vit.norm(tokens)


class ReconstructionLoss(nn.Module):
    """L1 over the hidden voxels, divided by their number (paper section 2.5, equation 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.l1 = MaskedLoss(nn.L1Loss(reduction="sum"))

    def forward(self, reconstruction: torch.Tensor, target: dict[str, torch.Tensor]) -> torch.Tensor:
        """Compare (B, 1, d, h, w) with ``target``: ``image``, and ``mask``, True where hidden."""
        mask = target["mask"]
        return self.l1(reconstruction, target["image"], mask) / mask.sum()


def prepare_masked(batch: dict[str, Any], device: torch.device, non_blocking: bool = False, **_: Any) -> tuple:
    """A batch of ``UnlabelledViews`` as (image, target, args, kwargs), which MONAI's engines take."""
    image, mask = (batch[key].to(device, non_blocking=non_blocking) for key in ("image", "mask"))
    return image, {"image": image, "mask": mask}, (), {"mask": mask}


@exit_on_error()
def start_from(network: SegVol, path: Any) -> None:
    """Take the image encoder of ``path``, a file of pre-training or a whole model, as a step of a config.

    Raises:
        SystemExit: one line, for a file that does not hold the whole encoder.
    """
    load_image_encoder(network, as_path(path, "checkpoint") or "")
