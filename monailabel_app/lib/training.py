"""Fine-tuning on the labels of the data store, by the bundle's own workflow; weights that score worse never count.

labels of the store -> datalist -> evaluate.json on the weights that count -> train.json from them -> evaluate.json on
what came out, in the same way -> the new weights count where they score better.

Each step is a process of its own, in a working folder that is gone at the end; nothing else is written until the new
weights take over.
"""

import json
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask

from . import bundle_run
from .bundle import Bundle, NotReady
from .in_use import newest, weights_of
from .labelled import LEAST_CASES, TRAIN, VALIDATION, Case, read_cases, split_cases, too_few, write_datalist
from .sentence import sentence
from .train_settings import TrainSettings, options, read_settings, refuse_unknown
from .weights import Busy, WeightsFolder

logger = logging.getLogger(__name__)

KINDS = ("text", "point", "box")  # how users of the app ask
SEED = 0
BATCH = 4
EPOCH = re.compile(r"Epoch\[(\d+)\] Metrics")
Scores = dict[str, float]


class SegVolTrain(TrainTask):
    """The trainer that viewers see.

    Args:
        bundle: with the weights that the settings name.
        own: where fine-tuned weights lie.
        device: where the app runs; training takes it or the CPU.
    """

    def __init__(self, bundle: Bundle, own: WeightsFolder, device: str) -> None:
        super().__init__("SegVol: fine-tune on the finished labels; better weights take over, worse ones do not")
        self._bundle = bundle
        self._own = own
        self._devices = list(dict.fromkeys([device, "cpu"]))

    def config(self) -> dict[str, Any]:
        """The settings with their defaults."""
        return options(self._devices)

    def stats(self) -> dict[str, Any]:
        """How far a training is, or what became of the last one, in the words that viewers look for."""
        last = self._own.last()
        if "total_time" in last or (last and self._own.is_training()):
            return last
        return {"epoch": 0, "total_epochs": 1, "total_time": "0:00:00", "best_metric": 0.0}

    def check(self, params: Mapping[str, Any], datastore: Datastore) -> None:
        """Refuse a request before anything is started for it.

        Raises:
            ValueError: one sentence.
        """
        refuse_unknown(params)
        read_settings(params, self._devices)
        self._own.check_writable()
        labelled = len(datastore.get_labeled_images())
        if labelled < LEAST_CASES:
            raise too_few(labelled)

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train, judge, and take over what is better.

        Returns:
            ``taken_over``, ``scores`` before and after, and what else ``stats`` tells.

        Raises:
            HTTPException: 400 and one sentence, for what the user can mend; 409, while another training runs.
            RunFailed: a step ended with an error; the weights are as they were.
        """
        try:
            settings = read_settings(request, self._devices)
            with self._own.training() as folder, self._told() as told:
                self._train(settings, datastore, folder, told)
        except Busy as error:
            raise HTTPException(409, str(error)) from error
        except NotReady as error:
            raise HTTPException(503, str(error)) from error
        except ValueError as error:
            raise HTTPException(400, str(error)) from error
        return {**told, "left_out": len(told["left_out"])}  # their ids are for viewers, not for the log

    @contextmanager
    def _told(self) -> Iterator[dict[str, Any]]:
        """What there is to tell of a training; it is kept when the block ends."""
        begin = time.time()
        told: dict[str, Any] = {"start_ts": int(begin), "epoch": 0}
        try:
            yield told
        except Exception as error:
            told["failed"] = sentence(error)
            raise
        finally:
            told["total_time"] = str(timedelta(seconds=round(time.time() - begin)))
            self._own.tell(told)

    def _train(self, settings: TrainSettings, datastore: Any, folder: Path, told: dict[str, Any]) -> None:
        before = self._own.current()
        known = {} if before is None else before.provenance.get("cases", {})
        cases, left_out = read_cases(datastore.final_labels(folder), self._bundle)
        for reason in left_out.values():
            logger.warning("a label is left out: %s", reason)
        split = split_cases(cases, settings.val_split, SEED, known.get("trained_on", ()), known.get(VALIDATION, ()))
        datalist = write_datalist(folder, split)
        told |= {"total_epochs": settings.max_epochs, "left_out": left_out}
        self._own.tell(told)
        checkpoint, weights = self._start()

        old = self._score(checkpoint, datalist, settings.device, folder / "before")
        command = self._command(settings, checkpoint, datalist, folder / "train")
        bundle_run.run(command, folder, lambda line: self._relay(line, told))
        candidate = folder / "train" / "model.pt"
        if not candidate.is_file():
            raise bundle_run.RunFailed("the training ended without weights")
        new = self._score(candidate, datalist, settings.device, folder / "after")

        if _asked(folder / "before") != _asked(folder / "after"):
            raise bundle_run.RunFailed("old and new weights were not asked for the same structures")

        better = new["mean"] > old["mean"]
        told |= {"taken_over": better, "best_metric": max(new["mean"], old["mean"])}
        told["scores"] = {"before": old, "after": new}
        if better:
            provenance = self._provenance(settings, weights, split, known, command)
            told["weights"] = self._own.take_over(candidate, {**provenance, "scores": told["scores"]}).name
        words = "are taken over" if better else "do not score better; the old ones stay"
        logger.info("mean Dice %.4f before, %.4f after: the new weights %s", old["mean"], new["mean"], words)

    def _start(self) -> tuple[Path, dict[str, str]]:
        """The file of the weights that count, and which they are; loaded on the CPU for a look, and dropped."""
        bundle = newest(self._bundle.on(self._bundle.weights_file, "cpu"), self._own)
        return bundle.weights_file, weights_of(bundle)

    def _score(self, checkpoint: Path, datalist: Path, device: str, output: Path) -> Scores:
        """Mean Dice of weights on the cases that judge, by kind of prompt, and their ``mean``."""
        settings = {
            "size": self._bundle.size,
            "checkpoint": checkpoint,
            "tokenizer": self._bundle.part("tokenizer"),
            "datalist": datalist,
            "split": VALIDATION,
            "kinds": list(KINDS),
            "seed": SEED,
            "device": device,
            "output_dir": output,
        }
        command = bundle_run.command_for(self._bundle.root, "evaluate.json", settings)
        bundle_run.run(command, datalist.parent, logger.info)
        dice = {kind: float(found["mean"]) for kind, found in _by_kind(output).items()}
        return {**dice, "mean": round(sum(dice.values()) / len(dice), 4)}

    def _command(self, settings: TrainSettings, checkpoint: Path, datalist: Path, output: Path) -> list[str]:
        chosen = {
            "size": self._bundle.size,
            "checkpoint": checkpoint,
            "tokenizer": self._bundle.part("tokenizer"),
            "datalist": datalist,
            "train_split": TRAIN,
            "val_split": VALIDATION,
            "device": settings.device,
            "epochs": settings.max_epochs,
            "views_per_epoch": settings.views_per_epoch,
            "batch_size": BATCH,
            "learning_rate": settings.learning_rate,
            "warmup_epochs": 1 if settings.max_epochs > 1 else 0,
            "validate_every": 1,
            "validation_views": 16,
            "pseudo_masks": 0,  # they teach a network from many images; here are few
            "seed": SEED,
            "output_dir": output,
        }
        return bundle_run.command_for(self._bundle.root, "train.json", chosen)

    def _relay(self, line: str, told: dict[str, Any]) -> None:
        logger.info(line)
        if found := EPOCH.search(line):
            told["epoch"] = int(found[1])
            self._own.tell(told)

    def _provenance(
        self,
        settings: TrainSettings,
        weights: Mapping[str, str],
        split: Mapping[str, Sequence[Case]],
        known: Mapping[str, Any],
        command: list[str],
    ) -> dict[str, Any]:
        digests = {name: sorted(case.digest for case in cases) for name, cases in split.items()}
        trained_on = sorted({*known.get("trained_on", ()), *digests[TRAIN]})
        return {
            "size": self._bundle.size,
            "bundle_version": self._bundle.version,
            "started_from": dict(weights),
            "cases": {**digests, "trained_on": trained_on},
            "settings": asdict(settings),
            "command": command,
        }


def _by_kind(output: Path) -> dict[str, dict[str, Any]]:
    """Statistics of Dice by kind of prompt, in the one mode that was asked for."""
    (by_kind,) = json.loads((output / "summary.json").read_text(encoding="utf-8"))["dice"].values()
    return dict(by_kind)


def _asked(output: Path) -> dict[str, int]:
    """How many structures were asked for by each kind of prompt."""
    return {kind: found["n"] for kind, found in _by_kind(output).items()}
