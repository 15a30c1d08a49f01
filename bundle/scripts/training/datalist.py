"""Which cases a run reads: datalists in JSON, and folders of unlabelled images."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Paths = str | Path | Sequence[str | Path]

IMAGE_SUFFIXES = (".nii", ".nii.gz", ".nrrd", ".mha", ".mhd")
DECATHLON = {"training": "train", "validation": "validation", "test": "test", "testing": "test"}  # list -> split
FILES = ("image", "label", "prepared")


def read_datalist(path: Paths, split: str | None = None) -> list[dict[str, Any]]:
    """Labelled cases of one or more datalists.

    A datalist is a JSON file ``{"cases": [{"image", "label", "labels": {"1": "liver"}, "split"}, ...]}``; paths in it
    are relative to its folder. A structure may have no name (``{"1": null}``): it is trained by points and boxes
    alone. ``"complete": true`` in a case says that what is not labelled in it is not there. ``"prepared"`` is the
    folder of a case that was prepared for training.

    The form of the Medical Segmentation Decathlon is read too: ``{"training": [...], "validation": [...], "test":
    [...]}``, with ``labels`` in each case or once for all, where value 0 is dropped. Its images without a label are
    passed over.

    Args:
        path: the file, or several: data sets with different labels train in one run.
        split: only cases of this split; None takes all.

    Raises:
        ValueError: for a missing file, another format, or no case left.
    """
    cases = [case for file in _files(path) for case in _cases_of(file, ("image", "label", "labels"))]
    return _of_split(cases, path, split)


def read_images(path: Paths, split: str | None = None) -> list[dict[str, Any]]:
    """Images alone, for pre-training: ``[{"image": path}, ...]``, with ``prepared`` where a datalist has it.

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
    chosen = [
        {key: case[key] for key in ("image", "prepared") if key in case} for case in _of_split(cases, path, split)
    ]
    return list({case["image"]: case for case in reversed(chosen)}.values())[::-1]


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
    cases = _listed(content)
    if cases is None:
        lists = ", ".join(DECATHLON)
        raise ValueError(f'datalist: {path} is not of the form {{"cases": [...]}}, nor has it a list of {lists}')
    if "cases" not in content:
        cases = [case for case in cases if not (_is_image_alone(case) and "label" in keys)]
    for number, case in enumerate(cases, start=1):
        if not isinstance(case, dict) or not set(keys) <= case.keys():
            raise ValueError(f"datalist: case {number} of {path} lacks {_either(keys)}")
        for key in FILES:
            if key in keys and not isinstance(case[key], str):
                raise ValueError(f"datalist: {key} of case {number} of {path} is {case[key]!r}; allowed is one path")
    return [_beside(path, case) for case in cases]


def _listed(content: Any) -> list[Any] | None:
    """The cases of either form, each with its split; None for another form."""
    if not isinstance(content, dict):
        return None
    if "cases" in content:
        return content["cases"] if isinstance(content["cases"], list) else None
    lists = {key: content[key] for key in DECATHLON if key in content}
    if not lists or not all(isinstance(entries, list) for entries in lists.values()):
        return None
    common = content.get("labels")
    names = {value: name for value, name in common.items() if value != "0"} if isinstance(common, dict) else None
    return [_decathlon_case(entry, DECATHLON[key], names) for key, entries in lists.items() for entry in entries]


def _decathlon_case(entry: Any, split: str, names: dict[str, Any] | None) -> Any:
    if isinstance(entry, str):
        return {"image": entry, "split": split}
    if not isinstance(entry, dict):
        return entry
    labels = {"labels": names} if names is not None and "label" in entry else {}
    return {**labels, **entry, "split": split}


def _is_image_alone(case: Any) -> bool:
    return isinstance(case, dict) and "image" in case and not {"label", "labels"} & case.keys()


def _beside(path: Path, case: dict[str, Any]) -> dict[str, Any]:
    """A case whose paths lead on from the datalist's folder."""
    return {**case, **{key: str(path.parent / case[key]) for key in FILES if isinstance(case.get(key), str)}}


def _either(keys: Sequence[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{', '.join(keys[:-1])} or {keys[-1]}"
