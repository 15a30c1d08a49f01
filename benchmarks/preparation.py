"""What the preparation of one case costs: processor seconds by stage, bytes on disk, and peak memory.

    python benchmarks/preparation.py IMAGE LABEL [--pseudo_shape 32 256 256] [--repeat 3]

The case goes through ``prepare_case`` with the transforms of prepare.json, on one thread as on a worker. The quickest
of the repeats is printed as rows of a Markdown table. Processor time is what a core needs: n cores take the n-th part
of it for each case, as long as the disk keeps up.
"""

import argparse
import resource
import shutil
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from monai.transforms import Compose, CropForegroundd, Orientationd

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bundle"))

from scripts.data import preparation  # noqa: E402
from scripts.training.pseudo_masks import PseudoMasksd  # noqa: E402
from scripts.transforms import NormalizeForegroundd  # noqa: E402

STAGES = ("read_image", "read_label", "fingerprint", "describe", "write_thumbnail", "write_case", "write_record")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("label", type=Path)
    parser.add_argument("--pseudo_shape", type=int, nargs=3, default=(32, 256, 256))
    parser.add_argument("--repeat", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    seconds: dict[str, float] = defaultdict(float)
    for stage in STAGES:
        setattr(preparation, stage, timed(stage, getattr(preparation, stage), seconds))
    rounds = []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.repeat):
            seconds.clear()
            begin = time.process_time()
            record = prepare(options, Path(folder) / str(number), seconds)
            rounds.append({**seconds, "all": time.process_time() - begin})
        print_table(min(rounds, key=lambda each: each["all"]), record, Path(folder) / "0")


def prepare(options: argparse.Namespace, folder: Path, seconds: dict[str, float]) -> dict[str, Any]:
    """One case from its files to its record."""
    both = ("image", "label")
    stages = {
        "orient": Orientationd(both, axcodes="SAR", labels=None),
        "normalise": NormalizeForegroundd("image"),
        "crop": CropForegroundd(both, source_key="image", allow_smaller=True),
        "pseudo masks": PseudoMasksd("image", shape=options.pseudo_shape),
    }
    raw_case = {
        "case": "case",
        "data_set": "set",
        "patient": "set/patient",
        "image": {"kind": "dicom" if options.image.is_dir() else "file", "path": str(options.image)},
        "label": {"kind": "map", "path": str(options.label)},
        "labels": {},
        "complete": False,
        "split": None,
    }
    shutil.rmtree(folder, ignore_errors=True)
    transform = Compose([timed(name, stage, seconds) for name, stage in stages.items()])
    return preparation.prepare_case(raw_case, folder, transform, {"axcodes": "SAR"})


def timed(name: str, function: Callable[..., Any], seconds: dict[str, float]) -> Callable[..., Any]:
    """The function, whose processor time is added up under ``name``."""

    def call(*args: Any, **kwargs: Any) -> Any:
        begin = time.process_time()
        try:
            return function(*args, **kwargs)
        finally:
            seconds[name] += time.process_time() - begin

    return call


def print_table(seconds: dict[str, float], record: dict[str, Any], folder: Path) -> None:
    """Rows of Markdown: stages, then sizes."""
    print("| stage | processor seconds |\n|---|---|")
    for name, value in seconds.items():
        print(f"| {name.replace('_', ' ')} | {value:.2f} |")
    made = record["prepared"]
    print(f"\nstored {record['shape']}, prepared {made['shape']}, {made['pseudo_masks']} pseudo masks")
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        print(f"{path.relative_to(folder)}: {path.stat().st_size / 1e6:.3f} MB")
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


if __name__ == "__main__":
    main()
