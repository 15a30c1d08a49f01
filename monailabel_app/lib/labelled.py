"""Finished labels of the data store as cases to train on: values with the names that the weights know, and a split.

A name that a user gave is looked up in the vocabulary and goes no further: a structure trains by its name where the
weights take that name as text, and by points and boxes alone where they do not.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .bundle import Bundle
from .label_map import values_on_image
from .local_store import FinalLabel

TRAIN, VALIDATION = "train", "validation"
LEAST_CASES = 2
JUDGED, NEW, TRAINED = range(3)  # the order in which cases come to judge


@dataclass(frozen=True)
class Case:
    """A labelled image.

    Attributes:
        digest: stands for the image's id where the id must not be seen.
        image: its file.
        label: the label map, in the same folder.
        labels: value -> name that the weights take as text, None where they take none.
    """

    digest: str
    image: Path
    label: Path
    labels: dict[int, str | None]


def read_cases(found: Sequence[FinalLabel], bundle: Bundle) -> tuple[list[Case], dict[str, str]]:
    """Finished labels as cases.

    Args:
        found: what the data store has.
        bundle: knows the names that its weights take.

    Returns:
        The cases, and for each image id that was left out the reason.
    """
    cases, left_out = [], {}
    for label in found:
        try:
            values = _values_of(label)
        except ValueError as error:
            left_out[label.image_id] = str(error)
            continue
        labels = known_names(names_of(values, label.info), bundle)
        cases.append(Case(digest_of(label.image_id), label.image, label.label, labels))
    return cases, left_out


def _values_of(label: FinalLabel) -> list[int]:
    values = values_on_image(label.label, label.image)
    if not values:
        raise ValueError("label_map: it is empty")
    return values


def names_of(values: Sequence[int], info: Mapping[str, Any]) -> dict[int, str | None]:
    """The name of each value, as it was saved with a label; None where that does not say it for certain.

    Args:
        values: the values in the label map, ascending.
        info: ``label_info``, a list of objects with ``name`` and ``idx``, or as many as there are values and in their
            order; else the ``label_names`` of a reply that was saved.
    """
    listed = info.get("label_info")
    rows = [row for row in listed if isinstance(row, Mapping)] if isinstance(listed, list) else []
    by_value = {row["idx"]: row.get("name") for row in rows if _is_value(row.get("idx"))}
    if not by_value and len(rows) == len(values):
        by_value = dict(zip(values, (row.get("name") for row in rows), strict=True))
    if not rows:
        params = info.get("params")
        drawn = params.get("label_names") if isinstance(params, Mapping) else None
        by_value = {v: name for name, v in drawn.items() if _is_value(v)} if isinstance(drawn, Mapping) else {}
    named = {value: by_value.get(value) for value in values}
    return {value: name if isinstance(name, str) and name else None for value, name in named.items()}


def _is_value(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def known_names(named: Mapping[int, str | None], bundle: Bundle) -> dict[int, str | None]:
    """The vocabulary's names for a user's: None where the weights do not take one as text, or two values share it."""
    found = {value: None if name is None else bundle.vocabulary.find(name) for value, name in named.items()}
    names = [structure.name for structure in found.values() if structure is not None]
    usable = {name for name in names if name in bundle.names and names.count(name) == 1}
    return {value: s.name if s is not None and s.name in usable else None for value, s in found.items()}


def digest_of(image_id: str) -> str:
    """What stands for an image id in files that may be handed on."""
    return hashlib.sha256(image_id.encode()).hexdigest()[:16]


def split_cases(
    cases: Sequence[Case], share: float, seed: int, trained: Iterable[str] = (), judged: Iterable[str] = ()
) -> dict[str, list[Case]]:
    """Choose the cases that judge the weights; the others train them.

    A case that judged before does so again, and one that was trained on judges only where there is no other: weights
    do not get better by knowing the answers.

    Args:
        cases: at least two.
        share: of the cases that judge, in (0, 1), as far as there are cases that were not trained on; at least one
            judges and one trains.
        seed: of the draw.
        trained: digests of the cases that the weights have trained on.
        judged: digests of those that judged them.

    Raises:
        ValueError: fewer than two cases.
    """
    if len(cases) < LEAST_CASES:
        raise too_few(len(cases))
    known = {**dict.fromkeys(trained, TRAINED), **dict.fromkeys(judged, JUDGED)}
    drawn = sorted(cases, key=lambda case: hashlib.sha256(f"{seed} {case.digest}".encode()).digest())
    drawn.sort(key=lambda case: known.get(case.digest, NEW))
    fit = sum(known.get(case.digest) != TRAINED for case in cases)
    count = max(1, min(round(share * len(cases)), fit, len(cases) - 1))
    return {VALIDATION: drawn[:count], TRAIN: drawn[count:]}


def too_few(count: int) -> ValueError:
    """The sentence for a store with fewer labels than training needs."""
    return ValueError(
        f"there are {count} finished labels that can be used; training needs at least {LEAST_CASES}, one to train on "
        "and one to judge by"
    )


def write_datalist(folder: Path, split: Mapping[str, Sequence[Case]]) -> Path:
    """Write the datalist of the bundle's workflows.

    Args:
        folder: of the images and labels.
        split: cases by split.
    """
    entries = []
    listed = [(name, case) for name, cases in split.items() for case in cases]
    for number, (name, case) in enumerate(listed, 1):
        files = {"image": case.image.name, "label": case.label.name}
        labels = {str(value): structure for value, structure in case.labels.items()}
        entries.append({**files, "id": f"case {number}", "labels": labels, "split": name})
    path = folder / "datalist.json"
    path.write_text(json.dumps({"cases": entries}, indent=2), encoding="utf-8")
    return path
