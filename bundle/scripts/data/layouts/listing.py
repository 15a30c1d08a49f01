"""The cases of a downloaded data set, found by the layout that the catalogue gives it."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...vocabulary import Vocabulary
from .generic import find_generic
from .m3d import find_m3d, is_m3d
from .pairs import find_pairs
from .raw_case import Found, RawCase
from .tree import Tree

if TYPE_CHECKING:
    from ..catalogue import DataSet

logger = logging.getLogger(__name__)

FIRST_FEW = 4  # things of a folder that an error names


def find_cases(data_set: DataSet, data_dir: str | Path, vocabulary: Vocabulary) -> Found:
    """Find every case of a data set; nothing of an image or label is read yet.

    Args:
        data_set: what the catalogue says of it. A set without a layout has the generic one.
        data_dir: the folder it was unpacked into. The authors' processed release (M3D-Seg) is recognised by itself.
        vocabulary: names structures that the catalogue's entry does not list.

    Returns:
        Cases sorted by name, and the images that are left out because their label is missing; each is logged.

    Raises:
        ValueError: one line, for a folder that is not there or holds nothing of the set, and for two images that are
            called alike.
    """
    folder = Path(os.path.abspath(Path(data_dir).expanduser()))
    if not folder.is_dir():
        raise ValueError(f"data_dir: {folder} is no folder; {_where_to_get(data_set)}")
    tree = Tree(folder)
    found = _search(data_set, tree, vocabulary)
    _check_names(found.cases, folder)
    for fault in found.faults:
        logger.warning("case %s left out: %s", fault["case"], fault["sentence"])
    if not found.cases:
        raise ValueError(f"data_dir: no case of {data_set.name} in {folder} can be used: {found.faults[0]['sentence']}")
    return Found(sorted(found.cases, key=_name), sorted(found.faults, key=_name))


def _search(data_set: DataSet, tree: Tree, vocabulary: Vocabulary) -> Found:
    if is_m3d(tree):
        return find_m3d(data_set, tree, vocabulary)
    blocks = _blocks(data_set)
    if blocks[0].get("kind") == "generic":
        found = find_generic(data_set, tree, vocabulary)
        return found if found.cases or found.faults else _nothing(data_set, tree, ["images/"])
    if blocks[0].get("kind") == "m3d":
        return _nothing(data_set, tree, ["<code>/<code>.json"])
    pairs = find_pairs(data_set, blocks, tree, vocabulary)
    for block, images in zip(blocks, pairs.images, strict=True):
        if not images and not block.get("optional"):
            return _nothing(data_set, tree, [block["image"]])
    if not any(pairs.images):
        return _nothing(data_set, tree, [block["image"] for block in blocks])
    return Found(pairs.cases, pairs.faults)


def _blocks(data_set: DataSet) -> Sequence[Mapping[str, Any]]:
    return data_set.layout or [{"kind": "generic"}]


def _nothing(data_set: DataSet, tree: Tree, looked_for: Sequence[str]) -> Found:
    here = ", ".join(tree.files[:FIRST_FEW]) or "nothing at all"
    more = f" and {len(tree.files) - FIRST_FEW} more" if len(tree.files) > FIRST_FEW else ""
    raise ValueError(
        f"data_dir: {tree.root} holds no image of {data_set.name} where they lie in the published set; "
        f"looked for {' or '.join(looked_for)}, found {here}{more}"
    )


def _check_names(cases: Sequence[RawCase], folder: Path) -> None:
    first: dict[str, str] = {}
    for case in cases:
        path = os.path.relpath(case["image"]["path"], folder)
        other = first.setdefault(case["case"], path)
        if other != path:
            raise ValueError(f"data_dir: {folder} holds two images that are called {case['case']}: {other} and {path}")


def _where_to_get(data_set: DataSet) -> str:
    if data_set.source:
        return data_set.where()
    return f"{data_set.name} is not in the catalogue and is read from images/, labels/ and labels.json in that folder"


def _name(entry: Mapping[str, Any]) -> str:
    return str(entry["case"])
