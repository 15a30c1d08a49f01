"""What the unmodified OHIF plugin and Slicer module send, one reader per type of model.

Neither client says what its user means, so the rules stand here. Points are voxels of the stored order. Options stay
filled in from one request to the next, and OHIF repeats old points with later class requests: what cannot belong to
a request is ignored and named, what may belong to it is used and named.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .fields import (
    BadRequest,
    Numbers,
    Params,
    read_box,
    read_classes,
    read_flag,
    read_point_labels,
    read_points,
    read_roi,
    read_text,
)
from .targets import (
    BOX_LABEL,
    HELPER_LABELS,
    NAMELESS,
    TEXT_LABEL,
    Asked,
    ModelSpec,
    ask_names,
    ask_one,
    left_out,
    make_prompt,
)

Sentences = tuple[str, ...]

TEXT_RULE = f"it counts only for the class '{TEXT_LABEL}' or where no class is chosen"


def read_deepgrow(params: Params, model: ModelSpec) -> Asked:
    """Foreground and background points, ROI or box, text: one target of value 1.

    It is shown by its text, else by the name of Slicer's segment.

    Raises:
        BadRequest: none of these, or background points alone.
    """
    on, off = read_points(params, "foreground"), read_points(params, "background")
    points, labels, contested = _settle([*on, *off], [1] * len(on) + [0] * len(off))
    box, spare_box = _drawn_box(params)
    text, spare_name = _segment_text(params)
    prompt = make_prompt(text, points, labels, box)
    if not prompt:
        raise BadRequest(
            "nothing to go by: set a point, draw a box or fill in text_prompt, "
            "or switch on use_segment_name to ask by the segment's name"
        )
    segment = params.get("label")
    name = text or (segment.strip() if isinstance(segment, str) else "") or NAMELESS
    return ask_one(prompt, name, 1, contested + spare_box + spare_name)


def _drawn_box(params: Params) -> tuple[Numbers | None, Sentences]:
    roi = read_roi(params, "roi")
    if roi is None:
        return read_box(params, "box"), ()
    return roi, left_out(params, ["box"], "the drawn ROI comes first")


def _segment_text(params: Params) -> tuple[str | None, Sentences]:
    text = read_text(params, "text_prompt")
    if not read_flag(params, "use_segment_name"):
        return text, ()
    if text is None:
        return read_text(params, "label"), ()
    return text, left_out(params, ["label"], "text_prompt comes before the segment's name")


def _settle(points: Sequence[Numbers], labels: Sequence[int]) -> tuple[list[Numbers], list[int], Sentences]:
    """Drop the positive twin of every point listed both on and off the target: OHIF's background row sends both."""
    off = {tuple(point) for point, label in zip(points, labels, strict=True) if not label}
    pairs = list(zip(points, labels, strict=True))
    kept = [(point, label) for point, label in pairs if not label or tuple(point) not in off]
    dropped = len(pairs) - len(kept)
    sentence = f"{dropped} of the points: listed on and off the target, they count as off it"
    return [point for point, _ in kept], [label for _, label in kept], (sentence,) if dropped else ()


def read_vista3d(params: Params, model: ModelSpec) -> Asked:
    """The chosen classes as texts, or points and box for the one chosen class, or for none.

    With several classes the points and the box are ignored, and so are the helper labels, because OHIF's
    Auto-Segmentation lists every class. With one class nothing tells an old point from a new one: both are used.

    Raises:
        BadRequest: nothing to segment, or a helper label without what it needs.
    """
    classes = read_classes(params, "label_prompt", model.labels)
    if len(classes) > 1:
        return _several_classes(classes, params, model)
    points = read_points(params, "points")
    labels = read_point_labels(params, "point_labels", len(points))
    points, labels, contested = _settle(points, labels)
    if classes == [BOX_LABEL]:
        return _corner_box(points, labels, contested, params, model)
    located: dict[str, Any] = {"points": points, "point_labels": labels, "box": read_box(params, "box")}
    if classes in ([], [TEXT_LABEL]):
        return _free_text(located, bool(classes), contested, params, model)
    ignored = contested + left_out(params, ["text_prompt"], TEXT_RULE)
    return ask_one(make_prompt(classes[0], **located), classes[0], model.labels[classes[0]], ignored)


