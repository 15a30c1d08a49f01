"""Image embedding and prompt tokens become mask logits: SAM's two-way decoder in 3D with SegVol's text branch."""

import torch
from monai.networks.nets.vista3d import MLP, Attention, TwoWayTransformer
from torch import nn
from torch.nn import functional as F

MASK_TOKENS = 4  # the released weights hold four; only the first is read


class MaskDecoder(nn.Module):
    """Two-way attention, upscaling by four, a hypernetwork mask and the similarity with the text vector.

    Args:
        embed_dim: channels of image embedding and tokens; divisible by 8.
        grid_size: (d, h, w) of the image embedding.
        depth: two-way attention blocks.
        num_heads: attention heads.
        mlp_dim: hidden size of the blocks' MLP.
        iou_hidden: hidden size of the (unused) quality head.
    """

    def __init__(
        self,
        embed_dim: int,
        grid_size: tuple[int, int, int],
        depth: int,
        num_heads: int,
        mlp_dim: int,
        iou_hidden: int,
    ) -> None:
        super().__init__()
        self.transformer = TwoWayTransformer(depth, embed_dim, num_heads, mlp_dim)
        _use_sdpa(self.transformer)
        self.iou_token = nn.Embedding(1, embed_dim)
        self.mask_tokens = nn.Embedding(MASK_TOKENS, embed_dim)
        self.output_upscaling = nn.Sequential(
            nn.ConvTranspose3d(embed_dim, embed_dim // 4, kernel_size=2, stride=2),
            nn.LayerNorm((embed_dim // 4, *(2 * n for n in grid_size))),
            nn.GELU(),
            nn.ConvTranspose3d(embed_dim // 4, embed_dim // 8, kernel_size=2, stride=2),
            nn.GELU(),
        )
        self.output_hypernetworks_mlps = nn.ModuleList(
            [MLP(embed_dim, embed_dim, embed_dim // 8, 3) for _ in range(MASK_TOKENS)]
        )
        self.iou_prediction_head = MLP(embed_dim, iou_hidden, MASK_TOKENS, 3)
        self.txt_align_upscaled_embedding = nn.Linear(embed_dim, embed_dim // 8)
        self._freeze_unread()

    def forward(
        self,
        embedding: torch.Tensor,
        positions: torch.Tensor,
        tokens: torch.Tensor,
        text: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Decode one mask per prompt.

        Args:
            embedding: (N, C, d, h, w) image embedding with the dense prompt added.
            positions: (1, C, d, h, w) positional encoding of the grid.
            tokens: (N, T, C) prompt tokens.
            text: (N, C) aligned text vectors, or None.

        Returns:
            (N, 1, 4 * d, 4 * h, 4 * w) logits.
        """
        n, c, d, h, w = embedding.shape
        output_tokens = torch.cat([self.iou_token.weight, self.mask_tokens.weight]).expand(n, -1, -1)
        tokens = torch.cat([output_tokens, tokens], dim=1)
        tokens, features = self.transformer(embedding, positions.expand(n, -1, -1, -1, -1), tokens)
        upscaled = self.output_upscaling(features.transpose(1, 2).reshape(n, c, d, h, w))
        kernel = self.output_hypernetworks_mlps[0](tokens[:, 1])
        if text is not None:  # the paper says multiplied; the released weights were trained with the sum
            kernel = kernel + self.txt_align_upscaled_embedding(text)
        return torch.einsum("nc,ncdhw->ndhw", kernel, upscaled).unsqueeze(1)

    def _freeze_unread(self) -> None:
        """Parameters that only exist in the released files take no gradient, so that DDP waits for none."""
        for module in (self.iou_prediction_head, *list(self.output_hypernetworks_mlps)[1:]):
            module.requires_grad_(False)


class SdpaAttention(Attention):
    """MONAI's SAM attention by ``scaled_dot_product_attention``: same parameters, same numbers, less memory."""

    def forward(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Attend ``q`` (N, Tq, C) to ``k`` and ``v`` (N, Tk, C); returns (N, Tq, C)."""
        q = self._separate_heads(self.q_proj(q), self.num_heads)
        k = self._separate_heads(self.k_proj(k), self.num_heads)
        v = self._separate_heads(self.v_proj(v), self.num_heads)
        return self.out_proj(self._recombine_heads(F.scaled_dot_product_attention(q, k, v)))


def _use_sdpa(module: nn.Module) -> None:
    """Exchange the attention layers. Keys start as queries, so that fresh weights already look where a prompt lies."""
    for name, child in module.named_children():
        if isinstance(child, Attention):
            rate = child.embedding_dim // child.internal_dim
            attention = SdpaAttention(child.embedding_dim, child.num_heads, rate)
            attention.k_proj.load_state_dict(attention.q_proj.state_dict())
            setattr(module, name, attention)
        else:
            _use_sdpa(child)
