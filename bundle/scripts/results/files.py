"""How a result reaches the disk: file names, NIfTI, JSON, and a folder that is replaced whole or not at all."""

import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

MAX_NAME = 80  # characters of a target's part of a file name
MAX_CASE = 120  # bytes of the case's part; file systems allow 255 for the whole


@contextmanager
def staged(folder: Path, listing: str) -> Iterator[Path]:
    """A hidden folder whose files move into ``folder`` once the block ends well, and vanish if it fails.

    Args:
        folder: where they go; its other files stay, but for those that the former ``listing`` names.
        listing: the JSON whose ``files`` are all files of a result. It goes first and comes last, so that a folder
            that has one holds the whole result.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=folder.parent) as hidden:
        part = Path(hidden)
        yield part
        folder.mkdir(exist_ok=True)
        former = _listed(folder / listing)
        new = {path.name for path in part.iterdir()}
        for name in [listing, *sorted(former - new)]:
            (folder / name).unlink(missing_ok=True)
        for name in [*sorted(new - {listing}), listing]:
            os.replace(part / name, folder / name)


def _listed(path: Path) -> set[str]:
    """File names in a former listing, those alone that lie beside it and are its own case's."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        names = [name for name in content["files"] if isinstance(name, str)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return set()
    prefix = path.name.removesuffix("seg.json")
    return {name for name in names if name.startswith(prefix) and Path(name).name == name}


def case_stem(case: str) -> str:
    """What the file names of a case start with: its name, cut where a target's part would not fit behind it."""
    return case.encode("utf-8", "ignore")[:MAX_CASE].decode("utf-8", "ignore") or "case"


def safe_names(names: Sequence[str]) -> list[str]:
    """File names for targets: A-Z, a-z, 0-9, '.', '_', '-' alone, short, and different in any case of letters."""
    taken, safe = {"seg"}, []
    for number, name in enumerate(names, start=1):
        stem = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".")[:MAX_NAME]
        stem = stem if re.search(r"[A-Za-z0-9]", stem) else f"target_{number}"
        unique, count = stem, 1
        while unique.lower() in taken:
            count += 1
            unique = f"{stem[: MAX_NAME - len(str(count)) - 1]}_{count}"
        taken.add(unique.lower())
        safe.append(unique)
    return safe


def write_nifti(path: Path, voxels: NDArray[Any], affine: NDArray[np.float64]) -> None:
    """Write (i, j, k) voxels, one slice included; the affine (4, 4) leads to RAS mm.

    A sheared grid, which a qform cannot express, has the sform alone.
    """
    image = nib.Nifti1Image(np.asfortranarray(voxels), affine)
    image.header.set_xyzt_units("mm")
    image.set_qform(affine, code=1)
    if not np.allclose(image.get_qform(), affine, atol=1e-3):
        image.set_qform(None, code=0)
    image.set_sform(affine, code=1)
    nib.save(image, path)


def write_json(path: Path, content: Any) -> None:
    """Write strict JSON, one line for each list of numbers; what is not finite becomes null."""
    text = json.dumps(_finite(content), indent=2, ensure_ascii=False, allow_nan=False)
    text = re.sub(r"\[\n\s*([^\[\]{}\"]*?)\n\s*\]", lambda found: f"[{' '.join(found[1].split())}]", text)
    path.write_bytes((text + "\n").encode("utf-8", "backslashreplace"))  # \udce9 of an odd file name is JSON as well


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
