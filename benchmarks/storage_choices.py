"""Ways to keep a prepared grid on disk, each with a writer and a reader, for ``storage.py`` to compare."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import blosc2
import nibabel as nib
import numpy as np
import torch
from numpy.typing import NDArray
from scripts.data.storage.stored_grid import CODEC, ROWS, StoredGrid, write_grid


@dataclass(frozen=True)
class Choice:
    """A way to keep a grid.

    Attributes:
        name: in the table.
        suffix: of its file or folder.
        write: path, grid -> on disk.
        grid: the class that reads it.
        whole: a view reads all of it.
    """

    name: str
    suffix: str
    write: Callable[[Path, NDArray], None]
    grid: type[StoredGrid]
    whole: bool = False


class WholeGrid(StoredGrid):
    """A grid that is read whole, whatever a view shows."""

    def take(self, places: Sequence[NDArray[np.int64]]) -> NDArray:
        """See ``StoredGrid.take``."""
        planes, rows, columns = places
        return self.load()[planes][:, rows][:, :, columns]

    def load(self) -> NDArray:
        """All of it."""
        raise NotImplementedError


class NiftiGrid(WholeGrid):
    """A compressed NIfTI file."""

    def load(self) -> NDArray:
        """All of it."""
        return np.asanyarray(nib.load(self.path).dataobj)


class TorchGrid(WholeGrid):
    """A file of MONAI's PersistentDataset, which is ``torch.save``."""

    def load(self) -> NDArray:
        """All of it."""
        return torch.load(self.path, weights_only=True).numpy()


class NumpyGrid(StoredGrid):
    """Raw voxels, mapped into memory."""

    def take(self, places: Sequence[NDArray[np.int64]]) -> NDArray:
        """See ``StoredGrid.take``."""
        planes, rows, columns = places
        array = np.load(self.path, mmap_mode="r")
        return np.stack([array[plane][rows[0] : rows[-1] + 1][rows - rows[0]][:, columns] for plane in planes])


class ZarrGrid(StoredGrid):
    """A zarr array of planes in one shard."""

    def take(self, places: Sequence[NDArray[np.int64]]) -> NDArray:
        """See ``StoredGrid.take``."""
        import zarr

        planes, rows, columns = places
        array = zarr.open_array(self.path, mode="r")
        box = array.oindex[planes, slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)]
        return box[:, rows - rows[0]][:, :, columns - columns[0]]


def write_nifti(path: Path, grid: NDArray) -> None:
    """NIfTI knows no float16."""
    nib.save(nib.Nifti1Image(grid.astype(np.float32) if grid.dtype == np.float16 else grid, np.eye(4)), path)


def write_zarr(path: Path, grid: NDArray) -> None:
    """One shard with a chunk a plane, compressed as the store is."""
    import zarr

    codec = zarr.codecs.BloscCodec(cname="lz4hc", clevel=5, shuffle="shuffle")
    shape = {"shape": grid.shape, "chunks": (1, *grid.shape[1:]), "shards": grid.shape}
    zarr.create_array(path, dtype=grid.dtype, compressors=codec, **shape)[:] = grid


def blosc2_writer(chunk: Sequence[int], block: Sequence[int], **codec: Any) -> Callable[[Path, NDArray], None]:
    """Chunks and blocks of these sizes, and another codec than the store's."""

    def write(path: Path, grid: NDArray) -> None:
        sizes = {
            name: [min(a, b) for a, b in zip(size, grid.shape, strict=True)]
            for name, size in (("chunks", chunk), ("blocks", block))
        }
        cparams = {**CODEC, "nthreads": 1, **codec}
        blosc2.asarray(grid, **sizes, cparams=cparams, urlpath=str(path), mode="w")

    return write


LARGE = 1 << 15  # all of an axis
PLANE, ROW_BLOCK = (1, LARGE, LARGE), (1, ROWS, LARGE)
STORE = Choice("**blosc2, planes, LZ4HC 5** (the store)", ".b2nd", write_grid, StoredGrid)
TORCH = Choice("torch .pt (PersistentDataset)", ".pt", lambda p, g: torch.save(torch.from_numpy(g), p), TorchGrid, True)
NUMPY = Choice("numpy, memory map", ".npy", np.save, NumpyGrid)
CHOICES = [
    Choice("NIfTI, gzip", ".nii.gz", write_nifti, NiftiGrid, True),
    TORCH,
    NUMPY,
    *([Choice("zarr 3, planes in a shard, LZ4HC 5", ".zarr", write_zarr, ZarrGrid)] if find_spec("zarr") else []),
    STORE,
    Choice(
        "blosc2, planes, LZ4 5", ".b2nd", blosc2_writer(PLANE, ROW_BLOCK, codec=blosc2.Codec.LZ4, clevel=5), StoredGrid
    ),
    Choice(
        "blosc2, planes, ZSTD 1",
        ".b2nd",
        blosc2_writer(PLANE, ROW_BLOCK, codec=blosc2.Codec.ZSTD, clevel=1),
        StoredGrid,
    ),
    Choice("blosc2, cubes of 32 x 128 x 128, LZ4HC 5", ".b2nd", blosc2_writer((32, 128, 128), (4, 64, 64)), StoredGrid),
]
