"""M3D-Seg, the authors' processed release: one folder a set, with normalised arrays, sparse masks and <code>.json."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...vocabulary import Vocabulary
from .raw_case import Fault, Found, RawCase, case_id, patient_id
from .structures import Numbered, names_of, number_structures
from .tree import Tree

if TYPE_CHECKING:
    from ..catalogue import DataSet

SPLITS = {"train": None, "validation": "validation", "val": "validation", "test": "test"}  # None: validation is drawn


def is_m3d(tree: Tree) -> bool:
    """Whether a folder is one set of M3D-Seg or holds several: <code>.json in <code>/, beside cases with image.npy."""
    return bool(_listings(tree))


def find_m3d(data_set: DataSet, tree: Tree, vocabulary: Vocabulary) -> Found:
    """Find the cases that every <code>.json lists as ``{"train": [{"image", "label"}, ...], "test": [...]}``.

    Mask c of a case is what ``labels`` calls c + 1; the set's own labels or the vocabulary say which name that is.

    Raises:
        ValueError: one line, for a <code>.json of another form, or with a path that leaves data_dir.
    """
    found = Found([], [])
    for path in _listings(tree):
        content = _read(tree, path)
        masks = _masks(content, tree.absolute(path))
        numbered = number_structures(masks.values(), _listed(data_set.labels, masks), vocabulary)
        for key, split in SPLITS.items():
            for number, entry in enumerate(content.get(key) or (), start=1):
                case = _case(data_set, tree, path, f"entry {number} of {key!r}", entry)
                case = _with_label(case, tree, masks, numbered, split)
                (found.faults if "sentence" in case else found.cases).append(case)
    return found


def _listings(tree: Tree) -> list[str]:
    """Files <code>/<code>.json, or <code>.json in data_dir where that is <code>/, beside <case>/image.npy."""
    inside = {posixpath.dirname(path) for path in tree.files if path.endswith("/image.npy")}
    homes = {posixpath.dirname(folder) for folder in inside}
    named = {home: f"{posixpath.basename(home) or tree.root.name}.json" for home in homes}
    return sorted(path for home, name in named.items() if (path := posixpath.join(home, name)) in tree)


def _read(tree: Tree, path: str) -> dict[str, Any]:
    form = 'of the form {"train": [{"image", "label"}, ...], "test": [...], "labels": {"1": "liver", ...}}'
    try:
        content = json.loads((tree.root / path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"data_dir: {tree.absolute(path)} cannot be read as JSON ({error})") from None
    lists = [content.get(key, []) for key in SPLITS] if isinstance(content, dict) else []
    if not any(lists) or not all(isinstance(each, list) for each in lists):
        raise ValueError(f"data_dir: {tree.absolute(path)} is not {form}")
    return dict(content)


def _masks(content: Mapping[str, Any], path: str) -> dict[int, str]:
    """Number of a mask, from 0 -> what the set calls it; value 0 is the background and has no mask."""
    labels = content.get("labels")
    if not isinstance(labels, dict) or not all(str(value).isdecimal() for value in labels):
        raise ValueError(f'data_dir: {path} has no labels of the form {{"0": "background", "1": "liver", ...}}')
    return {int(value) - 1: str(name) for value, name in sorted(labels.items(), key=lambda e: int(e[0])) if int(value)}


def _listed(labels: Mapping[str, str | None], masks: Mapping[int, str]) -> dict[str, str | None]:
    """What the set's own labels say of these masks, where it keeps files of the same names."""
    return {name: labels[name] for name in masks.values() if name in labels}


def _case(data_set: DataSet, tree: Tree, listing: str, where: str, entry: Any) -> RawCase:
    named = [entry.get(key) for key in ("image", "label")] if isinstance(entry, dict) else []
    files = [file for file in named if isinstance(file, str) and file]
    if len(files) != 2:
        raise ValueError(f"data_dir: {where} in {tree.absolute(listing)} names no image and label")
    home = posixpath.dirname(listing)
    code = posixpath.splitext(posixpath.basename(listing))[0]
    image, label = (_inside(tree, home, code, file, f"{where} in {tree.absolute(listing)}") for file in files)
    name = f"{code}/{posixpath.basename(posixpath.dirname(image))}"
    return {
        "case": case_id(data_set.name, name),
        "data_set": data_set.name,
        "patient": patient_id(data_set.name, None, image, name),
        "image": {"kind": "array", "path": image},
        "label": {"kind": "sparse", "path": label},
    }


def _inside(tree: Tree, home: str, code: str, file: str, where: str) -> str:
    """A path of the listing relative to data_dir; it begins with <code>/, or with the case's folder."""
    path = posixpath.normpath(file.replace("\\", "/").removeprefix("./"))
    path = path.removeprefix(f"{code}/")
    if posixpath.isabs(path) or path.split("/")[0] == "..":
        raise ValueError(f"data_dir: {where} names {file!r}, which is not below the set's own folder")
    return posixpath.join(home, path)


def _with_label(
    case: RawCase, tree: Tree, masks: Mapping[int, str], numbered: Mapping[str, Numbered], split: str | None
) -> RawCase | Fault:
    for key in ("image", "label"):
        path = case[key]["path"]
        if path not in tree:
            return {"case": case["case"], "kind": f"{key} missing", "sentence": f"the {key} {path} is not there"}
    ordered = sorted(masks, key=lambda mask: numbered[masks[mask]].rank)
    channels = [{"channel": mask, "value": numbered[masks[mask]].value} for mask in ordered]
    return {
        **case,
        "image": {"kind": "array", "path": tree.absolute(case["image"]["path"])},
        "label": {"kind": "sparse", "path": tree.absolute(case["label"]["path"]), "channels": channels},
        "labels": names_of(numbered[name] for name in masks.values()),
        "complete": False,
        "split": split,
    }
