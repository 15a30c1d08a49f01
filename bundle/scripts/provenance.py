"""What a result was made from, so that a batch that is run again leaves alone what is still true."""

import hashlib
import json
import os
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from .arguments import as_flag, as_path, exit_on_error
from .results.files import case_stem
from .voxel_files import files_of

METADATA = Path(__file__).parents[1] / "configs" / "metadata.json"


def made_from(case: Mapping[str, Any]) -> dict[str, Any]:
    """Which image in which state, and which prompts; to be asked before the image is read.

    Args:
        case: with ``image`` (path of a file or a DICOM folder) and ``document`` (the prompts).

    Returns:
        ``image``: the absolute path; ``state``: a digest of names, sizes and times of change of its files, None where
        there is none; ``prompts``: a digest of the document.
    """
    path = Path(os.path.abspath(case["image"]))
    document = json.dumps(case.get("document"), sort_keys=True, default=str)
    return {"image": str(path), "state": _state(path), "prompts": _digest(document)}


class Finished:
    """Whether the result of a case is there, whole, and made from the same image, prompts, weights and mode.

    Other overrides of the config are not compared.

    Args:
        resume: False: no case is finished.
        output_dir: of the results.
        mode: of the inferer.
        size: of the network.
        checkpoint: file of the weights.
    """

    def __init__(self, resume: Any, output_dir: Any, mode: str, size: str, checkpoint: Any) -> None:
        with exit_on_error():
            self.resume = as_flag(resume, "resume")
            self.output_dir = as_path(output_dir, "output_dir") or Path()
            self.checkpoint = as_path(checkpoint, "checkpoint") or Path()
        self.mode, self.size = mode, size

    def __call__(self, case: Mapping[str, Any]) -> bool:
        """Look at the JSON of ``case``, which is written last."""
        if not self.resume or case.get("fault"):
            return False
        folder, now = self.output_dir / case["case"], made_from(case)
        try:
            summary = json.loads((folder / f"{case_stem(case['case'])}_seg.json").read_text(encoding="utf-8"))
            model = summary["model"]
            made = (summary["made_from"], summary["mode"], summary["version"], model["size"], model["sha256"])
            wanted = (now, self.mode, self._version, self.size, self._sha256)
            return now["state"] is not None and made == wanted and all((folder / n).is_file() for n in summary["files"])
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return False

    @cached_property
    def _version(self) -> str:
        return str(json.loads(METADATA.read_text(encoding="utf-8"))["version"])

    @cached_property
    def _sha256(self) -> str:
        with self.checkpoint.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def _state(path: Path) -> str | None:
    try:
        return _digest(json.dumps([(file.name, *_size_and_time(file)) for file in files_of(path)]))
    except OSError:
        return None


def _size_and_time(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "backslashreplace")).hexdigest()
