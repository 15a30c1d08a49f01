"""What pre-training is worth: the same short training from random weights and from SimMIM's, two curves in one plot.

    python benchmarks/warm_start.py --datalist real.json --checkpoint out/pretrain/model.pt --output_dir out/warm_start
        [--epochs 12] [--views 200] [--seeds 1] [--train_options KEY=VALUE ...]

Both trainings have the same seed, views and number of steps; validation is that of train.json, after every epoch. The
output folder gets warm_start.png and warm_start.json (curves, commands), and a folder for each run. What is done is not
done again, unless its command, the weights that it starts from or its datalist are others.
"""

import argparse
import json
import os
import re
import sys
from pathlib import Path

import ablations
from ablation_plan import Job
from matplotlib.figure import Figure

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
    os.environ["COLUMNS"] = "200"  # a line of metrics stays one
    runs = []
    for seed in range(arguments.seeds):
        for start, warm in STARTS.items():
            job = training(arguments, f"{start.replace(' ', '_')}_{seed}", seed, warm)
            folder = arguments.output_dir.resolve() / job.name
            ablations.run(job, folder)
            curve = read_curve(folder / "log.txt")
            runs.append({"start": start, "seed": seed, "curve": curve, "command": job.command(folder)})
            sys.stdout.write(f"{start}, seed {seed}: Dice {curve[-1]['dice']:.3f} after epoch {curve[-1]['epoch']}\n")
    (arguments.output_dir / "warm_start.json").write_text(json.dumps(runs, indent=1) + "\n")
    plot(runs, arguments.output_dir / "warm_start.png")


def training(arguments: argparse.Namespace, name: str, seed: int, warm: bool) -> Job:
    """One of the trainings."""
    inputs = [arguments.datalist.resolve(), *([arguments.checkpoint.resolve()] if warm else [])]
    options = {
        "size": "small",
        "datalist": arguments.datalist.resolve(),
        "epochs": arguments.epochs,
        "views_per_epoch": arguments.views,
        "validate_every": 1,
        "warmup_epochs": 1,
        "seed": seed,
        "cache_dir": arguments.output_dir.resolve() / "cache",
    }
    if warm:
        options["checkpoint"] = arguments.checkpoint.resolve()
    options |= dict(option.split("=", 1) for option in arguments.train_options)
    return Job(name, ("train",), options, tuple(inputs))


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
