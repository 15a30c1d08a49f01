"""A segmentation as the viewers take it: one label map in a file, and what there is to say about it."""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK
from numpy.typing import NDArray

from .fields import BadRequest, read_flag

EXTENSIONS = (".nrrd", ".nii.gz", ".nii")


def label_map(label: NDArray[Any], values: Sequence[int]) -> NDArray[np.uint8]:
    """Give target t + 1 of ``label`` (i, j, k) its value in the reply."""
    table = np.zeros(len(values) + 1, dtype=np.uint8)
    table[1:] = values
    mapped: NDArray[np.uint8] = table[label]
    return mapped


def write_result(label: NDArray[np.uint8], affine: NDArray[np.float64], params: Mapping[str, Any]) -> Path:
    """Write a label map (i, j, k) into a temporary file of the kind that the client asked for.

    Args:
        label: voxels in stored order.
        affine: (4, 4) to RAS mm.
        params: ``result_extension`` (.nrrd by default) and ``result_compress`` of the request.

    Raises:
        BadRequest: for an extension that is not allowed.
    """
    extension = params.get("result_extension") or ".nrrd"
    if extension not in EXTENSIONS:
        raise BadRequest(f"result_extension is {extension!r}; allowed are {', '.join(EXTENSIONS)}")
    compress = read_flag(params, "result_compress")
    with tempfile.NamedTemporaryFile(suffix=extension, delete=False) as file:
        path = Path(file.name)
    if extension == ".nrrd":
        SimpleITK.WriteImage(_itk_image(label, affine), str(path), compress)
    else:
        nib.save(nib.Nifti1Image(label, affine), path)
    return path


def _itk_image(label: NDArray[np.uint8], affine: NDArray[np.float64]) -> SimpleITK.Image:
    """Voxels (i, j, k) with an affine to RAS mm as ITK has them, in LPS."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(label.T))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).reshape(-1).tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def label_names(label: NDArray[np.uint8], names: Sequence[str], values: Sequence[int]) -> dict[str, int]:
    """Name -> value of the targets that have a voxel, by ascending value, as Slicer reads it."""
    present = set(np.unique(label).tolist())
    rows = sorted(zip(values, names, strict=True))
    return {name: value for value, name in rows if value in present}
