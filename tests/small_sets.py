"""Data sets of a few small phantoms in the public layouts of AMOS22 and WORD."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
from commands import BUNDLE
from scripts.phantom import make_phantom

SHAPE = (48, 48, 24)

Change = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


def amos(folder: Path, cases: Iterable[int], changes: Mapping[int, Change] | None = None) -> Path:
    """Write imagesTr/amos_0001.nii.gz and labelsTr beside it, from the phantom of that number."""
    for case in cases:
        add_case(folder, "AMOS22", f"amos_{case:04d}", case, (changes or {}).get(case))
    return folder


def word(folder: Path, cases: Mapping[str, int]) -> Path:
    """Write imagesTr/word_0001.nii.gz and labelsTr beside it: case -> number of its phantom."""
    for case, seed in cases.items():
        add_case(folder, "WORD", case, seed)
    return folder


def add_case(folder: Path, data_set: str, case: str, seed: int, change: Change | None = None) -> None:
    """Write one phantom with the label values of a data set."""
    phantom = make_phantom(seed, shape=SHAPE)
    label = np.zeros(SHAPE, np.uint8)
    values = values_of(data_set)
    for own, name in phantom.names.items():
        label[phantom.label == own] = values.get(name, 0)
    image, label = (phantom.image, label) if change is None else change(phantom.image, label)
    for part, voxels in (("imagesTr", image), ("labelsTr", label)):
        path = folder / part / f"{case}.nii.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(voxels, phantom.affine), path)


def values_of(data_set: str) -> dict[str, int]:
    """Name -> label value, as the catalogue says."""
    content = json.loads((BUNDLE / "configs" / "datasets.json").read_text())
    (entry,) = (each for each in content["data_sets"] if each["name"] == data_set)
    return {name: int(value) for value, name in entry["labels"].items()}


def tree_of(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones too, and what it holds."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
