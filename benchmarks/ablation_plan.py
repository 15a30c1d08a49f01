"""What the ablations consist of: data, trainings and evaluations, each a command of the bundle."""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BUNDLE = ROOT / "bundle"
sys.path.append(str(BUNDLE))

from scripts.training.datalist import read_datalist  # noqa: E402

FULL = "all"  # the run with everything, which the others are compared with
WITHOUT_PSEUDO_MASKS = "no_pseudo_masks"
CROPS_ONLY = "crops_only"
OTHER_MODES = ("resize", "sliding_window", "fit")
VALIDATION_CASES = 2  # of each source; they are looked at once, so that weights are written


@dataclass(frozen=True)
class Source:
    """Cases of a datalist, those whose image path holds ``text``."""

    name: str
    path: Path
    text: str = ""

    @classmethod
    def parse(cls, value: str) -> "Source":
        """``NAME=PATH`` or ``NAME=PATH::TEXT``.

        Raises:
            ValueError: one line, for anything else.
        """
        match = re.fullmatch(r"([\w-]+)=(.+?)(?:::(.+))?", value)
        if match is None:
            raise ValueError(f"{value!r} is not of the form NAME=PATH or NAME=PATH::TEXT")
        return cls(match[1], Path(match[2]).resolve(), match[3] or "")

    def cases(self, split: str) -> list[dict[str, Any]]:
        """The cases of a split, with absolute paths."""
        listed = [case for case in read_datalist(self.path) if case.get("split") == split]
        return [case for case in listed if self.text in os.path.relpath(case["image"], self.path.parent)]


