"""The one parser of prompts at the border.

Command line, prompts.json, case lists and the Label app all bring their users' prompts here as one kind of plain
document, so that a mistake gets the same one-line ValueError everywhere: the argument, what is allowed, what came.

    {"coordinates": "voxel" | "ras" | "lps",
     "targets": [{"name": "...", "text": "...", "points": [[x, y, z], ...], "point_labels": [1 or 0, ...],
                  "box": [x0, y0, z0, x1, y1, z1]}, ...]}

Every field of a target is optional, but one of text, points and box must be there.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import ArrayLike

from .fields import (
    MAX_NAME,
    as_list,
    check_keys,
    is_absent,
    parse_box,
    parse_name,
    parse_point_labels,
    parse_points,
    parse_text,
    refusal,
)
from .geometry import (
    Floats,
    Prompt,
    clip_box,
    inside,
    map_box,
    map_points,
    nearest_voxels,
    world_to_voxel_matrix,
)

Coordinates = Literal["voxel", "ras", "lps"]

COORDINATES = ("voxel", "ras", "lps")
DOCUMENT_KEYS = ("coordinates", "targets")
TARGET_KEYS = ("name", "text", "points", "point_labels", "box")
MAX_TARGETS = 1000


@dataclass(frozen=True, eq=False)
class PromptDocument:
    """A checked document: its targets as prompts, still in the document's coordinates."""

    coordinates: Coordinates
    targets: tuple[Prompt, ...]

    def to_voxel(self, affine: ArrayLike, shape: Sequence[int]) -> list[Prompt]:
        """The targets in voxels of the stored image.

        World coordinates land on the nearest voxel, voxel coordinates may be fractional; a box is clipped to the image.

        Args:
            affine: (4, 4) from stored voxels to RAS mm.
            shape: (3,) of the stored image.

        Raises:
            ValueError: a point, or the whole of a box, lies outside the image.
        """
        return [self._target_to_voxel(index, affine, shape) for index in range(len(self.targets))]

    def _target_to_voxel(self, index: int, affine: ArrayLike, shape: Sequence[int]) -> Prompt:
        target, where = self.targets[index], f"targets[{index}]"
        points, box = target.points, target.box
        if self.coordinates != "voxel":
            matrix = world_to_voxel_matrix(affine, self.coordinates)
            points = map_points(points, matrix)
            box = None if box is None else map_box(box, matrix)
        self._check_inside(points, where, target, shape)
        clipped = None if box is None else clip_box(box, shape)
        if box is not None and clipped is None:
            raise ValueError(f"{where}.box of '{target.name}': {self._outside(target.box, box, shape)}")
        if self.coordinates != "voxel":
            points = np.clip(nearest_voxels(points, affine), 0, np.asarray(shape) - 1)
            clipped = None if clipped is None else nearest_voxels(clipped, affine)
        return replace(target, points=points, box=clipped)

    def _check_inside(self, points: Floats, where: str, target: Prompt, shape: Sequence[int]) -> None:
        for index in np.flatnonzero(~inside(points, shape)):
            outside = self._outside(target.points[index], points[index], shape)
            raise ValueError(f"{where}.points[{index}] of '{target.name}': {outside}")

    def _outside(self, given: Floats | None, voxels: Floats, shape: Sequence[int]) -> str:
        came = f"voxel {_row(voxels)}"
        if self.coordinates != "voxel":
            came = f"{_row(given)} mm {self.coordinates.upper()}, {came},"
        axes = ", ".join(f"{axis} 0 to {size - 1}" for axis, size in zip("ijk", shape, strict=True))
        return f"{came} lies outside the image; allowed are {axes}"


