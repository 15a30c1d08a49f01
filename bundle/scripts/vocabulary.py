"""The names a text prompt may use, with their synonyms, codes and colours.

One file lists them, and everything that shows, accepts or codes a name asks here, so that no second list grows.
"""

from __future__ import annotations

import colorsys
import json
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

_SIDES = {"left": "left", "right": "right", "l": "left", "r": "right"}
_OTHER_SIDE = {"left": "right", "right": "left"}
_ARTICLES = {"the", "a", "an"}


@dataclass(frozen=True)
class Structure:
    """One structure that can be prompted by name.

    Attributes:
        name: the canonical name, as a prompt says it: "left kidney".
        synonyms: other names of the same structure.
        side: which one of a pair it is.
        snomed: SNOMED CT "code" and "meaning", of the unsided concept where there is a side.
        color: red, green, blue, each 0 to 255.
        weights: the published weights that were trained on the name.
    """

    name: str
    synonyms: tuple[str, ...]
    side: Literal["left", "right"] | None
    snomed: Mapping[str, str] | None = field(hash=False)
    color: tuple[int, int, int]
    weights: tuple[str, ...]


class Vocabulary:
    """All structures in file order, found by any of their names."""

    def __init__(self, structures: Iterable[Structure]) -> None:
        """Index the structures; a name that two of them claim is a ValueError."""
        self._structures = tuple(structures)
        self._index: dict[str, Structure] = {}
        for structure in self._structures:
            for text in (structure.name, *structure.synonyms):
                other = self._index.setdefault(_key(text), structure)
                if other is not structure:
                    raise ValueError(f"{text!r} is claimed by {other.name!r} and by {structure.name!r}")

    @classmethod
    def load(cls, path: str | Path) -> Vocabulary:
        """Read a vocabulary file; whatever is wrong with it is a ValueError of one line."""
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            entries = content.get("structures") if isinstance(content, dict) else None
            if not isinstance(entries, list):
                raise ValueError("expected an object with a list 'structures'")
            return cls(_structure(entry) for entry in entries)
        except (OSError, ValueError) as error:
            raise ValueError(f"vocabulary {path}: {error}") from None

    def find(self, text: str) -> Structure | None:
        """The structure of this name or synonym; case, '_', '-', articles and the place of the side do not matter."""
        return self._index.get(_key(text))

    def nearest(self, text: str, n: int = 3, names: Iterable[str] | None = None) -> list[str]:
        """At most n canonical names, of all or of the given ones, that are spelled most like the text; best first."""
        allowed = {structure.name for structure in self} if names is None else set(names)
        keys = [key for key, structure in self._index.items() if structure.name in allowed]
        matches = get_close_matches(_key(text), keys, n=max(len(keys), 1))
        return list(dict.fromkeys(self._index[key].name for key in matches))[:n]

    def mirrored(self, text: str) -> str:
        """The name that the text gets where left and right change places: the text itself where it says no side."""
        structure = self.find(text)
        words = _key(text if structure is None else structure.name).split(" ")
        if not _OTHER_SIDE.keys() & set(words):
            return text
        name = " ".join(_OTHER_SIDE.get(word, word) for word in words)
        other = self.find(name)
        return name if other is None else other.name

    def trained(self, weights: str) -> list[str]:
        """Names that these published weights were trained on, in file order."""
        return [structure.name for structure in self if weights in structure.weights]

    def color(self, name: str) -> tuple[int, int, int]:
        """The colour of a structure; for an unknown name one that depends on the name alone."""
        structure = self.find(name)
        if structure is not None:
            return structure.color
        r, g, b = colorsys.hsv_to_rgb(zlib.crc32(_key(name).encode()) / 2**32, 0.75, 0.95)
        return round(255 * r), round(255 * g), round(255 * b)

    def __iter__(self) -> Iterator[Structure]:
        """Go through the structures in file order."""
        return iter(self._structures)

    def __len__(self) -> int:
        """Count the structures."""
        return len(self._structures)

    def __contains__(self, text: object) -> bool:
        """Say whether find knows the text."""
        return isinstance(text, str) and self.find(text) is not None


def _key(text: str) -> str:
    """One spelling for all ways to write a name: folded, without articles, the side in front."""
    folded = re.sub(r"\((l|r|left|right)\)", r" \1 ", text.casefold())
    words = [word for word in re.split(r"[\s_,-]+", folded) if word and word not in _ARTICLES]
    if len(words) > 1:  # a lone L or R says the side only at an end: "Kidney_L"
        words[0], words[-1] = _SIDES.get(words[0], words[0]), _SIDES.get(words[-1], words[-1])
    sides = [word for word in words if word in ("left", "right")]
    return " ".join(sides + [word for word in words if word not in sides] if len(sides) == 1 else words)


def _structure(entry: Any) -> Structure:
    """Check one entry of the file."""
    if not isinstance(entry, dict) or not isinstance(entry.get("name"), str) or not _key(entry["name"]):
        raise ValueError(f"every structure needs a name, got {entry!r:.100}")
    values: list[Any] = [entry.get(item) for item in ("synonyms", "side", "snomed", "color", "weights")]
    synonyms, side, snomed, color, weights = values
    coded = isinstance(snomed, dict) and _are(str, [snomed.get("code"), snomed.get("meaning")])
    checks = {
        "synonyms": (_are(str, synonyms) and all(map(_key, synonyms)), "a list of names"),
        "side": (side in (None, "left", "right"), "left, right or null"),
        "snomed": (snomed is None or coded and snomed["code"].isdigit(), "null or code (digits as text) and meaning"),
        "color": (_are(int, color) and len(color) == 3 and 0 <= min(color) <= max(color) <= 255, "three of 0 to 255"),
        "weights": (_are(str, weights), "a list of texts"),
    }
    for item, (good, allowed) in checks.items():
        if not good:
            raise ValueError(f"{item} of {entry['name']!r} is {entry.get(item)!r:.100}, expected {allowed}")
    return Structure(entry["name"], tuple(synonyms), side, snomed, tuple(color), tuple(weights))


def _are(kind: type, values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is kind for value in values)
