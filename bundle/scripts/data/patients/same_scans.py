"""Which cases show the same patient, also under other names and in other data sets."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations, product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from .fingerprint import SIDE

Found = Literal["exact", "slices", "patient", "thumbnail"]

LIKENESS = 0.9  # from which two thumbnails are of one scan; see ``same_scans``
AROUND = 5  # cells whose mean is taken from each cell, so that details count and not the shape of a body
FAINT = 1.0  # grey level; details below it are rounding
BLOCK = 1024  # scans that are compared with all at a time


@dataclass(frozen=True)
class Match:
    """Two cases of one patient.

    Attributes:
        first: name of a case.
        second: name of the other.
        found_by: ``exact`` voxels, equal ``slices``, the name of the ``patient`` in one set, or nothing but a
            ``thumbnail``, which is likely and not certain.
        likeness: of their thumbnails, at most 1; None for the others.
    """

    first: str
    second: str
    found_by: Found
    likeness: float | None = None


@dataclass(frozen=True)
class Group:
    """All cases of one patient.

    Attributes:
        cases: their names, sorted.
        matches: what ties them together, one less than there are cases.
    """

    cases: tuple[str, ...]
    matches: tuple[Match, ...]


def same_scans(records: Sequence[Mapping[str, Any]], least: float = LIKENESS) -> list[Group]:
    """Sort cases into patients.

    What joins two cases: the same voxels, a slice in common, one name of the patient within a set, thumbnails alike.

    Thumbnails are compared by their likeness, the correlation of what differs from its surroundings, in all 48 orders
    and directions of the axes, since a file may have a wrong affine or none. Measured: of 26 real CTs the two most
    alike patients reach 0.44, of phantoms, which share their anatomy, 0.82. The same CTs cropped to the body, padded,
    moved by 1024, or clipped to -160..240, -175..250 or -100..240 reach 1.00; with noise of 25 HU, with slices
    averaged in pairs, or cropped, clipped and resampled at once, 0.94 to 1.00; with 0.7 times the voxels along each
    axis 0.93 to 1.00 but for one (0.82, missed). ``tests/test_fingerprint.py`` repeats most of that with real and
    generated scans (``-m slow`` the real ones).

    What thumbnails do not find: two crops of one scan that show different parts of the body (0.26; a stack of whole
    slices is found by these), a scan that lost a tenth of its slices and was resampled too (0.62 to 0.9), one that
    was clipped above fat (0.01), and many that were scaled to [0, 1] in one of two sets.

    Cost: the thumbnails of 2,000 scans take 6 s of one core (measured), and it grows with the square of their number,
    so that 10,000 scans take about 2.5 minutes of one core and 90,000 about 3.5 hours.

    Args:
        records: of cases, with ``case``, ``data_set``, ``patient`` and ``fingerprint``; one without a fingerprint is
            known by its patient alone, and one without a patient by its fingerprint.
        least: likeness of thumbnails from which they are of one scan.

    Returns:
        Every case in one group, sorted by the first case; the order of ``records`` changes nothing.

    Raises:
        ValueError: for two records of one case.
    """
    ordered = sorted(records, key=lambda record: str(record["case"]))
    names = [str(record["case"]) for record in ordered]
    for former, name in zip(names, names[1:], strict=False):
        if former == name:
            raise ValueError(f"records: {name} comes twice; allowed is one record a case")
    forest = _Forest(names)
    for found_by, pairs in (("exact", _exact(ordered)), ("slices", _sliced(ordered)), ("patient", _named(ordered))):
        for first, second in pairs:
            forest.join(first, second, found_by)
    for first, second, likeness in _alike(ordered, least):
        forest.join(first, second, "thumbnail", likeness)
    return forest.groups()


class _Forest:
    """Cases that were joined, and by what."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = names
        self.above = list(range(len(names)))
        self.matches: list[tuple[int, Match]] = []

    def join(self, first: int, second: int, found_by: Any, likeness: float | None = None) -> None:
        """Put two cases into one group, unless they are in one."""
        roots = sorted((self.root(first), self.root(second)))
        if roots[0] != roots[1]:
            self.above[roots[1]] = roots[0]
            self.matches.append((first, Match(self.names[first], self.names[second], found_by, likeness)))

    def root(self, case: int) -> int:
        """The first case of a group."""
        while self.above[case] != case:
            self.above[case] = case = self.above[self.above[case]]
        return case

    def groups(self) -> list[Group]:
        """All groups, by their first case."""
        cases: dict[int, list[str]] = {}
        matches: dict[int, list[Match]] = {}
        for case, name in enumerate(self.names):
            cases.setdefault(self.root(case), []).append(name)
        for case, match in self.matches:
            matches.setdefault(self.root(case), []).append(match)
        return [Group(tuple(members), tuple(matches.get(root, ()))) for root, members in cases.items()]


