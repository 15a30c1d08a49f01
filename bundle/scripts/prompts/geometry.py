"""The `Prompt` type and its pure geometry: world and voxels, frames, grids, windows, prompts read off a mask.

Every room that touches a prompt shares these functions, so that a click lands on the same voxel whichever way the
image is stored. Voxel index x is the centre of voxel x; a box has inclusive corners (lo, hi) with lo <= hi; nothing
here knows which frame a prompt is in, the caller does. A box is mapped by its corners and never vanishes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
World = Literal["ras", "lps"]
PromptKind = Literal["text", "point", "box", "point+text", "box+text"]

PROMPT_KINDS: tuple[PromptKind, ...] = ("text", "point", "box", "point+text", "box+text")
POSITIVE = 1
DECIMALS = 3  # voxel coordinates that were mapped are rounded to this, so that float noise decides nothing
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Prompt:
    """What a user says about one target: a text, clicks, a box, or several of them.

    Attributes:
        name: the target's name in results.
        text: what to look for, as the user wrote it.
        points: (N, 3) float64 coordinates, in the frame that the holder knows.
        point_labels: (N,) int64, 1 on the target and 0 off it.
        box: (2, 3) float64 inclusive corners, sorted on construction; None without a box.
    """

    name: str
    text: str | None = None
    points: Floats = field(default_factory=lambda: np.empty((0, 3)))
    point_labels: NDArray[np.int64] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    box: Floats | None = None

    def __post_init__(self) -> None:
        """Bring lists and other dtypes to the shapes above; raises ValueError where they do not fit."""
        points = np.asarray(self.points, dtype=np.float64).reshape(-1, 3)
        labels = np.asarray(self.point_labels, dtype=np.int64).reshape(-1)
        if len(points) != len(labels):
            raise ValueError(f"target '{self.name}': {len(points)} points but {len(labels)} point_labels")
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "point_labels", labels)
        if self.box is not None:
            object.__setattr__(self, "box", np.sort(np.asarray(self.box, dtype=np.float64).reshape(2, 3), axis=0))

    @property
    def is_usable(self) -> bool:
        """Whether something says what or where the target is; negative points alone do not."""
        return self.text is not None or self.box is not None or bool(np.any(self.point_labels == POSITIVE))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, in the form of a target of prompts.json (box: six numbers)."""
        return {
            "name": self.name,
            "text": self.text,
            "points": self.points.tolist(),
            "point_labels": self.point_labels.tolist(),
            "box": None if self.box is None else self.box.reshape(-1).tolist(),
        }


def world_to_voxel_matrix(affine: ArrayLike, coordinates: World = "ras") -> Floats:
    """(4, 4) matrix from world mm to continuous voxel indices; `affine` (4, 4) maps indices to RAS mm.

    Raises:
        ValueError: the affine is not a finite, invertible (4, 4) matrix.
    """
    matrix = np.asarray(affine, dtype=np.float64)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or np.linalg.matrix_rank(matrix[:3, :3]) < 3:
        raise ValueError("affine: expected a finite, invertible (4, 4) matrix from voxels to RAS mm")
    inverse = np.asarray(np.linalg.inv(matrix), dtype=np.float64)
    return inverse @ LPS_TO_RAS if coordinates == "lps" else inverse


def voxel_to_world(points: ArrayLike, affine: ArrayLike, coordinates: World = "ras") -> Floats:
    """Map voxel `points` (N, 3) to world mm (N, 3), RAS or LPS; `affine` (4, 4) maps indices to RAS mm."""
    matrix = np.asarray(affine, dtype=np.float64)
    return _apply(LPS_TO_RAS @ matrix if coordinates == "lps" else matrix, points)


def map_points(points: ArrayLike, matrix: ArrayLike) -> Floats:
    """Send `points` (N, 3) through the affine `matrix` (4, 4) that leads to voxels, rounded to 1e-3."""
    mapped = _apply(np.asarray(matrix, dtype=np.float64), points)
    return np.asarray(np.round(mapped, DECIMALS) + 0.0)  # + 0.0 turns -0.0 into 0.0


def _apply(matrix: Floats, points: ArrayLike) -> Floats:
    return np.asarray(points, dtype=np.float64).reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]


