"""The files that hold the voxels of an image, which is not always the one file that the user named."""

import re
from pathlib import Path

HEADER = 1 << 20  # bytes in which a header says where its voxels are
METAIMAGE = (".mha", ".mhd")
_NAMED = re.compile(rb"^(?:ElementDataFile\s*=|data ?file:)\s*(?!=)([^\r\n]+)", re.IGNORECASE | re.MULTILINE)
_NRRD_END = re.compile(rb"\r?\n\r?\n")


def check_voxels_beside(path: Path) -> None:
    """Refuse a header of MetaImage or NRRD that names its voxels by a path: that could be any file of this machine.

    Raises:
        ValueError: one line.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEADER)
    except OSError as error:
        raise ValueError(f"image: {path} cannot be read ({error.strerror})") from error
    if path.suffix.lower() not in METAIMAGE:
        head = _NRRD_END.split(head, maxsplit=1)[0]
    found = _NAMED.search(head)
    named = found[1] if found is not None else b"/" if len(head) == HEADER else b""
    if found is not None and named.upper().startswith(b"LIST"):
        named = head[found.start(1) :]
    if re.search(rb"[/\\]", re.sub(rb"^\./", b"", named, flags=re.MULTILINE)):
        raise ValueError(f"image: {path} names its voxels by a path; allowed is a file beside it")


def files_of(path: Path) -> list[Path]:
    """What a path stands for: the slices of a folder, and the voxels beside a header of MetaImage."""
    if path.suffix.lower() == ".mhd" and path.parent.is_dir():
        return sorted(other for other in path.parent.iterdir() if other.stem == path.stem)
    return sorted(path.iterdir()) if path.is_dir() else [path]
