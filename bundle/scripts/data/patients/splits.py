"""Which cases are for training, validation and test, so that no patient is in two of them, and the datalist of that."""

import hashlib
import logging
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...results.files import write_json
from ..whole_files import whole_file
from .same_scans import Group, same_scans

logger = logging.getLogger(__name__)

Record = Mapping[str, Any]

SPLITS = ("test", "validation", "train")  # the first that is asked for wins
KEYS = {"training": "train", "validation": "validation", "test": "test"}  # of the Decathlon form


def assign(
    records: Sequence[Record],
    known: Sequence[Record] = (),
    test_share: float = 0.2,
    validation_share: float = 0.05,
    seed: int = 0,
    test_sets: Collection[str] = (),
    groups: Sequence[Group] | None = None,
) -> dict[str, str]:
    """Give every case a split; all cases of one patient (``same_scans``) get the same.

    What a set fixes itself (``split_of_set``) wins, then what a patient has from an earlier set; where they differ,
    test comes before validation and validation before training, with a warning. The other patients are drawn by
    ``seed``, each set for itself: of n patients of a set round(n x share) are for test, at least one of two and none
    of one, and as many for validation, at least one of three. Those that are there already count, so that none is
    drawn where a set's own test part is large enough; the rest trains. Who is drawn depends on the seed and on the
    names of the cases, not on their order.

    Args:
        records: cases to split, of one or several sets.
        known: cases of sets that were split before, with their ``split``.
        test_share: of the patients of each set.
        validation_share: likewise.
        seed: another one draws other patients.
        test_sets: names of sets that are for test alone.
        groups: from ``same_scans`` of both, where that was called before.

    Returns:
        Case -> ``train``, ``validation`` or ``test``: every case of ``records``, and those of ``known`` that have to
        move, because their patient is in a fixed test part elsewhere: the datalists of their sets are to be written
        anew.

    Raises:
        ValueError: for shares that leave nothing to train on, a split of another name, or a case that comes twice.
    """
    _check_shares(test_share, validation_share)
    own = {str(record["case"]): record for record in records}
    others = [record for record in known if str(record["case"]) not in own]
    every = {str(record["case"]): record for record in [*records, *others]}
    asked = {case: _asked(record, case in own, test_sets) for case, record in every.items()}
    found = same_scans([*records, *others]) if groups is None else groups
    patients = [group.cases for group in found if not own.keys().isdisjoint(group.cases)]
    placed = {cases: split for cases in patients if (split := _settled(cases, asked)) is not None}
    for data_set in sorted({str(record["data_set"]) for record in records}):
        here = {cases: _of_set(cases, own, data_set) for cases in patients}
        order = sorted((cases for cases in patients if here[cases]), key=lambda cases: _rank(seed, here[cases][0]))
        placed |= _draw(order, placed, test_share, validation_share)
    return {case: placed[cases] for cases in patients for case in cases if case in own or asked[case] != placed[cases]}


