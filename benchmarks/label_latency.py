"""What a request costs in the MONAI Label app, by stage: cold click, second click, second user, mend, ten classes.

    python benchmarks/label_latency.py [--size small] [--shape 160 160 96] [--threads 2] [--repeats 3]
    python benchmarks/label_latency.py --size base --reference REFERENCE_FOLDER
    python benchmarks/label_latency.py --image ct.nii.gz --click 120 90 40

The app runs in this process over a temporary folder, without HTTP. The image is a generated phantom, clicked deep in
its liver, unless --image names another. base needs --checkpoint and --tokenizer, or REFERENCE_FOLDER with formula.py,
checkpoint_keys.json and clip_tokenizer: weights made by formula, whose masks mean nothing.

One request on another image goes first, so that imports and the loading of the weights do not count. A cold click finds
a file that the app has not seen and an empty memory; the file itself is in the system's cache. The rows of one repeat
follow each other on one image; each cell is the median of the repeats. The total is the whole request as its caller
waits for it: hashing a new file, reading the prompts and keeping the result for undo come on top of the stages.
"""

import argparse
import importlib.util
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "bundle"), str(ROOT / "monailabel_app")]

from main import SegVolApp  # noqa: E402
from monailabel.config import settings  # noqa: E402
from scripts.phantom import make_phantom  # noqa: E402

SECONDS = ("load", "preprocess", "encode", "decode", "restore", "write", "total")
COUNTS = ("loads", "preprocessings", "encodings")
CLASSES = 10
WARM_UP_SEED = 3002
SETTLED_S = 2.5  # a file that was written later is hashed at every request

Row = Mapping[str, float]
Voxel = Sequence[int]


