"""On a worker: the network is built once and kept for all cases of a run."""

import gc
import json
import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, TypedDict

import torch
from monai.bundle import ConfigParser

from ..cases import Case

Line = tuple[str, int, str]  # logger, level, text

_one_at_a_time = threading.Lock()  # a worker with several threads has one network all the same


class Told(TypedDict):
    """What a worker says of a case: why it failed or None, what no case can do without, and its lines of the log."""

    failure: str | None
    fatal: str | None
    lines: list[Line]


def segment(settings: Mapping[str, Any], case: Case) -> Told:
    """Segment one case and write its result.

    Args:
        settings: ``config`` (merged content of the config files) and ``overrides`` (id -> value), as typed.
        case: data; none of it is evaluated.
    """
    with _one_at_a_time, _captured() as lines:
        try:
            run = _run(json.dumps(settings))
        except SystemExit as error:  # a user's mistake, as in a run step
            return {"failure": None, "fatal": str(error), "lines": lines}
        return {"failure": run.segment(case), "fatal": None, "lines": lines}


def forget() -> None:
    """Give the memory of the network back, for this worker serves others too."""
    with _one_at_a_time:
        _run.cache_clear()
        gc.collect()
        torch.cuda.empty_cache()


class Run:
    """What the config builds, once; then one case after another.

    Args:
        config: content of the config files.
        overrides: id -> value.
    """

    def __init__(self, config: dict[str, Any], overrides: Mapping[str, Any]) -> None:
        self.parser = ConfigParser(config)
        self.parser.update(dict(overrides))
        self.parser.get_parsed_content("arguments")
        self.parser.get_parsed_content("weights")
        self.stream = self.parser.get_parsed_content("dataset")

    def segment(self, case: Case) -> str | None:
        """Why ``case`` failed, or None."""
        self.stream.cases = [case]
        self.parser.ref_resolver.remove_resolved_content("evaluator")  # an engine counts, so each case has its own
        try:
            self.parser.get_parsed_content("evaluator").run()
        except Exception as error:  # noqa: BLE001  one bad case must not end a batch
            self.stream.report(case["case"], error)
        sentence = self.stream.failures.get(case["case"])
        return sentence and sentence.replace(case["image"], case["image_path"])


@lru_cache(maxsize=1)
def _run(settings: str) -> Run:
    content = json.loads(settings)
    return Run(content["config"], _own_device(content["overrides"], _worker_name(), torch.cuda.device_count()))


def _own_device(overrides: Mapping[str, Any], worker: Any, devices: int) -> dict[str, Any]:
    """Local workers, which are numbered, take the GPUs in turn; a device that the user named stands."""
    if "device" in overrides or not devices or not isinstance(worker, int):
        return dict(overrides)
    return {**overrides, "device": f"cuda:{worker % devices}"}


def _worker_name() -> Any:
    from distributed import get_worker

    return get_worker().name


@contextmanager
def _captured() -> Iterator[list[Line]]:
    """Lines that the bundle logs, to be told by the process that the user looks at."""
    lines: list[Line] = []
    logger, handler = logging.getLogger(__name__.partition(".")[0]), _Lines(lines)
    former = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(former[0])
        logger.propagate = former[1]


class _Lines(logging.Handler):
    def __init__(self, lines: list[Line]) -> None:
        super().__init__(logging.INFO)
        self.lines = lines
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.name, record.levelno, self.format(record)))