def _several_classes(classes: Sequence[str], params: Params, model: ModelSpec) -> Asked:
    names = [name for name in classes if name not in HELPER_LABELS]
    if not names:
        raise BadRequest("label_prompt: only helper labels were chosen; choose one of them alone, or other classes")
    helpers = [name for name in classes if name in HELPER_LABELS]
    skipped = tuple(f"'{name}': it counts only when it is the one chosen class" for name in helpers)
    located = left_out(params, ["points", "box"], "several classes were asked for")
    return ask_names(names, model, located + left_out(params, ["text_prompt"], TEXT_RULE) + skipped)


def _corner_box(
    points: Sequence[Numbers], labels: Sequence[int], contested: Sentences, params: Params, model: ModelSpec
) -> Asked:
    """Two positive points as opposite corners; negative ones stay points. Without a positive one the box option."""
    corners = [point for point, label in zip(points, labels, strict=True) if label]
    off = [point for point, label in zip(points, labels, strict=True) if not label]
    box = None if corners else read_box(params, "box")
    if box is None and len(corners) != 2:
        raise BadRequest(
            f"points: the class '{BOX_LABEL}' needs exactly two points, opposite corners of the box on its first and "
            f"last slice; got {len(corners)}"
        )
    box = box or [min(pair) for pair in zip(*corners, strict=True)] + [max(pair) for pair in zip(*corners, strict=True)]
    ignored = contested + left_out(params, ["text_prompt"], TEXT_RULE)
    ignored += left_out(params, ["box"], "the two corners come first") if corners else ()
    return ask_one(make_prompt(None, off, [0] * len(off), box), BOX_LABEL, model.labels[BOX_LABEL], ignored)


def _free_text(
    located: Mapping[str, Any], is_chosen: bool, contested: Sentences, params: Params, model: ModelSpec
) -> Asked:
    """The option text_prompt with points and box, or these alone.

    The value is that of the helper label where it was chosen, else that of the label which the text names, else the
    helper's again, whose row OHIF has; without a text it is 1.
    """
    text = read_text(params, "text_prompt")
    if text is None and is_chosen:
        raise BadRequest(f"text_prompt: the class '{TEXT_LABEL}' needs a text; fill it in under Options")
    name = None if text is None else model.spelled(text)
    prompt = make_prompt(name, **located)
    if not prompt:
        raise BadRequest("nothing to go by: choose a class, set a point or fill in text_prompt under Options")
    if name is None:
        return ask_one(prompt, NAMELESS, 1, contested)
    named = None if is_chosen else model.value_of(name)
    value = model.labels.get(TEXT_LABEL, model.free_value) if named is None else named
    return ask_one(prompt, name, value, contested)


def read_segmentation(params: Params, model: ModelSpec) -> Asked:
    """The names in text_prompt, else the chosen classes, else the model's short default list; each name once.

    Raises:
        BadRequest: no name at all, or more than a mask has values for.
    """
    texts = [name.strip() for name in re.split(r"[,;]", read_text(params, "text_prompt") or "") if name.strip()]
    classes = [] if texts else read_classes(params, "label_prompt", model.labels)
    names = texts or classes or list(model.defaults)
    if not names:
        raise BadRequest("nothing to segment: fill in text_prompt with one or several names")
    ignored = left_out(params, ["label_prompt"], "text_prompt comes first") if texts else ()
    ignored += left_out(params, ["foreground", "background", "points", "roi", "box"], "this model takes names only")
    return ask_names(list(dict.fromkeys(model.spelled(name) for name in names)), model, ignored)


READERS: Mapping[str, Callable[[Params, ModelSpec], Asked]] = {
    "deepgrow": read_deepgrow,
    "vista3d": read_vista3d,
    "segmentation": read_segmentation,
}
