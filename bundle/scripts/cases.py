"""What the user named becomes cases, and cases become a stream of prepared volumes.

A case is a dict: ``case`` (its name), ``image`` (path), ``document`` (what prompts.json would hold). A bad case is
reported and the rest goes on.
"""

import csv
import glob
import json
import logging
import os
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch.utils.data import IterableDataset
from tqdm import tqdm

from .arguments import as_path, exit_on_error
from .prompts import command_line_document
from .provenance import made_from
from .transforms import SUFFIXES, dicom_series

logger = logging.getLogger(__name__)

Case = dict[str, Any]

PROMPT_COLUMNS = ("text", "points", "point_labels", "box", "coordinates")
COLUMNS = ("image", *PROMPT_COLUMNS)


def one_case(image: Any, prompts: Any, **given: Any) -> list[Case]:
    """The single case of ``inference.json``.

    Args:
        image: NIfTI, NRRD, MHA or MHD file, or a folder with one DICOM series.
        prompts: a prompts.json, instead of the prompts in ``given``.
        given: ``text``, ``points``, ``point_labels``, ``box``, ``coordinates`` as on the command line.

    Raises:
        SystemExit: one line, for a user's mistake.
    """
    with exit_on_error():
        path = as_path(image, "image")
        if path is None:
            raise ValueError(
                "image is missing; it takes a NIfTI, NRRD, MHA or MHD file, or a folder with a DICOM series"
            )
        if not os.path.exists(path):  # pathlib's raises for a name that is too long
            raise ValueError(f"image: {path} does not exist")
        return _named([{"image": path, "document": _document(prompts, given)}])


def many_cases(image: Any, cases: Any, prompts: Any, **given: Any) -> list[Case]:
    """The cases of ``batch_inference.json``.

    Args:
        image: a folder (each volume in it, or each subfolder that holds a DICOM series) or a glob pattern; all
            cases share one set of prompts.
        cases: instead, a JSON list of ``{"image", "prompts"}`` or a CSV with the columns of ``COLUMNS``.
        prompts: a prompts.json for all images.
        given: as in ``one_case``.

    Raises:
        SystemExit: one line, for a user's mistake.
    """
    with exit_on_error():
        listed, pattern = as_path(cases, "cases"), as_path(image, "image")
        if (listed is None) == (pattern is None):
            raise ValueError("give either image (a folder or a pattern) or cases (a JSON or CSV list), and not both")
        if listed is not None:
            if prompts is not None or _said(given):
                raise ValueError("cases brings its own prompts; name none beside it")
            return _named(_read_list(listed))
        assert pattern is not None  # one of the two is given
        document = _document(prompts, given)
        return _named([{"image": path, "document": document} for path in _images_of(pattern)])


class CaseStream(IterableDataset):
    """Prepares one case after another; what cannot be prepared is reported, and the stream goes on.

    Args:
        cases: from ``one_case`` or ``many_cases``, or a ``batch.Turns`` of them.
        transform: the preprocessing.
        progress: show a progress bar.
    """

    def __init__(
        self, cases: Collection[Case], transform: Callable[[Case], Mapping[str, Any]], progress: bool = False
    ) -> None:
        self.cases = cases
        self.transform = transform
        self.progress = progress
        self.failures: dict[str, str] = {}

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        """Yield each prepared case with its ``report``, which later steps fill."""
        self.failures = {}
        for case in tqdm(self.cases, unit="case") if self.progress else self.cases:
            begin = perf_counter()
            try:
                prepared = dict(self.transform(_checked(case)))
            except Exception as error:  # noqa: BLE001  one bad case must not end a batch
                self.report(case["case"], error)
                continue
            prepared["report"] = {"seconds": {"load": perf_counter() - begin}}
            yield prepared

    def finish(self) -> None:
        """End the run with exit 1 where a case failed.

        Raises:
            SystemExit: one line; a single case's own sentence, or which of many failed.
        """
        if self.failures:
            raise SystemExit(closing_sentence(self.failures, len(self.cases)))

    def report(self, name: str, error: Exception) -> None:
        """Note that the case ``name`` failed, and log it where there are others."""
        mistake = _mistake(error)
        if mistake is None:
            logger.error("case %s: unexpected error", name, exc_info=error)
        sentence = " ".join(str(mistake or error).split()) or type(error).__name__
        self.failures[name] = sentence
        if len(self.cases) > 1:
            logger.error("case %s left out: %s", name, sentence)


def closing_sentence(failures: Mapping[str, str], count: int) -> str:
    """What a run of ``count`` cases ends with where some failed (name -> sentence)."""
    if count == 1:
        return next(iter(failures.values()))
    told = "; ".join(f"{name}: {sentence}" for name, sentence in failures.items())
    return f"{len(failures)} of {count} cases failed: {told}"


