"""What a scan is recognised by when it comes back under another name: its exact voxels, and how it looks when small."""

import hashlib
from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

SIDE = 12  # cells of a thumbnail along each axis
SLICES = 16  # digests of slices that are kept
RICH = 64  # different values from which a slice is worth a digest; air and padding look alike in every scan
REPEATED = 8  # voxels per value from which the values are few, as in every CT that was not resampled
LEVELS = 65535  # that other values are brought to

WINDOW = (-100.0, 200.0)  # HU: fat to bone; every usual clipping of a CT leaves it nearly whole
OFFSET = 1024.0  # of scanners' stored values
TAIL = 0.05  # of the brightness beyond either side of the box that a thumbnail is seen in
COARSE = 64  # voxels along an axis from which brightness levels are judged

Counted = tuple[NDArray[np.float32], NDArray[np.int64]]


def fingerprint(image: NDArray[Any], affine: NDArray[Any] | None = None) -> dict[str, Any]:
    """What ``same_scans`` recognises a scan by.

    ``exact`` knows voxels alone: how often each value occurs, from the lowest to the highest, and the sorted shape. It
    is the same for any order and direction of the axes, stored type, affine, offset and slope, since these change
    the values and not their order. Where nearly every voxel has a value of its own (resampled images in floats),
    the values count too, in 65,536 steps from the lowest to the highest; then rounding on the way through another type
    may change it. Two hexadecimal numbers that differ say nothing about how much two images differ.

    ``slices`` are such numbers of single axial slices, the 16 lowest of them: a scan and a stack of its slices share
    some, unless the stack is a small part (a quarter of the slices is missed about once in a hundred times). Flat
    slices have none.

    ``thumbnail`` is the image from fat to bone on 12 x 12 x 12 cells between fixed shares of its brightness along each
    axis, so that air around the patient, resampling, and clipping to a wider window hardly change it. Values that
    are no Hounsfield units, with or without 1024 added, are shown around their median instead, and then only
    resemble values on the same scale.

    512 x 512 x 300 voxels take 1.5 s of one core where they are whole numbers, and 15 s where they hardly repeat.

    Args:
        image: (i, j, k) as stored, of any real type.
        affine: (4, 4) to RAS mm; None, and one without inverse, takes the axes for R, A and S.

    Returns:
        ``{"exact": 64 hexadecimal digits, "slices": sorted, of 16 digits each, "thumbnail": 1728 of 0 to 255, along
        R, A and S, the last the fastest}``.

    Raises:
        ValueError: for an image that is not 3D, is empty, or holds NaN or infinity.
    """
    volume = _in_ras(_checked(image), affine)
    planes = [_counted(plane) for plane in np.ascontiguousarray(np.moveaxis(volume, 2, 0))]
    rich = [(values, counts) for values, counts in planes if len(values) >= RICH]
    slices = sorted({_digest(values, counts, volume.shape[:2])[:16] for values, counts in rich})[:SLICES]
    return {"exact": _digest(*_merged(planes, volume), volume.shape), "slices": slices, "thumbnail": _thumbnail(volume)}


def _checked(image: NDArray[Any]) -> NDArray[np.float32]:
    volume = np.asarray(image, np.float32)
    if volume.ndim != 3 or 0 in volume.shape:
        raise ValueError(f"image: its shape is {volume.shape}; allowed are three axes, none of them empty")
    if not np.isfinite(volume).all():
        raise ValueError("image: it holds NaN or infinite voxels; allowed are finite ones")
    return volume


def _in_ras(volume: NDArray[np.float32], affine: NDArray[Any] | None) -> NDArray[np.float32]:
    """The axes in the order and direction of RAS."""
    matrix = np.eye(4) if affine is None else np.asarray(affine, np.float64)
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix[:3, :3])) < 1e-12:
        return volume
    return np.asarray(nib.orientations.apply_orientation(volume, nib.orientations.io_orientation(matrix)))


def _counted(plane: NDArray[np.float32]) -> Counted:
    """The values of a slice, sorted, and how often each occurs; whole numbers need no sorting."""
    low, high = plane.min(), plane.max()
    if high - low <= LEVELS and (plane == np.rint(plane)).all():
        found = np.bincount((plane - low).astype(np.int64).ravel())
        present = np.flatnonzero(found)
        return (present + np.float64(low)).astype(np.float32), found[present]
    values, counts = np.unique(plane, return_counts=True)
    return values, counts


