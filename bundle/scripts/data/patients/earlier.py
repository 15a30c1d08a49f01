"""Sets that were prepared before: which cases they have, and which split each of them is in."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..records import CASES, Record, records_in
from .splits import KEYS

DATALIST = "datalist.json"
UNLABELLED = "unlabelled.json"  # images without labels of a set that has labels too
DATALISTS = (DATALIST, UNLABELLED)

Drawn = Mapping[str, Any]


def prepared_sets(output_dir: Path, beside: Sequence[Path]) -> list[Path]:
    """Folders of prepared sets in ``output_dir``, and those that ``beside`` names.

    Args:
        output_dir: which may not be there yet.
        beside: each a prepared set, its datalist, or a folder of prepared sets.

    Raises:
        ValueError: one line, for one of ``beside`` that is none of these.
    """
    found = _sets_in(output_dir)
    for path in beside:
        folder = path.parent if path.name in DATALISTS else path
        sets = [folder] if (folder / CASES).is_dir() else _sets_in(folder)
        if not sets:
            raise ValueError(f"beside: {path} is no set that prepare.json has prepared, and no folder of such sets")
        found += sets
    return list({folder.resolve(): folder for folder in found}.values())


def with_splits(folder: Path) -> list[Record]:
    """Records of the cases that the datalists of a prepared set list, each with its ``split``."""
    splits = splits_of(folder)
    return [{**record, "split": splits[record["case"]]} for record in records_in(folder) if record["case"] in splits]


def splits_of(folder: Path, drawn: Drawn | None = None) -> dict[str, str]:
    """Case -> split as the datalists of a set have it.

    Args:
        folder: of the set.
        drawn: only where they were drawn like that; None takes any.
    """
    splits: dict[str, str] = {}
    for name in DATALISTS:
        content = _read(folder / name)
        if drawn is None or content.get("drawn") == drawn:
            splits |= {entry["case"]: split for key, split in KEYS.items() for entry in content.get(key, ())}
    return splits


def has_labels(folder: Path) -> bool:
    """Whether a set was prepared with labels."""
    content = _read(folder / DATALIST)
    return any("label" in entry for key in KEYS for entry in content.get(key, ()))


def moved(path: Path, splits: Mapping[str, str]) -> dict[str, Any] | None:
    """What a datalist is to hold where some of its cases have another split; None where none has."""
    content = _read(path)
    entries = [(split, entry) for key, split in KEYS.items() for entry in content.get(key, ())]
    if not any(splits.get(entry["case"], split) != split for split, entry in entries):
        return None
    placed = sorted(
        ((splits.get(entry["case"], split), entry) for split, entry in entries), key=lambda each: str(each[1]["case"])
    )
    return {**content, **{key: [entry for own, entry in placed if own == split] for key, split in KEYS.items()}}


def _sets_in(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob(f"*/{CASES}") if path.is_dir())


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        _ = [entry["case"] for key in KEYS for entry in content.get(key, ())]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"output_dir: {path} is no datalist of a prepared set ({error})") from None
    return dict(content)
