"""The border of the app: the params of any client in, the bundle's prompt document out, or one plain sentence.

Pure: no file, no image, no network and no library but the standard one. The document is not yet checked as the bundle
checks it (ranges, lengths, number of points); its own parser does that next and refuses in the same way.

Viewers are read in `viewers`. A program may send the bundle's full schema instead, to every model:

    {"targets": [{"name", "text", "points", "point_labels", "box"}, ...], "coordinates": "voxel" | "ras" | "lps"}
    {"text": "..." or [...], "points": [...], "point_labels": [...], "box": [...], "coordinates": ...}

It counts, and what a viewer sends beside it does not, as soon as targets, text or coordinates is there; for deepgrow,
whose viewers never send points, points are enough.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .fields import (
    BadRequest,
    Params,
    is_absent,
    read_box,
    read_choice,
    read_client,
    read_flag,
    read_point_labels,
    read_points,
    read_steps,
    read_text,
    read_texts,
    refusal,
)
from .targets import (
    BOX_LABEL,
    HELPER_LABELS,
    MAX_VALUE,
    NAMELESS,
    TEXT_LABEL,
    Asked,
    ModelSpec,
    Target,
    ask_names,
    ask_one,
    left_out,
    make_prompt,
    number,
    tell_apart,
)
from .viewers import READERS

__all__ = ["BOX_LABEL", "HELPER_LABELS", "TEXT_LABEL", "BadRequest", "Job", "ModelSpec", "read_request"]

VIEWER_KEYS = ("foreground", "background", "roi", "text_prompt", "label_prompt")
SCHEMA_KEYS = ("text", "points", "box")


@dataclass(frozen=True)
class Job:
    """A request in the app's own words.

    Attributes:
        document: {"coordinates", "targets"} for the bundle's parser; no targets when `undo` is not 0.
        values: value of each target in the reply's mask, no two alike.
        names: shown name of each target, no two alike.
        mode: the bundle's mode, None for its default.
        refine: whether the client's last result on this image is to be mended.
        undo: results to go back, negative to go forward again.
        client: who asks, "" where it did not say.
        save_to_study: whether the result is to be stored beside the image.
        used: one sentence for every prompt that counts.
        ignored: one sentence for every prompt that came and does not count, and why.
    """

    document: dict[str, Any]
    values: tuple[int, ...]
    names: tuple[str, ...]
    mode: str | None
    refine: bool
    undo: int
    client: str
    save_to_study: bool
    used: tuple[str, ...]
    ignored: tuple[str, ...]


def read_request(params: Params, model: ModelSpec) -> Job:
    """Read the params of any client. Keys that mean nothing here are passed over: clients send options of their own.

    Raises:
        BadRequest: it cannot be answered; the message is one sentence for the user.
    """
    if not isinstance(params, Mapping):
        raise refusal("params", "an object with named fields", params)
    undo = read_steps(params, "undo")
    asked = _read_undo(params) if undo else _read_prompts(params, model)
    return Job(
        document={"coordinates": asked.coordinates, "targets": [target.prompt for target in asked.targets]},
        values=tuple(target.value for target in asked.targets),
        names=tell_apart([target.name for target in asked.targets]),
        mode=read_choice(params, "mode", model.modes),
        refine=read_flag(params, "refine"),
        undo=undo,
        client=read_client(params, "client_id"),
        save_to_study=read_flag(params, "save_to_study"),
        used=asked.used,
        ignored=asked.ignored,
    )


def _read_undo(params: Params) -> Asked:
    keys = ("targets", *SCHEMA_KEYS, *VIEWER_KEYS)
    return Asked((), (), left_out(params, keys, "undo and redo take no prompt"))


def _read_prompts(params: Params, model: ModelSpec) -> Asked:
    if isinstance(params.get("targets"), list) or not is_absent(params.get("targets")):
        return _read_targets(params, model)
    schema = ("text", "coordinates", "points") if model.kind == "deepgrow" else ("text", "coordinates")
    if all(is_absent(params.get(key)) for key in schema):
        return READERS[model.kind](params, model)
    return _read_schema(params, model)


def _read_targets(params: Params, model: ModelSpec) -> Asked:
    """Several targets as they came; each gets the value of the label that its name or its text is, else a free one."""
    targets = params["targets"]
    if not isinstance(targets, list | tuple) or not targets:
        raise refusal("targets", "a list of at least one target", targets)
    if len(targets) > MAX_VALUE:
        raise BadRequest(f"targets: expected at most {MAX_VALUE} targets, got {len(targets)}")
    names = [_target_names(target, n) for n, target in enumerate(targets)]
    values = number(names, model)
    asked = [
        Target(target, candidates[0] if candidates else f"{NAMELESS} {n}", value)
        for n, (target, candidates, value) in enumerate(zip(targets, names, values, strict=True), 1)
    ]
    ignored = left_out(params, (*SCHEMA_KEYS, *VIEWER_KEYS), "targets came, and they alone count")
    used = f"{len(asked)} target{'s' * (len(asked) > 1)}"
    return Asked(tuple(asked), (used,), ignored, _read_coordinates(params))


def _target_names(target: Any, n: int) -> list[str]:
    if not isinstance(target, dict):
        raise refusal(f"targets[{n}]", "an object such as {'text': 'liver'}", target)
    given = [target.get("name"), target.get("text")]
    return [each.strip() for each in given if isinstance(each, str) and each.strip()]


def _read_schema(params: Params, model: ModelSpec) -> Asked:
    """One target of text, points and box, or several texts; values as in `_read_targets`."""
    texts = [model.spelled(text) for text in read_texts(params, "text")]
    points = read_points(params, "points")
    labels = read_point_labels(params, "point_labels", len(points))
    box = read_box(params, "box")
    ignored = left_out(params, VIEWER_KEYS, "text, points and box of the full schema came, and they alone count")
    if len(texts) > 1:
        if points or box:
            raise BadRequest("text: several texts share no points and no box; give each target its own under targets")
        asked = ask_names(texts, model, ignored)
    else:
        prompt = make_prompt(texts[0] if texts else None, points, labels, box)
        if not prompt:
            raise BadRequest("no prompt: give at least one of text, points, box, targets")
        asked = ask_one(prompt, texts[0] if texts else NAMELESS, number([texts], model)[0], ignored)
    return replace(asked, coordinates=_read_coordinates(params))


def _read_coordinates(params: Params) -> str:
    return read_text(params, "coordinates") or "voxel"
