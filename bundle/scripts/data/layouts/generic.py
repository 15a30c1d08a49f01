"""Any folder in the simplest layout: images/, labels/ with files of the same names, and labels.json."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from ...cases import case_name
from ...label_names import label_names
from ...transforms import SUFFIXES
from ...vocabulary import Vocabulary
from .raw_case import Found, RawCase, case_id, patient_id
from .tree import Tree

if TYPE_CHECKING:
    from ..catalogue import DataSet

LABELS = "labels.json"


def generic_set(name: str) -> DataSet:
    """A set that the catalogue does not have, as the other functions want it."""
    from ..catalogue import DataSet

    return DataSet(name, (), 0, 0, "", "", "", "train", ({"kind": "generic"},), {})


def find_generic(data_set: DataSet, tree: Tree, vocabulary: Vocabulary) -> Found:
    """Find images/ (volumes, and folders with one DICOM series each) and their label maps in labels/.

    A label has the name of its image, which may carry ``_0000`` behind it. Without a folder labels/ nothing is
    labelled, as for pre-training. Names in labels.json, ``{"1": "liver", "2": null}``, are spelled as the vocabulary
    does where it knows them, and kept where it does not.

    Raises:
        ValueError: one line, for labels without a labels.json, or one that is no such list.
    """
    maps = _labels(tree)
    names = _names(tree, vocabulary) if maps else {}
    found = Found([], [])
    for path in _images(tree):
        stem = _stem(path)
        label = maps.get(stem) or maps.get(stem.removesuffix("_0000"))
        name = stem if stem in maps else stem.removesuffix("_0000")
        case = case_id(data_set.name, name)
        if maps and label is None:
            sentence = f"the image {path} has no label: labels/ holds no volume called {name}"
            found.faults.append({"case": case, "kind": "label missing", "sentence": sentence})
            continue
        raw: RawCase = {
            "case": case,
            "data_set": data_set.name,
            "patient": patient_id(data_set.name, data_set.patient, path, name),
            "image": {"kind": "file" if path in tree else "dicom", "path": tree.absolute(path)},
            "label": None if label is None else {"kind": "map", "path": tree.absolute(label)},
            "labels": dict(names) if label else {},
            "complete": False,
            "split": None,
        }
        found.cases.append(raw)
    return found


def _images(tree: Tree) -> list[str]:
    files = [path for path, _ in tree.matching(r"images/[^/]+") if path.lower().endswith(SUFFIXES)]
    return files + [path for path, _ in tree.matching(r"images/[^/]+", folders=True)]


def _labels(tree: Tree) -> dict[str, str]:
    maps: dict[str, str] = {}
    for path, _ in tree.matching(r"labels/[^/]+"):
        if path.lower().endswith(SUFFIXES):
            other = maps.setdefault(_stem(path), path)
            if other != path:
                raise ValueError(f"data_dir: {tree.root} holds two labels of one name, {other} and {path}")
    return maps


def _stem(path: str) -> str:
    return case_name(PurePosixPath(path)).removesuffix(".seg")  # type: ignore[arg-type]


def _names(tree: Tree, vocabulary: Vocabulary) -> dict[str, str | None]:
    form = '{"1": "liver", "2": null}: label values and their names'
    if LABELS not in tree:
        raise ValueError(f"data_dir: {tree.root} has labels/ and no {LABELS}, which says {form}")
    try:
        content = json.loads((tree.root / LABELS).read_text(encoding="utf-8"))
        names = label_names({"labels": content})
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"data_dir: {tree.root / LABELS} does not say {form} ({error})") from None
    known = {value: vocabulary.find(name) if name else None for value, name in names.items()}
    return {str(v): structure.name if (structure := known[v]) else name for v, name in sorted(names.items())}
