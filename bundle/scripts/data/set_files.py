"""What is written of whole sets when their cases are done: datalists with their splits, faults, and the report."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..results.files import write_json
from ..vocabulary import Vocabulary
from .outcome import Outcome
from .patients.earlier import DATALIST, DATALISTS, UNLABELLED, moved, prepared_sets, splits_of, with_splits
from .patients.same_scans import Group, Match, same_scans
from .patients.splits import assign, datalist, write_datalist
from .quality.outliers import faults_of_set
from .records import Record
from .reporting.report import write_report
from .selection import Fault, Selection
from .settings import Settings
from .whole_files import remove, whole_file

logger = logging.getLogger(__name__)

FAULTS = "faults.json"


def write_sets(settings: Settings, selections: Sequence[Selection], outcome: Outcome, vocabulary: Vocabulary) -> None:
    """Write what concerns whole sets, when all their cases are done.

    Raises:
        ValueError: one line, where no case at all could be prepared; ``faults.json`` has been written then.
    """
    records = [record for own in outcome.records.values() for record in own.values()]
    known = _earlier(settings, outcome)
    groups = same_scans([*records, *(record for others in known.values() for record in others)])
    splits = _splits(settings, selections, outcome, known, groups) if records else {}
    for selection in selections:
        _write_set(settings, selection, outcome, splits, groups, vocabulary)
    if not records:
        first = next(fault["sentence"] for faults in outcome.left_out.values() for fault in faults)
        raise ValueError(f"none of {sum(outcome.counts().values())} cases can be prepared: {first}")
    _move(settings, known, splits)


def _earlier(settings: Settings, outcome: Outcome) -> dict[Path, list[Record]]:
    """Records of the sets beside those of this run; of a case that is prepared in several places the first counts."""
    here = {folder.resolve() for folder in outcome.records}
    seen = {case: _voxels(record) for records in outcome.records.values() for case, record in records.items()}
    known: dict[Path, list[Record]] = {}
    for folder in prepared_sets(settings.output_dir, settings.beside):
        if folder.resolve() not in here:
            records = with_splits(folder)
            known[folder] = [record for record in records if record["case"] not in seen]
            other = [r["case"] for r in records if seen.get(r["case"], _voxels(r)) != _voxels(r)]
            if other:
                text = "%s: its patients are not looked for in %d cases, for other images have the same names (%s, ...)"
                logger.warning(text, folder, len(other), other[0])
            seen |= {record["case"]: _voxels(record) for record in known[folder]}
    return known


def _voxels(record: Record) -> Any:
    return (record.get("fingerprint") or {}).get("exact")


def _splits(
    settings: Settings,
    selections: Sequence[Selection],
    outcome: Outcome,
    known: Mapping[Path, Sequence[Record]],
    groups: Sequence[Group],
) -> dict[str, str]:
    """A split for every case; those that the same draw gave before stay."""
    records = []
    for folder, own in outcome.records.items():
        former = splits_of(folder, _drawn(settings))
        records += [{**r, "split_of_set": r["split_of_set"] or former.get(case)} for case, r in own.items()]
    return assign(
        records,
        [record for others in known.values() for record in others],
        settings.test_share,
        settings.validation_share,
        settings.seed,
        [selection.data_set.name for selection in selections if selection.data_set.role == "test"],
        groups,
    )


def _drawn(settings: Settings) -> dict[str, Any]:
    """What splits depend on beside the cases; a datalist keeps it."""
    return {key: getattr(settings, key) for key in ("seed", "test_share", "validation_share")}


def _write_set(
    settings: Settings,
    selection: Selection,
    outcome: Outcome,
    splits: Mapping[str, str],
    groups: Sequence[Group],
    vocabulary: Vocabulary,
) -> None:
    folder, left_out = selection.folder, sorted(outcome.left_out[selection.folder], key=lambda fault: fault["case"])
    records = [record for _, record in sorted(outcome.records[folder].items())]
    repeated = _repeated(records, groups)
    suspicious = [*faults_of_set(records, vocabulary), *_duplicates(records, repeated)]
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(folder / FAULTS) as part:
        write_json(part, sorted([*left_out, *suspicious], key=lambda fault: fault["case"]))
    _write_datalists(settings, selection, records, splits)
    if records:
        write_report(
            folder / "report.html",
            _about(selection),
            records,
            splits,
            left_out,
            suspicious,
            {record["case"]: folder / "thumbnails" / f"{record['case']}.png" for record in records},
            [_pair(match) for match in repeated],
            {name: vocabulary.color(name) for record in records for name in record["labels"].values() if name},
        )
    if selection.data_set.role == "train" and not any(splits[record["case"]] == "validation" for record in records):
        logger.warning(
            "%s: none of its cases is for validation, of which train.json needs one", selection.data_set.name
        )
    text = "%s: %d cases are ready, left out: %d, remarks: %d; see %s"
    logger.info(text, selection.data_set.name, len(records), len(left_out), len(suspicious), folder / "report.html")


def _about(selection: Selection) -> dict[str, Any]:
    return {key: getattr(selection.data_set, key) for key in ("name", "licence", "source", "note", "volumes")}


def _write_datalists(
    settings: Settings, selection: Selection, records: Sequence[Record], splits: Mapping[str, str]
) -> None:
    """The labelled cases, and beside them the others; of a set without labels all are in the one datalist."""
    labelled = [record for record in records if record["label"] is not None]
    others = [record for record in records if record["label"] is None]
    lists = {DATALIST: labelled or others, UNLABELLED: others if labelled else []}
    about = {key: _about(selection)[key] for key in ("name", "licence", "source")} | {"drawn": _drawn(settings)}
    for name, cases in lists.items():
        path = selection.folder / name
        if cases:
            write_datalist(path, datalist(cases, splits, about, selection.folder))
        else:
            remove(path)


def _repeated(records: Sequence[Record], groups: Sequence[Group]) -> list[Match]:
    """Images of this set that are there again, in it or in another set."""
    own = {record["case"] for record in records}
    matches = (match for group in groups for match in group.matches if match.found_by != "patient")
    return [match for match in matches if own & {match.first, match.second}]


def _duplicates(records: Sequence[Record], repeated: Sequence[Match]) -> list[Fault]:
    """A fault for every case of this set that shows what another one shows."""
    own = {record["case"] for record in records}
    return [
        {"case": case, "kind": "duplicate", "sentence": f"{case}: it {_how(match)} {other}"}
        for match in repeated
        for case, other in ((match.first, match.second), (match.second, match.first))
        if case in own
    ]


def _pair(match: Match) -> dict[str, Any]:
    """As the report takes it."""
    return {"cases": [match.first, match.second], "sentence": f"{match.first} {_how(match)} {match.second}"}


def _how(match: Match) -> str:
    how = {"exact": "has the same voxels as", "slices": "has slices in common with"}
    return how.get(match.found_by, f"is as like as a scan of the same patient (likeness {match.likeness}) to")


def _move(settings: Settings, known: Mapping[Path, Sequence[Record]], splits: Mapping[str, str]) -> None:
    """Cases of earlier sets whose patient a set of this run fixes for testing."""
    output = settings.output_dir.resolve()
    for folder, records in known.items():
        cases = [record["case"] for record in records if splits.get(record["case"], record["split"]) != record["split"]]
        if cases and not folder.resolve().is_relative_to(output):
            text = "%s: %s belong to another split now, for their patients are in it elsewhere; prepare that set again"
            logger.warning(text, folder, ", ".join(cases))
        elif cases:
            for name in DATALISTS:
                if (content := moved(folder / name, splits)) is not None:
                    write_datalist(folder / name, content)
