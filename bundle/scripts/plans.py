"""What to decode for one target: in which windows, and with what is left of its prompt there.

One pure function per mode of the inferer. ``plan_zoom`` is this project's zoom-in; ``plan_published`` is the released
one, kept with its quirks so that its numbers can be reproduced.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import numpy as np
import torch

from .prompts import Prompt, box_of, in_window, rescale
from .windows import (
    CoarseView,
    Triple,
    Window,
    axis_starts,
    dense_starts,
    meet,
    nearest_map,
    published_range,
    scan_interval,
    slices,
    voxels_of,
    whole,
)

NOTHING_FOUND = "nothing found in the zoom-out view; the mask is empty"
OUTSIDE_BOX = "the zoom-out view found nothing inside the box; what it found elsewhere is kept"
FIT_MARGIN = 1.5  # a fitted view is so many times as long as what it is fitted to
OUTSIDE_VOLUME = "no prompt lies inside the volume; the mask is empty"


@dataclass(frozen=True)
class Refinement:
    """What a target looked like before new clicks.

    Args:
        mask: (D, H, W) bool, in the volume's voxels.
        fresh: (points,) bool: which of the prompt's points are new.
        starts: where the windows that drew the mask begin.
    """

    mask: np.ndarray
    fresh: np.ndarray
    starts: Sequence[Triple] = ()


@dataclass(frozen=True)
class Plan:
    """The windows in which a target is decoded.

    Args:
        steps: windows with the prompt in voxels of the window.
        fitted: an extent that is resized to the window, with the prompt in voxels of the window; mode ``fit`` alone.
        within: the extent outside which the coarse mask is background; None where all of it counts.
        message: what the user should know.
    """

    steps: list[tuple[Window, Prompt]] = field(default_factory=list)
    within: np.ndarray | None = None
    message: str | None = None
    fitted: tuple[np.ndarray, Prompt] | None = None


def plan_zoom(prompt: Prompt, coarse: CoarseView, shape: Sequence[int], size: Triple, overlap: float) -> Plan:
    """Windows over the coarse mask, or over its part in the user's box, each with the user's own prompt.

    Windows without coarse mask are left out. Points keep their labels. A window's box is the user's, or else the
    bounding box of the coarse mask there.

    Args:
        prompt: the target in voxels of the volume.
        coarse: what the zoom-out view says of it.
        shape: (D, H, W) of the volume.
        size: (d, h, w) of a window.
        overlap: least share of a window that its neighbour shows too.
    """
    volume = whole(shape)
    within = None if prompt.box is None else meet(voxels_of(prompt.box), volume)
    found = None if within is None else coarse.extent(within)
    message = None if prompt.box is None or found is not None else OUTSIDE_BOX
    if found is None:
        within, found = None, coarse.extent(volume)
    if found is None:
        return Plan(message=NOTHING_FOUND)
    axes = zip(*found.tolist(), size, shape, strict=True)
    starts = product(*(axis_starts(a, b, window, n, overlap) for a, b, window, n in axes))
    windows = [Window.at(start, size, volume) for start in starts]
    steps = [(window, _zoomed(prompt, coarse, window, size, within)) for window in windows]
    return Plan([(window, local) for window, local in steps if local is not None], within, message)


def plan_fit(prompt: Prompt, coarse: CoarseView, shape: Sequence[int], size: Triple) -> Plan:
    """One view of the target with a margin, resized to the window: as sharp as the target is small.

    It is fitted to the user's box, or else to the coarse mask, or where that is empty to the positive points. A target
    smaller than a window is seen at full resolution.

    Args:
        prompt: the target in voxels of the volume.
        coarse: what the zoom-out view says of it.
        shape: (D, H, W) of the volume.
        size: (d, h, w) of a window.
    """
    volume = whole(shape)
    boxed = None if prompt.box is None else meet(voxels_of(prompt.box), volume)
    found = coarse.extent(volume) if boxed is None else boxed
    if found is not None and boxed is None:
        prompt = replace(prompt, box=found.astype(float))
    clicks = prompt.points[prompt.point_labels == 1]
    if found is None and len(clicks):
        found = meet(voxels_of(np.array([clicks.min(axis=0), clicks.max(axis=0)])), volume)
    if found is None:
        return Plan(message=NOTHING_FOUND)
    length = np.ceil((found[1] - found[0] + 1) * FIT_MARGIN).astype(int)
    length = np.minimum(np.maximum(length, size), shape)
    start = np.clip((found[0] + found[1] + 1 - length) // 2, 0, np.subtract(shape, length))
    local = rescale(in_window(prompt, start.tolist(), length.tolist()), length.tolist(), size)
    return Plan(within=boxed, fitted=(np.array([start, start + length - 1]), local))


def plan_resize(coarse: CoarseView, shape: Sequence[int]) -> Plan:
    """No window: the zoom-out view of a volume of ``shape`` (D, H, W) has the last word."""
    return Plan(message=NOTHING_FOUND if coarse.extent(whole(shape)) is None else None)


def plan_sliding_window(prompt: Prompt, has_text: bool, shape: Sequence[int], size: Triple, overlap: float) -> Plan:
    """Windows over the whole volume: all of them for a text, else those that meet the box or a positive point.

    Args:
        prompt: the target in voxels of the volume.
        has_text: whether a text vector goes with it.
        shape: (D, H, W) of the volume.
        size: (d, h, w) of a window.
        overlap: least share of a window that its neighbour shows too.
    """
    starts = product(*(axis_starts(0, n - 1, w, n, overlap) for w, n in zip(size, shape, strict=True)))
    steps = [(Window.at(start, size, whole(shape)), in_window(prompt, start, size)) for start in starts]
    steps = [
        (window, local)
        for window, local in steps
        if has_text or local.box is not None or (local.point_labels == 1).any()
    ]
    return Plan(steps, message=None if steps else OUTSIDE_VOLUME)


def plan_refine(prompt: Prompt, last: Refinement, shape: Sequence[int], size: Triple, overlap: float) -> Plan:
    """Windows that hold a new click, those that drew the last mask first; the others keep what they said.

    A window's box is the user's, or else what the last mask and the positive clicks span there.

    Args:
        prompt: the target in voxels of the volume, old and new points.
        last: the mask to mend.
        shape: (D, H, W) of the volume.
        size: (d, h, w) of a window.
        overlap: least share of a window that its neighbour shows too.
    """
    volume = whole(shape)
    clicks = np.rint(prompt.points[last.fresh]).astype(int)
    windows = [Window.at(start, size, volume) for start in last.starts]
    missed = [click for click in clicks if not any(_holds(window, click) for window in windows)]
    windows += [window for click in missed for window in _windows_at(click, shape, size, overlap)]
    touched = [w for w in dict.fromkeys(windows) if any(_holds(w, click) for click in clicks)]
    steps = [(window, _refined(prompt, last.mask, window, size)) for window in touched]
    return Plan([(window, local) for window, local in steps if local.box is not None])


def plan_published(prompt: Prompt, coarse: CoarseView, shape: Sequence[int], size: Triple, overlap: float) -> Plan:
    """The released zoom-in: a sliding window over the ROI, which sees nothing but the ROI.

    The user's box serves a single window, in voxels of the ROI even where the window is padded; several windows get
    the bounding box of the coarse mask, all -1 where there is none. Released points are five random positives; here
    they are the user's positives in the window, with the coarse box, so that a run can be repeated.

    Args:
        prompt: the target in voxels of the volume.
        coarse: what the zoom-out view says of it.
        shape: (D, H, W) of the volume.
        size: (d, h, w) of a window.
        overlap: share of a window that its neighbour shows too.
    """
    found = coarse.extent(whole(shape))
    if found is None:
        return Plan(message=NOTHING_FOUND)
    roi = np.array([published_range(*axis) for axis in zip(*found.tolist(), size, shape, strict=True)]).T
    axes = zip(*roi.tolist(), size, strict=True)
    starts = product(*(_roi_starts(lo, hi, window, overlap) for lo, hi, window in axes))
    windows = [Window.at(start, size, roi) for start in starts]
    user_box = _released_box(prompt, roi, shape, size) if len(windows) == 1 else None
    return Plan([(window, _released_prompt(prompt, coarse, window, size, user_box)) for window in windows])


def published_zoom_out_prompt(prompt: Prompt, shape: Sequence[int], size: Triple) -> Prompt:
    """The prompt in the zoom-out grid, its box rasterised at full size and resized ``nearest-exact``.

    Where no voxel of the box survives the resize its corners decide.
    """
    scaled = rescale(prompt, shape, size)
    if prompt.box is None or scaled.box is None:
        return scaled
    axes = []
    for lo, hi, n, w in zip(*voxels_of(prompt.box), shape, size, strict=True):
        read = nearest_map(n, w, "nearest-exact")
        axes.append(np.flatnonzero((lo <= read) & (read <= hi)))
    if not all(len(axis) for axis in axes):
        return scaled
    return replace(scaled, box=np.array([[axis[0], axis[-1]] for axis in axes], dtype=float).T)


def _zoomed(
    prompt: Prompt, coarse: CoarseView, window: Window, size: Triple, within: np.ndarray | None
) -> Prompt | None:
    """The prompt in a window; None where the window is not worth decoding."""
    seen = window.extent if within is None else meet(window.extent, within)
    mask = None if seen is None else coarse.extent(seen)
    local = in_window(prompt, window.start, size)
    if mask is None or (prompt.box is not None and local.box is None):
        return None
    return local if prompt.box is not None else replace(local, box=(mask - window.start).astype(float))


def _holds(window: Window, voxel: np.ndarray) -> bool:
    return bool((window.first <= voxel).all() and (voxel <= window.last).all())


def _windows_at(click: np.ndarray, shape: Sequence[int], size: Triple, overlap: float) -> list[Window]:
    """The window with a click in its middle, as far as the volume and the grid of recurring windows let it."""
    axes = zip(click.tolist(), size, shape, strict=True)
    starts = product(*(axis_starts(voxel, voxel, window, n, overlap) for voxel, window, n in axes))
    return [Window.at(start, size, whole(shape)) for start in starts]


def _refined(prompt: Prompt, mask: np.ndarray, window: Window, size: Triple) -> Prompt:
    """The prompt in a window of a mask that is mended."""
    local = in_window(prompt, window.start, size)
    if local.box is not None:
        return local
    corners = [local.points[local.point_labels == 1]]
    found = box_of(mask[window.in_volume])
    if found is not None:
        corners.append(found + window.first - window.start)
    spanned = np.concatenate(corners)
    return replace(local, box=np.array([spanned.min(axis=0), spanned.max(axis=0)]) if len(spanned) else None)


def _roi_starts(lo: int, hi: int, window: int, overlap: float) -> list[int]:
    """A ROI shorter than the window is padded, the smaller half in front."""
    short = window - (hi - lo + 1)
    return [lo - short // 2] if short > 0 else dense_starts(lo, hi, window, scan_interval(window, overlap))


def _released_prompt(
    prompt: Prompt, coarse: CoarseView, window: Window, size: Triple, user_box: np.ndarray | None
) -> Prompt:
    """What the released code hands to the network in a window; text alone gets no box."""
    local = in_window(prompt, window.start, size)
    positive = local.point_labels == 1
    local = replace(local, points=local.points[positive], point_labels=local.point_labels[positive])
    if prompt.box is None and not len(prompt.points):
        return local
    mask = coarse.extent(window.extent)
    box = np.full((2, 3), -1.0) if mask is None else (mask - window.start).astype(float)
    return replace(local, box=box if user_box is None else user_box)


def _released_box(prompt: Prompt, roi: np.ndarray, shape: Sequence[int], size: Triple) -> np.ndarray | None:
    """The user's box rasterised in the zoom-out grid, brought to full size, cropped to the ROI and boxed again."""
    zoom_out_box = published_zoom_out_prompt(prompt, shape, size).box
    if zoom_out_box is None:
        return None
    raster = torch.zeros(size)
    raster[slices(voxels_of(zoom_out_box))] = 1
    box = CoarseView(raster, shape, "nearest").extent(roi)
    return np.full((2, 3), -1.0) if box is None else (box - roi[0]).astype(float)
