"""The data report of a prepared set: one page to read, report.html, and the same in numbers, report.json."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...results.files import write_json
from ..quality.patient_axes import AXES, by_axis
from ..whole_files import whole_file
from .page import Pictures, html_page

SPLITS = ("train", "training", "validation", "test")  # in this order; any other name after them
ENOUGH = 0.25  # share of the cases of a structure that must have it whole, for the others' volumes to be left out

Color = tuple[int, int, int]
Record = Mapping[str, Any]


def write_report(
    path: Path,
    about: Mapping[str, Any],
    records: Sequence[Record],
    splits: Mapping[str, str],
    skipped: Sequence[Mapping[str, Any]],
    faults: Sequence[Mapping[str, Any]],
    thumbnails: Mapping[str, Path],
    duplicates: Sequence[Mapping[str, Any]],
    colors: Mapping[str, Color] | None = None,
) -> None:
    """Write the page, and beside it a JSON of the same stem; each appears whole, the page last.

    The page is complete in itself: it loads nothing and runs nothing. The same input gives the same bytes.

    Args:
        path: the page.
        about: of the set: ``name``, ``licence``, ``source``, ``note``, ``volumes``; all but the name may be missing.
        records: of its cases.
        splits: case -> split.
        skipped: cases that could not be prepared: ``case``, ``sentence`` and, where known, ``kind``.
        faults: what is suspicious about the others, from ``faults_of_set``.
        thumbnails: case -> PNG; one that is not there is left out.
        duplicates: images that are there several times, in this set or others: ``cases`` and, where the names do not
            say it all, ``sentence``.
        colors: of the structures, as the thumbnails have them.
    """
    summary = summarise(about, records, splits, skipped, faults, duplicates)
    pictures = Pictures(
        dict(thumbnails), {name: "#{:02x}{:02x}{:02x}".format(*c) for name, c in (colors or {}).items()}
    )
    page = html_page(about, summary, records, splits, skipped, faults, pictures)
    with whole_file(path.with_suffix(".json")) as part:
        write_json(part, summary)
    with whole_file(path) as part:
        part.write_bytes(page.encode("utf-8", "replace"))  # a file name may hold what is no character


def summarise(
    about: Mapping[str, Any],
    records: Sequence[Record],
    splits: Mapping[str, str],
    skipped: Sequence[Mapping[str, Any]],
    faults: Sequence[Mapping[str, Any]],
    duplicates: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The numbers of the report, plain values for JSON; ``write_report`` has the arguments."""
    return {
        "data_set": str(about.get("name", "")),
        "cases": len(records),
        "patients": len({record["patient"] for record in records}),
        "labelled": sum(record.get("label") is not None for record in records),
        "splits": _splits(records, splits),
        "spacing_mm": _grid(records, "spacing_mm"),
        "voxels": _grid(records, "shape"),
        "field_of_view_mm": _grid(records, "field_of_view_mm"),
        "axcodes": dict(sorted(Counter(record["axcodes"] for record in records).items())),
        "intensity": {
            key: quartiles(record["intensity"][key] for record in records)
            for key in ("min", "p01", "median", "p99", "max")
        },
        "structures": _structures(records),
        "skipped": [dict(fault) for fault in skipped],
        "faults": dict(sorted(Counter(fault["kind"] for fault in faults).items())),
        "duplicates": [dict(found) for found in duplicates],
    }


def quartiles(values: Iterable[float | None]) -> dict[str, Any] | None:
    """n, min, lower quartile, median, upper quartile and max; None for no values. None among them is left out."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    found = np.percentile(np.asarray(known, dtype=np.float64), [0, 25, 50, 75, 100])
    names = ("min", "lower_quartile", "median", "upper_quartile", "max")
    return {"n": len(known), **{name: round(float(value), 4) for name, value in zip(names, found, strict=True)}}


def _splits(records: Sequence[Record], splits: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Cases and patients of each split; cases that are in none come last."""
    patients: dict[str, list[str]] = {}
    for record in records:
        patients.setdefault(splits.get(record["case"], "in no split"), []).append(record["patient"])
    others = sorted(set(patients) - {*SPLITS, "in no split"})
    order = [name for name in (*SPLITS, *others, "in no split") if name in patients]
    return {name: {"cases": len(patients[name]), "patients": len(set(patients[name]))} for name in order}


def _grid(records: Sequence[Record], key: str) -> dict[str, Any]:
    """Quartiles of the stored axes' values by the patient's axes."""
    found = [by_axis(record, key) for record in records]
    return {axis: quartiles(values.get(axis) for values in found) for axis in AXES}


def _structures(records: Sequence[Record]) -> dict[str, Any]:
    """Every structure that is there, most cases first: how many have it, have it whole, and its volume.

    Volumes are those of whole structures; where the border of the image cuts most of them, of what is seen of all.
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    for record in records:
        for name, structure in record["structures"].items():
            found.setdefault(name, []).append(structure)
    return {name: _volumes(same) for name, same in sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))}


def _volumes(structures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    whole = [structure for structure in structures if not structure.get("cut")]
    measured = whole if len(whole) >= ENOUGH * len(structures) else structures
    counts = {"cases": len(structures), "whole": len(whole), "ml_of": "whole" if measured is whole else "all"}
    return {**counts, "ml": quartiles(structure["ml"] for structure in measured)}
