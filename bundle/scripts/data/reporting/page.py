"""The page of the data report: report.html, complete in itself, with every text from outside escaped."""

import base64
import html
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from ..quality.patient_axes import AXES, by_axis
from .charts import box_plot, histogram, log_axis, log_ends
from .page_style import STYLE

SHOWN_PICTURES = 200
SHOWN_FAULTS = 50  # of a kind
OPEN_FAULTS = 12  # a longer list is folded
SHOWN_DOTS = 120  # values of a box plot
NO_COLOR = "#9aa5b1"
KINDS = {
    "grid": "label and image on different grids",
    "unreadable": "cannot be read",
    "empty": "empty label",
    "mirrored": "mirrored image",
    "side": "left and right swapped",
    "turned": "turned-over axis",
    "overlap": "two labels on one voxel",
    "nameless": "label value without a name",
    "air": "label in air",
    "volume": "unusual volume",
    "spacing": "unusual spacing",
    "size": "unusual size",
    "constant": "constant image",
    "intensity": "intensities that are no HU",
    "duplicate": "the same image as another case",
    "absent": "a structure that nearly all others have is missing",
}  # in the order of the page
INTENSITIES = {
    "min": "Lowest",
    "p01": "1st percentile",
    "median": "Median",
    "p99": "99th percentile",
    "max": "Highest",
}

Fault = Mapping[str, Any]


@dataclass(frozen=True)
class Pictures:
    """What is shown beside the numbers.

    Attributes:
        thumbnails: case -> PNG.
        colors: structure -> "#rrggbb".
    """

    thumbnails: Mapping[str, Path]
    colors: Mapping[str, str]


def html_page(
    about: Mapping[str, Any],
    summary: Mapping[str, Any],
    records: Sequence[Mapping[str, Any]],
    splits: Mapping[str, str],
    skipped: Sequence[Fault],
    faults: Sequence[Fault],
    pictures: Pictures,
) -> str:
    """The whole page; ``summary`` is that of ``summarise``, the rest as in ``write_report``."""
    sections = [
        _head(about, summary, faults),
        _section("Left out", _faults([{"kind": "unreadable", **fault} for fault in skipped])) if skipped else "",
        _section("What to look at", _faults(faults) or '<p class="good">Nothing stands out.</p>'),
        _section("The same image twice", _list(map(_duplicate, summary["duplicates"])))
        if summary["duplicates"]
        else "",
        _section("Splits", _splits(summary)),
        _section("Grids", _grids(summary, records)),
        _section("Intensities", _intensities(records)),
        _section("Structures", _structures(summary, records, pictures)) if summary["structures"] else "",
        _section("Cases", _cases(records, splits, faults, pictures)),
    ]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{_text(summary['data_set'])}: data report</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(section for section in sections if section)
        + "\n</main>\n</body>\n</html>\n"
    )


def _text(value: Any) -> str:
    """A text from outside, as HTML; control characters, which HTML does not have, become one sign."""
    return html.escape(re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "\N{REPLACEMENT CHARACTER}", str(value)))


def _head(about: Mapping[str, Any], summary: Mapping[str, Any], faults: Sequence[Fault]) -> str:
    source = str(about.get("source") or "")
    linked = re.fullmatch(r"https?://[^\s\"'<>]+", source) is not None
    shown = f'<a href="{_text(source)}" rel="noreferrer">{_text(source)}</a>' if linked else _text(source)
    lines = [
        ("Licence", _text(about.get("licence") or "")),
        ("Source", shown),
        ("Note", _text(about.get("note") or "")),
    ]
    told = "".join(f'<p><span class="faint">{name}:</span> {line}</p>' for name, line in lines if line)
    suspicious = len({fault["case"] for fault in faults})
    listed = about.get("volumes")
    tiles = [
        (summary["cases"], f"cases, of {listed} that the set is said to have" if listed else "cases", False),
        (summary["patients"], "patients", False),
        (summary["labelled"], "labelled", False),
        (len(summary["structures"]), "structures", False),
        (suspicious, "cases to look at", suspicious > 0),
        (len(summary["skipped"]), "left out", len(summary["skipped"]) > 0),
    ]
    shown_tiles = "".join(
        f'<div class="tile{" warn" if warn else ""}"><b>{number}</b>{_text(word)}</div>' for number, word, warn in tiles
    )
    return f'<h1>{_text(summary["data_set"])}</h1>\n{told}\n<div class="tiles">{shown_tiles}</div>'


def _faults(faults: Iterable[Fault]) -> str:
    """Sentences by kind, the gravest kind first."""
    order = {kind: number for number, kind in enumerate(KINDS)}
    rank = [(order.get(fault["kind"], len(order)), str(fault["kind"]), fault) for fault in faults]
    parts = []
    for (_, kind), group in groupby(sorted(rank, key=lambda item: item[:2]), key=lambda item: item[:2]):
        sentences = [fault["sentence"] for _, _, fault in group]
        more = len(sentences) - SHOWN_FAULTS
        rest = f'<p class="faint">and {more} more, which faults.json lists</p>' if more > 0 else ""
        unfolded = " open" if len(sentences) <= OPEN_FAULTS else ""
        title = f"<summary>{_text(KINDS.get(kind, kind))}: {len(sentences)}</summary>"
        parts.append(f"<details{unfolded}>{title}{_list(sentences[:SHOWN_FAULTS])}{rest}</details>")
    return "\n".join(parts)


