"""SegVol: encode an image window once, decode any number of prompts from the embedding.

The network knows tensors only. Text arrives as vectors (text_encoder.py makes them); ``text_encoder`` is the frozen
CLIP tower that travels in the released weights, kept here so that one state dict holds all of a model.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from monai.networks.blocks.selfattention import SABlock
from monai.networks.nets import ViT
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel

from .fresh_weights import start_image_encoder
from .mask_decoder import MaskDecoder
from .prompt_encoder import PromptEncoder

Size = Literal["base", "small"]


def build_segvol(size: Size = "base", text_encoder: bool | None = None) -> "SegVol":
    """Build SegVol with fresh weights.

    Args:
        size: ``base`` is the released network (181M parameters with its CLIP tower); ``small`` has the same
            architecture at 2M, sized for the weights that ship with the bundle.
        text_encoder: whether to hold the CLIP text tower; by default *base* does and *small* does not.

    Raises:
        ValueError: for any other size.
    """
    if size == "base":
        network = SegVol(
            window_size=(32, 256, 256),
            patch_size=(4, 16, 16),
            embed_dim=768,
            num_layers=12,
            num_heads=12,
            mlp_dim=3072,
            decoder_depth=2,
            decoder_heads=8,
            decoder_mlp_dim=2048,
            iou_hidden=256,
            text_dim=512,
            exchanged_axes=True,
            fourier_scale=1.0,
        )
    elif size == "small":
        network = SegVol(
            window_size=(32, 64, 64),
            patch_size=(8, 8, 8),
            embed_dim=128,
            num_layers=6,
            num_heads=4,
            mlp_dim=512,
            decoder_depth=2,
            decoder_heads=4,
            decoder_mlp_dim=256,
            iou_hidden=64,
            text_dim=256,
            exchanged_axes=False,
            fourier_scale=0.3,
        )
        nn.init.normal_(network.text_align.weight)  # its text vectors are one-hot: the columns are an embedding table
        start_image_encoder(network.image_encoder, network.patch_size, network.grid_size)
    else:
        raise ValueError(f"size is {size!r}; allowed are 'base' and 'small'")
    if size == "base" if text_encoder is None else text_encoder:
        network.text_encoder = CLIPTextModel(CLIPTextConfig()).requires_grad_(False)
    return network


class SegVol(nn.Module):
    """Promptable 3D segmentation (Du et al., NeurIPS 2024, section 2.2).

    Args:
        window_size: (d, h, w) of the input in voxels.
        patch_size: (d, h, w) of one ViT patch; divides the window.
        embed_dim: channels of image embedding and tokens.
        num_layers: ViT blocks.
        num_heads: ViT attention heads.
        mlp_dim: ViT MLP size.
        decoder_depth: two-way attention blocks.
        decoder_heads: attention heads of the decoder.
        decoder_mlp_dim: MLP size of the decoder.
        iou_hidden: hidden size of the decoder's unused quality head.
        text_dim: length of the text vectors that ``decode`` takes.
        exchanged_axes: the released weights' positional encoding of prompts; see ``RandomFourierEncoding``.
        fourier_scale: deviation of its frequencies, for fresh weights.
    """

    # torch.jit.script leaves the CLIP tower out: an exported network takes vectors
    __jit_ignored_attributes__ = ["text_encoder"]

    def __init__(
        self,
        window_size: Sequence[int],
        patch_size: Sequence[int],
        embed_dim: int,
        num_layers: int,
        num_heads: int,
        mlp_dim: int,
        decoder_depth: int,
        decoder_heads: int,
        decoder_mlp_dim: int,
        iou_hidden: int,
        text_dim: int,
        exchanged_axes: bool,
        fourier_scale: float,
    ) -> None:
        super().__init__()
        d, h, w = (n // p for n, p in zip(window_size, patch_size, strict=True))
        self.window_size = (int(window_size[0]), int(window_size[1]), int(window_size[2]))
        self.patch_size = (int(patch_size[0]), int(patch_size[1]), int(patch_size[2]))
        self.grid_size = (d, h, w)
        self.text_dim = text_dim
        self.image_encoder = _vit(window_size, patch_size, embed_dim, num_layers, num_heads, mlp_dim)
        self.prompt_encoder = PromptEncoder(embed_dim, self.window_size, self.grid_size, exchanged_axes, fourier_scale)
        self.mask_decoder = MaskDecoder(
            embed_dim, self.grid_size, decoder_depth, decoder_heads, decoder_mlp_dim, iou_hidden
        )
        self.text_align = nn.Linear(text_dim, embed_dim)
        self.text_encoder: nn.Module | None = None

    def forward(
        self,
        image: torch.Tensor,
        points: torch.Tensor | None = None,
        point_labels: torch.Tensor | None = None,
        boxes: torch.Tensor | None = None,
        text: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Encode ``image`` (B, 1, *window_size) in [0, 1] and decode the prompts; see ``decode``."""
        return self.decode(self.encode(image), points, point_labels, boxes, text)

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        """Image embedding of a window: (B, 1, *window_size) in [0, 1] to (B, C, *grid_size)."""
        d, h, w = self.grid_size
        tokens, _ = self.image_encoder(image)
        return tokens.transpose(1, 2).reshape(image.shape[0], -1, d, h, w)

    def decode(
        self,
        embedding: torch.Tensor,
        points: torch.Tensor | None = None,
        point_labels: torch.Tensor | None = None,
        boxes: torch.Tensor | None = None,
        text: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mask logits for prompts on encoded windows; without any prompt one mask per window.

        Args:
            embedding: (B, C, *grid_size) from ``encode``.
            points: (N, P, 3) voxels of the window in (d, h, w); N is B or a multiple of it, the prompts of
                one window one after another.
            point_labels: (N, P): 1 positive, 0 negative, -1 ignored.
            boxes: (N, 6) voxels d0, h0, w0, d1, h1, w1, the maximum inclusive.
            text: (N, text_dim) text vectors.

        Returns:
            (N, 1, *window_size) logits; the mask is where they are above 0.

        Raises:
            ValueError: for points without labels or labels without points.
        """
        if (points is None) != (point_labels is None):
            raise ValueError("points and point_labels come together")
        n = embedding.shape[0]
        if points is not None:
            n = points.shape[0]
        elif boxes is not None:
            n = boxes.shape[0]
        elif text is not None:
            n = text.shape[0]
        aligned = None if text is None else self.text_align(text)
        tokens = self.prompt_encoder(n, points, point_labels, boxes, aligned)
        prompted = embedding + self.prompt_encoder.dense()
        prompted = prompted.repeat_interleave(n // embedding.shape[0], dim=0)
        logits = self.mask_decoder(prompted, self.prompt_encoder.dense_positions(), tokens, aligned)
        return F.interpolate(logits, self.window_size, mode="trilinear", align_corners=False)


def _vit(
    window_size: Sequence[int],
    patch_size: Sequence[int],
    embed_dim: int,
    num_layers: int,
    num_heads: int,
    mlp_dim: int,
) -> ViT:
    vit = ViT(1, window_size, patch_size, embed_dim, mlp_dim, num_layers, num_heads, proj_type="perceptron")
    for block in vit.blocks:
        attention = block.get_submodule("attn")
        assert isinstance(attention, SABlock)
        attention.use_flash_attention = True  # ViT does not pass the flag on
        block.norm_cross_attn = nn.Identity()  # never read; as parameters they would leave DDP waiting
    return vit
