"""Graph segmentation of a volume after Felzenszwalb and Huttenlocher (IJCV 2004): the regions behind the pseudo masks.

scikit-image has the algorithm for 2D images only, and no other maintained library has it in 3D; hence this one, whose
union-find is compiled by numba.
"""

from numbers import Real
from typing import Literal, get_args

import numpy as np
from scipy import ndimage

try:
    from numba import njit
except ImportError as error:
    raise ImportError("pseudo masks need numba, which the train extra installs: pip install '.[train]'") from error

Rule = Literal["adaptive", "percentile"]
Neighbours = Literal["six", "published"]

# from a voxel to its neighbour along (D, H, W); what is left out are the same edges seen from the other end
OFFSETS = {
    "six": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "published": ((1, 0, 0), (0, 1, 0), (0, 0, 1), (0, 1, 1), (0, 1, -1)),
}


def felzenszwalb(
    volume: np.ndarray,
    scale: float,
    sigma: float,
    minimum_size: int,
    rule: Rule = "adaptive",
    percentile: float = 25,
    neighbours: Neighbours = "six",
) -> np.ndarray:
    """Regions of a volume, by joining voxels along edges of ascending weight.

    An edge weighs the difference of its two voxels after smoothing. ``adaptive`` is the rule of the paper: an edge
    joins two regions where it weighs no more than the heaviest edge inside each of them plus ``scale / voxels``.
    ``percentile`` is the rule of SegVol's released script: it joins where it weighs less than that percentile of all
    edges that weigh anything. Regions that stay too small then join a neighbour, lightest edge first.

    Edges of one weight keep their order, so that one volume always gives the same labels.

    Args:
        volume: (D, H, W) finite intensities.
        scale: of the adaptive rule, in intensities times voxels; larger gives larger regions.
        sigma: standard deviation of the Gaussian smoothing, in voxels; 0 leaves it out.
        minimum_size: voxels.
        rule: when an edge joins two regions.
        percentile: of the percentile rule, 0 to 100.
        neighbours: ``six`` along the axes; ``published`` adds both diagonals of the axial (H, W) plane. The released
            script has them in the plane of the first two axes of a volume stored as (i, j, k), which is that plane.

    Returns:
        (D, H, W) int32 labels, numbered from 0 in the order of their first voxels.

    Raises:
        ValueError: one line, for a setting or volume that cannot be used.
    """
    check_settings(scale, sigma, minimum_size, rule, percentile, neighbours)
    volume = np.asarray(volume, np.float32)
    if volume.ndim != 3 or not volume.size or not np.isfinite(volume).all():
        raise ValueError(f"volume has the shape {volume.shape}; it must be (D, H, W) with finite intensities alone")
    if volume.size * len(OFFSETS[neighbours]) >= 2**31:
        raise ValueError(f"volume has the shape {volume.shape}, which is too many voxels; segment it reduced")
    weights, steps = _edges(ndimage.gaussian_filter(volume, sigma) if sigma else volume, OFFSETS[neighbours])
    order = _ascending(weights.view(np.uint32), np.count_nonzero(np.isfinite(weights)))
    weights = weights[order]
    threshold = -1.0 if rule == "adaptive" else _percentile(weights, percentile)
    return _segment(order, weights, steps, volume.size, float(scale), threshold, minimum_size).reshape(volume.shape)


def check_settings(
    scale: float, sigma: float, minimum_size: int, rule: str, percentile: float, neighbours: str
) -> None:
    """Refuse settings that mean nothing.

    Raises:
        ValueError: one line that names the setting and what is allowed.
    """
    for name, value, allowed in (("rule", rule, get_args(Rule)), ("neighbours", neighbours, get_args(Neighbours))):
        if value not in allowed:
            raise ValueError(f"{name} is {value!r}; allowed are {', '.join(allowed)}")
    for name, number in (
        ("scale", scale),
        ("sigma", sigma),
        ("minimum_size", minimum_size),
        ("percentile", percentile),
    ):
        most, allowed_numbers = (100, "0 to 100") if name == "percentile" else (np.inf, "0 on")
        if isinstance(number, bool) or not isinstance(number, Real) or not 0 <= number <= most:
            raise ValueError(f"{name} is {number!r}; it must be a number from {allowed_numbers}")