def _duplicate(found: Mapping[str, Any]) -> str:
    return str(found.get("sentence") or f"{' and '.join(map(str, found.get('cases', ())))} show the same image")


def _splits(summary: Mapping[str, Any]) -> str:
    rows = [[_text(name), found["cases"], found["patients"]] for name, found in summary["splits"].items()]
    return _table(["split", "cases", "patients"], rows)


def _grids(summary: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> str:
    cards = []
    for key, word, unit in (
        ("spacing_mm", "Spacing", "mm"),
        ("shape", "Voxels", ""),
        ("field_of_view_mm", "Field of view", "mm"),
    ):
        found = [by_axis(record, key) for record in records]
        for axis in AXES:
            cards.append(_card(f"{word} {axis}", [values[axis] for values in found if axis in values], unit))
    stored = ", ".join(f"{_text(code)} ({count})" for code, count in summary["axcodes"].items())
    return f'<div class="charts">{"".join(cards)}</div>\n<p class="faint">Stored as: {stored or "-"}</p>'


def _intensities(records: Sequence[Mapping[str, Any]]) -> str:
    cards = []
    for key, title in INTENSITIES.items():
        cards.append(_card(title, [r["intensity"][key] for r in records if r["intensity"][key] is not None], ""))
    return f'<div class="charts">{"".join(cards)}</div>'


def _card(title: str, values: Sequence[float], unit: str) -> str:
    head = f"{_text(title)}{f' <span class=faint>{unit}</span>' if unit else ''}"
    return f'<div class="card"><h3>{head}</h3>{histogram(values, unit)}</div>'


def _structures(summary: Mapping[str, Any], records: Sequence[Mapping[str, Any]], pictures: Pictures) -> str:
    """A row for each structure, with its volumes on one logarithmic axis."""
    low, high = log_ends([found["ml"][end] for found in summary["structures"].values() for end in ("min", "max")])
    rows = []
    for name, found in summary["structures"].items():
        same = [record["structures"][name] for record in records if name in record["structures"]]
        values = [one["ml"] for one in same if found["ml_of"] == "all" or not one.get("cut")][:SHOWN_DOTS]
        color = pictures.colors.get(name, NO_COLOR)
        numbers = [_number(found["ml"][key]) for key in ("lower_quartile", "median", "upper_quartile")]
        plot = box_plot(found["ml"], values, low, high, color)
        swatch = f'<span class="swatch" style="background:{color}"></span>'
        rows.append([f"{swatch}{_text(name)}", found["cases"], found["whole"], *numbers, plot])
    heads = ["structure", "cases", "whole", "lower quartile", "median ml", "upper quartile", log_axis(low, high)]
    note = "Volumes are those of whole structures; where the border of the image cuts most of them, those of all."
    return f'<div class="scroll">{_table(heads, rows)}</div>\n<p class="faint">{note}</p>'


def _cases(
    records: Sequence[Mapping[str, Any]], splits: Mapping[str, str], faults: Sequence[Fault], pictures: Pictures
) -> str:
    """Thumbnails, those of suspicious cases first."""
    kinds: dict[str, list[str]] = {}
    for fault in faults:
        kinds.setdefault(fault["case"], []).append(fault["kind"])
    names = sorted((record["case"] for record in records), key=lambda case: (case not in kinds, case))
    there = [name for name in names if name in pictures.thumbnails and pictures.thumbnails[name].is_file()]
    figures = [_figure(name, splits.get(name), kinds.get(name, []), pictures) for name in there[:SHOWN_PICTURES]]
    hidden = len(records) - len(figures)
    note = f"{len(figures)} of {len(records)} cases; {hidden} more are not shown." if hidden else "All cases."
    note += " Those to look at come first." if kinds else ""
    return f'<p class="faint">{note}</p>\n<div class="grid">{"".join(figures)}</div>'


def _figure(case: str, split: str | None, kinds: Sequence[str], pictures: Pictures) -> str:
    content = base64.b64encode(pictures.thumbnails[case].read_bytes()).decode("ascii")
    badges = f'<span class="badge">{_text(split)}</span>' if split else ""
    badges += "".join(f'<span class="badge warn">{_text(kind)}</span>' for kind in kinds)
    image = f'<img alt="{_text(case)}" loading="lazy" src="data:image/png;base64,{content}">'
    return f"<figure>{image}<figcaption>{_text(case)}{badges}</figcaption></figure>\n"


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>\n{content}</section>"


def _list(texts: Iterable[Any]) -> str:
    return f"<ul>{''.join(f'<li>{_text(text)}</li>' for text in texts)}</ul>"


def _table(heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A table of cells that are HTML already; those of whole numbers, or that read like one, stand at the right."""
    columns = [_is_number(cell) for cell in rows[0]] if rows else [False] * len(heads)

    def row(cells: Sequence[Any], tag: str) -> str:
        marks = [' class="number"' if number else "" for number in columns]
        return f"<tr>{''.join(f'<{tag}{m}>{cell}</{tag}>' for m, cell in zip(marks, cells, strict=True))}</tr>"

    return (
        f"<table><thead>{row(heads, 'th')}</thead><tbody>{''.join(row(cells, 'td') for cells in rows)}</tbody></table>"
    )


def _is_number(cell: Any) -> bool:
    return isinstance(cell, int) or re.fullmatch(r"[\d.e+-]+", str(cell)) is not None


def _number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
