"""Which image is it: a hash of its content, read again only where a file's size or times have changed.

A cache that went by path would serve the old image after a new upload of the same name.
"""

import hashlib
import os
import threading
import time
from collections import OrderedDict
from pathlib import Path

_KEPT = 4096  # images whose hash is remembered
_CHUNK = 1 << 20
_TICK_NS = 2_000_000_000  # file times of the coarsest file systems; a later write within one may leave no trace

Stamp = tuple[tuple[str, int, int, int, int], ...]


class Identities:
    """Content hashes of images, by path."""

    def __init__(self) -> None:
        self._known: OrderedDict[str, tuple[Stamp, str]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, path: Path) -> str:
        """SHA-256 of a file's content, or of names and contents of all files in a folder.

        Raises:
            ValueError: one line, where there is nothing to read.
        """
        try:
            stamp = _stamp(path)
            with self._lock:
                known = self._known.get(str(path))
                if known is not None and known[0] == stamp:
                    self._known.move_to_end(str(path))
                    return known[1]
            content = _content_hash(path)
        except OSError as error:
            raise ValueError(f"image: {path.name} cannot be read ({error.strerror or error})") from error
        if not _is_settled(stamp):
            return content
        with self._lock:
            self._known[str(path)] = (stamp, content)
            if len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return content


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else [path]


def _stamp(path: Path) -> Stamp:
    """What changes when a file is written or replaced."""
    stats = [(file.name, os.stat(file)) for file in _files(path)]
    return tuple((name, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in stats)


def _is_settled(stamp: Stamp) -> bool:
    """Whether the last change is so long ago that another one would change the stamp."""
    return time.time_ns() - max((changed for *_, changed in stamp), default=0) > _TICK_NS


def _content_hash(path: Path) -> str:
    digest = hashlib.sha256()
    for file in _files(path):
        digest.update(file.name.encode() if path.is_dir() else b"")
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()
