"""A batch over the workers of Dask: this process hands out the cases and tells what came of them."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..arguments import as_path, command_line, exit_on_error
from ..cases import PROMPT_COLUMNS, Case, closing_sentence
from ..data.cluster import open_cluster
from ..data.tasks import Failure, run_all
from .worker import Told, forget, segment

logger = logging.getLogger(__name__)

OF_THE_CASES = ("image", "cases", "prompts", *PROMPT_COLUMNS)  # these travel as data, never in a config


def over_workers(
    cases: Sequence[Case],
    finished: Callable[[Mapping[str, Any]], bool],
    scheduler: Any,
    workers: Any,
    bundle_root: str | Path,
    places: Mapping[str, Any],
) -> None:
    """Do all cases elsewhere and end the run, or return at once where neither scheduler nor workers is given.

    Bundle, weights and images must lie at the same paths on every worker.

    Args:
        cases: from ``many_cases``.
        finished: whether a case needs nothing.
        scheduler: address of a Dask scheduler.
        workers: number of local processes instead.
        bundle_root: of the bundle.
        places: keys of the config whose values are paths; relative ones are this process's.

    Raises:
        SystemExit: at the end; 0, or one line that says what failed.
    """
    if scheduler is None and workers is None:
        return
    outcome = _Outcome(cases)
    with exit_on_error():
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise ValueError("give either torchrun or scheduler and workers, and not both")
        settings = _settings(bundle_root, places)
        try:
            with open_cluster(scheduler, workers, bundle_root) as client:
                unfinished = outcome.without(finished)
                for case, told in run_all(client, partial(segment, settings), unfinished, True, len(cases)):
                    outcome.take(case["case"], told)
                if scheduler is not None:
                    client.run(forget, on_error="ignore")
        except KeyboardInterrupt:
            raise SystemExit(
                f"stopped with {outcome.count} of {len(cases)} cases done; --resume true goes on"
            ) from None
    outcome.end()


class _Outcome:
    """What has become of the cases so far."""

    def __init__(self, cases: Sequence[Case]) -> None:
        self.cases = cases
        self.failures: dict[str, str] = {}
        self.count = 0

    def without(self, finished: Callable[[Mapping[str, Any]], bool]) -> Iterator[Case]:
        """The cases that are left, each as data that means the same everywhere."""
        skipped = 0
        for case in self.cases:
            if finished(case):
                skipped += 1
            else:
                yield {**case, "image": os.path.abspath(case["image"]), "image_path": str(case["image"])}
        self.count += skipped
        if skipped:
            logger.info("%d of %d cases were done before", skipped, len(self.cases))

    def take(self, name: str, told: Told | Failure) -> None:
        """Tell here what a worker had to say.

        Raises:
            ValueError: one line, where no worker can do better with another case.
        """
        if isinstance(told, Failure):
            logger.error("case %s left out: %s\n%s", name, told.sentence, told.traceback or "")
            self.failures[name] = told.sentence
            return
        if told["fatal"]:
            raise ValueError(told["fatal"])
        for logger_name, level, line in told["lines"]:
            logging.getLogger(logger_name).log(level, "%s", line)
        if told["failure"]:
            self.failures[name] = told["failure"]
            logger.error("case %s left out: %s", name, told["failure"])
        else:
            self.count += 1

    def end(self) -> None:
        """End the run as one in a single process would."""
        ordered = {case["case"]: self.failures[case["case"]] for case in self.cases if case["case"] in self.failures}
        raise SystemExit(closing_sentence(ordered, len(self.cases)) if ordered else 0)


def _settings(bundle_root: str | Path, places: Mapping[str, Any]) -> dict[str, Any]:
    """The config and the overrides of this run, for a worker whose current folder is another."""
    config, overrides = command_line()
    told = {key: value for key, value in overrides.items() if key not in OF_THE_CASES}
    paths = {key: os.path.abspath(as_path(value, key) or "") for key, value in places.items()}
    here = {"bundle_root": os.path.abspath(bundle_root), "scheduler": None, "workers": None, "resume": False}
    return {"config": config, "overrides": {**told, **paths, **here, "case_list": []}}
