"""What the labels of a datalist's case are called."""

from collections.abc import Mapping
from typing import Any


def label_names(case: Mapping[str, Any]) -> dict[int, str | None]:
    """Label value -> name, None for a structure without one.

    Args:
        case: of a datalist, with ``"labels": {"1": "liver", "2": null}``.

    Raises:
        ValueError: for no labels, and for values other than whole numbers above 0, which is the background.
    """
    labels = case.get("labels")
    if not isinstance(labels, dict) or not labels:
        raise ValueError('labels is missing; it takes {"1": "liver", ...}, label values and their names')
    for value in labels:
        if not str(value).isdecimal() or int(value) == 0:
            raise ValueError(f"labels has the value {value!r}; allowed are whole numbers above 0")
    return {int(value): None if name is None else str(name) for value, name in labels.items()}
