"""The catalogue as a page for readers: docs/datasets.md."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .catalogue import Catalogue, DataSet

FIRST_FEW = 5  # targets that a row names

INTRODUCTION = """\
# Data sets

The public sets that the paper trains and tests on (Tables 4 and 5), as `bundle/configs/datasets.json` describes them.
This page is made from that file: `cd bundle && python -m scripts.data.catalogue > ../docs/datasets.md`.

Nothing is downloaded for you. Get a set from its page, read its terms, unpack it, and point `--data_dir` at the folder.
A licence is given as far as it is known; the set's own page decides. Volumes and categories are those of Table 4.
A set with the role *test* is an external test of the paper: none of it is to be trained on. So is the validation part
of AMOS22.
"""

LAYOUT = """\
## Layouts

`layout` of an entry is a list of blocks. All paths have `/` between folders and are relative to `data_dir`; a regular
expression must match the whole of one. An image that two blocks match belongs to the first of them.

| key | meaning |
|---|---|
| `image` | expression for the images; its group `case` names the case, other named groups may serve the templates |
| `is` | `file`, or `dicom` where the expression matches folders of one DICOM series each |
| `split` | `train`, `validation` or `test`, where the set itself says so |
| `optional` | `true` where the block may match nothing |
| `label` | template for the label map of an image: `{case}` and the like stand for the groups of `image` |
| `files` | template that becomes an expression once it is filled; its group `structure` names what each file shows |
| `folders` | likewise for folders of mask slices; `slices` says `png` or `tif` where they are no DICOM files |
| `raters` | likewise for the files of several raters, with a group `rater`; the majority counts |
| `structure` | the structure, where `files`, `folders` or `raters` has no such group |
| `kind` | alone in its block: `generic` (`images/`, `labels/`, `labels.json`) or `m3d` (the authors' own release) |

`labels` says what the values of a label map, or the structures of files and folders, are called; `null` is one without
a name. Where structures in files overlap, what stands later in `labels` is painted over what stands before it.
"""


def as_markdown(catalogue: Catalogue) -> str:
    """The whole page: a table of the sets, what is to be known of each, and how layouts are written."""
    return "\n".join([INTRODUCTION, *_table(catalogue), "", "## Notes", "", *_notes(catalogue), "", LAYOUT])


def _table(catalogue: Catalogue) -> list[str]:
    head = ["data set", "targets", "volumes", "categories", "role", "licence", "page", "confirmed from"]
    return [_line(head), "|---|---|---:|---:|---|---|---|---|", *(_line(_cells(each)) for each in catalogue)]


def _cells(each: DataSet) -> list[str]:
    host = each.source.split("/")[2]
    count = str(each.categories) if each.categories else "-"
    link = f"[{host}]({each.source})"
    return [each.name, _short(each.targets), str(each.volumes), count, each.role, each.licence, link, _confirmed(each)]


def _short(targets: tuple[str, ...]) -> str:
    more = len(targets) - FIRST_FEW
    return ", ".join(targets[:FIRST_FEW]) + (f" and {more} more" if more > 0 else "")


def _confirmed(each: DataSet) -> str:
    unsure = [part for part in ("layout", "labels") if not each.confirmed[part]]
    return (f"**{' and '.join(unsure)} not confirmed**; " if unsure else "") + str(each.confirmed["from"])


def _notes(catalogue: Catalogue) -> list[str]:
    notes = ((each.name, f"{each.download.rstrip('.')}. {each.note}".strip()) for each in catalogue)
    return [f"- **{name}**: {note}" for name, note in notes]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"
