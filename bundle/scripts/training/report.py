"""What a training leaves to read after each validation: which names it has learned, and by which prompts."""

import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine, Events
from torch import distributed

from ..results.files import write_json
from ..vocabulary import Vocabulary
from .state_files import whole

SUMMARY = "summary.json"
UNNAMED = "(no name)"

Scores = dict[tuple[str, str], list[float]]


class Report:
    """A handler of the evaluator that writes ``summary.json``: settings, best epoch, and every validation.

    A validation is ``{"epoch", "dice", "structures": {combination: {name: {"dice", "count"}}}}``: the mean Dice of all
    prompts, and of each combination and name. Prompts without a mask in the view do not count, and a combination by
    which nothing could be asked is empty. As a part of a checkpoint it keeps the validations of an interrupted run.

    Args:
        output_dir: where the file goes, whole or not at all, by the first process alone.
        settings: what the run was asked for.
        combinations: the prompt combinations in the order of the network's output.
        vocabulary: gives synonyms from different data sets one name.
    """

    def __init__(
        self, output_dir: str | Path, settings: Mapping[str, Any], combinations: Sequence[str], vocabulary: Vocabulary
    ) -> None:
        self.folder = Path(output_dir)
        self.settings = dict(settings)
        self.combinations = tuple(combinations)
        self.vocabulary = vocabulary
        self.validations: list[dict[str, Any]] = []
        self._scores: Scores = defaultdict(list)

    def attach(self, engine: Engine) -> None:
        """Follow an evaluator whose epoch is the trainer's, as MONAI's ValidationHandler sets it."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda _: self._scores.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def state_dict(self) -> dict[str, Any]:
        """The validations so far."""
        return {"validations": list(self.validations)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after them."""
        self.validations = list(state["validations"])

    def _collect(self, engine: Engine) -> None:
        output: Any = engine.state.output
        batch: Any = engine.state.batch
        truth = output["label"]["masks"].flatten(1).bool()
        drawn = (output["pred"]["logits"] > 0).flatten(2)
        dice = 2 * (drawn & truth).sum(dim=2) / (drawn.sum(dim=2) + truth.sum(dim=1)).clamp(min=1)
        counted = (output["label"]["weights"] > 0) & truth.any(dim=1)
        for s, n in counted.nonzero().tolist():
            self._scores[self.combinations[s], self._name(batch["names"][n])].append(float(dice[s, n]))

    def _name(self, name: str | None) -> str:
        structure = self.vocabulary.find(name) if name else None
        return structure.name if structure is not None else name or UNNAMED

    def _write(self, engine: Engine) -> None:
        scores = _of_all_processes(self._scores)
        structures: dict[str, dict[str, Any]] = {combination: {} for combination in self.combinations}
        for (combination, name), values in sorted(scores.items()):
            structures[combination][name] = {"dice": round(statistics.fmean(values), 4), "count": len(values)}
        every = [value for values in scores.values() for value in values]
        mean = statistics.fmean(every) if every else None
        self.validations.append({"epoch": engine.state.epoch, "dice": mean, "structures": structures})
        if idist.get_rank() == 0:
            self.folder.mkdir(parents=True, exist_ok=True)
            best = max(self.validations, key=lambda validation: validation["dice"] or 0)
            told = {"epoch": best["epoch"], "dice": best["dice"]}
            with whole(self.folder / SUMMARY) as path:
                write_json(path, {"settings": self.settings, "best": told, "validations": self.validations})


def _of_all_processes(scores: Scores) -> Scores:
    if idist.get_world_size() == 1:
        return scores
    parts: list[Any] = [None] * idist.get_world_size()
    distributed.all_gather_object(parts, dict(scores))
    merged: Scores = defaultdict(list)
    for part in parts:
        for key, values in part.items():
            merged[key] += values
    return merged
