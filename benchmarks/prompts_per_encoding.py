"""What one encoding for all prompts saves: the base network on the CPU, with the reference weights.

    python benchmarks/prompts_per_encoding.py REFERENCE_FOLDER [--threads 2] [--repeats 3]

REFERENCE_FOLDER holds formula.py, checkpoint_keys.json and clip_tokenizer. Every row is timed in one run, on one volume
of 32 x 300 x 300 voxels, and the median of the repeats is printed as a Markdown table.
"""

import argparse
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bundle"))

from scripts.checkpoints import load_checkpoint  # noqa: E402
from scripts.inferer import ZoomOutZoomInInferer  # noqa: E402
from scripts.network import SegVol, build_segvol  # noqa: E402
from scripts.prompts import Prompt  # noqa: E402
from scripts.text_encoder import ClipText  # noqa: E402
from scripts.vocabulary import Vocabulary  # noqa: E402

SHAPE = (32, 300, 300)
TEXTS = ("liver", "spleen", "left kidney", "right kidney", "aorta", "stomach", "pancreas", "heart", "trachea", "colon")


def main() -> None:
    """Time every row and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reference", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    bench = Bench(arguments.reference)
    rows = {
        "1 target by text": lambda: bench.run(TEXTS[:1]),
        "10 targets by text, one call": lambda: bench.run(TEXTS),
        "10 targets by text, encoded anew for each": lambda: bench.anew(TEXTS),
        "second prompt on the same image, encodings kept": bench.second_prompt,
        "second prompt on the same image, encoded anew": lambda: bench.run(TEXTS[1:2]),
    }
    sys.stdout.write("| job | seconds | encoder runs | decoder runs |\n|---|---|---|---|\n")
    for name, job in rows.items():
        seconds, encodes, decodes = _median(job, arguments.repeats)
        sys.stdout.write(f"| {name} | {seconds:.1f} | {encodes} | {decodes} |\n")
        sys.stdout.flush()


class Bench:
    """The base network with reference weights, one volume, and the jobs on it."""

    def __init__(self, reference: Path) -> None:
        formula = _module(reference / "formula.py")
        self.network = _network(reference, formula)
        self.volume = torch.from_numpy(formula.volume(SHAPE, 7))[None, None]
        vocabulary = Vocabulary.load(ROOT / "bundle" / "configs" / "vocabulary.json")
        vectors = ClipText(self.network.text_encoder, reference / "clip_tokenizer", vocabulary)
        self.vectors = dict(zip(TEXTS, vectors(TEXTS), strict=True))
        self.inferer = ZoomOutZoomInInferer(self.network.window_size)

    def run(self, texts: tuple[str, ...], encode: Callable | None = None) -> tuple[float, int, int]:
        """Seconds, encoder runs and decoder runs of one call."""
        report: dict = {}
        begin = time.perf_counter()
        prompts = [Prompt(name=text, text=text) for text in texts]
        self.inferer(self.volume, self.network, prompts, [self.vectors[t] for t in texts], encode, report)
        return time.perf_counter() - begin, report["encoder_runs"], report["decoder_runs"]

    def anew(self, texts: tuple[str, ...]) -> tuple[float, int, int]:
        """One call per target, as the released code does."""
        runs = np.array([self.run((text,)) for text in texts])
        seconds, encodes, decodes = runs.sum(axis=0)
        return float(seconds), int(encodes), int(decodes)

    def second_prompt(self) -> tuple[float, int, int]:
        """A second target, where the first one's encodings are still at hand; only new encodings are counted."""
        kept: dict = {}

        def encode(window: torch.Tensor, start: tuple[int, int, int] | None) -> torch.Tensor:
            if start not in kept:
                kept[start] = self.network.encode(window)
            return kept[start]

        self.run(TEXTS[:1], encode)
        before = len(kept)
        seconds, _, decodes = self.run(TEXTS[1:2], encode)
        return seconds, len(kept) - before, decodes


def _median(job: Callable[[], tuple[float, int, int]], repeats: int) -> tuple[float, int, int]:
    runs = [job() for _ in range(repeats)]
    return statistics.median(seconds for seconds, _, _ in runs), runs[0][1], runs[0][2]


def _network(reference: Path, formula: ModuleType) -> SegVol:
    shapes = json.loads((reference / "checkpoint_keys.json").read_text())
    state = {
        name: torch.from_numpy(formula.tensor(name.removeprefix("module."), tuple(shape)))
        for name, shape in shapes.items()
        if not name.endswith("position_ids")
    }
    path = Path("formula_weights.tmp.pth")
    torch.save({"model": state}, path)
    try:
        network = build_segvol("base").eval()
        load_checkpoint(network, path)
    finally:
        path.unlink()
    return network


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
