"""Which cases a run reads: datalists in JSON, and folders of unlabelled images."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Paths = str | Path | Sequence[str | Path]

IMAGE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")


def read_datalist(path: Paths, split: str | None = None) -> list[dict[str, Any]]:
    """Labelled cases of one or more datalists.

    A datalist is a JSON file ``{"cases": [{"image", "label", "labels": {"1": "liver"}, "split"}, ...]}``; paths in it
    are relative to its folder. A structure may have no name (``{"1": null}``): it is trained by points and boxes
    alone. ``"complete": true`` in a case says that what is not labelled in it is not there.

    Args:
        path: the file, or several: data sets with different labels train in one run.
        split: only cases of this split; None takes all.

    Raises:
        ValueError: for a missing file, another format, or no case left.
    """
    cases = [case for file in _files(path) for case in _cases_of(file, ("image", "label", "labels"))]
    return _of_split(cases, path, split)


def read_images(path: Paths, split: str | None = None) -> list[dict[str, Any]]:
    """Images alone, for pre-training: ``[{"image": path}, ...]``.

    Args:
        path: datalists, in which only ``image`` is read, or folders, which are searched for images.
        split: only cases of this split of a datalist; None takes all, and a folder has no splits.

    Raises:
        ValueError: for a missing file or folder, another format, or no image.
    """
    cases: list[dict[str, Any]] = []
    for file in _files(path):
        if file.is_dir():
            found = sorted(p for p in file.rglob("*") if p.name.lower().endswith(IMAGE_SUFFIXES) and p.is_file())
            cases += [{"image": str(p), "split": split} for p in found]
        else:
            cases += _cases_of(file, ("image",))
    images = [case["image"] for case in _of_split(cases, path, split)]
    return [{"image": image} for image in dict.fromkeys(images)]


def _files(path: Paths) -> list[Path]:
    return [Path(path)] if isinstance(path, str | Path) else [Path(p) for p in path]


def _of_split(cases: list[dict[str, Any]], path: Paths, split: str | None) -> list[dict[str, Any]]:
    chosen = [case for case in cases if split in (None, case.get("split"))]
    if not chosen:
        raise ValueError(f"datalist: {[str(p) for p in _files(path)]} holds no case of split {split!r}")
    return chosen


def _cases_of(path: Path, keys: Sequence[str]) -> list[dict[str, Any]]:
    """The cases of a datalist file, each with all of ``keys``."""
    if not path.is_file():
        raise ValueError(f"datalist: {path} does not exist")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"datalist: {path} cannot be read as JSON ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("cases"), list):
        raise ValueError(f'datalist: {path} is not of the form {{"cases": [...]}}')
    for number, case in enumerate(content["cases"], start=1):
        if not isinstance(case, dict) or not set(keys) <= case.keys():
            raise ValueError(f"datalist: case {number} of {path} lacks {_either(keys)}")
    files = [key for key in ("image", "label") if key in keys]
    return [{**case, **{key: str(path.parent / case[key]) for key in files}} for case in content["cases"]]


def _either(keys: Sequence[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{', '.join(keys[:-1])} or {keys[-1]}"
