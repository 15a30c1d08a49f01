"""Pseudo masks: regions of an image that stand in for the structures that nobody labelled (paper, section 2.1).

A network that learns from partial labels learns which data set a CT comes from, and draws its organs by habit. Regions
found without labels are more structures to ask for, by points and boxes alone, as they have no names.
"""

from collections.abc import Hashable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform
from scipy import ndimage
from torch.nn import functional as F

from ..arguments import exit_on_error
from .felzenszwalb import Neighbours, Rule, check_settings, felzenszwalb

PUBLISHED_SHAPE = (32, 256, 256)  # of the grid that regions are sought on
SCALE = 0.3  # of the adaptive rule: some 45 to 90 masks of a CT
FLOOR = 1e-3  # intensities of [0, 1] up to here were clipped: the preprocessing took them for background


class PseudoMasksd(MapTransform):
    """Add the pseudo masks of an image: ``pseudo_key`` (1, D, H, W) int16, 1..R and 0 for none; see ``pseudo_mask``.

    Args:
        keys: the image, (1, D, H, W) in [0, 1].
        label_key: its true masks, on its grid; None, or a case without the key, has none.
        pseudo_key: where the pseudo masks go.
        shape: see ``pseudo_mask``, as for the rest.

    Raises:
        SystemExit: one line, for settings that mean nothing.
    """

    def __init__(
        self,
        keys: KeysCollection = "image",
        label_key: str | None = "label",
        pseudo_key: str = "pseudo_mask",
        shape: Sequence[int] = PUBLISHED_SHAPE,
        scale: float = SCALE,
        sigma: float = 0.8,
        minimum_size: int = 1000,
        rule: Rule = "adaptive",
        neighbours: Neighbours = "six",
        minimum_share: float = 1e-3,
    ) -> None:
        super().__init__(keys)
        with exit_on_error():
            if len(self.keys) != 1:
                raise ValueError(f"keys is {self.keys!r}; pseudo masks are made of one image")
            _check_settings(shape, minimum_share)
            check_settings(scale, sigma, minimum_size, rule, 25, neighbours)
        self.label_key = label_key
        self.pseudo_key = pseudo_key
        self.shape = tuple(int(n) for n in shape)
        self.scale = scale
        self.sigma = sigma
        self.minimum_size = minimum_size
        self.rule = rule
        self.neighbours = neighbours
        self.minimum_share = minimum_share

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Add ``pseudo_key``.

        Raises:
            ValueError: see ``pseudo_mask``.
        """
        d = dict(data)
        image, label = d[self.keys[0]], d.get(self.label_key)
        ids = pseudo_mask(
            _array(image),
            None if label is None else _array(label),
            self.shape,
            self.scale,
            self.sigma,
            self.minimum_size,
            self.rule,
            self.neighbours,
            self.minimum_share,
        )
        volume = torch.from_numpy(ids).unsqueeze(0)
        d[self.pseudo_key] = MetaTensor(volume).copy_meta_from(image) if isinstance(image, MetaTensor) else volume
        return d


def pseudo_mask(
    image: np.ndarray,
    label: np.ndarray | None = None,
    shape: Sequence[int] = PUBLISHED_SHAPE,
    scale: float = SCALE,
    sigma: float = 0.8,
    minimum_size: int = 1000,
    rule: Rule = "adaptive",
    neighbours: Neighbours = "six",
    minimum_share: float = 1e-3,
) -> np.ndarray:
    """Regions of an image beside its true masks.

    The image is brought to unit deviation of its foreground, which is what the released script segments, and reduced;
    its regions are cleaned on the small grid and brought back by the nearest voxel, for ids must not be blended.

    Args:
        image: (D, H, W) in [0, 1], normalised and cropped to its foreground.
        label: (D, H, W) true masks; 0 is none.
        shape: (d, h, w) of the grid that is segmented; an axis that is shorter keeps its length.
        scale: see ``felzenszwalb``, in deviations of the foreground times voxels.
        sigma: of the smoothing, in voxels of the small grid.
        minimum_size: of a region before cleaning, in voxels of a grid of 32 x 256 x 256; a smaller grid has fewer.
        rule: see ``felzenszwalb``.
        neighbours: see ``felzenszwalb``.
        minimum_share: see ``clean_regions``.

    Returns:
        (D, H, W) int16: 1..R, 0 for none.

    Raises:
        ValueError: one line, for an image or label that cannot be used, or settings that mean nothing.
    """
    _check_volumes(image, label)
    _check_settings(shape, minimum_share)
    small = tuple(min(n, int(m)) for n, m in zip(image.shape, shape, strict=True))
    channels = torch.from_numpy(np.ascontiguousarray(image, np.float32))[None, None]
    reduced = F.interpolate(channels, small, mode="area")[0, 0].numpy()
    minimum = round(minimum_size * reduced.size / prod(PUBLISHED_SHAPE))
    regions = felzenszwalb(reduced / _deviation(image), scale, sigma, minimum, rule, 25, neighbours)
    regions[_air(reduced, regions)] = -1
    ids = clean_regions(regions, None if label is None else _nearest(label, small), minimum_share)
    ids = _nearest(ids, image.shape)
    if label is not None:
        ids[label != 0] = 0
    return ids


def clean_regions(regions: np.ndarray, label: np.ndarray | None, minimum_share: float = 1e-3) -> np.ndarray:
    """Make pseudo masks of regions (paper, section 2.1).

    True masks replace what they cover and small regions go. Each of the others is opened and closed, without taking
    voxels of a true mask or of one another; pieces that fall apart become masks of their own, unless they are small.

    Args:
        regions: (D, H, W) labels from 0; negative ones are none.
        label: (D, H, W) true masks, 0 is none; or None.
        minimum_share: smallest share of the volume that a pseudo mask has.

    Returns:
        (D, H, W) int16: 1..R, 0 for none.
    """
    true = np.zeros(regions.shape, bool) if label is None else label != 0
    regions = np.where(true, 0, regions + 1).clip(0)
    minimum = minimum_share * regions.size
    regions[(np.bincount(regions.ravel()) < minimum)[regions]] = 0
    free = (regions == 0) & ~true
    masks, count = np.zeros(regions.shape, np.int16), 0
    for number, box in enumerate(ndimage.find_objects(regions), start=1):
        if box is None:
            continue
        box = tuple(slice(max(0, s.start - 1), s.stop + 1) for s in box)
        own = regions[box] == number
        smooth = _opened_and_closed(own) & (own | (free[box] & (masks[box] == 0)))
        pieces, _ = ndimage.label(smooth)
        for piece in np.flatnonzero(np.bincount(pieces.ravel()) >= minimum):
            if piece:
                count += 1
                masks[box][pieces == piece] = count
    return masks


def _opened_and_closed(mask: np.ndarray) -> np.ndarray:
    """Beyond the border a mask goes on as at the border; else every mask would lose its outermost slices."""
    mask = np.pad(mask, 1, mode="edge")
    return ndimage.binary_closing(ndimage.binary_opening(mask))[1:-1, 1:-1, 1:-1]


def _air(image: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Voxels of regions that were clipped for the most part and reach a side of the volume: the air around the body.

    The released script keeps it. As a target it would teach nothing but the outline of the scan, and its box is the
    whole volume. The lungs, cut off by the first or last slice, stay.
    """
    sides = np.zeros(regions.max() + 1, bool)
    for face in (regions[:, [0, -1]], regions[:, :, [0, -1]]):
        sides[np.unique(face)] = True
    clipped = np.bincount(regions.ravel(), weights=(image <= FLOOR).ravel()) > 0.5 * np.bincount(regions.ravel())
    return (sides & clipped)[regions]