def _edges(volume: np.ndarray, offsets: tuple[tuple[int, int, int], ...]) -> tuple[np.ndarray, np.ndarray]:
    """Edge ``t * voxels + v`` leads from voxel v to voxel ``v + steps[t]``; one that leaves the volume is infinite."""
    weights = np.full((len(offsets), *volume.shape), np.inf, np.float32)
    for along, offset in zip(weights, offsets, strict=True):
        here = tuple(slice(max(0, -o), n - max(0, o)) for o, n in zip(offset, volume.shape, strict=True))
        there = tuple(slice(max(0, o), n - max(0, -o)) for o, n in zip(offset, volume.shape, strict=True))
        np.abs(volume[there] - volume[here], out=along[here])
    _, h, w = volume.shape
    return weights.ravel(), np.array([(d * h + y) * w + x for d, y, x in offsets], np.int64)


@njit(cache=True)
def _ascending(bits: np.ndarray, count: int) -> np.ndarray:
    """The first ``count`` edges in stable order of weight, by radix: bits of floats from 0 on order like the floats."""
    order = np.arange(len(bits)).astype(np.int32)
    spare, starts = np.empty_like(order), np.empty(2049, np.int64)
    for shift in (0, 11, 22):
        starts[:] = 0
        for weight in bits:
            starts[((weight >> shift) & 2047) + 1] += 1
        starts = np.cumsum(starts)
        for edge in order:
            digit = (bits[edge] >> shift) & 2047
            spare[starts[digit]] = edge
            starts[digit] += 1
        order, spare = spare, order
    return order[:count]


def _percentile(weights: np.ndarray, percentile: float) -> float:
    weights = weights[np.searchsorted(weights, 0, side="right") :]
    return float(np.percentile(weights, percentile)) if len(weights) else np.inf


@njit(cache=True)
def _segment(
    order: np.ndarray,
    weights: np.ndarray,
    steps: np.ndarray,
    voxels: int,
    scale: float,
    threshold: float,
    minimum_size: int,
) -> np.ndarray:
    """Labels of the voxels; a negative threshold stands for the adaptive rule."""
    parents = np.arange(voxels).astype(np.int32)
    sizes = np.ones(voxels, np.int32)
    limits = np.full(voxels, scale, np.float64)  # of a root: its heaviest inner edge plus scale / size
    for e in range(len(order)):
        if 0 <= threshold <= weights[e]:
            break
        a = order[e] % voxels
        b = _root(parents, a + steps[order[e] // voxels])
        a = _root(parents, a)
        if a != b and (threshold >= 0 or weights[e] <= min(limits[a], limits[b])):
            root = _join(parents, sizes, a, b)
            limits[root] = weights[e] + scale / sizes[root]
    for edge in order:
        a = edge % voxels
        b = _root(parents, a + steps[edge // voxels])
        a = _root(parents, a)
        if a != b and min(sizes[a], sizes[b]) < minimum_size:
            _join(parents, sizes, a, b)
    return _numbered(parents)


@njit(cache=True)
def _root(parents: np.ndarray, voxel: int) -> int:
    while parents[voxel] != voxel:
        parents[voxel] = parents[parents[voxel]]
        voxel = parents[voxel]
    return voxel


@njit(cache=True)
def _join(parents: np.ndarray, sizes: np.ndarray, a: int, b: int) -> int:
    """The larger root takes in the other one."""
    if sizes[a] < sizes[b]:
        a, b = b, a
    parents[b] = a
    sizes[a] += sizes[b]
    return a


@njit(cache=True)
def _numbered(parents: np.ndarray) -> np.ndarray:
    labels = np.full(len(parents), -1, np.int32)
    of_root = np.full(len(parents), -1, np.int32)
    count = 0
    for voxel in range(len(parents)):
        root = _root(parents, voxel)
        if of_root[root] < 0:
            of_root[root] = count
            count += 1
        labels[voxel] = of_root[root]
    return labels
