"""What a case is like: its grid, its intensities, and where its structures lie, in numbers that its record keeps."""

from collections.abc import Mapping
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray
from scipy import ndimage

SAMPLE = 2_000_000  # voxels, about, that percentiles and the body are taken from
PERCENTILES = {"p01": 1, "median": 50, "p99": 99}
AIR = -300.0  # HU; below is air or lung
SEEN = 0.25  # share of the body's rows that may end at the border of the image before its sides count as cut off


def describe(image: MetaTensor, label: NDArray[np.int16] | None, labels: Mapping[str, str | None]) -> dict[str, Any]:
    """Measure one case; the same voxels give the same numbers.

    Args:
        image: (1, i, j, k) in stored order, with its affine to RAS mm.
        label: (i, j, k) of label values on the same grid, 0 for none; None where the case has no label.
        labels: label value -> name, None for a structure without one.

    Returns:
        ``shape``, ``spacing_mm``, ``axcodes``, ``field_of_view_mm``; ``intensity`` with min, p01, median, p99, max;
        ``structures`` that are there, by name or as "label 7" where they have none: ``value``, ``voxels``, ``ml``,
        ``centroid_ras`` and ``extent_ras`` (mm, from outer face to outer face of its voxels), ``intensity`` (mean of a
        sample, None where that misses it) and ``cut`` (whether it reaches the border of the image); and
        ``body_centroid_ras``, None where the image does not show both sides of the body. What is not finite is None.
    """
    voxels, affine = image.detach().cpu().numpy()[0], np.asarray(image.affine, dtype=np.float64)
    spacing = nib.affines.voxel_sizes(affine)
    step = sample_step(voxels.shape)
    sample = voxels[step]
    return {
        "shape": [int(size) for size in voxels.shape],
        "spacing_mm": _rounded(spacing, 4),
        "axcodes": "".join(code or "?" for code in nib.aff2axcodes(affine)),
        "field_of_view_mm": _rounded(spacing * voxels.shape, 2),
        "intensity": _intensity(voxels, sample),
        "structures": {} if label is None else _structures(label, labels, affine, sample, step),
        "body_centroid_ras": _body_centroid(sample, affine, step),
    }


