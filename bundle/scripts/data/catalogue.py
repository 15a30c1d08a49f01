"""The public data sets that SegVol was trained and tested on: where they are to be had, and what they hold where.

One file lists them (paper, Tables 4 and 5), and everything that asks about a data set by its name asks here.
``python -m scripts.data.catalogue`` writes the list as the Markdown of docs/datasets.md.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from ..vocabulary import Vocabulary
from .catalogue_checks import check_entry
from .catalogue_page import as_markdown

CONFIGS = Path(__file__).parents[2] / "configs"


@dataclass(frozen=True)
class DataSet:
    """One public data set; the catalogue's file has the same keys.

    Attributes:
        name: as the paper spells it.
        targets: what its labels show, in names of the vocabulary.
        volumes: how many the paper trains on, or tests on where ``role`` is "test" (Table 4).
        categories: how many the paper counts (Table 4); 0 where it gives no number.
        source: its page (Table 5).
        licence: the terms, as far as they are known.
        download: in one line, how to get it.
        role: what the paper uses it for.
        layout: blocks that say by regular expressions where images and their labels lie; see docs/datasets.md.
        labels: value of a label map, or name of a file or folder -> name of the vocabulary, None for one without.
        patient: regular expression whose one group finds the patient in an image's path; None: each image is a patient.
        confirmed: whether "layout" and "labels" were compared with public sources, and "from" which.
        note: what a user had better know.
    """

    name: str
    targets: tuple[str, ...]
    volumes: int
    categories: int
    source: str
    licence: str
    download: str
    role: Literal["train", "test"]
    layout: tuple[Mapping[str, Any], ...] = field(hash=False)
    labels: Mapping[str, str | None] = field(hash=False)
    patient: str | None = None
    confirmed: Mapping[str, Any] = field(hash=False, default_factory=dict)
    note: str = ""

    def where(self) -> str:
        """Say in one line where the set is to be had and under which terms; nothing here fetches it."""
        download = self.download.rstrip(".")
        return f"{self.name} is to be had from {self.source} ({download}); terms: {self.licence}; nothing is downloaded"


class Catalogue:
    """All data sets in file order, found by name."""

    def __init__(self, data_sets: Iterable[DataSet]) -> None:
        """Index the sets; a name that two of them have is a ValueError."""
        self._index: dict[str, DataSet] = {}
        for data_set in data_sets:
            other = self._index.setdefault(_folded(data_set.name), data_set)
            if other is not data_set:
                raise ValueError(f"name of {data_set.name!r} stands twice, if only spelled as {other.name!r}")

    @classmethod
    def load(cls, path: str | Path, vocabulary: Vocabulary) -> Catalogue:
        """Read a catalogue and check all of it.

        Args:
            path: of the file, ``{"data_sets": [...]}``.
            vocabulary: every name of a structure must be the canonical one here.

        Raises:
            ValueError: one line that names the file, the entry and the key.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"), object_pairs_hook=_without_twins)
            entries = content.get("data_sets") if isinstance(content, dict) else None
            if not isinstance(entries, list):
                raise ValueError("expected an object with a list 'data_sets'")
            for entry in entries:
                check_entry(entry, [each.name for each in fields(DataSet)], vocabulary)
            return cls(_data_set(entry) for entry in entries)
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(f"catalogue {path}: {error}") from None

    def find(self, name: str) -> DataSet:
        """The set of this name; case, '-', '_' and blanks do not matter.

        Raises:
            ValueError: one line with the nearest names, or with all where none is near.
        """
        if name in self:
            return self._index[_folded(name)]
        near = [self._index[key].name for key in get_close_matches(_folded(name), self._index)]
        known = f"nearest: {', '.join(near)}" if near else f"it has {', '.join(each.name for each in self)}"
        raise ValueError(f"data_set is {name!r}, which the catalogue does not have; {known}")

    def __contains__(self, name: object) -> bool:
        """Say whether find knows the name."""
        return isinstance(name, str) and _folded(name) in self._index

    def __iter__(self) -> Iterator[DataSet]:
        """Go through the sets in file order."""
        return iter(self._index.values())

    def __len__(self) -> int:
        """Count the sets."""
        return len(self._index)


def main() -> None:
    """Write the shipped catalogue as Markdown."""
    vocabulary = Vocabulary.load(CONFIGS / "vocabulary.json")
    sys.stdout.write(as_markdown(Catalogue.load(CONFIGS / "datasets.json", vocabulary)))


def _folded(name: str) -> str:
    return re.sub(r"[-_\s]+", "", name.casefold())


def _data_set(entry: Mapping[str, Any]) -> DataSet:
    lists = {key: tuple(entry[key]) for key in ("targets", "layout")}
    return DataSet(**{**entry, **lists})


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of the file; of a key that stands twice, JSON would keep the last one silently."""
    content = dict(pairs)
    if len(content) < len(pairs):
        keys = [key for key, _ in pairs]
        twin = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {twin!r} stands twice in the object that begins {pairs[0][0]!r}: {pairs[0][1]!r:.60}")
    return content


if __name__ == "__main__":
    main()
