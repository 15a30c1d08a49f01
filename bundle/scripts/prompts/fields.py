"""The checks of prompts, one field at a time: what came goes in, the checked value comes out.

Every refusal is a ValueError of one line that names the argument, what is allowed and what came. Values may come from
JSON, from a command line or from a program, so that anything at all must be refused in this way and no other.
"""

import difflib
import math
import reprlib
import unicodedata
from collections.abc import Sequence
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .geometry import Floats

MAX_POINTS = 1000
MAX_COORDINATE = 1e6
MAX_NAME = 100
MAX_TEXT = 200
MAX_WORDS = 32


def parse_text(value: Any, where: str) -> str | None:
    """The text of a target or None; one that starts with $, @ or % is plain text here, as it reaches no config."""
    text = None if value is None else _plain_string(value, "text", where, MAX_TEXT)
    if text is not None and len(text.split()) > MAX_WORDS:
        raise ValueError(f"{where}.text: expected at most {MAX_WORDS} words, got {len(text.split())}")
    return text


def parse_name(value: Any, where: str) -> str | None:
    """The name of a target or None."""
    return None if value is None else _plain_string(value, "name", where, MAX_NAME)


def _plain_string(value: Any, key: str, where: str, limit: int) -> str:
    if not isinstance(value, str):
        raise refusal(f"{where}.{key}", f"a string of at most {limit} characters", value)
    stripped = str(value).strip()
    if not stripped:
        raise ValueError(f"{where}.{key}: {key} is empty; leave it out, or give 1 to {limit} characters")
    if len(stripped) > limit:
        raise ValueError(f"{where}.{key}: expected at most {limit} characters, got {len(stripped)}")
    # Control characters, halves of surrogate pairs, line and paragraph separators.
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in stripped):
        raise refusal(f"{where}.{key}", "a string without control characters", value)
    return stripped


def parse_points(value: Any, where: str) -> Floats:
    """(N, 3) points; a single [x, y, z] is one point, None or an empty list is none."""
    if is_absent(value):
        return np.empty((0, 3))
    rows = as_list(value)
    if not isinstance(rows, list):
        raise refusal(where, "a list of [x, y, z]", value)
    if len(rows) > MAX_POINTS:
        raise ValueError(f"{where}: expected at most {MAX_POINTS} points, got {len(rows)}")
    if not any(isinstance(as_list(row), list) for row in rows):
        return np.array([_parse_numbers(rows, 3, "a list of [x, y, z]", where)])
    return np.array([_parse_numbers(row, 3, "three numbers [x, y, z]", f"{where}[{n}]") for n, row in enumerate(rows)])


def parse_point_labels(value: Any, count: int, where: str) -> NDArray[np.int64]:
    """(`count`,) labels, 1 or 0; all 1 where missing."""
    if value is None:
        return np.ones(count, dtype=np.int64)
    labels = as_list(value)
    labels = labels if isinstance(labels, list) else [labels]
    if labels and not count:
        raise refusal(where, "no labels, as there are no points", value)
    if len(labels) != count:
        raise ValueError(f"{where}: expected as many labels as points, {count}, got {len(labels)}")
    for index, label in enumerate(labels):
        if isinstance(label, bool) or not isinstance(label, Real) or label not in (0, 1):
            raise refusal(f"{where}[{index}]", "1 (on the target) or 0 (off it)", label)
    return np.array([int(label) for label in labels], dtype=np.int64)


def parse_box(value: Any, where: str) -> Floats | None:
    """(2, 3) box from six numbers, corners in the order they came; None or an empty list is none."""
    if is_absent(value):
        return None
    numbers = _parse_numbers(value, 6, "six numbers [x0, y0, z0, x1, y1, z1]", where)
    return np.array(numbers).reshape(2, 3)


def _parse_numbers(value: Any, count: int, allowed: str, where: str) -> list[float]:
    values = as_list(value)
    if not isinstance(values, list) or len(values) != count:
        raise refusal(where, allowed, value)
    return [_parse_number(each, where) for each in values]


def _parse_number(value: Any, where: str) -> float:
    try:
        number = float(value) if isinstance(value, Real) and not isinstance(value, bool) else math.nan
    except OverflowError:
        number = math.inf
    if not abs(number) <= MAX_COORDINATE:  # refuses nan as well
        raise refusal(where, f"numbers from {-MAX_COORDINATE:.0f} to {MAX_COORDINATE:.0f}", value)
    return number


def check_keys(value: Any, allowed: Sequence[str], where: str) -> None:
    """Raise a ValueError unless `value` is a dict that has no key but those `allowed`; names the nearest one."""
    if not isinstance(value, dict):
        raise refusal(where, f"an object with the keys {', '.join(allowed)}", value)
    for key in value:
        if key not in allowed:
            text = key[:MAX_NAME] if isinstance(key, str) else _shown(key)
            nearest = difflib.get_close_matches(text, allowed, n=1, cutoff=0.0)[0]
            raise ValueError(
                f"{where}: unknown key {_shown(key)}; the nearest is '{nearest}', allowed are {', '.join(allowed)}"
            )


def is_absent(value: Any) -> bool:
    """Whether a list-like field is left out: None or empty."""
    return value is None or as_list(value) == []


def as_list(value: Any) -> Any:
    """Arrays and tuples as lists; everything else as it came."""
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    return list(value) if isinstance(value, tuple) else value


def refusal(where: str, allowed: str, came: Any) -> ValueError:
    """The error of a value that is not allowed."""
    return ValueError(f"{where}: expected {allowed}, got {_shown(came)}")


def _shown(value: Any) -> str:
    """A short repr on one line, whatever the value is."""
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = 60
    try:
        return " ".join(shortener.repr(value).split())
    except ValueError:  # an int with too many digits to print
        return f"<{type(value).__name__}>"
