"""The values of stored axes by the patient's axes, so that volumes that are stored in other orders compare."""

from collections.abc import Mapping
from typing import Any

AXES = {"R-L": "RL", "A-P": "AP", "S-I": "SI"}


def by_axis(record: Mapping[str, Any], key: str) -> dict[str, float]:
    """What a record has at ``key`` for each stored axis, as patient axis ("R-L", ...) -> value; those above 0 alone."""
    codes = record["axcodes"]
    found = {axis: record[key][n] for axis, ends in AXES.items() for n, code in enumerate(codes) if code in ends}
    return {axis: value for axis, value in found.items() if value}