def datalist(
    records: Iterable[Record], splits: Mapping[str, str], about: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """A datalist in the form of the Medical Segmentation Decathlon, which ``read_datalist`` and MONAI read.

    Args:
        records: of cases; a path in them is absolute or relative to ``folder``.
        splits: from ``assign``.
        about: ``name``, ``licence``, ``source`` and whatever else is to be said of the set.
        folder: where the datalist will lie; paths below it become relative.

    Returns:
        ``about``, the modality, and the lists ``training``, ``validation`` and ``test``, sorted by case. Cases
        without a label have neither ``label`` nor ``labels``, those that were not prepared no ``prepared``.
    """
    ordered = sorted(records, key=lambda record: str(record["case"]))
    lists = {key: [_entry(r, folder) for r in ordered if splits[r["case"]] == split] for key, split in KEYS.items()}
    return {"modality": {"0": "CT"}, **about, **lists}


def write_datalist(path: Path, content: Mapping[str, Any]) -> None:
    """Write ``datalist``'s result, whole or not at all."""
    with whole_file(path) as part:
        write_json(part, content)


def _check_shares(test_share: float, validation_share: float) -> None:
    for name, share in (("test_share", test_share), ("validation_share", validation_share)):
        if not 0 <= share < 1:
            raise ValueError(f"{name} is {share}; allowed is a share from 0 up to, and without, 1")
    if test_share + validation_share >= 1:
        raise ValueError(
            f"test_share and validation_share are {test_share} and {validation_share}; allowed are less than 1 in all"
        )


def _asked(record: Record, new: bool, test_sets: Collection[str]) -> str | None:
    """The split that a case has to have for its own part; None leaves it to the draw."""
    split = record.get("split_of_set") if new else record.get("split")
    split = "test" if record.get("data_set") in test_sets else split
    if split is not None and split not in SPLITS:
        raise ValueError(f"split of {record['case']} is {split!r}; allowed are {', '.join(sorted(SPLITS))}")
    return split


def _settled(cases: Sequence[str], asked: Mapping[str, str | None]) -> str | None:
    """The split of a patient whose cases ask for one; a warning where they ask for several."""
    by_split = {split: [case for case in cases if asked[case] == split] for split in SPLITS}
    wanted = [split for split in SPLITS if by_split[split]]
    for split in wanted[1:]:
        winner, loser = by_split[wanted[0]][0], by_split[split][0]
        text = "%s (%s) and %s (%s) show one patient; both are for %s now"
        logger.warning(text, winner, wanted[0], loser, split, wanted[0])
    return wanted[0] if wanted else None


def _of_set(cases: Sequence[str], own: Mapping[str, Record], data_set: str) -> list[str]:
    return [case for case in cases if case in own and str(own[case]["data_set"]) == data_set]


def _rank(seed: int, case: str) -> bytes:
    """Where a patient comes in the draw: by chance, and always the same."""
    return hashlib.sha256(f"{seed} {case}".encode("utf-8", "surrogatepass")).digest()


def _draw(
    order: Sequence[tuple[str, ...]], placed: Mapping[tuple[str, ...], str], test_share: float, validation_share: float
) -> dict[tuple[str, ...], str]:
    """Splits for those patients of a set, in the order of the draw, that have none."""
    free = [cases for cases in order if cases not in placed]
    had = [placed[cases] for cases in order if cases in placed]
    test = _missing("test", had, len(order), test_share, 2)
    validation = _missing("validation", had, len(order), validation_share, 3)
    spare = len(free) if "train" in had else max(len(free) - 1, 0)
    test = min(test, spare)
    validation = min(validation, spare - test)
    splits = ["test"] * test + ["validation"] * validation
    return {cases: splits[n] if n < len(splits) else "train" for n, cases in enumerate(free)}


def _missing(split: str, had: Sequence[str], patients: int, share: float, least: int) -> int:
    """How many patients a split still lacks; one at least, from so many patients of the set on."""
    wanted = int(share * patients + 0.5)
    if share > 0 and patients >= least:
        wanted = max(wanted, 1)
    return max(wanted - had.count(split), 0) if patients >= least else 0


def _entry(record: Record, folder: Path) -> dict[str, Any]:
    case = record["case"]
    entry = {"case": case, "image": _path(record["image"], folder)}
    if record.get("label") is not None:
        entry |= {"label": _path(record["label"], folder), "labels": dict(record["labels"])}
    entry |= {"patient": record.get("patient"), "data_set": record["data_set"]}
    entry["complete"] = bool(record.get("complete", False))
    if record.get("prepared") is not None:
        entry["prepared"] = f"prepared/{case}"
    return entry


def _path(path: str, folder: Path) -> str:
    """POSIX, relative where it lies below ``folder``."""
    whole, top = Path(os.path.abspath(folder / path)), Path(os.path.abspath(folder))
    return (whole.relative_to(top) if whole.is_relative_to(top) else whole).as_posix()
