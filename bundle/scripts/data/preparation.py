"""The whole of one case on a worker: read, measured, prepared for training, stored; its record comes last."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from monai.data import MetaTensor
from numpy.typing import NDArray

from ..results.files import write_nifti
from .patients.fingerprint import fingerprint
from .quality.statistics import describe
from .records import RawCase, Record, finished, forget, key_of, write_record
from .reporting.thumbnails import write_thumbnail
from .sources import read_image, read_label
from .storage.store import write_case
from .whole_files import whole_file

Preparation = Callable[[dict[str, Any]], dict[str, Any]]
Label = NDArray[np.int16]

GRIDS = ("image", "label", "pseudo_mask")
IN_PARTS = ".seg.nrrd"  # 3D Slicer's, which need not lie on the image's grid


def prepare_case(
    raw_case: RawCase,
    folder: Path,
    transform: Preparation,
    recipe: Mapping[str, Any],
    colors: Mapping[int, tuple[int, int, int]] | None = None,
) -> Record:
    """Prepare one case, unless that is done already.

    Every file appears whole or not at all, and the record last; what an earlier preparation from other files or by
    another recipe made goes first.

    Args:
        raw_case: from a layout.
        folder: of the prepared set.
        transform: the deterministic transforms of training after reading, for ``image`` and ``label`` (1, i, j, k):
            they make ``image`` (1, D, H, W) in [0, 1], ``label``, and ``pseudo_mask`` where there is such.
        recipe: what ``transform`` does, as the store keeps it.
        colors: of the label values, for the thumbnail.

    Returns:
        The record.

    Raises:
        ValueError: one line, for a case that cannot be used.
    """
    key = key_of(raw_case, recipe)
    known = finished(folder, raw_case["case"], key)
    if known is not None:
        return known
    forget(folder, raw_case["case"])
    image = read_image(raw_case["image"])
    label, overlaps = _read_label(raw_case, image)
    record: Record = {
        **{name: raw_case[name] for name in ("case", "data_set", "patient")},
        "key": key,
        **_listed_files(raw_case, folder, image, label),
        "labels": raw_case["labels"],
        "complete": raw_case["complete"],
        "split_of_set": raw_case["split"],
        "fingerprint": fingerprint(image[0].numpy(), np.asarray(image.affine)),
        **describe(image, label, raw_case["labels"]),
        "overlaps": overlaps,
    }
    write_thumbnail(folder / "thumbnails" / f"{raw_case['case']}.png", image, label, colors)
    record["prepared"] = _store(folder / "prepared" / raw_case["case"], image, label, transform, recipe)
    write_record(folder, record)
    return record


def _read_label(raw_case: RawCase, image: MetaTensor) -> tuple[Label | None, dict[str, int]]:
    if raw_case["label"] is None:
        return None, {}
    return read_label(raw_case["label"], image, raw_case["labels"])


def _listed_files(raw_case: RawCase, folder: Path, image: MetaTensor, label: Label | None) -> dict[str, str | None]:
    """Paths that a datalist names: those of the set, or of files made here where training could not read the set's."""
    case, source, labelled = raw_case["case"], raw_case["image"], raw_case["label"]
    affine = np.asarray(image.affine, dtype=np.float64)
    as_it_is = source["kind"] in ("file", "dicom") and image.shape[-1] > 1
    paths: dict[str, str | None] = {"image": source["path"], "label": None}
    if not as_it_is:
        paths["image"] = _written(folder, f"images/{case}.nii.gz", image[0].numpy(), affine)
    if label is not None:
        single = labelled["kind"] == "map" and not labelled["path"].lower().endswith(IN_PARTS)
        small = label.astype(np.uint8) if label.max() < 256 else label
        path = f"labels/{case}.nii.gz"
        paths["label"] = labelled["path"] if as_it_is and single else _written(folder, path, small, affine)
    return paths


def _written(folder: Path, path: str, voxels: NDArray[Any], affine: NDArray[np.float64]) -> str:
    with whole_file(folder / path) as part:
        write_nifti(part, voxels, affine)
    return path


def _store(
    folder: Path, image: MetaTensor, label: Label | None, transform: Preparation, recipe: Mapping[str, Any]
) -> dict[str, Any]:
    """Prepare as for training, and keep that."""
    grids = {"image": image}
    if label is not None:
        grids["label"] = MetaTensor(np.ascontiguousarray(label)[None], affine=image.affine)  # tensors go forward alone
    prepared = transform(grids)
    arrays = {key: prepared[key].numpy()[0] for key in GRIDS if key in prepared}
    written = write_case(folder, arrays, recipe)
    regions = arrays.get("pseudo_mask")
    return {
        "shape": [int(size) for size in arrays["image"].shape],
        "bytes": written,
        "pseudo_masks": 0 if regions is None else int(regions.max()),
    }
