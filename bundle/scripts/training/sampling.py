"""Prompts drawn from a mask, as a user would give them (paper section 2.3): points, jittered boxes.

Masks are tensors and stay where they are, on the CPU or a GPU; the draws come from a numpy generator, so that the same
seed gives the same prompts on both.
"""

import numpy as np
import torch

TAKEN_IN = 0.9  # a pseudo mask belongs to a box prompt where more of it than this lies inside the box


def sample_points(
    mask: torch.Tensor,
    rng: np.random.Generator,
    extra: tuple[int, int],
    negative: tuple[int, int],
    single: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """One positive point, and more points of both signs.

    Args:
        mask: (d, h, w) bool.
        rng: the only source of chance.
        extra: fewest and most further positive points.
        negative: fewest and most negative points.
        single: share of draws that stay at the one positive point, as a user begins.

    Returns:
        points (P, 3) float32 voxels and point_labels (P,) int64 on the device of the mask, P = 1 + the most of both;
        places that no point takes are labelled -1 (ignored), all of them for an empty mask.
    """
    size = 1 + extra[1] + negative[1]
    points = torch.zeros(size, 3, device=mask.device)
    labels = torch.full((size,), -1, dtype=torch.int64, device=mask.device)
    alone = rng.random() < single
    positives = 1 + (0 if alone else int(rng.integers(extra[0], extra[1] + 1)))
    negatives = 0 if alone else int(rng.integers(negative[0], negative[1] + 1))
    shares = rng.random(size)  # drawn whatever the mask holds
    inside = mask.reshape(-1).nonzero()[:, 0]
    if not len(inside):
        return points, labels
    outside = mask.numel() - len(inside)
    negatives = min(negatives, outside)  # a full mask has no outside
    within = inside[_ranks(shares[:positives], len(inside), mask.device)]
    beyond = _outside(inside, _ranks(shares[positives : positives + negatives], outside, mask.device))
    flat = torch.cat([within, beyond])
    points[: len(flat)] = torch.stack(torch.unravel_index(flat, mask.shape), dim=1).float()
    labels[:positives] = 1
    labels[positives : len(flat)] = 0
    return points, labels


def sample_box(mask: torch.Tensor, rng: np.random.Generator, jitter: float) -> torch.Tensor:
    """The mask's bounding box (6,) float32 d0, h0, w0, d1, h1, w1, each side moved by up to ``jitter`` of its length.

    The box stays inside the array and holds at least one voxel; it is all zeros for an empty mask.
    """
    moves = torch.from_numpy(rng.uniform(-jitter, jitter, (2, 3)).astype(np.float32)).to(mask.device)
    planes, rows = mask.any(dim=0), mask.any(dim=2)  # (h, w) and (d, h)
    sides = [side.nonzero()[:, 0] for side in (rows.any(dim=1), rows.any(dim=0), planes.any(dim=0))]
    if not len(sides[0]):
        return torch.zeros(6, device=mask.device)
    low, high = (torch.stack([side[end] for side in sides]) for end in (0, -1))
    length = high - low + 1
    last = torch.tensor(mask.shape, device=mask.device) - 1
    low = (low + moves[0] * length).round().clamp(min=0).minimum(last)
    high = (high + moves[1] * length).round().maximum(low).minimum(last)
    return torch.cat([low, high])


def sample_pseudo_box(
    regions: torch.Tensor, chosen: int, rng: np.random.Generator, jitter: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """A box prompt for a pseudo mask, and what it asks for: that mask and all others that lie in the box.

    Pseudo masks have no semantics: a box around one of them means everything that it holds (more than ``TAKEN_IN``).

    Args:
        regions: (d, h, w) integers: the number of the pseudo mask that a voxel belongs to, 0 for none.
        chosen: the pseudo mask that is asked for.
        rng: the only source of chance.
        jitter: see ``sample_box``.

    Returns:
        box (6,) and target mask (d, h, w) bool.
    """
    box = sample_box(regions == chosen, rng, jitter)
    (d0, h0, w0, d1, h1, w1) = (int(v) for v in box)
    size = int(regions.max()) + 1
    inside = torch.bincount(regions[d0 : d1 + 1, h0 : h1 + 1, w0 : w1 + 1].reshape(-1), minlength=size)
    total = torch.bincount(regions.reshape(-1), minlength=size)
    taken = inside > TAKEN_IN * total
    taken[chosen] = True
    taken[0] = False
    return box, taken.index_select(0, regions.reshape(-1).int()).reshape(regions.shape)


def _ranks(shares: np.ndarray, count: int, device: torch.device) -> torch.Tensor:
    """One of ``count`` for each share in [0, 1)."""
    return torch.from_numpy((shares * count).astype(np.int64)).clamp(max=max(count - 1, 0)).to(device)


def _outside(inside: torch.Tensor, ranks: torch.Tensor) -> torch.Tensor:
    """The voxels of these ranks among those that are not ``inside`` (ascending), without listing them all."""
    before = inside - torch.arange(len(inside), device=inside.device)  # voxels outside that come before each inside
    return ranks + torch.searchsorted(before, ranks, right=True)
