"""What a pre-training leaves to look at after each validation: a picture and a summary that a program reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
import torch
from ignite.engine import Engine, Events

from ...results.files import write_json
from ..state_files import whole
from .picture import draw_reconstructions

SUMMARY = "summary.json"
PICTURE = "reconstruction.png"


class Report:
    """A handler of the evaluator: ``reconstruction_epoch_0010.png``, its copy ``reconstruction.png``, ``summary.json``.

    As a part of a checkpoint it keeps the validations of an interrupted run.

    Args:
        output_dir: where they go; each is written whole or not at all, by the first process alone.
        settings: what the run was asked for, told in the summary.
        rows: views in the picture, the first of the validation.
    """

    def __init__(self, output_dir: str | Path, settings: Mapping[str, Any], rows: int = 4) -> None:
        self.folder = Path(output_dir)
        self.settings = dict(settings)
        self.rows = rows
        self.validations: list[dict[str, float]] = []
        self._views: list[tuple[torch.Tensor, ...]] = []

    def attach(self, engine: Engine) -> None:
        """Follow an evaluator whose epoch is the trainer's, as MONAI's ValidationHandler sets it."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda _: self._views.clear())
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._keep)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def state_dict(self) -> dict[str, Any]:
        """The validations so far."""
        return {"validations": list(self.validations)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on after them."""
        self.validations = list(state["validations"])

    def _keep(self, engine: Engine) -> None:
        output: dict[str, Any] = engine.state.output  # type: ignore[assignment]  # ignite's type is that of a batch
        volumes = (output["label"]["image"], output["label"]["mask"], output["pred"])
        for view in zip(*volumes, strict=True):
            if len(self._views) < self.rows:
                self._views.append(tuple(volume[0].detach().cpu() for volume in view))

    def _write(self, engine: Engine) -> None:
        epoch, metrics = engine.state.epoch, engine.state.metrics
        self.validations.append({"epoch": epoch, **{name: float(value) for name, value in metrics.items()}})
        if idist.get_rank() != 0:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        best = min(self.validations, key=lambda validation: validation["l1"])
        summary = {"settings": self.settings, "best": best, "validations": self.validations}
        with whole(self.folder / SUMMARY) as path:
            write_json(path, summary)
        title = f"epoch {epoch}: masked L1 {metrics['l1']:.4f}, of predicting the mean {metrics['l1_of_mean']:.4f}"
        for name in (f"reconstruction_epoch_{epoch:04d}.png", PICTURE):
            with whole(self.folder / name) as path:
                draw_reconstructions(path, self._views, title)
