"""The record of a prepared case: it is written last, and so says that the rest of the case is there."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..results.files import write_json
from ..voxel_files import files_of
from .whole_files import remove, sweep, whole_file

VERSION = 1  # of what a preparation writes; another one prepares every case anew

CASES = "cases"
FOLDERS = (CASES, "labels", "images", "prepared", "thumbnails")

RawCase = dict[str, Any]
Record = dict[str, Any]


def key_of(raw_case: RawCase, recipe: Mapping[str, Any]) -> str:
    """What a case is made from: its files' names, sizes and ages, what is known of it, and how it is prepared.

    Args:
        raw_case: from a layout.
        recipe: whatever else changes what is written.
    """
    states = [_state_of(file) for path in _paths_in(raw_case) for file in files_of(Path(path))]
    content = json.dumps([VERSION, raw_case, states, dict(recipe)], sort_keys=True)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def finished(folder: Path, case: str, key: str) -> Record | None:
    """The record of a case that was made from the same and whose files are there; else None.

    Args:
        folder: of the prepared set.
        case: its name.
        key: from ``key_of``.
    """
    record = read_record(folder / CASES / f"{case}.json")
    if record is None or record.get("key") != key:
        return None
    wanted = [record["image"], record["label"], f"thumbnails/{case}.png", f"prepared/{case}/index.json"]
    return record if all((folder / path).exists() for path in wanted if path is not None) else None


def read_record(path: Path) -> Record | None:
    """What a record's file holds; None where it is not there or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and content.get("case") == path.stem else None


def write_record(folder: Path, record: Record) -> None:
    """Write the record of a case whose other files are there."""
    with whole_file(folder / CASES / f"{record['case']}.json") as part:
        write_json(part, record)


def forget(folder: Path, case: str) -> None:
    """Remove all that an earlier preparation made of a case, its record first."""
    (folder / CASES / f"{case}.json").unlink(missing_ok=True)
    for path in (f"labels/{case}.nii.gz", f"images/{case}.nii.gz", f"thumbnails/{case}.png", f"prepared/{case}"):
        remove(folder / path)


def records_in(folder: Path) -> list[Record]:
    """All records of a prepared set, by the names of their cases."""
    found = (read_record(path) for path in sorted((folder / CASES).glob("*.json")) if not path.name.startswith("."))
    return [slim(record) for record in found if record is not None]


def slim(record: Record) -> Record:
    """A record for memory, of which there are very many: as a list of numbers its thumbnail would take 14 kB."""
    known = record.get("fingerprint")
    if not known:
        return record
    return {**record, "fingerprint": {**known, "thumbnail": np.asarray(known["thumbnail"], np.uint8)}}


def sweep_set(folder: Path) -> None:
    """Remove what killed processes have left in the folder of a prepared set."""
    for part in (folder, *(folder / name for name in FOLDERS)):
        sweep(part)


def _paths_in(value: Any) -> Iterator[str]:
    """Every ``path`` of a case's sources."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key == "path":
                yield str(item)
            else:
                yield from _paths_in(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _paths_in(item)


def _state_of(path: Path) -> tuple[str, int, int]:
    """Name, size and age; a file that is not there has neither, and is told by whoever reads it."""
    try:
        state = path.stat()
    except OSError:
        return path.name, -1, -1
    return path.name, state.st_size, state.st_mtime_ns
