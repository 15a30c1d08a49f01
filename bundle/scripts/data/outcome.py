"""What became of the cases of a preparation, as they come in."""

import logging
from collections.abc import Iterable
from pathlib import Path

from .quality.outliers import reading_fault
from .records import Record, slim
from .selection import Fault, Selection
from .tasks import Failure

logger = logging.getLogger(__name__)


class Outcome:
    """Records and failures of the cases of all sets, as they come in.

    Attributes:
        new: cases that were prepared now.
        records: folder of a set -> case -> record.
        left_out: folder of a set -> why a case is not there.
    """

    def __init__(self, selections: Iterable[Selection]) -> None:
        self.new = 0
        self.records: dict[Path, dict[str, Record]] = {}
        self.left_out: dict[Path, list[Fault]] = {}
        for selection in selections:
            self.records[selection.folder] = {}
            self.left_out[selection.folder] = [_told(fault) for fault in selection.faults]

    def add(self, folder: Path, case: str, result: Record | Failure, new: bool = True) -> None:
        """Take in what became of a case; a failure is told at once."""
        if isinstance(result, Failure):
            logger.warning("case %s left out: %s", case, result.sentence)
            logger.debug("%s", result.traceback)
            self.left_out[folder].append(reading_fault(case, result.sentence))
            return
        self.new += new
        self.records[folder][case] = slim(result)

    def counts(self) -> dict[str, int]:
        """How many cases were ``prepared`` now, were ``done`` before, and are ``left_out``."""
        total = sum(map(len, self.records.values()))
        return {"prepared": self.new, "done": total - self.new, "left_out": sum(map(len, self.left_out.values()))}


def _told(fault: Fault) -> Fault:
    """Every sentence begins with its case."""
    begin = f"{fault['case']}: "
    return fault if fault["sentence"].startswith(begin) else {**fault, "sentence": begin + fault["sentence"]}
