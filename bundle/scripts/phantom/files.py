"""Phantoms on disk: image, label, prompts to try, and the datalist that training and evaluation read."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np

from ..prompts import PROMPT_KINDS, Prompt, PromptKind, prompt_from_mask
from .scan import Phantom

# what write_prompts asks for: these names, or so many of the largest shapes without one, which no text can ask for
PROMPTED = ("liver", "spleen", "left kidney", "right kidney", "left lung", "right lung", "heart", "stomach")
NAMELESS = 8
NAMELESS_KINDS: tuple[PromptKind, ...] = ("box", "point")


def save_phantom(phantom: Phantom, folder: Path) -> tuple[Path, Path]:
    """Write ct.nii.gz, label.nii.gz and labels.json (value -> name or null), each whole or not at all.

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
    """Write a prompts.json that asks for some structures, each in another way: a click, a box, text and mixes.

    Structures without a name are asked for by a box or a click.
    """
    rng = np.random.default_rng(seed)
    prompts = [
        prompt_from_mask(phantom.label == value, name, PROMPT_KINDS[i % len(PROMPT_KINDS)], rng)
        for i, (value, name) in enumerate(sorted(phantom.names.items()))
        if name in PROMPTED
    ]
    prompts += nameless_prompts(phantom, rng)
    document = {"coordinates": "voxel", "targets": [prompt.to_dict() for prompt in prompts]}
    path.write_text(json.dumps(document, indent=1) + "\n")


def nameless_prompts(phantom: Phantom, rng: np.random.Generator) -> list[Prompt]:
    """Boxes and clicks by turns for the largest shapes without a name, which are called after their value."""
    counts = np.bincount(phantom.label.ravel(), minlength=256)
    values = sorted((v for v, name in phantom.names.items() if name is None), key=lambda v: -counts[v])
    return [
        prompt_from_mask(phantom.label == value, f"shape {value}", NAMELESS_KINDS[i % len(NAMELESS_KINDS)], rng)
        for i, value in enumerate(values[:NAMELESS])
    ]


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
            "complete": None not in labels.values(),  # what the label lacks is absent from the image
        }
    partial = path.with_suffix(".tmp")
    partial.write_text(json.dumps({"cases": [cases[key] for key in sorted(cases)]}, indent=1) + "\n")
    os.replace(partial, path)
