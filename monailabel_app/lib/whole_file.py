"""A file that is there whole or not at all, however the writer ends.

What a clinic stores must survive a kill and a full disk: the content goes to a hidden file beside the target, reaches
the disk, and only then takes the target's name.
"""

import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

UNFINISHED = ".unfinished-"
_ABANDONED_S = 3600


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A path to write to; it becomes ``target`` when the block ends well, and vanishes when it does not."""
    unfinished = target.with_name(f"{UNFINISHED}{uuid.uuid4().hex}")
    try:
        yield unfinished
        _sync(unfinished)
        os.replace(unfinished, target)
        _sync(target.parent)
    finally:
        with suppress(FileNotFoundError):
            unfinished.unlink()


def remove_abandoned(folder: Path, files_at_once: bool = False) -> None:
    """Delete what killed writers left in ``folder``.

    Args:
        folder: where they wrote.
        files_at_once: delete files of any age, for a caller who holds the lock of all who write them; all else may be
            another process's for an hour.
    """
    for path in folder.glob(f"{UNFINISHED}*"):
        with suppress(FileNotFoundError):
            old = time.time() - path.stat().st_mtime > _ABANDONED_S
            if path.is_dir() and old:
                shutil.rmtree(path)
            elif path.is_file() and (old or files_at_once):
                path.unlink()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
