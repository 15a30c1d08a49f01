"""Files and folders that appear whole or not at all, also where a process is killed while it writes them."""

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LEFTOVER = re.compile(r"\.part-[0-9a-f]{32}\..+")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A hidden neighbour with the same ending that takes the place of ``path`` once the block ends well.

    Where the block fails it vanishes; where the process dies it stays, and ``sweep`` knows it by its name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".part-{uuid.uuid4().hex}.{path.name}")
    try:
        yield part
        _sync(part)  # a record says that its files are there: they have to be, after a power cut too
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A hidden neighbour that takes the place of ``folder`` once the block ends well, and vanishes if it fails."""
    part = folder.with_name(f".part-{uuid.uuid4().hex}.{folder.name}")
    part.mkdir(parents=True)
    try:
        yield part
        for path in (*part.iterdir(), part):
            _sync(path)
        if folder.exists():
            remove(folder)
        os.replace(part, folder)
        _sync(folder.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def remove(path: Path) -> None:
    """Remove a file or a folder, which goes at once: under its own name it is never seen half gone."""
    if path.is_dir() and not path.is_symlink():
        part = path.with_name(f".part-{uuid.uuid4().hex}.{path.name}")
        os.replace(path, part)
        shutil.rmtree(part, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sweep(folder: Path) -> None:
    """Remove what killed writers have left in ``folder``; its own folders are not searched."""
    for path in folder.glob(".part-*"):
        if _LEFTOVER.fullmatch(path.name):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Bring a file or a folder's entries onto the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
