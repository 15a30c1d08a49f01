"""What a request asks for, whichever client sent it: targets with their prompt, shown name and value in the mask.

The readers of viewers' and of REST requests meet here, so that both number, name and describe their targets alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from typing import Any, Literal

from .fields import BadRequest, Numbers, Params, is_absent

BOX_LABEL = "box (2 corner clicks)"
TEXT_LABEL = "custom text"
HELPER_LABELS = (BOX_LABEL, TEXT_LABEL)

NAMELESS = "target"
MAX_NAME = 100
MAX_SHOWN = 60
MAX_VALUE = 255  # masks are uint8


@dataclass(frozen=True)
class ModelSpec:
    """What a request may ask of one model.

    Attributes:
        kind: MONAI Label's type of the model, which decides what the viewers send.
        labels: value of each name in the mask, the helper labels included; empty for deepgrow.
        defaults: what an automatic segmentation draws when nothing was named.
        modes: what the option `mode` may be.
    """

    kind: Literal["deepgrow", "vista3d", "segmentation"]
    labels: Mapping[str, int]
    defaults: tuple[str, ...] = ()
    modes: tuple[str, ...] = ()

    @cached_property
    def _spellings(self) -> dict[str, str]:
        return {name.casefold(): name for name in self.labels if name not in HELPER_LABELS}

    def spelled(self, text: str) -> str:
        """The label's own spelling of a text that is one in another case, else the text; helpers are no names."""
        return self._spellings.get(text.casefold(), text)

    def value_of(self, text: str) -> int | None:
        """The value of the label that a text names in any case, or None."""
        return self.labels.get(self._spellings.get(text.casefold(), ""))

    @property
    def free_value(self) -> int:
        """The value after the highest label."""
        return max(self.labels.values(), default=0) + 1


@dataclass(frozen=True)
class Target:
    """One target of the document, the name it is shown by, and its value in the mask."""

    prompt: Any
    name: str
    value: int


@dataclass(frozen=True)
class Asked:
    """What a request asks for, in `coordinates`, and one sentence for every prompt used and every one ignored."""

    targets: tuple[Target, ...]
    used: tuple[str, ...]
    ignored: tuple[str, ...] = ()
    coordinates: str = "voxel"


def ask_one(prompt: dict[str, Any], name: str, value: int, ignored: Sequence[str] = ()) -> Asked:
    """Ask for a single target."""
    return Asked((Target(prompt, name, value),), describe(prompt), tuple(ignored))


def ask_names(names: Sequence[str], model: ModelSpec, ignored: Sequence[str] = ()) -> Asked:
    """Ask for one text-only target per name."""
    values = number([[name] for name in names], model)
    targets = tuple(Target({"text": name}, name, value) for name, value in zip(names, values, strict=True))
    return Asked(targets, tuple(sentence for each in targets for sentence in describe(each.prompt)), tuple(ignored))


def make_prompt(
    text: str | None = None,
    points: Sequence[Numbers] = (),
    point_labels: Sequence[int] = (),
    box: Numbers | None = None,
) -> dict[str, Any]:
    """A target of the document that holds only what was given.

    Raises:
        BadRequest: negative points and nothing else.
    """
    if points and text is None and box is None and 1 not in point_labels:
        raise BadRequest("points: all of them are background; add a point on the target, a box or a text")
    prompt = {"text": text, "points": list(points), "point_labels": list(point_labels), "box": box}
    return {key: value for key, value in prompt.items() if value}


def describe(prompt: Mapping[str, Any]) -> tuple[str, ...]:
    """One short sentence for each part of a prompt."""
    points = len(prompt.get("points", ()))
    sentences = [f"{points} point{'s' * (points > 1)}"] if points else []
    sentences += ["box"] if "box" in prompt else []
    sentences += [f"text '{prompt['text'][:MAX_SHOWN]}'"] if "text" in prompt else []
    return tuple(sentences)


def left_out(params: Params, keys: Sequence[str], reason: str) -> tuple[str, ...]:
    """One sentence for each of `keys` that came and does not count."""
    return tuple(f"{key}: {reason}" for key in keys if not is_absent(params.get(key)))


def number(names: Sequence[Sequence[str]], model: ModelSpec) -> list[int]:
    """A value for every target: that of the first of its names that is a label, else the next after the highest.

    Two targets never share a value: the second one of a label gets a free value too.

    Raises:
        BadRequest: the mask has no room for that many.
    """
    free, values, taken = count(model.free_value), list[int](), set[int]()
    for candidates in names[: MAX_VALUE + 1]:
        known = next((value for value in map(model.value_of, candidates) if value is not None), None)
        values.append(next(free) if known is None or known in taken else known)
        taken.add(values[-1])
    if values and max(values) > MAX_VALUE:
        raise BadRequest(f"too many targets: the values of a mask end at {MAX_VALUE}; ask for fewer at a time")
    return values


def tell_apart(names: Sequence[str]) -> tuple[str, ...]:
    """The names as they are shown: cut to a length, and with a number where one occurs again."""
    shown: dict[str, None] = {}
    for name in names:
        stem = name[:MAX_NAME]
        numbered = (f"{stem} ({n})" for n in count(2))
        shown[stem if stem not in shown else next(each for each in numbered if each not in shown)] = None
    return tuple(shown)
