"""All paths below a folder, walked once and searched often: a set has a hundred files for each of a thousand cases."""

import bisect
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

_PLAIN = re.compile(r"(?:[\w /,=@~-]|\\\W)*")


class Tree:
    """Files and folders below ``root`` as sorted POSIX paths relative to it; hidden ones, and macOS's, are not seen.

    Links are followed, but for one that leads back to a folder it lies in, or nowhere.

    Raises:
        ValueError: one line, for a folder that cannot be read.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files: list[str] = []
        self._filled: set[str] = set()
        self._walk("", ())
        self.files: Sequence[str] = sorted(self._files)
        self.folders: Sequence[str] = sorted(self._filled)
        self._known = set(self._files)

    def __contains__(self, path: str) -> bool:
        """Say whether there is such a file."""
        return path in self._known

    def absolute(self, path: str) -> str:
        """A relative path in full."""
        return str(self.root / path)

    def matching(self, pattern: str, folders: bool = False) -> Iterator[tuple[str, re.Match[str]]]:
        """Files, or folders that hold files, whose whole path matches a regular expression, in order."""
        compiled = re.compile(pattern)
        for path in _starting_with(literal_prefix(pattern), self.folders if folders else self.files):
            found = compiled.fullmatch(path)
            if found:
                yield path, found

    def in_folder(self, folder: str) -> list[str]:
        """Names of the files that lie directly in a folder, in order."""
        prefix = f"{folder}/" if folder else ""
        names = [path[len(prefix) :] for path in _starting_with(prefix, self.files)]
        return [name for name in names if "/" not in name]

    def _walk(self, folder: str, above: tuple[tuple[int, int], ...]) -> None:
        place = os.stat(self.root / folder)
        here = (place.st_dev, place.st_ino)
        if here in above:
            return
        for name in self._names(folder):
            path = f"{folder}/{name}" if folder else name
            if os.path.isdir(self.root / path):
                self._walk(path, (*above, here))
            elif os.path.isfile(self.root / path):
                self._files.append(path)
                self._filled.add(folder)

    def _names(self, folder: str) -> list[str]:
        try:
            names = os.listdir(self.root / folder)
        except OSError as error:
            raise ValueError(f"data_dir: {self.root / folder} cannot be read ({error.strerror})") from error
        return [name for name in names if not name.startswith(".") and name != "__MACOSX"]


def _starting_with(prefix: str, paths: Sequence[str]) -> Sequence[str]:
    return paths[bisect.bisect_left(paths, prefix) : bisect.bisect_left(paths, prefix + chr(sys.maxunicode))]


def literal_prefix(pattern: str) -> str:
    """What every match of a regular expression begins with, as far as that is plain to see."""
    if "|" in re.sub(r"\\.|\([^()]*\)", "", pattern):
        return ""
    found = _PLAIN.match(pattern)
    text = found[0] if found else ""
    if len(text) < len(pattern) and pattern[len(text)] in "*?{":  # the last character need not be there
        text = text[: -2 if text[-2:-1] == "\\" else -1]
    return re.sub(r"\\(.)", r"\1", text)