def map_box(box: ArrayLike, matrix: ArrayLike) -> Floats:
    """Bounding box (2, 3) of the eight corners of `box` (2, 3) after the affine `matrix` (4, 4), rounded to 1e-3."""
    corners = map_points(list(product(*np.asarray(box, dtype=np.float64).T)), matrix)
    return np.stack([corners.min(axis=0), corners.max(axis=0)])


def nearest_voxels(points: Floats, affine: ArrayLike) -> Floats:
    """Whole voxel indices nearest to `points` (N, 3) voxels; a tie goes towards greater RAS coordinates.

    The tie is broken in the world, so that the same place is chosen however the image is stored.
    """
    axes = np.asarray(affine, dtype=np.float64)[:3, :3]
    direction = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(3)])
    return np.asarray(direction * np.floor(direction * points + 0.5) + 0.0)


def inside(points: Floats, shape: Sequence[int]) -> NDArray[np.bool_]:
    """Which `points` (N, 3) lie in a grid of `shape`, its outer voxels taken whole: (N,) bool."""
    return np.asarray(np.all((points >= -0.5) & (points <= np.asarray(shape) - 0.5), axis=1))


def clip_box(box: Floats, shape: Sequence[int]) -> Floats | None:
    """Clip `box` (2, 3) to the voxels of a grid of `shape`; None if it lies wholly outside."""
    last = np.asarray(shape) - 1
    if (box[1] < -0.5).any() or (box[0] > last + 0.5).any():
        return None
    return np.clip(box, 0, last)


def to_model_frame(
    prompts: Sequence[Prompt], matrix: ArrayLike, shape: Sequence[int]
) -> tuple[list[Prompt], list[str]]:
    """Bring prompts from the stored frame to the model frame (orientation and foreground crop).

    Args:
        prompts: prompts in voxels of the stored image.
        matrix: (4, 4) from stored voxels to voxels of the cropped model frame.
        shape: (D, H, W) of the cropped model frame.

    Returns:
        The prompts in the model frame, and a message for every point or box dropped because it lies outside the crop.

    Raises:
        ValueError: nothing usable is left of a target.
    """
    messages: list[str] = []
    return [_in_crop(prompt, matrix, shape, messages) for prompt in prompts], messages


def _in_crop(prompt: Prompt, matrix: ArrayLike, shape: Sequence[int], messages: list[str]) -> Prompt:
    points = map_points(prompt.points, matrix)
    keep = inside(points, shape)
    for index in np.flatnonzero(~keep):
        place = ", ".join(f"{value:g}" for value in prompt.points[index])
        messages.append(f"target '{prompt.name}': points[{index}] ({place}) lies in air outside the body, ignored")
    box = None if prompt.box is None else clip_box(map_box(prompt.box, matrix), shape)
    if prompt.box is not None and box is None:
        messages.append(f"target '{prompt.name}': its box lies in air outside the body, ignored")
    result = replace(prompt, points=points[keep], point_labels=prompt.point_labels[keep], box=box)
    if not result.is_usable:
        raise ValueError(
            f"target '{prompt.name}': its prompt lies in air outside the body; "
            "allowed is a text, a positive point or a box that meets the body"
        )
    return result


def rescale(prompt: Prompt, from_shape: Sequence[int], to_shape: Sequence[int]) -> Prompt:
    """Carry a prompt from a grid of `from_shape` to a resized grid of `to_shape`, both (3,).

    A point goes to the voxel that holds it. On an axis that shrinks, a box covers the voxels that a nearest-exact
    resize of the filled box would (the released behaviour), or its middle voxel where that is none; on an axis that
    grows, every voxel that it touches. A box therefore never vanishes.
    """
    old, new = np.asarray(from_shape, dtype=np.int64), np.asarray(to_shape, dtype=np.int64)
    points = np.clip(np.floor(np.round((prompt.points + 0.5) * new / old, 6)), 0, new - 1)
    box = None if prompt.box is None else _rescale_box(prompt.box, old, new)
    return replace(prompt, points=points, box=box)


