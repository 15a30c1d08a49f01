"""What pre-training is worth: the same short training from random weights and from SimMIM's, two curves in one plot.

    python benchmarks/warm_start.py --datalist real.json --checkpoint out/pretrain/model.pt --output_dir out/warm_start
        [--epochs 12] [--views 200] [--seeds 1] [--train_options KEY=VALUE ...]

Both trainings have the same seed, views and number of steps; validation is that of train.json, after every epoch. The
output folder gets warm_start.png and warm_start.json (curves, commands), and a folder for each run, which is not run
again where its log is whole.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "bundle"
METRICS = re.compile(r"Epoch\[(\d+)\] Metrics -- (.+)")
STARTS = {"random weights": False, "SimMIM": True}


def main() -> None:
    """Train, plot, and print the last scores."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datalist", type=Path, required=True, help="with cases of split train and validation")
    parser.add_argument("--checkpoint", type=Path, required=True, help="of pretrain.json")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--views", type=int, default=200, help="per epoch")
    parser.add_argument("--seeds", type=int, default=1, help="how many, from 0")
    parser.add_argument("--train_options", nargs="*", default=[], metavar="KEY=VALUE", help="more keys of train.json")
    arguments = parser.parse_args()
    runs = []
    for seed in range(arguments.seeds):
        for start, warm in STARTS.items():
            folder = arguments.output_dir.resolve() / f"{start.replace(' ', '_')}_{seed}"
            words = command(arguments, folder, seed, warm)
            curve = train(words, folder, arguments.epochs)
            runs.append({"start": start, "seed": seed, "curve": curve, "command": words})
            sys.stdout.write(f"{start}, seed {seed}: Dice {curve[-1]['dice']:.3f} after epoch {curve[-1]['epoch']}\n")
    (arguments.output_dir / "warm_start.json").write_text(json.dumps(runs, indent=1) + "\n")
    plot(runs, arguments.output_dir / "warm_start.png")


def command(arguments: argparse.Namespace, folder: Path, seed: int, warm: bool) -> list[str]:
    """The training as a command line."""
    options = {
        "size": "small",
        "datalist": arguments.datalist.resolve(),
        "epochs": arguments.epochs,
        "views_per_epoch": arguments.views,
        "validate_every": 1,
        "warmup_epochs": 1,
        "seed": seed,
        "cache_dir": arguments.output_dir.resolve() / "cache",
        "output_dir": folder,
    }
    if warm:
        options["checkpoint"] = arguments.checkpoint.resolve()
    options |= dict(option.split("=", 1) for option in arguments.train_options)
    words = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(BUNDLE / "configs" / "train.json")]
    words += ["--bundle_root", str(BUNDLE)]
    return words + [word for key, value in options.items() for word in (f"--{key}", str(value))]


def train(words: list[str], folder: Path, epochs: int) -> list[dict[str, float]]:
    """The validation curve of a run, which is not repeated where it is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "log.txt"
    if not log.is_file() or len(read_curve(log)) < epochs:
        with log.open("w") as file:
            subprocess.run(
                words, stdout=file, stderr=subprocess.STDOUT, check=True, env={**os.environ, "COLUMNS": "200"}
            )
    return read_curve(log)


def read_curve(log: Path) -> list[dict[str, float]]:
    """Epoch and metrics of every validation in a log."""
    found = METRICS.findall(log.read_text(errors="replace"))
    return [
        {"epoch": int(epoch)} | {name: float(value) for name, value in re.findall(r"(\w+): ([\d.]+)", metrics)}
        for epoch, metrics in found
    ]


def plot(runs: list[dict], path: Path) -> None:
    """Mean Dice over all prompt combinations against the epoch, a line for each run."""
    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.add_subplot()
    colours = dict(zip(STARTS, ("tab:gray", "tab:blue"), strict=True))
    for run in runs:
        label = run["start"] if run["seed"] == 0 else None
        points = [(step["epoch"], step["dice"]) for step in run["curve"]]
        axes.plot(*zip(*points, strict=True), color=colours[run["start"]], label=label)
    axes.set(xlabel="epoch", ylabel="validation Dice, all prompt combinations")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
