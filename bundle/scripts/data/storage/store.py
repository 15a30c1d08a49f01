"""The store of a prepared case: a folder that training reads piece by piece, without the transforms that made it.

``image.b2nd``, ``label.b2nd`` and ``pseudo_mask.b2nd`` are its grids. ``index.json`` says what is in them, how they
were prepared, and where structures lie; ``centres.npy`` holds some voxels of each. What the structures are called is
the datalist's to say.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...results.files import write_json
from ..whole_files import whole_folder
from .places import Places, find_places, no_places
from .stored_grid import StoredGrid, StoredRows, write_grid

FORMAT = 1  # of the folder; another number is another format
TYPES = {"image": ("float16",), "label": ("uint8", "int16"), "pseudo_mask": ("int16",)}
INDEX, CENTRES_FILE = "index.json", "centres.npy"


@dataclass(frozen=True, slots=True)
class StoredCase:
    """What ``open_case`` finds: a few kB, however large the case is.

    Attributes:
        grids: ``image``, and ``label`` and ``pseudo_mask`` where there are such.
        places: where the structures of the label lie; none without a label.
        mean: the mean voxel of the image.
        settings: how the case was prepared.
    """

    grids: Mapping[str, StoredGrid]
    places: Places
    mean: float
    settings: Mapping[str, Any]


def write_case(folder: str | Path, grids: Mapping[str, NDArray], settings: Mapping[str, Any]) -> int:
    """Write a prepared case as a folder that appears whole or not at all; the same input gives the same bytes.

    Args:
        folder: is made or replaced. A writer that is killed leaves a hidden folder beside it, which
            ``whole_files.sweep`` knows.
        grids: ``image`` (D, H, W) in [0, 1], kept as float16; ``label`` of values, kept as uint8 or int16; and
            ``pseudo_mask`` of region numbers, kept as int16. Label and pseudo mask may be missing.
        settings: how the case was prepared, as JSON can say it: ``{"axcodes": "SAR"}``, and with pseudo masks
            ``pseudo_rule``, ``pseudo_neighbours`` and ``pseudo_shape``.

    Returns:
        Bytes on disk.

    Raises:
        ValueError: one line, for grids of other names or shapes, or values that their types cannot hold.
    """
    compact = _compact(grids)
    places = find_places(compact["label"]) if "label" in compact else no_places()
    with whole_folder(Path(folder)) as part:
        for name, grid in compact.items():
            write_grid(part / f"{name}.b2nd", grid)
        if len(places):
            np.save(part / CENTRES_FILE, np.asarray(places.centres), allow_pickle=False)
        files = {path.name: path.stat().st_size for path in sorted(part.iterdir())}
        write_json(part / INDEX, _index(compact, places, settings, files))
        return sum(files.values()) + (part / INDEX).stat().st_size


def open_case(folder: str | Path) -> StoredCase:
    """Open a stored case without reading its voxels.

    Raises:
        ValueError: one line, for a folder that is none, of another format, or not whole.
    """
    folder = Path(folder)
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"prepared: {folder} holds no {INDEX} that can be read") from error
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        found = index.get("format") if isinstance(index, dict) else None
        raise ValueError(f"prepared: {folder} is of format {found!r}; this version reads {FORMAT}")
    try:
        case, files = _stored_case(folder, index), dict(index["files"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"prepared: {folder / INDEX} is damaged") from error
    _check_files(folder, files)
    return case


def _compact(grids: Mapping[str, NDArray]) -> dict[str, NDArray]:
    """Contiguous grids in the smallest of their types."""
    if "image" not in grids or not set(grids) <= set(TYPES):
        raise ValueError(f"grids are {sorted(grids)}; allowed are image, and beside it label and pseudo_mask")
    shapes = {name: tuple(grid.shape) for name, grid in grids.items()}
    if len(set(shapes.values())) > 1 or len(shapes["image"]) != 3 or not all(shapes["image"]):
        raise ValueError(f"grids have the shapes {shapes}; allowed is one (D, H, W)")
    return {name: np.ascontiguousarray(_smallest(name, grids[name])) for name in TYPES if name in grids}


def _smallest(name: str, grid: NDArray) -> NDArray:
    if name == "image":
        return grid.astype(np.float16)
    low, high = grid.min(), grid.max()
    if not 0 <= low <= high <= np.iinfo(np.int16).max:  # refuses NaN as well
        raise ValueError(f"{name} has the values {low} to {high}; allowed are whole numbers from 0 to 32767")
    kept = grid.astype(np.uint8 if high < 256 and "uint8" in TYPES[name] else np.int16)
    if not np.issubdtype(grid.dtype, np.integer) and not np.array_equal(kept, grid):
        raise ValueError(f"{name} has values between whole numbers; allowed are whole numbers from 0 to 32767")
    return kept


def _index(
    grids: Mapping[str, NDArray], places: Places, settings: Mapping[str, Any], files: Mapping[str, int]
) -> dict[str, Any]:
    return {
        "format": FORMAT,
        "shape": [*grids["image"].shape],
        "types": {name: str(grid.dtype) for name, grid in grids.items()},
        "mean": mean_voxel(grids["image"]),
        "settings": {key: settings[key] for key in sorted(settings)},
        "values": places.values.tolist(),
        "extents": [extent.ravel().tolist() for extent in places.extents],
        "centres": [last - first for first, last in places.bounds.tolist()],
        "files": dict(files),
    }


def mean_voxel(image: NDArray) -> float:
    """The mean of an image, to as many digits as are the same on every machine."""
    return round(float(image.mean(dtype=np.float64)), 6)


def _check_files(folder: Path, files: Mapping[str, int]) -> None:
    for name, size in files.items():
        try:
            found = (folder / name).stat().st_size
        except OSError as error:
            raise ValueError(f"prepared: {folder} lacks {name}") from error
        if found != size:
            raise ValueError(f"prepared: {folder / name} has {found} bytes of {size}; it is damaged")


def _stored_case(folder: Path, index: Mapping[str, Any]) -> StoredCase:
    depth, height, width = (int(length) for length in index["shape"])
    grids = {}
    for name, dtype in index["types"].items():
        if dtype not in TYPES[name] or f"{name}.b2nd" not in index["files"]:
            raise KeyError(name)
        grids[name] = StoredGrid(str(folder / f"{name}.b2nd"), (depth, height, width), dtype)
    count = len(index["values"])
    if "image" not in grids or len(index["centres"]) != count or (count and CENTRES_FILE not in index["files"]):
        raise KeyError("image")
    ends = np.cumsum([0, *index["centres"]])
    places = Places(
        np.array(index["values"], np.int32),
        np.array(index["extents"], np.int32).reshape(count, 2, 3),
        np.stack([ends[:-1], ends[1:]], axis=1).astype(np.int32),
        StoredRows(str(folder / CENTRES_FILE)),
    )
    return StoredCase(grids, places, float(index["mean"]), dict(index["settings"]))
