"""The app's own weights: fine-tuned ones in dated files, and one small JSON that says which of them count.

    small-1a2b3c4d-20260131-140000.pt     weights that were taken over, never changed afterwards
    small-1a2b3c4d-20260131-140000.json   their provenance
    small-1a2b3c4d.json                   the provenance of those that count: the switch, replaced whole
    small-1a2b3c4d.last.json              what became of the last training

1a2b3c4d begins the SHA-256 of the file that they start from: weights of another file, or of a newer one in its place,
neither count for this one nor are touched. Who goes back to older weights copies their JSON over the switch; who
deletes it goes back to the file that they start from. Running servers follow with their next request.
"""

import hashlib
import json
import logging
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .whole_file import remove_abandoned, whole_file

logger = logging.getLogger(__name__)

Stamp = tuple[int, int, int]
DIGITS = 8
BUSY_S = 5.0  # a server that looks whether somebody trains holds the lock for a moment


class Busy(ValueError):
    """Somebody trains these weights already; one sentence."""


@dataclass(frozen=True)
class Own:
    """Weights of the app's own.

    Attributes:
        path: the file.
        provenance: what their JSON says.
    """

    path: Path
    provenance: dict[str, Any]


class WeightsFolder:
    """Fine-tuned weights that start from one file.

    Args:
        folder: where they lie; made when the first are written.
        size: of the network.
        start: the file that they start from.
    """

    def __init__(self, folder: Path, size: str, start: Path) -> None:
        self.folder = folder
        self._size = size
        self._start = start

    @property
    def name(self) -> str:
        """What their files begin with: the size, and the start's digits once it is there."""
        try:
            return f"{self._size}-{self._digits}"
        except OSError:
            return self._size

    @cached_property
    def _digits(self) -> str:
        return _sha256(self._start)[:DIGITS]

    def stamp(self) -> Stamp | None:
        """What changes when other weights begin to count; None where there are none."""
        try:
            stat = os.stat(self._switch)
        except OSError:
            return None
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    def current(self) -> Own | None:
        """The weights that count, None where there are none or their JSON does not name a file of this folder."""
        provenance = _read(self._switch)
        file = provenance.get("weights")
        if not isinstance(file, str) or Path(file).name != file or not (self.folder / file).is_file():
            return None
        return Own(self.folder / file, provenance)

    def take_over(self, candidate: Path, provenance: Mapping[str, Any]) -> Path:
        """Let a file count from now on; it is moved into the folder, and the older ones stay.

        Args:
            candidate: on the file system of the folder.
            provenance: what its JSON is to say beside ``weights``, ``sha256`` and ``date``.

        Returns:
            Its new path.
        """
        now = datetime.now(UTC)
        target = self._free(f"{self.name}-{now:%Y%m%d-%H%M%S}")
        date = now.isoformat(timespec="seconds")
        told = {"weights": target.name, "sha256": _sha256(candidate), "date": date, **provenance}
        with whole_file(target) as unfinished:
            os.replace(candidate, unfinished)
        _write(target.with_suffix(".json"), told)
        _write(self._switch, told)
        return target

    def _free(self, stem: str) -> Path:
        target, count = self.folder / f"{stem}.pt", 1
        while target.exists():
            count += 1
            target = self.folder / f"{stem}-{count}.pt"
        return target

    @contextmanager
    def training(self) -> Iterator[Path]:
        """A working folder beside the weights, for the one who may train now; it is gone when the block ends.

        Raises:
            Busy: another training runs, in this process or in another.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            with self._lock().acquire(timeout=BUSY_S):
                self._sweep()
                working = self.folder / f"{self._working}{uuid.uuid4().hex}"
                working.mkdir()
                try:
                    yield working
                finally:
                    shutil.rmtree(working, ignore_errors=True)
        except Timeout:
            raise Busy("another training runs on these weights; wait for it, or stop it") from None

    def check_writable(self) -> None:
        """Refuse to train where the weights could not be kept.

        Raises:
            ValueError: one sentence.
        """
        existing = next(path for path in (self.folder, *self.folder.parents) if path.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise ValueError(
                "the server may not write its folder of weights, so it cannot train; --conf models names one"
            )

    def is_training(self) -> bool:
        """Whether somebody trains now."""
        if not self._may_be_locked():
            return False
        try:
            with self._lock().acquire(timeout=0):
                return False
        except Timeout:
            return True

    def sweep(self, wait: float = 0) -> None:
        """Remove what a killed training left, unless one runs and goes on for ``wait`` seconds."""
        if not self._may_be_locked():
            return
        try:
            with self._lock().acquire(timeout=wait):
                self._sweep()
        except Timeout:
            logger.info("a training runs; nothing was swept")

    def tell(self, outcome: Mapping[str, Any]) -> None:
        """Keep what became of a training, or how far it is."""
        _write(self._last, outcome)

    def last(self) -> dict[str, Any]:
        """What was told last; empty where nothing was."""
        return _read(self._last)

    @property
    def _switch(self) -> Path:
        return self.folder / f"{self.name}.json"

    @property
    def _last(self) -> Path:
        return self.folder / f"{self.name}.last.json"

    @property
    def _lock_file(self) -> Path:
        return self.folder / f".{self.name}.lock"

    @property
    def _working(self) -> str:
        return f".training-{self.name}."

    def _may_be_locked(self) -> bool:
        """Whether anybody ever trained here, and this process could: a look makes no file, read-only is no error."""
        return os.access(self._lock_file, os.W_OK)

    def _lock(self) -> FileLock:
        return FileLock(self._lock_file)

    def _sweep(self) -> None:
        for left in self.folder.glob(f"{self._working}*"):
            shutil.rmtree(left, ignore_errors=True)
        remove_abandoned(self.folder)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with whole_file(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
