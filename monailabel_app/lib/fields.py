"""The fields of a request, one at a time: what came goes in, a value of the right shape or None comes out.

Clients send anything: options as strings, empty strings for what was left out, null, and whatever a stranger types.
Every refusal is a BadRequest of one line that names the field, what is allowed and what came. Ranges and lengths are
left to the bundle's own parser, which checks every prompt once more.
"""

import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any

MAX_CLIENT = 200
MAX_STEPS = 1000

Numbers = list[int | float]
Params = Mapping[str, Any]

FLAGS = {"true": 1, "false": 0, "1": 1, "0": 0}


class BadRequest(ValueError):
    """A request that cannot be answered, in one plain sentence for the user."""


def is_absent(value: Any) -> bool:
    """Whether a field is left out: null, an empty or blank string, an empty list."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, list | tuple) and not value)


def read_text(params: Params, key: str) -> str | None:
    """A text without blanks around it, or None; a `$` in it means nothing here."""
    value: Any = params.get(key)
    if is_absent(value):
        return None
    if not isinstance(value, str):
        raise refusal(key, "a text", value)
    return value.strip()


def read_texts(params: Params, key: str) -> list[str]:
    """The texts of a field that holds one text or a list of them."""
    value: Any = params.get(key)
    if is_absent(value):
        return []
    texts = list(value) if isinstance(value, list | tuple) else [value]
    for each in texts:
        if not isinstance(each, str) or not each.strip():
            raise refusal(key, "a text or a list of texts", each)
    return [each.strip() for each in texts]


def read_flag(params: Params, key: str) -> bool:
    """True or false, which may come as true/false, 1/0 or one of these words in any case; False where it is absent."""
    value: Any = params.get(key)
    if is_absent(value):
        return False
    flag: Any = FLAGS.get(value.strip().lower()) if isinstance(value, str) else value
    if not isinstance(flag, int) or flag not in (0, 1):
        raise refusal(key, "true or false", value)
    return bool(flag)


def read_steps(params: Params, key: str) -> int:
    """A whole number of steps back, negative for steps forward; 0 where it is absent."""
    value: Any = params.get(key)
    if is_absent(value):
        return 0
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > MAX_STEPS:
        raise refusal(key, f"a whole number from {-MAX_STEPS} to {MAX_STEPS}", value)
    return value


def read_choice(params: Params, key: str, allowed: Sequence[str]) -> str | None:
    """One of `allowed`, or None; the whole list is a drop-down that nobody touched, as the host fills it in."""
    value: Any = params.get(key)
    if is_absent(value) or (isinstance(value, list | tuple) and tuple(value) == tuple(allowed)):
        return None
    if not isinstance(value, str) or value.strip() not in allowed:
        raise refusal(key, f"one of {', '.join(allowed)}" if allowed else "nothing", value)
    return value.strip()


def read_client(params: Params, key: str) -> str:
    """Who asks, in the client's own words; "" where it does not say."""
    client = read_text(params, key) or ""
    if len(client) > MAX_CLIENT:
        raise refusal(key, f"at most {MAX_CLIENT} characters", client)
    return client


def read_points(params: Params, key: str) -> list[Numbers]:
    """Points as rows of three numbers; a single [i, j, k] is one point."""
    value: Any = params.get(key)
    if is_absent(value):
        return []
    if not isinstance(value, list | tuple):
        raise refusal(key, "a list of [i, j, k]", value)
    rows = value if any(isinstance(row, list | tuple) for row in value) else [value]
    return [_numbers(row, 3, f"{key}[{n}]", "three numbers [i, j, k]") for n, row in enumerate(rows)]


def read_point_labels(params: Params, key: str, count: int) -> list[int]:
    """1 (on the target) or 0 (off it) for each of `count` points; all 1 where the field is absent."""
    value: Any = params.get(key)
    if is_absent(value):
        return [1] * count
    labels = list(value) if isinstance(value, list | tuple) else [value]
    if len(labels) != count:
        raise BadRequest(f"{key}: expected as many labels as points, {count}, got {len(labels)}")
    for n, label in enumerate(labels):
        if not _is_number(label) or label not in (0, 1):
            raise refusal(f"{key}[{n}]", "1 (on the target) or 0 (off it)", label)
    return [int(label) for label in labels]


def read_box(params: Params, key: str) -> Numbers | None:
    """Six numbers i0, j0, k0, i1, j1, k1, or None; a string of them may have commas, blanks and brackets."""
    value: Any = params.get(key)
    if is_absent(value):
        return None
    allowed = "six numbers i0, j0, k0, i1, j1, k1"
    if not isinstance(value, str):
        return _numbers(value, 6, key, allowed)
    try:
        numbers: Numbers = [float(word) for word in re.sub(r"[\[\](),;]", " ", value).split()]
    except ValueError:
        raise refusal(key, allowed, value) from None
    if len(numbers) != 6:
        raise refusal(key, allowed, value)
    return numbers


def read_roi(params: Params, key: str) -> Numbers | None:
    """Slicer's [i1, i2, j1, j2, k1, k2], each pair in any order, as a box [i0, j0, k0, i1, j1, k1]; or None."""
    value: Any = params.get(key)
    if is_absent(value):
        return None
    numbers = _numbers(value, 6, key, "six numbers [i1, i2, j1, j2, k1, k2]")
    pairs = [numbers[0:2], numbers[2:4], numbers[4:6]]
    return [min(pair) for pair in pairs] + [max(pair) for pair in pairs]


def read_classes(params: Params, key: str, labels: Mapping[str, int]) -> list[str]:
    """The names of the classes listed by value, each once; null is the background row and names none."""
    value: Any = params.get(key)
    if is_absent(value):
        return []
    if not isinstance(value, list | tuple):
        raise refusal(key, "a list of class values", value)
    names = {number: name for name, number in labels.items()}
    chosen = [each for each in value if each is not None]
    for each in chosen:
        if isinstance(each, bool) or not isinstance(each, int) or each not in names:
            span = f"a class value from {min(names)} to {max(names)}" if names else "no class, as this model has none"
            raise refusal(key, span, each)
    return list(dict.fromkeys(names[each] for each in chosen))


def refusal(where: str, allowed: str, came: Any) -> BadRequest:
    """The error of a value that is not allowed."""
    return BadRequest(f"{where}: expected {allowed}, got {_shown(came)}")


def _numbers(value: Any, count: int, where: str, allowed: str) -> Numbers:
    if not isinstance(value, list | tuple) or len(value) != count or not all(map(_is_number, value)):
        raise refusal(where, allowed, value)
    return list(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Any) -> str:
    """A short repr on one line, whatever the value is."""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = 60
    try:
        return " ".join(shortener.repr(value).split())
    except ValueError:  # an int with too many digits to print
        return f"<{type(value).__name__}>"