def _merged(planes: Sequence[Counted], volume: NDArray[np.float32]) -> Counted:
    """The values of all slices, sorted, and how often each occurs in the volume."""
    values = np.concatenate([plane[0] for plane in planes])
    if len(values) * 2 > volume.size:  # nearly nothing is counted yet: from the start is faster
        whole, counts = np.unique(volume, return_counts=True)
        return whole, counts
    order = np.argsort(values)
    first = np.flatnonzero(np.diff(values[order], prepend=-np.inf))
    return values[order][first], np.add.reduceat(np.concatenate([plane[1] for plane in planes])[order], first)


def _digest(values: NDArray[np.float32], counts: NDArray[np.int64], shape: Sequence[int]) -> str:
    """A hexadecimal number for values, sorted, and how often each occurs in a grid of this shape."""
    parts = [np.sort(shape).astype("<i8"), counts.astype("<i8")]
    if len(values) * REPEATED > counts.sum():
        above = values.astype(np.float64) - float(values[0])
        parts.append(np.rint(above * (LEVELS / (above[-1] or 1.0))).astype("<i8"))
    return hashlib.sha256(b"".join(part.tobytes() for part in parts)).hexdigest()


def _thumbnail(volume: NDArray[np.float32]) -> list[int]:
    """(i, j, k) in RAS -> SIDE³ numbers of 0 to 255."""
    low, high = _window(volume)
    shown = volume.clip(low, high)
    shown -= np.float32(low)
    shown *= np.float32(1 / (high - low))
    cells = _averaged(shown, [_edges(shown, axis) for axis in range(3)])
    return [int(cell) for cell in np.rint(cells * 255).clip(0, 255).ravel()]


def _window(volume: NDArray[np.float32]) -> tuple[float, float]:
    """The lowest and the highest value to show."""
    coarse = volume[tuple(slice(None, None, max(1, n // COARSE)) for n in volume.shape)]
    bright = coarse[coarse > _between(coarse.clip(*np.percentile(coarse, (1, 99))))]
    if not len(bright):
        return float(volume.min()), float(volume.min()) + 1.0
    median, lowest, highest = float(np.median(bright)), float(volume.min()), float(volume.max())
    if median > 600 and highest > 1000:  # what is brighter than air is soft tissue for the most part
        return WINDOW[0] + OFFSET, WINDOW[1] + OFFSET
    if -200 < median < 600 and lowest < -60 and highest - lowest > 150:
        return WINDOW
    reach = max(1.2 * float(np.subtract(*np.percentile(bright, (75, 25)))), 1e-6 * max(abs(median), 1.0))
    return median - reach, median + reach


def _between(values: NDArray[np.float32]) -> float:
    """Otsu's threshold: where the values part into two classes that differ the most."""
    counts, edges = np.histogram(values, 128)
    weight = np.cumsum(counts)[:-1]
    total = np.cumsum(counts * (edges[:-1] + edges[1:]) / 2)
    difference = total[-1] * weight / counts.sum() - total[:-1]
    apart = difference**2 / np.maximum(weight * (counts.sum() - weight), 1)
    return float(edges[1:-1][apart.argmax()])


def _edges(shown: NDArray[np.float32], axis: int) -> NDArray[np.float64]:
    """Where the cells begin and end along an axis, in voxels; they reach out of the image at times."""
    others = tuple(other for other in range(3) if other != axis)
    below = np.append(0, np.cumsum(shown.mean(axis=others, dtype=np.float64) + 1e-9))
    start, stop = np.interp(np.array([TAIL, 1 - TAIL]) * below[-1], below, np.arange(len(below)))
    margin = TAIL * (stop - start) / (1 - 2 * TAIL)
    return np.linspace(start - margin, stop + margin, SIDE + 1)


def _averaged(shown: NDArray[np.float32], edges: Sequence[NDArray[np.float64]]) -> NDArray[np.float32]:
    """Means of the cells between ``edges``; there is nothing outside the image."""
    cells = shown
    for places in edges:
        below = np.arange(cells.shape[0])
        shared = np.minimum(places[1:, None], below + 1) - np.maximum(places[:-1, None], below)
        weights = shared.clip(0) / (places[1] - places[0])
        cells = np.moveaxis(np.tensordot(weights.astype(np.float32), cells, 1), 0, -1)  # the next axis comes first
    return cells