def _rescale_box(box: Floats, old: NDArray[np.int64], new: NDArray[np.int64]) -> Floats:
    """Integer arithmetic throughout: a quotient that should be whole is whole."""
    voxels = np.sort(np.stack([np.floor(box[0] + 0.5), np.ceil(box[1] - 0.5)]), axis=0).astype(np.int64)
    low, end = np.clip(voxels, 0, old - 1) * new + np.array([[0], [1]]) * new  # continuous extent, in 1/old voxels
    touched = np.stack([low // old, -(-end // old) - 1])
    sampled = np.stack([-((old - 2 * low) // (2 * old)), -((old - 2 * end) // (2 * old)) - 1])
    sampled = np.where(sampled[0] <= sampled[1], sampled, (low + end) // (2 * old))
    return np.clip(np.where(new < old, sampled, touched), 0, new - 1).astype(np.float64)


def in_window(prompt: Prompt, start: Sequence[int], size: Sequence[int]) -> Prompt:
    """The part of a prompt inside the window of `size` (3,) at `start` (3,), in voxels of that window.

    Points outside are dropped, positive and negative; a box is clipped, None where it does not meet the window; the
    text stays. The result may hold no point and no box.
    """
    offset = np.asarray(start, dtype=np.float64)
    points = prompt.points - offset
    keep = inside(points, size)
    box = None if prompt.box is None else clip_box(prompt.box - offset, size)
    return replace(prompt, points=points[keep], point_labels=prompt.point_labels[keep], box=box)


def box_of(mask: NDArray[Any]) -> Floats | None:
    """Bounding box (2, 3), inclusive, of the non-zero voxels of `mask` (D, H, W); None if there are none."""
    filled = np.asarray(mask, dtype=bool)
    sides = [np.flatnonzero(filled.any(axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    if not sides[0].size:
        return None
    return np.array([[side[0] for side in sides], [side[-1] for side in sides]], dtype=np.float64)


def prompt_from_mask(
    mask: NDArray[Any],
    name: str,
    kind: PromptKind,
    rng: np.random.Generator,
    *,
    jitter: float = 0.0,
    spacing: Sequence[float] | None = None,
) -> Prompt:
    """The prompt that a user would give for a known mask: the same one for the same state of `rng`.

    Args:
        mask: (D, H, W), non-zero on the target.
        name: the target's name, also its text.
        kind: what to give; a point is one positive click among the deepest tenth of the mask.
        rng: where the click and the jitter are drawn.
        jitter: each side of the box moves in or out by up to this part of its length, then to the nearest voxel.
        spacing: (3,) mm of a voxel, by which depth is measured; None counts voxels.

    Raises:
        ValueError: an unknown kind, or a point or box asked of an empty mask.
    """
    if kind not in PROMPT_KINDS:
        raise ValueError(f"kind: expected one of {', '.join(PROMPT_KINDS)}, got {kind!r}")
    parts = kind.split("+")
    box = None if kind == "text" else box_of(mask)
    if kind != "text" and box is None:
        raise ValueError(f"mask: expected at least one voxel of '{name}' for a {kind} prompt, got an empty mask")
    prompt = Prompt(name, text=name if "text" in parts else None)
    if box is not None and "point" in parts:
        return replace(prompt, points=_click(mask, box, rng, spacing), point_labels=np.array([POSITIVE]))
    return prompt if box is None else replace(prompt, box=_jittered(box, np.shape(mask), jitter, rng))


def _click(mask: NDArray[Any], box: Floats, rng: np.random.Generator, spacing: Sequence[float] | None) -> Floats:
    from scipy.ndimage import distance_transform_edt  # evaluation alone needs scipy

    block = np.asarray(mask, dtype=bool)[tuple(slice(int(lo), int(hi) + 1) for lo, hi in box.T)]
    depth = np.asarray(distance_transform_edt(np.pad(block, 1), sampling=spacing))[1:-1, 1:-1, 1:-1]
    deepest = np.argwhere(depth >= np.quantile(depth[block], 0.9, method="lower"))
    return np.asarray(box[:1] + deepest[rng.integers(len(deepest))])


def _jittered(box: Floats, shape: Sequence[int], jitter: float, rng: np.random.Generator) -> Floats:
    length = box[1] - box[0] + 1
    moved = np.rint(box + rng.uniform(-jitter, jitter, size=(2, 3)) * length)
    return np.sort(np.clip(moved, 0, np.asarray(shape) - 1), axis=0)
