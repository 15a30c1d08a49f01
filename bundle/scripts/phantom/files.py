"""Phantoms on disk: image, label, prompts to try, and the datalist that training and evaluation read."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from ..prompts import PROMPT_KINDS, prompt_from_mask
from .scan import Phantom

# what write_prompts asks for
PROMPTED = ("liver", "spleen", "left kidney", "right kidney", "left lung", "right lung", "heart", "stomach")


def save_phantom(phantom: Phantom, folder: Path) -> tuple[Path, Path]:
    """Write ct.nii.gz, label.nii.gz and labels.json (value -> name), each whole or not at all.

    Returns:
        The paths of image and label.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = folder / "ct.nii.gz", folder / "label.nii.gz"
    with tempfile.TemporaryDirectory(dir=folder, prefix=".phantom_") as name:
        part = Path(name)
        for path, voxels in zip(paths, (phantom.image, phantom.label), strict=True):
            image = nib.Nifti1Image(voxels, phantom.affine)
            image.header.set_xyzt_units("mm")
            nib.save(image, part / path.name)
        (part / "labels.json").write_text(json.dumps({str(v): n for v, n in phantom.names.items()}, indent=2) + "\n")
        for path in (folder / "labels.json", *reversed(paths)):
            os.replace(part / path.name, path)
    return paths


def write_prompts(phantom: Phantom, path: Path, seed: int) -> None:
    """Write a prompts.json that asks for some structures, each in another way: a click, a box, text and mixes."""
    rng = np.random.default_rng(seed)
    prompts = [
        prompt_from_mask(phantom.label == value, name, PROMPT_KINDS[i % len(PROMPT_KINDS)], rng)
        for i, (value, name) in enumerate(sorted(phantom.names.items()))
        if name in PROMPTED
    ]
    document = {"coordinates": "voxel", "targets": [prompt.to_dict() for prompt in prompts]}
    path.write_text(json.dumps(document, indent=1) + "\n")


def add_to_datalist(out: Path, folders: Sequence[Path], split: str) -> None:
    """List phantom folders in ``out``/datalist.json, which keeps what it held; the format is that of training."""
    path = out / "datalist.json"
    cases = {case["image"]: case for case in json.loads(path.read_text())["cases"]} if path.is_file() else {}
    for folder in folders:
        labels = json.loads((folder / "labels.json").read_text())
        image = f"{folder.name}/ct.nii.gz"
        cases[image] = {
            "image": image,
            "label": f"{folder.name}/label.nii.gz",
            "labels": labels,
            "split": split,
            "complete": True,  # what the label lacks is absent from the image
        }
    partial = path.with_suffix(".tmp")
    partial.write_text(json.dumps({"cases": [cases[key] for key in sorted(cases)]}, indent=1) + "\n")
    os.replace(partial, path)
