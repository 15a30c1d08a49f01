"""Structures that lie in files of their own get values, names, and an order in which they are painted."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ...vocabulary import Vocabulary


@dataclass(frozen=True)
class Numbered:
    """One structure of a set.

    Attributes:
        value: in the label map; structures of one name share it.
        name: what a text prompt calls it, or None.
        rank: what has a higher one is painted over what has a lower one.
    """

    value: int
    name: str | None
    rank: tuple[bool, bool, int]


def number_structures(
    structures: Iterable[str], labels: Mapping[str, str | None], vocabulary: Vocabulary
) -> dict[str, Numbered]:
    """Number structures in the order of ``labels``, then by name; one with a name is never hidden by one without.

    Args:
        structures: what the files call them.
        labels: structure -> name, or None for one without a name.
        vocabulary: names what ``labels`` does not list, as far as it knows it.
    """
    listed = list(labels)
    others = sorted(set(structures) - set(listed))
    numbered: dict[str, Numbered] = {}
    first: dict[str, int] = {}
    for value, structure in enumerate([*listed, *others], start=1):
        known = vocabulary.find(structure)
        name = labels.get(structure, known.name if known else None)
        shared = value if name is None else first.setdefault(name, value)
        numbered[structure] = Numbered(shared, name, (name is not None, structure in labels, value))
    return numbered


def names_of(structures: Iterable[Numbered]) -> dict[str, str | None]:
    """``labels`` of a case: value -> name, by value."""
    return {str(each.value): each.name for each in sorted(structures, key=lambda each: each.value)}
