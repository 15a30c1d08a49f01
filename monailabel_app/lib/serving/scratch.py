"""A folder of the server's own for temporary files, because the stock server forgets some of them.

An upload whose request fails stays behind, and so does every downloaded archive; both hold patient data. Here they lie
in one folder that is swept while the server runs, removed when it stops, and, should it be killed, when it next starts.
"""

import contextlib
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

PREFIX = "segvol-label-"
KEEP_SECONDS = 3600
SWEEP_SECONDS = 600


@contextlib.contextmanager
def scratch_folder(keep: float = KEEP_SECONDS, every: float = SWEEP_SECONDS) -> Iterator[Path]:
    """Make `tempfile` use a private folder for as long as the server runs.

    Args:
        keep: age in seconds at which a forgotten file is removed.
        every: seconds between two sweeps.
    """
    before, root = tempfile.tempdir, Path(tempfile.gettempdir())
    _remove_left_behind(root)
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=root))
    stopped = threading.Event()
    threading.Thread(target=_sweep_until, args=(stopped, folder, keep, every), daemon=True, name="sweep").start()
    tempfile.tempdir = str(folder)
    try:
        yield folder
    finally:
        stopped.set()
        tempfile.tempdir = before
        shutil.rmtree(folder, ignore_errors=True)


def sweep(folder: Path, keep: float) -> None:
    """Remove what has lain in a folder for longer than `keep` seconds."""
    for entry in folder.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - entry.stat().st_mtime > keep:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()


def _sweep_until(stopped: threading.Event, folder: Path, keep: float, every: float) -> None:
    while not stopped.wait(every):
        with contextlib.suppress(OSError):
            sweep(folder, keep)


def _remove_left_behind(root: Path) -> None:
    """Remove the folders of servers that no longer run."""
    for folder in root.glob(f"{PREFIX}*-*"):
        number = folder.name.removeprefix(PREFIX).split("-")[0]
        if number.isdecimal() and (int(number) == os.getpid() or not _runs(int(number))):
            shutil.rmtree(folder, ignore_errors=True)


def _runs(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
