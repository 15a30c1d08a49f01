"""Images and what is beside them: a label map, a file or folder for each structure, several raters, or nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ...vocabulary import Vocabulary
from .raw_case import Fault, RawCase, case_id, patient_id
from .structures import Numbered, names_of, number_structures
from .tree import Tree

if TYPE_CHECKING:
    from ..catalogue import DataSet

SLICES = {"png": (".png",), "tif": (".tif", ".tiff")}

FIELD = re.compile(r"\{([A-Za-z_]\w*)\}")  # in a template; a number in braces belongs to a regular expression

Block = Mapping[str, Any]


@dataclass
class FoundPairs:
    """Cases and faults of all blocks, and how many images each block matched."""

    cases: list[RawCase] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    images: list[int] = field(default_factory=list)


@dataclass(frozen=True)
class _Image:
    """An image that a block matched: its relative path, and what the named groups hold."""

    block: Block
    path: str
    groups: Mapping[str, str]

    @property
    def is_dicom(self) -> bool:
        return self.block.get("is") == "dicom"


@dataclass(frozen=True)
class _Piece:
    """One structure's file or folder; ``rater`` says whose it is."""

    structure: str
    path: str
    rater: str = ""


def find_pairs(data_set: DataSet, blocks: Sequence[Block], tree: Tree, vocabulary: Vocabulary) -> FoundPairs:
    """Find the cases of all blocks; an image that two of them match belongs to the first.

    Args:
        data_set: names the set, its labels and how its patients are told apart.
        blocks: "pairs" blocks of the catalogue.
        tree: what is there.
        vocabulary: names structures that the set's labels do not list.
    """
    found = FoundPairs()
    taken: set[str] = set()
    images: list[_Image] = []
    for block in blocks:
        matched = tree.matching(block["image"], folders=block.get("is") == "dicom")
        fresh = [_Image(block, path, match.groupdict()) for path, match in matched if path not in taken]
        taken |= {image.path for image in fresh}
        found.images.append(len(fresh))
        images += fresh
    pieces = {image.path: _pieces_of(image, tree) for image in images}
    names = {piece.structure for each in pieces.values() for piece in each}
    numbered = number_structures(names, data_set.labels, vocabulary) if names else {}
    for image in images:
        _add(found, data_set, image, _label_of(image, pieces[image.path], tree, numbered), tree)
    return found


_Label = tuple[dict[str, Any] | None, Iterable[Numbered] | None]


def _add(found: FoundPairs, data_set: DataSet, image: _Image, label: _Label | str, tree: Tree) -> None:
    name = case_id(data_set.name, image.groups["case"])
    if isinstance(label, str):
        found.faults.append({"case": name, "kind": "label missing", "sentence": label})
        return
    source, structures = label
    labels = {} if source is None else dict(data_set.labels) if structures is None else names_of(structures)
    found.cases.append(
        {
            "case": name,
            "data_set": data_set.name,
            "patient": patient_id(data_set.name, data_set.patient, image.path, image.groups["case"]),
            "image": {"kind": "dicom" if image.is_dicom else "file", "path": tree.absolute(image.path)},
            "label": source,
            "labels": labels,
            "complete": False,
            "split": image.block.get("split"),
        }
    )


def _label_of(image: _Image, pieces: Sequence[_Piece], tree: Tree, numbered: Mapping[str, Numbered]) -> _Label | str:
    """The label's source and structures (None: those of the set), or a sentence where it is missing."""
    block = image.block
    if "label" in block:
        path = _filled(block["label"], image.groups)
        missing = f"the image {image.path} has no label: {path} is not there"
        return ({"kind": "map", "path": tree.absolute(path)}, None) if path in tree else missing
    kind = next((kind for kind in ("files", "folders", "raters") if kind in block), None)
    if kind is None:
        return None, None
    if not pieces:
        wanted = _filled(block[kind], image.groups, re.escape)
        return f"the image {image.path} has no label: nothing matches {wanted}"
    source = _raters(pieces, tree, numbered) if kind == "raters" else _files(image, pieces, tree, numbered)
    return source, [numbered[piece.structure] for piece in pieces]


def _files(image: _Image, pieces: Sequence[_Piece], tree: Tree, numbered: Mapping[str, Numbered]) -> dict[str, Any]:
    beside = {"slices_of": tree.absolute(image.path)} if image.is_dicom and "folders" in image.block else {}
    ordered = sorted(pieces, key=lambda piece: numbered[piece.structure].rank)
    files = [{"path": tree.absolute(p.path), "value": numbered[p.structure].value, **beside} for p in ordered]
    return {"kind": "files", "files": files}


def _raters(pieces: Sequence[_Piece], tree: Tree, numbered: Mapping[str, Numbered]) -> dict[str, Any]:
    sets: dict[str, list[dict[str, Any]]] = {}
    for piece in sorted(pieces, key=lambda piece: (numbered[piece.structure].rank, piece.rater)):
        entry = {"path": tree.absolute(piece.path), "value": numbered[piece.structure].value}
        sets.setdefault(piece.structure, []).append(entry)
    return {"kind": "raters", "value_sets": list(sets.values())}


def _pieces_of(image: _Image, tree: Tree) -> list[_Piece]:
    block = image.block
    kind = next((kind for kind in ("files", "folders", "raters") if kind in block), None)
    if kind is None:
        return []
    pattern = _filled(block[kind], image.groups, re.escape)
    matched = [(path, match.groupdict()) for path, match in tree.matching(pattern, folders=kind == "folders")]
    if "slices" in block:
        endings = SLICES[block["slices"]]
        matched = [(p, g) for p, g in matched if any(n.lower().endswith(endings) for n in tree.in_folder(p))]
    return [
        _Piece(groups.get("structure") or block.get("structure", ""), path, groups.get("rater") or "")
        for path, groups in matched
        if path != image.path
    ]


def _filled(template: str, groups: Mapping[str, str | None], quoted: Callable[[str], str] = str) -> str:
    """A template with the image's groups in the place of {case} and the like."""
    return FIELD.sub(lambda found: quoted(groups[found[1]] or "") if found[1] in groups else found[0], template)