def _deviation(image: np.ndarray) -> float:
    """Standard deviation of the voxels above the mean; 1 for a constant image."""
    foreground = image[image > image.mean(dtype=np.float64)]
    return float(foreground.std(dtype=np.float64)) or 1.0 if foreground.size else 1.0


def _nearest(volume: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """The voxel whose cell holds the middle of the new one's."""
    indices = [((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(shape, volume.shape, strict=True)]
    return volume[np.ix_(*indices)]


def _array(volume: torch.Tensor | np.ndarray) -> np.ndarray:
    array = volume.as_tensor() if isinstance(volume, MetaTensor) else volume
    array = np.asarray(array)
    if array.ndim != 4 or array.shape[0] != 1:
        raise ValueError(f"image or label has the shape {array.shape}; it must be (1, D, H, W)")
    return array[0]


def _check_settings(shape: Sequence[int], minimum_share: float) -> None:
    whole = isinstance(shape, Sequence) and all(isinstance(n, int) and n > 0 for n in shape)
    if not whole or len(shape) != 3:
        raise ValueError(f"shape is {shape!r}; it must be three whole numbers (d, h, w) from 1 on")
    if not isinstance(minimum_share, int | float) or not 1e-4 <= minimum_share <= 1:
        raise ValueError(f"minimum_share is {minimum_share!r}; it must be a number from 0.0001 to 1")


def _check_volumes(image: np.ndarray, label: np.ndarray | None) -> None:
    if image.ndim != 3 or not np.isfinite(image).all():
        raise ValueError(f"image has the shape {image.shape}; it must be (D, H, W) with finite intensities alone")
    if label is not None and label.shape != image.shape:
        raise ValueError(f"label has the shape {label.shape}; it must be that of the image, {image.shape}")
