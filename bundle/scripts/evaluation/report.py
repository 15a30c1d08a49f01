"""What an evaluation found, as tables: results.csv, summary.json and summary.md, with dice.png beside them.

A report is written whole or not at all, and a new one replaces the old.
"""

import csv
import json
import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from .page import markdown
from .plot import plot_dice
from .region_growing import MODE as BASELINE

DECIMALS = 4


@dataclass(frozen=True)
class Result:
    """One row of results.csv: a target of a case, asked for in one kind and mode.

    Attributes:
        case: name of the case.
        modality: as the datalist has it.
        target: name of the target.
        value: its label value, None where it is not present.
        kind: of the prompt.
        mode: of the inferer.
        present: whether the label holds the target.
        dice: None where it is not present.
        truth_voxels: in the stored grid.
        predicted_voxels: in the stored grid.
        predicted_ml: their volume.
        empty: whether nothing was drawn.
        windows: zoom-in windows of this target.
        call_targets: targets that shared the call of the inferer; 0 where the prompt was refused.
        call_seconds: of that call, all its targets together.
        call_encoder_runs: of that call.
        message: what the user should know.
    """

    case: str
    modality: str | None
    target: str
    value: int | None
    kind: str
    mode: str
    present: bool
    dice: float | None
    truth_voxels: int
    predicted_voxels: int
    predicted_ml: float
    empty: bool
    windows: int
    call_targets: int
    call_seconds: float
    call_encoder_runs: int
    message: str | None


@dataclass(frozen=True)
class Call:
    """One call of the inferer; ``present`` tells targets of the case from names that it does not hold."""

    case: str
    modality: str | None
    kind: str
    mode: str
    present: bool = True
    targets: int = 0
    seconds: float = 0.0
    encoder_runs: int = 0
    decoder_runs: int = 0

    def measured(self, present: bool, targets: int, seconds: float, report: Mapping[str, Any]) -> "Call":
        """The same with its cost, as the inferer's report has it."""
        runs = {key: report[key] for key in ("encoder_runs", "decoder_runs")}
        return replace(self, present=present, targets=targets, seconds=seconds, **runs)


@dataclass
class Outcome:
    """Everything that a run, or one case of it, found."""

    cases: int = 0
    targets: int = 0
    results: list[Result] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    failed: dict[str, str] = field(default_factory=dict)
    unknown_texts: dict[str, str] = field(default_factory=dict)

    def add(self, other: "Outcome") -> None:
        """Take in the outcome of one more case."""
        self.cases += other.cases
        self.targets += other.targets
        self.results += other.results
        self.calls += other.calls
        self.skipped += other.skipped

    def check(self) -> None:
        """Refuse to report nothing.

        Raises:
            ValueError: one line that says why there is no result.
        """
        if not self.results:
            reasons = [f"{case}: {reason}" for case, reason in self.failed.items()]
            reasons += [f"{count} {reason}" for reason, count in self.skipped.items()]
            reasons += list(self.unknown_texts.values())
            first = reasons[0] if reasons else "no label value occurs in its label"
            raise ValueError(f"datalist: nothing could be evaluated; {first}")


def summarise(outcome: Outcome) -> dict[str, Any]:
    """Statistics of an outcome, plain values for JSON; those of Dice are over targets of all cases alike."""
    present = [result for result in outcome.results if result.present]
    return {
        "cases": {"evaluated": outcome.cases, "failed": outcome.failed},
        "targets": {"evaluated": outcome.targets, "skipped": dict(outcome.skipped)},
        "unknown_texts": outcome.unknown_texts,
        "dice": _dice_by_mode_and_kind(present),
        "dice_per_target": {
            name: _dice_by_mode_and_kind(rows) for name, rows in sorted(_grouped(present, lambda r: r.target).items())
        },
        "dice_per_modality": {
            name: _dice_by_mode_and_kind(rows)
            for name, rows in sorted(_grouped(present, lambda r: r.modality).items(), key=str)
            if name is not None
        },
        "better_than_region_growing": _against_baseline([result for result in present if result.kind == "box"]),
        "cost_per_case": _cost([call for call in outcome.calls if call.present]),
        "absent_names": _absent([result for result in outcome.results if not result.present]),
    }


