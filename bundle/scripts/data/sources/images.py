"""The image of a case: a file, a folder with one DICOM series, or an array of M3D-Seg."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor

from ...transforms import check_volume, load_volume


def read_image(source: Mapping[str, Any]) -> MetaTensor:
    """Read an image as it is stored.

    A single slice, as QUBIQ's kidneys are, becomes a volume of one slice. An array of M3D-Seg, (1, D, H, W) or
    (D, H, W), is normalised already and says nothing of where it lay: it is taken as (k, j, i) on a grid of 1 mm, so
    that orienting the result to SAR brings back the same (D, H, W).

    Args:
        source: ``{"kind": "file" | "dicom" | "array", "path"}``.

    Returns:
        (1, i, j, k) float32 in stored order, with the RAS ``affine`` in mm.

    Raises:
        ValueError: one line, for what cannot be read or segmented.
    """
    path = source["path"]
    volume = _array(path) if source["kind"] == "array" else load_volume(path)
    if volume.ndim == 3:
        voxels = volume.as_tensor().unsqueeze(-1)
        volume = MetaTensor(voxels, meta={**volume.meta, "spatial_shape": np.array(voxels.shape[1:])})
    check_volume(volume, path)
    return volume


def _array(path: str) -> MetaTensor:
    try:
        array = np.load(path, allow_pickle=False)
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
            raise ValueError("it holds no numbers")
    except Exception as error:  # noqa: BLE001  whatever a damaged file makes NumPy say
        raise ValueError(f"image: {path} cannot be read ({str(error)[:160]})") from error
    if array.ndim == 4 and array.shape[0] == 1:
        array = array[0]
    if array.ndim != 3:
        raise ValueError(f"image: {path} must be (1, D, H, W) or (D, H, W); it is {array.shape}")
    voxels = torch.from_numpy(np.ascontiguousarray(array.T, np.float32)).unsqueeze(0)
    return MetaTensor(voxels, affine=torch.eye(4, dtype=torch.float64), meta={"filename_or_obj": str(path)})
