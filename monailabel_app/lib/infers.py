"""The three tasks that viewers see, thin: read the request, let the engine draw, write the reply."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from fastapi import HTTPException
from monailabel.interfaces.tasks.infer_v2 import InferTask

from .bundle import NotReady
from .engine import Engine, Segmentation, UserMistake
from .history import History, State, fresh_points, pack
from .requests import BadRequest, Job, ModelSpec, read_request
from .results import label_map, label_names, write_result

DESCRIPTIONS = {
    "deepgrow": "SegVol: points, a 3D box, the segment's name or any text, in any mix",
    "vista3d": "SegVol: classes by name, points for one of them, a box by two clicks, any text",
    "segmentation": "SegVol: automatic segmentation of a list of names",
}


class SegVolInfer(InferTask):
    """One way to ask the engine.

    Args:
        engine: shared by all tasks.
        history: shared by all tasks.
        spec: what a request may ask of this model.
        name: of the model, part of a history's key.
    """

    def __init__(self, engine: Engine, history: History, spec: ModelSpec, name: str) -> None:
        config: dict[str, Any] = {
            "text_prompt": "",
            "box": "",
            "mode": list(spec.modes),
            "use_segment_name": False,
            "refine": False,
            "save_to_study": False,
            "device": [str(engine.device)],
        }
        super().__init__(spec.kind, dict(spec.labels), 3, DESCRIPTIONS[spec.kind], config)
        self.engine = engine
        self.history = history
        self.spec = spec
        self.name = name

    def is_valid(self) -> bool:
        """Weights are loaded at the first request; a task without them tells so then."""
        return True

    def get_path(self, validate: bool = True) -> str | None:
        """File of the weights that count now."""
        weights = self.engine.weights_file
        return str(weights) if weights.is_file() or not validate else None

    def __call__(self, request: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Answer a request with a file and what there is to say about it.

        Raises:
            HTTPException: 400 and one sentence, for what the user can mend; 503, where there are no weights.
        """
        try:
            job = read_request(request, self.spec)
            path = Path(request["image"])
            drawn, state = self._go_back(path, job) if job.undo else self._draw(path, job)
            begin = perf_counter()
            label = label_map(drawn.label, state.values)
            file = write_result(label, drawn.affine, request)
        except (BadRequest, UserMistake) as error:
            raise HTTPException(400, str(error)) from error
        except NotReady as error:
            raise HTTPException(503, str(error)) from error
        latencies = {**drawn.latencies, "write": round(perf_counter() - begin, 4)}
        return str(file), {
            "label_names": label_names(label, state.names, state.values),
            "used": list(job.used),
            "ignored": list(job.ignored),
            "messages": drawn.messages,
            "weights": state.weights,
            "save_to_study": job.save_to_study,
            "latencies": latencies,
        }

    def _draw(self, path: Path, job: Job) -> tuple[Segmentation, State]:
        """Segment anew, or mend the client's last result."""
        key = self._key(path, job)
        last = self.history.last(key) if job.refine else None
        asked = _asked(job)
        refine = _mending(last) if last is not None and last.asked == asked else None
        drawn = self.engine.segment(path, job.document, job.mode, refine)
        starts = _joined(last.starts, drawn.starts) if last is not None and drawn.refined else drawn.starts
        state = State(
            asked=asked,
            values=job.values,
            names=job.names,
            packed=pack([drawn.model_label == t + 1 for t in range(len(job.values))]),
            shape=drawn.model_label.shape,
            points=drawn.model_points,
            starts=starts,
            weights=drawn.weights,
        )
        self.history.add(key, state)
        return drawn, state

    def _go_back(self, path: Path, job: Job) -> tuple[Segmentation, State]:
        """An earlier result, or with a negative ``undo`` a later one."""
        try:
            state = self.history.move(self._key(path, job), job.undo)
        except ValueError as error:
            raise UserMistake(str(error)) from error
        return self.engine.restore(path, state.label()), state

    def _key(self, path: Path, job: Job) -> tuple[str, str, str]:
        return job.client, self.engine.identity(path), self.name


def _asked(job: Job) -> str:
    """All that a job asks for but its points: what has to be the same for a mask to be mended."""
    targets = [
        {key: value for key, value in target.items() if "point" not in key} for target in job.document["targets"]
    ]
    return json.dumps([targets, job.document["coordinates"], job.values, job.names, job.mode], sort_keys=True)


def _mending(last: State) -> Callable[[list[np.ndarray]], list[dict[str, Any]] | None]:
    """The inferer's ``refine`` for new points beside the old ones; None where an old one is gone or has turned."""

    def refine(points: list[np.ndarray]) -> list[dict[str, Any]] | None:
        fresh = [fresh_points(before, now) for before, now in zip(last.points, points, strict=True)]
        if any((~new).sum() < len(before) for new, before in zip(fresh, last.points, strict=True)):
            return None
        rows = enumerate(zip(fresh, last.starts, strict=True))
        return [{"mask": last.mask(target), "fresh": new, "starts": starts} for target, (new, starts) in rows]

    return refine


def _joined(before: Sequence[list[Any]], now: Sequence[list[Any]]) -> list[list[Any]]:
    """All windows that had a say in each target, the old ones first."""
    return [list(dict.fromkeys([*old, *new])) for old, new in zip(before, now, strict=True)]