class InferenceBatch:
    """``prepare_batch`` of the evaluator: a prepared case becomes the inferer's arguments.

    Args:
        text_encoder: resolved name -> vector.
    """

    def __init__(self, text_encoder: Callable[[Sequence[str]], torch.Tensor]) -> None:
        self.text_encoder = text_encoder

    def __call__(self, case: Mapping[str, Any], device: torch.device, non_blocking: bool = False, **_: Any) -> tuple:
        """Returns (image (1, 1, D, H, W), None, (), kwargs of the inferer)."""
        image = case["image"].unsqueeze(0).to(device, non_blocking=non_blocking)
        vectors = [None if name is None else self.text_encoder([name])[0].to(device) for name in case["names"]]
        kwargs = {"prompts": case["model_prompts"], "text_vectors": vectors, "report": case["report"]}
        return image, None, (), kwargs


def case_name(path: Path) -> str:
    """A file's name without its ending (``SUFFIXES``); a folder's name as it is."""
    name = path.name or path.resolve().name
    if name in (".", ".."):
        name = path.resolve().name
    lower = name.lower()
    suffix = next((s for s in sorted(SUFFIXES, key=len, reverse=True) if lower.endswith(s)), "")
    return name[: len(name) - len(suffix)] or name


def _named(cases: list[Case]) -> list[Case]:
    """Name every case; equal names get the parent folder in front, and a number where that does not tell them apart."""
    names = [case_name(Path(case["image"])) for case in cases]
    counts = Counter(names)
    taken: set[str] = set()
    for case, name in zip(cases, names, strict=True):
        if counts[name] > 1:
            name = f"{Path(case['image']).resolve().parent.name}_{name}"
        unique, number = name, 2
        while unique in taken:
            unique, number = f"{name}_{number}", number + 1
        taken.add(unique)
        case["case"] = unique
    return cases


def _document(prompts: Any, given: Mapping[str, Any]) -> Any:
    path = as_path(prompts, "prompts")
    if path is None:
        return command_line_document(**given)
    if _said(given):
        raise ValueError(f"prompts names a file; {', '.join(_said(given))} cannot be given beside it")
    return _read_json(path, "prompts")


def _said(given: Mapping[str, Any]) -> list[str]:
    """Which prompt arguments differ from what the config holds where the user says nothing."""
    return [k for k, v in given.items() if v is not None and (k, str(v).strip().lower()) != ("coordinates", "voxel")]


def _images_of(pattern: Path) -> list[Path]:
    if os.path.isdir(pattern):
        inside = sorted(pattern.iterdir())
        files = [path for path in inside if path.is_file() and path.name.lower().endswith(SUFFIXES)]
        found = files + [path for path in inside if path.is_dir() and len(dicom_series(path)) > 0]
    elif os.path.isfile(pattern):  # its name may hold the letters of a pattern
        found = [pattern]
    else:
        found = [Path(path) for path in sorted(glob.glob(str(pattern), recursive=True))]
    if not found:
        raise ValueError(f"image: {pattern} holds no volume ({', '.join(SUFFIXES)} or subfolders with a DICOM series)")
    return found


def _read_list(path: Path) -> list[Case]:
    """The entries of a case list; what is wrong with one of them is told when its turn comes."""
    rows = _read_csv(path) if path.suffix.lower() == ".csv" else _read_json(path, "cases")
    if not isinstance(rows, list) or not rows:
        raise ValueError(f'cases: {path} must be a list of {{"image", "prompts"}} with at least one entry')
    entries: list[Case] = []
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or not isinstance(row.get("image"), str) or not row["image"].strip():
            entries.append({"image": f"entry_{number}", "fault": f"cases: entry {number} of {path} names no image"})
            continue
        beside = path.parent / row["image"]
        image = Path(os.path.expanduser(row["image"]))
        image = beside if os.path.exists(beside) and not os.path.exists(image) else image
        entries.append({"image": image, "document": row.get("prompts"), "fault": row.get("fault")})
    return entries


def _read_csv(path: Path) -> list[dict[str, Any]]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            unknown = sorted(set(reader.fieldnames or ()) - set(COLUMNS))
            if unknown or "image" not in (reader.fieldnames or ()):
                raise ValueError(f"cases: {path} has the columns {reader.fieldnames}; allowed are {', '.join(COLUMNS)}")
            return [_row(row) for row in reader]
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"cases: {path} cannot be read ({error})") from error


def _row(row: dict[str, str]) -> dict[str, Any]:
    """One line of a CSV: cells hold JSON, a bare text is a text."""
    given: dict[str, Any] = {}
    try:
        for key in PROMPT_COLUMNS:
            cell = (row.get(key) or "").strip()
            if cell:
                given[key] = json.loads(cell) if cell.startswith("[") else cell
        return {"image": row["image"], "prompts": command_line_document(**given)}
    except (ValueError, RecursionError) as error:
        return {"image": row["image"], "fault": f"cases: {error}"}


def _read_json(path: Path, name: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{name}: {path} cannot be read as JSON ({error})") from error


def _checked(case: Case) -> Case:
    if case.get("fault"):
        raise ValueError(case["fault"])
    return {"image_path": str(case["image"]), **case, "made_from": made_from(case)}


def _mistake(error: BaseException | None) -> BaseException | None:
    """The first ValueError in a chain of errors: MONAI wraps what its transforms raise, and they what a library did."""
    while error is not None and not isinstance(error, ValueError):
        error = error.__cause__
    return error
