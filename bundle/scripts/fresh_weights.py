"""Where a small ViT starts from: tokens that already say what a patch shows and where it lies.

With MONAI's start every patch token is its mean value plus little, and positions are hardly told apart: on two cores a
network then spends its whole training on finding out both. The released weights need nothing of this.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from monai.networks.nets import ViT
from torch import nn

_DETAIL = 3.0  # weight of everything but a patch's mean, which is far larger
_MEAN = 0.3
_TYPICAL = 0.4  # value of a voxel in the middle of the input's range [0, 1]
_POSITION = 0.5


def start_image_encoder(vit: ViT, patch_size: Sequence[int], grid_size: Sequence[int]) -> None:
    """Set fresh weights: cosine patch embedding, sine and cosine positions, Xavier in the blocks.

    Args:
        vit: with the perceptron embedding.
        patch_size: (d, h, w) voxels of a patch.
        grid_size: (d, h, w) patches of a window.
    """
    embedding = vit.patch_embedding
    linear = next(module for module in embedding.modules() if isinstance(module, nn.Linear))
    with torch.no_grad():
        weight, bias = _cosine_patches(patch_size, linear.out_features)
        mix = torch.linalg.qr(torch.randn(linear.out_features, linear.out_features))[0]
        linear.weight.copy_(mix @ weight)
        linear.bias.copy_(mix @ bias)
        mix = torch.linalg.qr(torch.randn(linear.out_features, linear.out_features))[0]
        embedding.position_embeddings.copy_((_POSITION * _waves(grid_size, linear.out_features) @ mix).unsqueeze(0))
    for module in vit.blocks.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)


def _cosine_patches(patch_size: Sequence[int], channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The lowest 3D cosine (DCT-II) frequencies of a patch: weight (C, voxels) and bias (C,)."""
    bases = [_cosines(n) for n in patch_size]
    orders = sorted(itertools.product(*map(range, patch_size)), key=lambda order: sum(k * k for k in order))[:channels]
    weight = torch.zeros(channels, math.prod(patch_size))
    for row, (i, j, k) in enumerate(orders):
        weight[row] = torch.einsum("d,h,w->dhw", bases[0][i], bases[1][j], bases[2][k]).reshape(-1) * _DETAIL
    weight[0] *= _MEAN / _DETAIL
    bias = torch.zeros(channels)
    bias[0] = -_TYPICAL * weight[0].sum()
    return weight, bias


def _cosines(n: int) -> torch.Tensor:
    """Orthonormal DCT-II basis (n, n), one frequency a row."""
    k, i = torch.arange(n).unsqueeze(1), torch.arange(n).unsqueeze(0)
    basis = torch.cos(math.pi * (i + 0.5) * k / n) * math.sqrt(2 / n)
    basis[0] /= math.sqrt(2)
    return basis


def _waves(grid_size: Sequence[int], channels: int) -> torch.Tensor:
    """Sines and cosines of rising frequency along each axis: (patches, C)."""
    axes = torch.meshgrid(*[(torch.arange(n) + 0.5) / n for n in grid_size], indexing="ij")
    places = torch.stack(axes, dim=-1).reshape(-1, 3)
    waves = torch.zeros(len(places), channels)
    steps = channels // 6
    for axis, step in itertools.product(range(3), range(steps)):
        angle = math.pi * (step + 1) / 4 * places[:, axis]
        column = 2 * (axis * steps + step)
        waves[:, column], waves[:, column + 1] = torch.sin(angle), torch.cos(angle)
    return waves