def _exact(records: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, int]]:
    return _equal([[record["fingerprint"]["exact"]] if record.get("fingerprint") else [] for record in records])


def _sliced(records: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, int]]:
    return _equal([(record.get("fingerprint") or {}).get("slices", []) for record in records])


def _named(records: Sequence[Mapping[str, Any]]) -> Iterator[tuple[int, int]]:
    patients = [(record.get("data_set"), record.get("patient")) for record in records]
    return _equal([[] if patient is None else [(data_set, patient)] for data_set, patient in patients])


def _equal(marks: Sequence[Sequence[Hashable]]) -> Iterator[tuple[int, int]]:
    """The first case that has a mark, with every later one that has it."""
    first: dict[Hashable, int] = {}
    for case, own in enumerate(marks):
        for mark in own:
            if first.setdefault(mark, case) != case:
                yield first[mark], case


def _alike(records: Sequence[Mapping[str, Any]], least: float) -> Iterator[tuple[int, int, float]]:
    """Pairs whose thumbnails are alike in one of the 48 positions; of equal scans the first alone is compared."""
    scans = {record["fingerprint"]["exact"]: n for n, record in reversed([*enumerate(records)]) if _has_picture(record)}
    cases = sorted(scans.values())
    if len(cases) < 2:
        return
    details = _details(np.array([records[case]["fingerprint"]["thumbnail"] for case in cases], np.float32))
    for start in range(0, len(cases), BLOCK):
        block, others = details[start : start + BLOCK], details[start:]
        best = np.full((len(block), len(others)), -1, np.float32)
        for turn in _turns():
            np.maximum(best, block[:, turn] @ others.T, out=best)
        for i, j in np.argwhere(best >= least):
            if i < j:
                yield cases[start + i], cases[start + j], round(float(best[i, j]), 3)


def _has_picture(record: Mapping[str, Any]) -> bool:
    return len((record.get("fingerprint") or {}).get("thumbnail", ())) == SIDE**3


def _details(thumbnails: NDArray[np.float32]) -> NDArray[np.float32]:
    """(n, SIDE³) grey levels -> what is brighter or darker than its surroundings, of unit length; 0 where faint."""
    pictures = thumbnails.reshape(-1, SIDE, SIDE, SIDE)
    details = (pictures - uniform_filter(pictures, (1, AROUND, AROUND, AROUND), mode="nearest")).reshape(
        len(pictures), -1
    )
    details -= details.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(details, axis=1, keepdims=True)
    return np.where(lengths > FAINT * SIDE**1.5, details / np.maximum(lengths, 1e-6), np.float32(0)).astype(np.float32)


def _turns() -> list[NDArray[np.int64]]:
    """The places of a thumbnail's cells under every order and direction of its axes: 48 of (SIDE³,)."""
    places = np.arange(SIDE**3).reshape(SIDE, SIDE, SIDE)
    flips = [places[::a, ::b, ::c] for a, b, c in product((1, -1), repeat=3)]
    return [np.ascontiguousarray(flip.transpose(order).ravel()) for flip in flips for order in permutations(range(3))]
