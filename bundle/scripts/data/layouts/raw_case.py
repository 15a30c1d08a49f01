"""A case as it lies on disk, before anything of it is read, and the names it goes by."""

import re
import zlib
from typing import Any, NamedTuple

RawCase = dict[str, Any]
"""Plain JSON: case, data_set, patient, image and label (what ``sources`` reads), labels, complete, split."""

Fault = dict[str, str]
"""``{"case", "kind", "sentence"}``: a case that is left out, and why."""

MAX_NAME = 100  # characters of a case's name; it becomes part of file names


class Found(NamedTuple):
    """What a folder holds of a data set.

    Attributes:
        cases: sorted by name.
        faults: images that are left out, sorted by name.
    """

    cases: list[RawCase]
    faults: list[Fault]


def case_id(data_set: str, case: str) -> str:
    """A name of A-Z, a-z, 0-9, '.', '_' and '-' that starts with the set's; letters beyond ASCII become numbers."""
    name = f"{_plain(data_set)}_{_plain(case)}"
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 9]}-{zlib.crc32(name.encode()):08x}"


def patient_id(data_set: str, pattern: str | None, path: str, case: str) -> str:
    """``set/patient``.

    Args:
        data_set: name of the set.
        pattern: regular expression whose one group finds the patient in ``path``; None, or where it finds nothing,
            each case is a patient of its own.
        path: of the image, relative to data_dir.
        case: as the set calls it.
    """
    found = re.search(pattern, path) if pattern else None
    return f"{data_set}/{found[1] if found else case}"


def _plain(text: str) -> str:
    ascii_only = "".join(c if c.isascii() else f"u{ord(c):x}" for c in text)
    return re.sub(r"[^A-Za-z0-9._-]", "_", ascii_only)
