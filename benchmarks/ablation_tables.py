"""What the ablations found: figures with mean and standard deviation over seeds, and their tables in Markdown."""

import csv
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ablation_plan import CROPS_ONLY, FULL, OTHER_MODES, WITHOUT_PSEUDO_MASKS, Settings, prefixes

Answer = Mapping[str, str]  # a row of results.csv
Measure = Callable[[Sequence[Answer]], float | None]

DECIMALS = 4
ZOOM = "zoom"
BASELINE = "region_growing"


class Answers:
    """The rows of results.csv of the evaluations that are done.

    Args:
        settings: of the plan.
        finished: names of the jobs that are done.
    """

    def __init__(self, settings: Settings, finished: Iterable[str]) -> None:
        self.settings = settings
        self._finished = frozenset(finished)
        self._kept: dict[str, list[Answer]] = {}

    def of(self, variant: str, seed: int, part: str) -> list[Answer] | None:
        """The rows of one evaluation, None where it is not done yet."""
        name = f"{variant}/seed_{seed}/{part}"
        if name not in self._finished:
            return None
        if name not in self._kept:
            with Path(self.settings.output_dir, name, "results.csv").open(newline="", encoding="utf-8") as file:
                self._kept[name] = list(csv.DictReader(file))
        return self._kept[name]

    def over_seeds(self, variant: str, part: str, measure: Measure) -> list[float | None]:
        """One value a seed, None where there is none."""
        found = [self.of(variant, seed, part) for seed in range(self.settings.seeds)]
        return [None if rows is None else measure(rows) for rows in found]

    def count(self, variant: str, part: str, chosen: Callable[[Answer], bool]) -> int:
        """How many rows of the first evaluation that is done are chosen."""
        found = (self.of(variant, seed, part) for seed in range(self.settings.seeds))
        return sum(map(chosen, next((rows for rows in found if rows is not None), [])))


def figures(answers: Answers) -> list[dict[str, Any]]:
    """Every table: title, note, the test data, columns, and rows of a label and a cell for each column."""
    tables = []
    for make in (_modes, _kinds, _sources, _pseudo_masks, _sizes, _absent_names):
        tables += [make(answers, test.name) for test in answers.settings.test_datalist]
    return [
        table for table in tables if any(cell["mean"] is not None for row in table["rows"] for cell in row["cells"])
    ]


def markdown(about: Mapping[str, Any], tables: Sequence[Mapping[str, Any]]) -> str:
    """The tables as a page."""
    cases = ", ".join(f"{name} {count}" for name, count in about["cases"].items())
    parts = [
        f"# Ablations\n\n{about['date']}, {about['machine']}. Size {about['size']}, {about['epochs']} epochs of "
        f"{about['views_per_epoch']} views, start: {about['start']}; seeds {about['seeds']}. Cases: {cases}.\n\n"
        "Mean and sample standard deviation over the seeds; Dice is the mean over targets."
    ]
    told = ""
    for table in tables:
        if table["title"] != told:
            told = table["title"]
            parts.append(f"## {told}\n\n{table['note']}")
        parts.append(f"Test data: {table['test']}\n\n{_page_table(table, len(about['seeds']))}")
    return "\n\n".join(parts) + "\n"


def _modes(answers: Answers, test: str) -> dict[str, Any]:
    rows = {}
    for mode in (*OTHER_MODES, ZOOM):
        part = f"{test}_{ZOOM}" if mode == ZOOM else f"{test}_modes"
        measures = [(dice(mode, k), seconds_per_target(mode, k)) for k in answers.settings.mode_kinds]
        rows[mode] = [answers.over_seeds(FULL, part, measure) for pair in measures for measure in pair]
    columns = []
    for kind in answers.settings.mode_kinds:
        n = answers.count(FULL, f"{test}_{ZOOM}", _asked(ZOOM, kind))
        columns += [f"Dice, {kind} (n = {n})", f"s per target, {kind}"]
    note = "The network that was trained with everything, in every mode. All targets of a case share one encoding."
    return _table("Resize, sliding window, fit, zoom (paper, Table 3)", note, test, columns, rows)


def _kinds(answers: Answers, test: str) -> dict[str, Any]:
    part, kinds = f"{test}_{ZOOM}", answers.settings.kinds
    asked = [(kind, ZOOM, kind) for kind in kinds]
    if "box" in kinds:
        asked.append(("region growing in the box", BASELINE, "box"))
    rows = {}
    for label, mode, kind in asked:
        measures = [_dice_of_shared(mode, kind, kinds), _nothing if "text" in kind else dice(mode, kind)]
        rows[label] = [answers.over_seeds(FULL, part, measure) for measure in measures]
    counts = [answers.count(FULL, part, _asked(ZOOM, kind)) for kind in kinds]
    columns = [
        f"Dice, targets that can be asked for in every kind (n = {min(counts)})",
        f"Dice, all targets (n = {max(counts)})",
    ]
    note = "The network that was trained with everything, mode zoom. Region growing knows the box and no network."
    return _table("Text, point, box and their mixes (paper, Fig. 3b)", note, test, columns, rows)


def _sources(answers: Answers, test: str) -> dict[str, Any]:
    names = [source.name for source in answers.settings.train_datalist]
    runs = {" + ".join(names[:count]): run for count, run in enumerate(prefixes(len(names)), start=1)}
    note = "Training on more and more sources, as many views each, mode zoom."
    return _by_kind(answers, test, "One, two and all sources (paper, Fig. 3a)", note, runs)


