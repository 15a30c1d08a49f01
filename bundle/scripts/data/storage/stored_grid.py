"""A grid on disk, compressed and chunked, of which a view reads what it shows and no more.

One chunk a plane of (D, H, W), so that a view that is reduced along D reads its own planes alone; blocks of whole rows,
so that a window unpacks its own rows alone. How this was chosen: ``benchmarks/storage.py``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
from numpy.typing import NDArray

ROWS = 64  # of a block
CODEC = {"codec": blosc2.Codec.LZ4HC, "clevel": 5, "filters": [blosc2.Filter.SHUFFLE], "filters_meta": [0]}
ONE_THREAD = 1  # threads would not survive the fork of a DataLoader's worker, and every worker has its own core


@dataclass(frozen=True, slots=True)
class StoredGrid:
    """A grid on disk. It keeps no file open, so that threads and processes share it freely.

    Attributes:
        path: of the file.
        shape: (D, H, W).
        dtype: numpy's name of its type.
    """

    path: str
    shape: tuple[int, ...]
    dtype: str

    def take(self, places: Sequence[NDArray[np.int64]]) -> NDArray:
        """Read the voxels at all combinations of ``places``, as ``numpy.ix_`` combines them.

        Args:
            places: whole numbers along D, H and W.

        Returns:
            (len(places[0]), len(places[1]), len(places[2])).

        Raises:
            ValueError: one line, for a file that is gone or damaged.
        """
        planes, rows, columns = places
        shown = np.empty([len(axis) for axis in places], self.dtype)
        if not shown.size:
            return shown
        (between, down), (beside, across) = _span(rows), _span(columns)
        array = self._open()
        for run in _runs(planes):
            try:
                box = array[slice(run[0], run[-1] + 1), between, beside]
            except Exception as error:  # noqa: BLE001  whatever damage makes it raise becomes one line
                raise ValueError(f"prepared: planes {run[0]} to {run[-1]} of {self.path} are damaged") from error
            here = (planes >= run[0]) & (planes <= run[-1])
            shown[here] = box[planes[here] - run[0]][:, down][:, :, across]
        return shown

    def read(self) -> NDArray:
        """All of it, (D, H, W)."""
        return self.take([np.arange(length) for length in self.shape])

    def _open(self) -> Any:
        try:
            array = blosc2.open(self.path, mode="r", dparams={"nthreads": ONE_THREAD})
        except Exception as error:  # noqa: BLE001  likewise
            raise ValueError(f"prepared: {self.path} cannot be read") from error
        if not isinstance(array, blosc2.NDArray) or (array.shape, str(array.dtype)) != (self.shape, self.dtype):
            raise ValueError(f"prepared: {self.path} is not the grid that its index tells of")
        return array


@dataclass(frozen=True, slots=True)
class StoredRows:
    """Rows (n, 3) of ``centres.npy``, read one by one."""

    path: str

    def __getitem__(self, row: int, /) -> NDArray[np.int32]:
        """One voxel (3,)."""
        try:
            return np.array(np.load(self.path, mmap_mode="r", allow_pickle=False)[row])
        except (OSError, ValueError, IndexError) as error:
            raise ValueError(f"prepared: {self.path} is gone or damaged") from error


def write_grid(path: Path, grid: NDArray) -> None:
    """Write a contiguous (D, H, W); the same grid gives the same bytes."""
    _, height, width = grid.shape
    blosc2.asarray(
        grid,
        chunks=(1, height, width),
        blocks=(1, min(ROWS, height), width),
        cparams={**CODEC, "nthreads": ONE_THREAD},
        urlpath=str(path),
        mode="w",
    )


def _span(places: NDArray[np.int64]) -> tuple[slice, NDArray[np.int64] | slice]:
    """The part of an axis that holds ``places``, and where they lie in it; all of it where they are neighbours."""
    first, last = int(places.min()), int(places.max())
    whole = len(places) == last - first + 1 and bool((np.diff(places) == 1).all())
    return slice(first, last + 1), slice(None) if whole else places - first


def _runs(places: NDArray[np.int64]) -> list[list[int]]:
    """The places, each once, in runs of neighbours, each of which is read at once."""
    distinct = np.unique(places)
    return [run.tolist() for run in np.split(distinct, np.flatnonzero(np.diff(distinct) > 1) + 1)]
