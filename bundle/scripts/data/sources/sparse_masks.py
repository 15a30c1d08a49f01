"""The sparse masks of M3D-Seg."""

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

SHAPE = re.compile(r"\((\d+),\s*(\d+),\s*(\d+),\s*(\d+)\)")


def read_sparse(
    path: str, channels: Sequence[Mapping[str, int]] | None, shape: tuple[int, ...]
) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Read a file mask_(C, D, H, W).npz: a scipy.sparse matrix that holds C flattened masks.

    Args:
        path: its name says (C, D, H, W); one that does not has a row for each mask.
        channels: ``[{"channel": 0, "value": 1}, ...]`` in the order of painting; None: all, with the value c + 1.
        shape: (i, j, k) of the image, (W, H, D) of the masks.

    Yields:
        Value and mask (i, j, k), in the order of ``channels``; a mask that the file lacks is left out.

    Raises:
        ValueError: one line, for a file that cannot be read, or masks of another size than the image.
    """
    matrix = _load(path)
    expected = tuple(reversed(shape))
    named = SHAPE.search(os.path.basename(path))
    count, *size = [int(n) for n in named.groups()] if named else [matrix.shape[0], *expected]
    if tuple(size) != expected or count * math.prod(size) != math.prod(matrix.shape):
        stored = "x".join(str(n) for n in (size if tuple(size) != expected else matrix.shape))
        raise ValueError(
            f"label grid differs from the image's: {path} holds {stored} voxels (D, H, W), not "
            f"{'x'.join(str(n) for n in expected)}"
        )
    rows = matrix.reshape((count, math.prod(size))).tocsr()
    for each in channels if channels is not None else [{"channel": c, "value": c + 1} for c in range(count)]:
        if each["channel"] < count:
            yield each["value"], _mask(rows, each["channel"], expected).T


def _mask(rows: Any, channel: int, shape: tuple[int, ...]) -> NDArray[np.bool_]:
    begin, end = rows.indptr[channel : channel + 2]
    mask = np.zeros(math.prod(shape), bool)
    mask[rows.indices[begin:end]] = rows.data[begin:end] > 0
    return mask.reshape(shape)


def _load(path: str) -> Any:
    try:
        with open(path, "rb") as file:  # a damaged file given by name would be left open
            matrix = sparse.load_npz(file)  # nothing in it is unpickled: that is scipy's own rule
        matrix = sparse.coo_matrix(matrix)
        matrix.check_format() if hasattr(matrix, "check_format") else None
        finite = bool(np.isfinite(matrix.data).all())
    except Exception as error:  # noqa: BLE001  whatever a damaged file makes the libraries say
        raise ValueError(f"label: {path} cannot be read ({str(error)[:160]})") from error
    if not finite:
        raise ValueError(f"label: {path} holds NaN or infinite voxels")
    return matrix
