"""Which cases are this process's: all, or where torchrun started several, the next one that nobody has taken."""

import json
import logging
import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import cached_property
from typing import Any

from torch.distributed.rendezvous import rendezvous
from tqdm import tqdm

from ..cases import Case, CaseStream

logger = logging.getLogger(__name__)

LOOK_SECONDS = 0.3  # how often the first process looks whether the others are done


class Turns(Collection[Case]):
    """The cases that this process does, taken one by one from what all processes share.

    Processes meet in torchrun's store alone, without a process group: a process that fails ends the others through
    torchrun, and none waits inside a collective call. The first one shows the progress of all, and ends the run.

    Args:
        cases: all of them, the same in every process.
        finished: whether a case needs nothing.
    """

    def __init__(self, cases: Sequence[Case], finished: Callable[[Mapping[str, Any]], bool]) -> None:
        self.cases = cases
        self.finished = finished
        self.rank, self.processes = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))

    def __iter__(self) -> Iterator[Case]:
        """Yield the cases of this process."""
        skipped = 0
        with tqdm(total=len(self.cases), disable=self.rank > 0, unit="case") as bar:
            for number in self._numbers():
                if self.finished(self.cases[number]):
                    skipped += 1
                else:
                    yield self.cases[number]
                bar.update(number + 1 - bar.n)
        if skipped:
            logger.info("%d of %d cases were done before", skipped, len(self.cases))

    def __len__(self) -> int:
        return len(self.cases)

    def __contains__(self, case: object) -> bool:
        return case in self.cases

    def finish(self, stream: CaseStream) -> None:
        """End the run with exit 1 where a case failed in any process; the first one tells of all.

        Args:
            stream: has gone through the cases of this process.

        Raises:
            SystemExit: one line, in the first process.
        """
        if self.processes > 1:
            self._store.set(f"failures/{self.rank}", json.dumps(stream.failures))
            if self.rank:
                return
            found = self._all_failures()
            stream.failures = {case["case"]: found[case["case"]] for case in self.cases if case["case"] in found}
        stream.finish()

    def _numbers(self) -> Iterator[int]:
        if self.processes == 1:
            yield from range(len(self.cases))
            return
        while (number := self._store.add("taken", 1) - 1) < len(self.cases):
            yield number

    def _all_failures(self) -> dict[str, str]:
        failures: dict[str, str] = {}
        for rank in range(self.processes):
            while not self._store.check([f"failures/{rank}"]):
                time.sleep(LOOK_SECONDS)
            failures |= json.loads(self._store.get(f"failures/{rank}"))
        return failures

    @cached_property
    def _store(self) -> Any:
        from torch.distributed import PrefixStore

        store, _, _ = next(iter(rendezvous("env://", timeout=timedelta(minutes=5))))
        return PrefixStore(f"segvol/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