def write_report(folder: Path, results: Sequence[Result], summary: Mapping[str, Any]) -> None:
    """Write the four files into ``folder``.

    Raises:
        ValueError: one line, where that is not possible.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".report_") as name:
            part = Path(name)
            _write_csv(part / "results.csv", results)
            (part / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
            (part / "summary.md").write_text(markdown(summary), encoding="utf-8")
            plot_dice([(r.kind, r.mode, r.dice) for r in results if r.dice is not None], part / "dice.png")
            for path in sorted(part.iterdir()):
                os.replace(path, folder / path.name)
    except OSError as error:
        raise ValueError(f"output_dir: {folder} cannot be written ({error.strerror})") from error


def statistics(values: Iterable[float]) -> dict[str, Any]:
    """Median, mean, sample standard deviation (None for a single value) and n of at least one value."""
    array = np.fromiter(values, dtype=np.float64)
    spread = float(np.std(array, ddof=1)) if len(array) > 1 else None
    found = {"median": float(np.median(array)), "mean": float(np.mean(array)), "standard_deviation": spread}
    return {key: None if value is None else round(value, DECIMALS) for key, value in found.items()} | {"n": len(array)}


def _dice_by_mode_and_kind(results: Iterable[Result]) -> dict[str, dict[str, Any]]:
    def describe(rows: Sequence[Result]) -> dict[str, Any]:
        return {**statistics(row.dice for row in rows if row.dice is not None), "empty": sum(row.empty for row in rows)}

    return _by_mode_and_kind(results, describe)


def _cost(calls: Iterable[Call]) -> dict[str, dict[str, Any]]:
    """Seconds and runs per case: all targets of a case together, in however many calls."""

    def describe(rows: Sequence[Call]) -> dict[str, Any]:
        cases = _grouped(rows, lambda call: call.case).values()
        keys = ("targets", "seconds", "encoder_runs", "decoder_runs")
        return {key: statistics(sum(getattr(call, key) for call in case) for case in cases) for key in keys}

    return _by_mode_and_kind(calls, describe)


def _against_baseline(boxes: Iterable[Result]) -> dict[str, dict[str, Any]]:
    """How many boxes every mode answers with a higher Dice than region growing does, in all and by target."""
    modes = _grouped(boxes, lambda result: result.mode)
    grown = {(row.case, row.value): row.dice for row in modes.pop(BASELINE, [])}

    def count(rows: Sequence[Result]) -> dict[str, int]:
        return {"better": sum(row.dice > grown[row.case, row.value] for row in rows), "of": len(rows)}

    return {
        mode: {
            "all": count(rows),
            "targets": {name: count(same) for name, same in sorted(_grouped(rows, lambda r: r.target).items())},
        }
        for mode, rows in modes.items()
        if grown
    }


def _absent(results: Iterable[Result]) -> dict[str, dict[str, Any]]:
    found = {}
    for mode, rows in _grouped(results, lambda result: result.mode).items():
        drawn = [row for row in rows if not row.empty]
        found[mode] = {
            "prompts": len(rows),
            "drew_a_mask": len(drawn),
            "share": round(len(drawn) / len(rows), DECIMALS),
            "millilitres_drawn": statistics(row.predicted_ml for row in drawn) if drawn else None,
            "names": dict(sorted(Counter(row.target for row in drawn).items())),
        }
    return found


def _by_mode_and_kind(
    rows: Iterable[Any], describe: Callable[[list[Any]], dict[str, Any]]
) -> dict[str, dict[str, Any]]:
    modes = _grouped(rows, lambda row: row.mode)
    return {
        mode: {kind: describe(same) for kind, same in _grouped(group, lambda row: row.kind).items()}
        for mode, group in modes.items()
    }


def _grouped(rows: Iterable[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    groups = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return dict(groups)


def _write_csv(path: Path, results: Sequence[Result]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [column.name for column in fields(Result)])
        writer.writeheader()
        for result in results:
            row = asdict(result)
            writer.writerow({k: round(v, DECIMALS) if isinstance(v, float) else v for k, v in row.items()})