def _pseudo_masks(answers: Answers, test: str) -> dict[str, Any]:
    note = "Trained on all sources with pseudo masks beside the true ones, and on the true ones alone; mode zoom."
    runs = {"with": FULL, "without": WITHOUT_PSEUDO_MASKS}
    return _by_kind(answers, test, "With and without pseudo masks", note, runs, differs=True)


def _sizes(answers: Answers, test: str) -> dict[str, Any]:
    note = "Trained on views from the whole volume to windows at full resolution, and on such windows alone; mode zoom."
    runs = {"many sizes": FULL, "crops only": CROPS_ONLY}
    return _by_kind(answers, test, "Views of many sizes against crops only", note, runs, differs=True)


def _absent_names(answers: Answers, test: str) -> dict[str, Any]:
    part = f"{test}_{ZOOM}"
    measures = (share_drawn, millilitres_per_prompt)
    runs = {"with": FULL, "without": WITHOUT_PSEUDO_MASKS}
    rows = {label: [answers.over_seeds(run, part, measure) for measure in measures] for label, run in runs.items()}
    n = answers.count(FULL, part, lambda row: row["present"] == "False")
    columns = [f"share that got a mask (n = {n})", "ml per prompt, 0 where nothing is drawn"]
    note = (
        "Names that are not in the image, asked for by text in mode zoom, in cases whose labels are complete: every "
        "mask is a false one. Trained with pseudo masks and without."
    )
    return _table("Masks drawn for absent names", note, test, columns, _with_difference(rows))


def _by_kind(
    answers: Answers, test: str, title: str, note: str, runs: Mapping[str, str], differs: bool = False
) -> dict[str, Any]:
    part, kinds = f"{test}_{ZOOM}", answers.settings.kinds
    rows = {label: [answers.over_seeds(run, part, dice(ZOOM, kind)) for kind in kinds] for label, run in runs.items()}
    columns = [f"{kind} (n = {answers.count(FULL, part, _asked(ZOOM, kind))})" for kind in kinds]
    return _table(title, note, test, columns, _with_difference(rows) if differs else rows)


def dice(mode: str, kind: str) -> Measure:
    """Mean Dice of the targets asked for in one mode and kind."""
    return lambda rows: _mean(float(row["dice"]) for row in rows if _asked(mode, kind)(row))


def _dice_of_shared(mode: str, kind: str, kinds: Sequence[str]) -> Measure:
    """Mean Dice of the targets that were asked for in every one of ``kinds``."""

    def measure(rows: Sequence[Answer]) -> float | None:
        shared = set.intersection(*({_target(row) for row in rows if _asked(ZOOM, k)(row)} for k in kinds))
        return dice(mode, kind)([row for row in rows if _target(row) in shared])

    return measure


def _nothing(rows: Sequence[Answer]) -> None:
    """Where a table has no value."""


def seconds_per_target(mode: str, kind: str) -> Measure:
    """Mean share of a target in the seconds of its call of the inferer."""
    return lambda rows: _mean(
        float(row["call_seconds"]) / max(int(row["call_targets"]), 1) for row in rows if _asked(mode, kind)(row)
    )


def share_drawn(rows: Sequence[Answer]) -> float | None:
    """Share of absent names for which something was drawn."""
    return _mean(float(row["empty"] == "False") for row in rows if row["present"] == "False")


def millilitres_per_prompt(rows: Sequence[Answer]) -> float | None:
    """Mean volume drawn for an absent name."""
    return _mean(float(row["predicted_ml"]) for row in rows if row["present"] == "False")


def summarised(values: Sequence[float | None]) -> dict[str, Any]:
    """A cell: the value of each seed, their mean and their sample standard deviation."""
    known = [value for value in values if value is not None]
    return {
        "seeds": [None if value is None else round(value, DECIMALS) for value in values],
        "mean": round(statistics.fmean(known), DECIMALS) if known else None,
        "standard_deviation": round(statistics.stdev(known), DECIMALS) if len(known) > 1 else None,
    }


def _table(
    title: str, note: str, test: str, columns: Sequence[str], rows: Mapping[str, Sequence[Sequence[float | None]]]
) -> dict[str, Any]:
    cells = [{"label": label, "cells": [summarised(values) for values in row]} for label, row in rows.items()]
    return {"title": title, "note": note, "test": test, "columns": list(columns), "rows": cells}


def _with_difference(
    rows: Mapping[str, Sequence[Sequence[float | None]]],
) -> dict[str, Sequence[Sequence[float | None]]]:
    """Two rows, and the first less the second, seed by seed."""
    first, second = rows.values()
    difference = [
        [None if a is None or b is None else a - b for a, b in zip(one, other, strict=True)]
        for one, other in zip(first, second, strict=True)
    ]
    return {**rows, "difference": difference}


def _asked(mode: str, kind: str) -> Callable[[Answer], bool]:
    return lambda row: (row["mode"], row["kind"], row["present"]) == (mode, kind, "True")


def _target(row: Answer) -> tuple[str, str]:
    return row["case"], row["value"]


def _mean(values: Iterable[float]) -> float | None:
    known = list(values)
    return statistics.fmean(known) if known else None


def _page_table(table: Mapping[str, Any], seeds: int) -> str:
    lines = [["", *table["columns"]], ["---"] * (1 + len(table["columns"]))]
    lines += [[row["label"], *(_cell(cell, seeds) for cell in row["cells"])] for row in table["rows"]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _cell(cell: Mapping[str, Any], seeds: int) -> str:
    if cell["mean"] is None:
        return "-"
    spread = "" if cell["standard_deviation"] is None else f" ± {cell['standard_deviation']:.3f}"
    known = sum(value is not None for value in cell["seeds"])
    return f"{cell['mean']:.3f}{spread}" + ("" if known == seeds else f" ({known} of {seeds} seeds)")