def sample_step(shape: tuple[int, ...], voxels: int = SAMPLE) -> tuple[slice, ...]:
    """Every n-th voxel along each axis, about ``voxels`` of them, with long axes thinned out first."""
    steps = [1, 1, 1]
    while np.prod([size // step for size, step in zip(shape, steps, strict=True)]) > voxels:
        steps[int(np.argmax([size / step for size, step in zip(shape, steps, strict=True)]))] += 1
    return tuple(slice(step // 2, None, step) for step in steps)


def plane_counts(label: NDArray[Any]) -> list[NDArray[np.int64]]:
    """For each axis (values, planes): how many voxels of each value, 0 to the largest, lie in each plane across it.

    Row 0, the background, stays empty.
    """
    order = np.argsort([-abs(stride) for stride in label.strides], kind="stable")  # the way it lies in memory
    ordered = label.transpose(order)
    values, (planes, rows, columns) = max(int(label.max(initial=0)), 0) + 1, ordered.shape
    counts = [np.zeros((values, size), np.int64) for size in ordered.shape]
    for plane in range(planes):
        flat = ordered[plane].ravel()
        places = np.flatnonzero(flat > 0)
        if len(places):
            value = flat[places].astype(np.int64)
            row, column = np.divmod(places, columns)
            counts[0][:, plane] = np.bincount(value, minlength=values)
            counts[1] += np.bincount(value * rows + row, minlength=values * rows).reshape(values, rows)
            counts[2] += np.bincount(value * columns + column, minlength=values * columns).reshape(values, columns)
    return [counts[int(axis)] for axis in np.argsort(order)]


def structure_key(value: int, labels: Mapping[str, str | None]) -> str:
    """The name of a label value, or "label 7" where it has none."""
    return labels.get(str(value)) or f"label {value}"


def _intensity(voxels: NDArray[Any], sample: NDArray[Any]) -> dict[str, float | None]:
    """Extremes of the whole image, and percentiles of a sample."""
    finite = sample[np.isfinite(sample)]
    found = np.percentile(finite, list(PERCENTILES.values())) if finite.size else [np.nan] * len(PERCENTILES)
    low, high = _rounded([voxels.min(), voxels.max()], 4)
    return {"min": low, **dict(zip(PERCENTILES, _rounded(found, 4), strict=True)), "max": high}


def _structures(
    label: NDArray[Any],
    labels: Mapping[str, str | None],
    affine: NDArray[np.float64],
    sample: NDArray[Any],
    step: tuple[slice, ...],
) -> dict[str, Any]:
    """Every structure that is there, in the order of the values; values of one name are one structure."""
    counts = plane_counts(label)
    groups: dict[str, list[int]] = {}
    for value in np.flatnonzero(counts[0].sum(axis=1)):
        groups.setdefault(structure_key(int(value), labels), []).append(int(value))
    totals = _sampled_sums(label[step], sample, len(counts[0]))
    return {
        name: {
            "value": values[0],
            **_place([count[values].sum(axis=0) for count in counts], affine),
            "intensity": _mean(totals[:, values].sum(axis=1)),
        }
        for name, values in groups.items()
    }


def _place(profiles: list[NDArray[np.int64]], affine: NDArray[np.float64]) -> dict[str, Any]:
    """Size and place of one structure from its voxels (n,) per plane, of the three axes."""
    voxels = int(profiles[0].sum())
    centroid = [float(np.arange(len(profile)) @ profile / voxels) for profile in profiles]
    found = [np.flatnonzero(profile) for profile in profiles]
    faces = np.array([(places[0] - 0.5, places[-1] + 0.5) for places in found])
    corners = np.stack(np.meshgrid(*faces, indexing="ij"), axis=-1).reshape(-1, 3)
    world = nib.affines.apply_affine(affine, corners)
    ends = [places[0] == 0 or places[-1] == len(profile) - 1 for places, profile in zip(found, profiles, strict=True)]
    return {
        "voxels": voxels,
        "ml": round(voxels * abs(float(np.linalg.det(affine[:3, :3]))) / 1000, 4),
        "centroid_ras": _rounded(nib.affines.apply_affine(affine, centroid), 2),
        "extent_ras": [_rounded(world.min(axis=0), 2), _rounded(world.max(axis=0), 2)],
        "cut": bool(any(ends)),
    }


def _sampled_sums(label: NDArray[Any], sample: NDArray[Any], values: int) -> NDArray[np.float64]:
    """(2, values): how many sampled voxels each value has, and the sum of their intensities."""
    inside = (label > 0) & np.isfinite(sample)
    value, weights = label[inside].astype(np.int64), sample[inside].astype(np.float64)
    return np.stack([np.bincount(value, each, minlength=values) for each in (np.ones_like(weights), weights)])


def _mean(totals: NDArray[np.float64]) -> float | None:
    count, total = totals
    return round(float(total / count), 4) if count else None


def _body_centroid(sample: NDArray[Any], affine: NDArray[np.float64], step: tuple[slice, ...]) -> list[Any] | None:
    """RAS mm of the middle of the body, its lungs included; None where a side of it is not seen."""
    body = _body(sample, affine)
    axes = nib.io_orientation(affine)[:, 0]
    if not body.any() or np.isnan(axes).any():
        return None
    across = int(np.flatnonzero(axes == 0)[0])
    rows, first, last = body.any(axis=across), body.take(0, axis=across), body.take(-1, axis=across)
    if np.count_nonzero(first | last) > SEEN * np.count_nonzero(rows):
        return None
    voxel = [part.start + part.step * float(np.mean(np.nonzero(body)[axis])) for axis, part in enumerate(step)]
    return _rounded(nib.affines.apply_affine(affine, voxel), 2)


def _body(sample: NDArray[Any], affine: NDArray[np.float64]) -> NDArray[np.bool_]:
    """The largest thing that is denser than air, without the couch, holes of its axial slices filled."""
    finite = np.where(np.isfinite(sample), sample, sample.min(initial=0, where=np.isfinite(sample)))
    threshold = AIR if finite.min() < -500 else float(finite.mean())
    opened = ndimage.binary_opening(finite > threshold)
    parts, count = ndimage.label(opened)
    if not count:
        return opened
    body = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    height = np.flatnonzero(nib.io_orientation(affine)[:, 0] == 2)
    if len(height):
        for plane in np.moveaxis(body, int(height[0]), 0):
            plane[:] = ndimage.binary_fill_holes(plane)
    return body


def _rounded(values: Any, digits: int) -> list[float | None]:
    return [round(float(value), digits) + 0.0 if np.isfinite(value) else None for value in values]