@dataclass(frozen=True)
class Settings:
    """What the user chose.

    Attributes:
        output_dir: absolute.
        train_datalist: the sources, in the order in which they are added.
        test_datalist: what every network is tested on, each reported for itself.
        seeds: how many, from 0.
        epochs: of every training.
        views: per epoch.
        at_most: cases to train on of each source, the first ones; None takes all.
        pseudo_masks: per view, where there are any.
        checkpoint: where every training starts, absolute; None starts from random weights.
        size: of the network.
        device: as the configs take it; None leaves it to them.
        kinds: of prompts in mode zoom.
        mode_kinds: in the other modes, which are compared in these alone.
        train_options: further keys of train.json.
    """

    output_dir: Path
    train_datalist: tuple[Source, ...]
    test_datalist: tuple[Source, ...]
    seeds: int = 3
    epochs: int = 20
    views: int = 400
    at_most: int | None = None
    pseudo_masks: int = 2
    checkpoint: Path | None = None
    size: str = "small"
    device: str | None = None
    kinds: tuple[str, ...] = ("text", "point", "box", "point+text", "box+text")
    mode_kinds: tuple[str, ...] = ("text", "box")
    train_options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One bundle command.

    Attributes:
        name: its folder within the output folder.
        configs: names of the bundle's configs.
        options: of the command line, without the output folder.
        inputs: files whose content decides the result.
    """

    name: str
    configs: tuple[str, ...]
    options: Mapping[str, Any]
    inputs: tuple[Path, ...]

    def command(self, folder: Path) -> list[str]:
        """The command line that writes into ``folder``."""
        files = str([str(BUNDLE / "configs" / f"{name}.json") for name in self.configs])
        words = [sys.executable, "-m", "monai.bundle", "run", "--config_file", files, "--bundle_root", str(BUNDLE)]
        for key, value in {**self.options, "output_dir": folder}.items():
            words += [f"--{key}", str(value)]
        return words


def plan(settings: Settings) -> Iterator[Job]:
    """Every training and every evaluation, one seed after another."""
    for seed in range(settings.seeds):
        for variant, options in variants(settings).items():
            run = f"{variant}/seed_{seed}"
            yield _training(settings, f"{run}/train", seed, options)
            weights = settings.output_dir / run / "train" / "model.pt"
            for test in settings.test_datalist:
                baseline = variant == FULL and "box" in settings.kinds
                asked = {"modes": "zoom", "kinds": settings.kinds, "baseline": baseline}
                yield _evaluation(settings, f"{run}/{test.name}_zoom", weights, test, asked)
                if variant == FULL:
                    asked = {"modes": OTHER_MODES, "kinds": settings.mode_kinds}
                    yield _evaluation(settings, f"{run}/{test.name}_modes", weights, test, asked)


def variants(settings: Settings) -> dict[str, dict[str, Any]]:
    """Name of a run -> the options by which it differs; ``datalist`` by its name in ``datalists``."""
    full = {"datalist": FULL, "pseudo_masks": settings.pseudo_masks}
    return {
        FULL: full,
        WITHOUT_PSEUDO_MASKS: {**full, "pseudo_masks": 0},
        CROPS_ONLY: {**full, "whole_share": 0, "window_share": 1, "fit_share": 0},
        **{name: {**full, "datalist": name} for name in prefixes(len(settings.train_datalist))[:-1]},
    }


def prefixes(sources: int) -> list[str]:
    """What the runs and datalists of the first source, of the first two, and at last of all are called."""
    return [f"{count}_sources" for count in range(1, sources)] + [FULL]


def datalists(settings: Settings) -> dict[str, list[dict[str, Any]]]:
    """Name -> cases: of ``prefixes``, and ``test_NAME``.

    Raises:
        ValueError: one line, where one of them would be empty, or its file cannot be read.
    """
    trained = [_training_cases(source, settings.at_most) for source in settings.train_datalist]
    lists = {name: sum(trained[:count], []) for count, name in enumerate(prefixes(len(trained)), start=1)}
    return lists | {f"test_{test.name}": _test_cases(test) for test in settings.test_datalist}


def datalist_file(settings: Settings, name: str) -> Path:
    """Where one of ``datalists`` is written."""
    return settings.output_dir / "datalists" / f"{name}.json"


def _training(settings: Settings, name: str, seed: int, options: Mapping[str, Any]) -> Job:
    datalist = datalist_file(settings, options["datalist"])
    chosen = {
        "size": settings.size,
        "seed": seed,
        "epochs": settings.epochs,
        "views_per_epoch": settings.views,
        "warmup_epochs": max(1, settings.epochs // 10),
        "validate_every": settings.epochs,
        "validation_views": 4 * VALIDATION_CASES,
        "cache_dir": settings.output_dir / "cache",
        **_given(checkpoint=settings.checkpoint, device=settings.device),
        **settings.train_options,
        **options,
        "datalist": datalist,
    }
    inputs = (datalist,) if settings.checkpoint is None else (datalist, settings.checkpoint)
    return Job(name, ("train",), chosen, inputs)


def _evaluation(settings: Settings, name: str, weights: Path, test: Source, asked: Mapping[str, Any]) -> Job:
    datalist = datalist_file(settings, f"test_{test.name}")
    lists = {key: list(value) if isinstance(value, tuple) else value for key, value in asked.items()}
    options = {"checkpoint": weights, "size": settings.size, "datalist": datalist, **lists}
    configs = ("evaluate", "small") if settings.size == "small" else ("evaluate",)
    return Job(name, configs, options | _given(device=settings.device), (datalist, weights))


def _training_cases(source: Source, at_most: int | None) -> list[dict[str, Any]]:
    """Cases to train on, and a few to validate with; of a source that has none for that, the last one to train on."""
    cases = source.cases("train")[:at_most]
    if not cases:
        raise ValueError(f"train_datalist: {source.name} has no case of split 'train' in {source.path}")
    return cases + (source.cases("validation")[:VALIDATION_CASES] or [{**cases[-1], "split": "validation"}])


def _test_cases(source: Source) -> list[dict[str, Any]]:
    """Its CTs; a case that names no modality counts as one."""
    cases = [case for case in source.cases("test") if case.get("modality") in (None, "CT")]
    if not cases:
        raise ValueError(f"test_datalist: {source.name} has no CT of split 'test' in {source.path}")
    return cases


def _given(**options: Any) -> dict[str, Any]:
    return {key: value for key, value in options.items() if value is not None}
