"""The data sets that a user named, each with its cases; whatever is wrong with one is said before any is read."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..vocabulary import Vocabulary
from .catalogue import Catalogue, DataSet
from .layouts import find_cases, generic_set
from .layouts.m3d import is_m3d
from .layouts.tree import Tree
from .patients.earlier import has_labels
from .records import RawCase
from .settings import Settings

Fault = dict[str, str]


@dataclass(frozen=True)
class Selection:
    """One data set and what its folder holds.

    Attributes:
        data_set: what is known of the set.
        folder: where it is prepared.
        cases: sorted by name, without their labels where images alone are wanted.
        faults: images that are left out already.
    """

    data_set: DataSet
    folder: Path
    cases: Sequence[RawCase]
    faults: Sequence[Fault]


def select_sets(settings: Settings, catalogue: Catalogue, vocabulary: Vocabulary) -> list[Selection]:
    """Find the sets and their cases; nothing is written.

    Raises:
        ValueError: one line, for a name that nothing is known of, a folder that is not there (it says where the set is
            to be had), one that holds something else, two cases of one name, and labels that would be lost.
    """
    named = [(_known_set(name, path, catalogue), path) for name, path in settings.data_sets.items()]
    selections: dict[Path, Selection] = {}
    for data_set, path in named:
        assert path is not None  # a known set has a folder
        folder = settings.output_dir / _folder_name(data_set.name)
        if folder in selections:
            raise ValueError(f"data_sets names {data_set.name} twice")
        if settings.images_only and has_labels(folder):
            raise ValueError(f"images_only: {folder} has the set with its labels already; take another output_dir")
        found = find_cases(data_set, path, vocabulary)
        cases = [{**case, "label": None, "labels": {}} for case in found.cases] if settings.images_only else found.cases
        selections[folder] = Selection(data_set, folder, cases, found.faults)
    _check_names(list(selections.values()))
    return list(selections.values())


def _check_names(selections: Sequence[Selection]) -> None:
    """A case is known by its name in all sets together."""
    sets: dict[str, str] = {}
    for selection in selections:
        for case in selection.cases:
            other = sets.setdefault(case["case"], selection.data_set.name)
            if other != selection.data_set.name:
                both = f"{other} and {selection.data_set.name}"
                raise ValueError(f"data_sets: {both} both have a case {case['case']}; give one of them another name")


def _known_set(name: str, path: Path | None, catalogue: Catalogue) -> DataSet:
    """The catalogue's set of this name, or one of images/ and labels/ where the folder of another name is like that."""
    if name in catalogue:
        data_set = catalogue.find(name)
        if path is None or not os.path.isdir(path):  # pathlib's raises for a name that is too long
            begin = "data_dir is missing" if path is None else f"data_dir: {path} is no folder"
            raise ValueError(f"{begin}; {data_set.where()}")
        return data_set
    if path is not None and (os.path.isdir(path / "images") or (os.path.isdir(path) and is_m3d(Tree(path)))):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise ValueError(f"data_set is {name!r}; a new name has letters A to Z, digits, '.', '_' and '-' alone")
        return generic_set(name)
    try:
        return catalogue.find(name)
    except ValueError as error:
        own = "a set of your own needs a data_dir with images/, labels/ and labels.json"
        raise ValueError(f"{error}; {own}") from None


def _folder_name(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)