def command_line_document(
    text: Any = None,
    points: Any = None,
    point_labels: Any = None,
    box: Any = None,
    coordinates: str = "voxel",
) -> dict[str, Any]:
    """Put the keys of a command line into a document for `parse_document`.

    Points and box describe one target, refined by one text or none; several texts are several text-only targets.

    Args:
        text: a text, or a list or tuple of them (the command line turns `liver, spleen` into a tuple).
        points: [x, y, z] or a list of such.
        point_labels: 1 or 0 for every point; all 1 where missing.
        box: [x0, y0, z0, x1, y1, z1].
        coordinates: "voxel", "ras" or "lps".

    Raises:
        ValueError: no prompt at all, or several texts together with points or a box.
    """
    texts = _command_line_texts(text)
    located = {"points": points, "point_labels": point_labels, "box": box}
    located = {key: as_list(value) for key, value in located.items() if not is_absent(value)}
    if not texts and not {"points", "box"} & located.keys():
        raise ValueError("no prompt: give at least one of text, points, box")
    if len(texts) > 1 and located:
        raise ValueError(
            f"text: {len(texts)} texts came together with {', '.join(located)}; allowed is one text with points or "
            "a box, or write each target with its own points and box into a prompts.json"
        )
    targets = [{"text": each} for each in texts] if len(texts) > 1 else [{"text": each, **located} for each in texts]
    return {"coordinates": coordinates, "targets": targets or [located]}


def _command_line_texts(text: Any) -> list[str]:
    if text is None:
        return []
    texts = list(text) if isinstance(text, list | tuple) else [text]
    for each in texts:
        if not isinstance(each, str | int | float):
            raise refusal("text", "a text or a list of texts", each)
    if not texts:
        raise ValueError("text is empty; leave it out, or name what to segment")
    return [each if isinstance(each, str) else str(each) for each in texts]


def parse_document(document: Any) -> PromptDocument:
    """Check a document (see the module) and read it; no image is needed.

    Raises:
        ValueError: anything that is not allowed, in one line that names the argument.
    """
    check_keys(document, DOCUMENT_KEYS, "prompts")
    coordinates = _parse_coordinates(document.get("coordinates"))
    targets = document.get("targets")
    if not isinstance(targets, list | tuple) or not targets:
        raise refusal("targets", "a list of at least one target", targets)
    if len(targets) > MAX_TARGETS:
        raise ValueError(f"targets: expected at most {MAX_TARGETS} targets, got {len(targets)}")
    taken: set[str] = set()
    return PromptDocument(coordinates, tuple(_parse_target(each, n, taken) for n, each in enumerate(targets)))


def _parse_coordinates(value: Any) -> Coordinates:
    coordinates = "voxel" if value is None else value
    if not isinstance(coordinates, str) or coordinates.strip().lower() not in COORDINATES:
        raise refusal("coordinates", f"one of {', '.join(COORDINATES)}", value)
    return cast(Coordinates, coordinates.strip().lower())


def _parse_target(target: Any, index: int, taken: set[str]) -> Prompt:
    where = f"targets[{index}]"
    check_keys(target, TARGET_KEYS, where)
    text = parse_text(target.get("text"), where)
    points = parse_points(target.get("points"), f"{where}.points")
    labels = parse_point_labels(target.get("point_labels"), len(points), f"{where}.point_labels")
    box = parse_box(target.get("box"), f"{where}.box")
    name = _unique_name(parse_name(target.get("name"), where), text, index, taken)
    prompt = Prompt(name, text, points, labels, box)
    if not prompt.is_usable:
        raise ValueError(
            f"{where}: all its points are negative; add a positive point, a box or a text"
            if len(points)
            else f"{where}: no prompt: give at least one of text, points, box"
        )
    return prompt


def _unique_name(name: str | None, text: str | None, index: int, taken: set[str]) -> str:
    """The given name, else the text, else the position; a number where it is taken already."""
    if name is None:
        stem = None if text is None else text[:MAX_NAME].strip()
        name = stem if stem is not None and stem not in taken else f"target_{index + 1}"
    unique, count = name, 1
    while unique in taken:
        count += 1
        suffix = f" ({count})"
        unique = name[: MAX_NAME - len(suffix)] + suffix
    taken.add(unique)
    return unique


def _row(values: Floats | None) -> str:
    return "(" + ", ".join(f"{value:g}" for value in np.ravel(np.asarray(values, dtype=np.float64))) + ")"
