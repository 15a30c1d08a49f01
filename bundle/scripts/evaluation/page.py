"""The summary of an evaluation as a page to read: summary.md."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def markdown(summary: Mapping[str, Any]) -> str:
    """The summary as a page of Markdown tables."""
    tables = (_head, _overview, _per_target, _baseline_table, _absent_table, _left_out)
    parts = [table(summary) for table in tables]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(summary: Mapping[str, Any]) -> str:
    settings, cases, targets = summary["settings"], summary["cases"]["evaluated"], summary["targets"]["evaluated"]
    split = "all splits" if settings.get("split") is None else f"split {settings['split']}"
    weights = f"{Path(settings.get('checkpoint') or '-').name} (sha256 {str(settings.get('sha256'))[:12]})"
    return (
        f"# Evaluation\n\n{cases} cases ({split}), {targets} targets, seed {settings.get('seed')}. "
        f"Weights {weights}, on {settings.get('device')}."
    )


def _overview(summary: Mapping[str, Any]) -> str:
    rows = []
    for mode, kinds in summary["dice"].items():
        for kind, found in kinds.items():
            cost = summary["cost_per_case"].get(mode, {}).get(kind)
            seconds, runs = (cost and cost[key]["median"] for key in ("seconds", "encoder_runs"))
            score = [_two(found[key]) for key in ("median", "mean", "standard_deviation")]
            rows.append([mode, kind, found["n"], *score, found["empty"], _two(seconds), _two(runs)])
    columns = ["mode", "kind", "n", "median Dice", "mean", "sd", "empty", "s per case", "encoder runs per case"]
    note = (
        "\n\nWhere n differs, so do the targets: the rows do not compare." if len({row[2] for row in rows}) > 1 else ""
    )
    return _table(columns, rows) + note if rows else ""


def _per_target(summary: Mapping[str, Any]) -> str:
    columns = [(mode, kind) for mode, kinds in summary["dice"].items() for kind in kinds]
    rows = []
    for name, modes in summary["dice_per_target"].items():
        cells = [modes.get(mode, {}).get(kind) for mode, kind in columns]
        most = max(cell["n"] for cell in cells if cell)
        rows.append([name, most, *(_two(cell["median"]) if cell else "-" for cell in cells)])
    several = len(summary["dice"]) > 1
    heads = [f"{mode}: {kind}" if several else kind for mode, kind in columns]
    return "## Median Dice per target\n\n" + _table(["target", "n", *heads], rows) if rows else ""


def _baseline_table(summary: Mapping[str, Any]) -> str:
    modes = summary["better_than_region_growing"]
    names = list(dict.fromkeys(name for found in modes.values() for name in found["targets"]))
    rows = [["all", *(_n_of_m(found["all"]) for found in modes.values())]]
    rows += [[name, *(_n_of_m(found["targets"][name]) for found in modes.values())] for name in names]
    return "## Better than region growing in the same box\n\n" + _table(["target", *modes], rows) if modes else ""


def _absent_table(summary: Mapping[str, Any]) -> str:
    rows = []
    for mode, found in summary["absent_names"].items():
        volume = found["millilitres_drawn"]
        median = volume and volume["median"]
        rows.append([mode, found["prompts"], found["drew_a_mask"], _two(found["share"]), _two(median)])
    title = "## Names that are not in the image, asked for by text\n\n"
    return title + _table(["mode", "prompts", "drew a mask", "share", "median ml drawn"], rows) if rows else ""


def _left_out(summary: Mapping[str, Any]) -> str:
    lines = [f"- case {case}: {reason}" for case, reason in summary["cases"]["failed"].items()]
    lines += [f"- {count} targets: {reason}" for reason, count in summary["targets"]["skipped"].items()]
    if summary["unknown_texts"]:
        lines.append(f"- {len(summary['unknown_texts'])} names unknown to the text encoder (summary.json lists them)")
    return "## Left out\n\n" + "\n".join(lines) if lines else ""


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


def _n_of_m(found: Mapping[str, int]) -> str:
    return f"{found['better']} of {found['of']}"


def _two(value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, int | float) else "-"