def main() -> None:
    """Time every row and print the table."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tempfile.tempdir = str(_made(folder / "scratch"))
        studies = _made(folder / "studies")
        image, click = _image(arguments, folder)
        suffix = ".nii.gz" if image.name.endswith(".nii.gz") else ".nii"
        for repeat in range(arguments.repeats):
            shutil.copyfile(image, studies / f"case_{repeat}{suffix}")
        nib.save(_phantom(WARM_UP_SEED, (72, 64, 40))[0], studies / "other.nii.gz")
        bench = Bench(_app(arguments, folder, studies))
        time.sleep(SETTLED_S)
        bench.warm_up()
        repeats = [bench.rows(f"case_{repeat}", click) for repeat in range(arguments.repeats)]
        sys.stdout.write(_report(repeats, bench.app, image, arguments))


class Bench:
    """The requests on one app."""

    def __init__(self, app: SegVolApp) -> None:
        self.app = app
        self.classes = app.bundle.names[:CLASSES]

    def warm_up(self) -> None:
        """A click with a text, on another image."""
        self._ask("other", "segvol", foreground=[[48, 30, 18]], text_prompt=self.classes[-1])

    def rows(self, image: str, click: Voxel) -> dict[str, Row]:
        """Every kind of request, one after the other, on an image that the app has not seen."""
        self.app.engine.memory.clear()
        first, second, third = ([int(n) for n in np.add(click, step)] for step in ((0, 0, 0), (2, 1, 0), (-2, 2, 1)))
        mend = {"foreground": [first, second], "background": [third], "refine": True}
        return {
            "cold click": self._ask(image, "segvol", foreground=[first]),
            "second click near the first": self._ask(image, "segvol", foreground=[first, second]),
            "second user, first click": self._ask(image, "segvol", "second", foreground=[first]),
            "click that refines": self._ask(image, "segvol", **mend),
            f"{CLASSES} classes by text": self._ask(image, "segvol_text", text_prompt=",".join(self.classes)),
        }

    def _ask(self, image: str, model: str, client: str = "first", **params: Any) -> Row:
        begin = time.perf_counter()
        result = self.app.infer({"model": model, "image": image, "client_id": client, **params})
        total = time.perf_counter() - begin
        Path(result["file"]).unlink()
        told = result["params"]["latencies"]
        prepared, encoded = told["volume_misses"], told["embedding_misses"]
        return {**told, "total": total, "loads": prepared, "preprocessings": prepared, "encodings": encoded}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=("small", "base"), default="small")
    parser.add_argument("--image", type=Path, help="NIfTI; a generated phantom by default")
    parser.add_argument("--click", type=int, nargs=3, metavar=("I", "J", "K"), help="voxel to click on in --image")
    parser.add_argument("--seed", type=int, default=3000, help="of the phantom")
    parser.add_argument("--shape", type=int, nargs=3, default=(160, 160, 96), help="voxels of the phantom")
    parser.add_argument("--checkpoint", help="weights of the network")
    parser.add_argument("--tokenizer", help="folder of the CLIP tokenizer")
    parser.add_argument("--reference", type=Path, help="folder of formula weights, for base")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if (arguments.image is None) != (arguments.click is None):
        parser.error("--image and --click go together")
    if arguments.image is not None and not arguments.image.name.endswith((".nii", ".nii.gz")):
        parser.error("--image must be a .nii or .nii.gz")
    if arguments.reference is not None and (arguments.size != "base" or arguments.checkpoint):
        parser.error("--reference is for --size base without --checkpoint")
    return arguments


def _app(arguments: argparse.Namespace, folder: Path, studies: Path) -> SegVolApp:
    settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD = False
    settings.MONAI_LABEL_SESSION_PATH = str(folder / "sessions")
    conf = {"size": arguments.size, "device": arguments.device}
    given = {"checkpoint": arguments.checkpoint, "tokenizer": arguments.tokenizer}
    if arguments.reference is not None:
        given["checkpoint"] = str(_formula_weights(arguments.reference, folder / "formula.pth"))
        given["tokenizer"] = given["tokenizer"] or str(arguments.reference / "clip_tokenizer")
    conf.update({key: value for key, value in given.items() if value})
    return SegVolApp(str(ROOT / "monailabel_app"), str(studies), conf)


def _formula_weights(reference: Path, path: Path) -> Path:
    spec = importlib.util.spec_from_file_location("formula", reference / "formula.py")
    formula = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(formula)
    shapes = json.loads((reference / "checkpoint_keys.json").read_text())
    state = {
        name: torch.from_numpy(formula.tensor(name.removeprefix("module."), tuple(shape)))
        for name, shape in shapes.items()
        if not name.endswith("position_ids")
    }
    torch.save({"model": state}, path)
    return path


def _image(arguments: argparse.Namespace, folder: Path) -> tuple[Path, Voxel]:
    """The image to click on, and where."""
    if arguments.image is not None:
        return arguments.image, arguments.click
    image, click = _phantom(arguments.seed, tuple(arguments.shape))
    nib.save(image, folder / "phantom.nii.gz")
    return folder / "phantom.nii.gz", click


def _phantom(seed: int, shape: tuple[int, int, int]) -> tuple[nib.Nifti1Image, Voxel]:
    """A generated CT, and the voxel deepest in its liver."""
    phantom = make_phantom(seed, shape)
    values = [value for value, name in phantom.names.items() if name == "liver"]
    if not values:
        raise SystemExit(f"--seed {seed} with --shape {shape} has no liver; choose another")
    depth = ndimage.distance_transform_edt(phantom.label == values[0])
    return nib.Nifti1Image(phantom.image, phantom.affine), np.unravel_index(depth.argmax(), depth.shape)


def _report(repeats: Sequence[Mapping[str, Row]], app: SegVolApp, image: Path, arguments: argparse.Namespace) -> str:
    shape = " x ".join(str(n) for n in nib.load(image).shape)
    table = {row: _median([rows[row] for rows in repeats]) for row in repeats[0]}
    cold, second = (table[row]["total"] for row in list(table)[:2])
    lines = [
        f"{app.bundle.size}, {shape} voxels, {arguments.device}, {arguments.threads} threads, "
        f"median of {arguments.repeats}; seconds, then how often",
        "",
        f"| request | {' | '.join((*SECONDS, *COUNTS))} |",
        "|---|" + "---|" * (len(SECONDS) + len(COUNTS)),
        *(f"| {name} | {_cells(row)} |" for name, row in table.items()),
        "",
        f"cold click / second click: {cold / second:.1f}; "
        f"kept for one image after all of them: {app.engine.memory.used / 2**20:.0f} MiB",
    ]
    return "\n".join(lines) + "\n"


def _median(rows: Sequence[Row]) -> Row:
    return {key: statistics.median(row[key] for row in rows) for key in (*SECONDS, *COUNTS)}


def _cells(row: Row) -> str:
    return " | ".join([*(f"{row[key]:.3f}" for key in SECONDS), *(f"{row[key]:g}" for key in COUNTS)])


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main()
