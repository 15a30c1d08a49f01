"""Points, boxes and text vectors become prompt tokens: SAM's prompt encoder in 3D, as SegVol trained it."""

import math

import torch
from torch import nn


class RandomFourierEncoding(nn.Module):
    """Positional encoding by random spatial frequencies (Tancik et al. 2020, as in SAM).

    The released weights were trained with two axes exchanged: a prompt's first coordinate is divided by the size of
    the second axis and the other way round, and the dense grid stacks (axis 1, axis 0, axis 2). In a window that is
    not a cube a point's encoding then differs from that of the grid cell it lies in, which the released weights have
    learned to live with. Without the exchange the two agree, and a network learns much sooner where a point lies.

    Args:
        features: number of frequencies; the encoding has twice as many channels.
        exchanged: encode as the released weights need it.
        scale: deviation of the frequencies, for fresh weights; low ones let near places look alike.
    """

    positional_encoding_gaussian_matrix: torch.Tensor

    def __init__(self, features: int, exchanged: bool, scale: float) -> None:
        super().__init__()
        self.order = (1, 0, 2) if exchanged else (0, 1, 2)
        self.register_buffer("positional_encoding_gaussian_matrix", scale * torch.randn(3, features))

    def grid(self, size: tuple[int, int, int]) -> torch.Tensor:
        """Encode the cell centres of a grid of ``size`` (d, h, w); returns (1, 2 * features, d, h, w)."""
        device = self.positional_encoding_gaussian_matrix.device
        d, h, w = [(torch.arange(n, device=device, dtype=torch.float32) + 0.5) / n for n in size]
        axes = torch.meshgrid(d, h, w, indexing="ij")
        stacked = torch.stack([axes[self.order[0]], axes[self.order[1]], axes[self.order[2]]], dim=-1)
        return self._encode(stacked).permute(3, 0, 1, 2).unsqueeze(0)

    def forward(self, coordinates: torch.Tensor, size: tuple[int, int, int]) -> torch.Tensor:
        """Encode ``coordinates`` (..., 3), voxels in (d, h, w) of a window of ``size``; returns (..., 2 * features)."""
        divisor = [size[self.order[0]], size[self.order[1]], size[self.order[2]]]
        return self._encode(coordinates.float() / torch.tensor(divisor, device=coordinates.device, dtype=torch.float32))

    def _encode(self, unit: torch.Tensor) -> torch.Tensor:
        angles = 2 * math.pi * ((2 * unit - 1) @ self.positional_encoding_gaussian_matrix)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


class PromptEncoder(nn.Module):
    """Sparse tokens for points, boxes and text, and the dense embedding that stands for "no mask given".

    Args:
        embed_dim: channels of every token.
        window_size: (d, h, w) of the window that prompts are voxels of.
        grid_size: (d, h, w) of the image embedding.
        exchanged_axes: the released weights' positional encoding; see ``RandomFourierEncoding``.
        fourier_scale: deviation of its frequencies.
    """

    def __init__(
        self,
        embed_dim: int,
        window_size: tuple[int, int, int],
        grid_size: tuple[int, int, int],
        exchanged_axes: bool,
        fourier_scale: float,
    ) -> None:
        super().__init__()
        self.embed_dim = embed_dim
        self.window_size = window_size
        self.grid_size = grid_size
        self.pe_layer = RandomFourierEncoding(embed_dim // 2, exchanged_axes, fourier_scale)
        # 0 negative point, 1 positive point, 2 and 3 the corners of a box
        self.point_embeddings = nn.ModuleList([nn.Embedding(1, embed_dim) for _ in range(4)])
        self.not_a_point_embed = nn.Embedding(1, embed_dim)
        self.no_mask_embed = nn.Embedding(1, embed_dim)

    def forward(
        self,
        batch: int,
        points: torch.Tensor | None = None,
        point_labels: torch.Tensor | None = None,
        boxes: torch.Tensor | None = None,
        text: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Tokens in the order of the released network: points, box corners, text.

        Args:
            batch: number of prompts N; every given tensor has it as its first axis.
            points: (N, P, 3) voxels of the window.
            point_labels: (N, P): 1 positive, 0 negative, -1 ignored.
            boxes: (N, 6) voxels d0, h0, w0, d1, h1, w1, the maximum inclusive.
            text: (N, embed_dim) aligned text vectors.

        Returns:
            (N, T, embed_dim); T is 0 without any prompt.
        """
        tokens = [torch.zeros(batch, 0, self.embed_dim, device=self.no_mask_embed.weight.device)]
        if points is not None and point_labels is not None:
            tokens.append(self._point_tokens(points, point_labels, pad=boxes is None))
        if boxes is not None:
            tokens.append(self._box_tokens(boxes))
        if text is not None:
            tokens.append(text.unsqueeze(1))
        return torch.cat(tokens, dim=1)

    def dense(self) -> torch.Tensor:
        """The embedding of an absent mask prompt, (1, embed_dim, 1, 1, 1)."""
        return self.no_mask_embed.weight.reshape(1, -1, 1, 1, 1)

    def dense_positions(self) -> torch.Tensor:
        """Positional encoding of the image embedding, (1, embed_dim, d, h, w)."""
        return self.pe_layer.grid(self.grid_size)

    def _point_tokens(self, points: torch.Tensor, labels: torch.Tensor, pad: bool) -> torch.Tensor:
        if pad:  # without a box one ignored point closes the list
            points = torch.cat([points, torch.zeros_like(points[:, :1])], dim=1)
            labels = torch.cat([labels, -torch.ones_like(labels[:, :1])], dim=1)
        labels = labels.unsqueeze(-1)
        tokens = self.pe_layer(points + 0.5, self.window_size)
        tokens = torch.where(labels == -1, self.not_a_point_embed.weight, tokens)
        # to mypy a ModuleList forgets the class of what it holds
        tokens = torch.where(labels == 0, tokens + self.point_embeddings[0].weight, tokens)  # type: ignore[operator]
        return torch.where(labels == 1, tokens + self.point_embeddings[1].weight, tokens)  # type: ignore[operator]

    def _box_tokens(self, boxes: torch.Tensor) -> torch.Tensor:
        corners = self.pe_layer(boxes.reshape(-1, 2, 3) + 0.5, self.window_size)
        # ModuleList as above
        embeddings = [self.point_embeddings[2].weight, self.point_embeddings[3].weight]
        return corners + torch.cat(embeddings)  # type: ignore[arg-type]
