"""The preparation of whole data sets as a step of a config: found, spread over workers, split, reported."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..arguments import exit_on_error
from ..vocabulary import Vocabulary
from .catalogue import Catalogue
from .cluster import open_cluster
from .outcome import Outcome
from .patients.earlier import prepared_sets
from .preparation import Preparation, prepare_case
from .records import RawCase, Record, finished, key_of, sweep_set
from .reporting.thumbnails import colors_of
from .selection import Selection, select_sets
from .set_files import write_sets
from .settings import Settings
from .tasks import Failure, one_line, run_all

try:
    import fcntl
except ImportError:  # Windows has other locks, and does not open folders
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

INTERRUPTED = 130  # the exit code after Ctrl-C and SIGTERM

Item = tuple[Path, RawCase, dict[int, tuple[int, int, int]]]
Ways = Mapping[bool, tuple[Preparation, Mapping[str, Any]]]


@exit_on_error()
def prepare_sets(
    settings: Settings,
    catalogue: Catalogue,
    vocabulary: Vocabulary,
    transform: Preparation,
    recipe: Mapping[str, Any],
    image_transform: Preparation,
    image_recipe: Mapping[str, Any],
    bundle_root: str | Path,
) -> dict[str, int]:
    """Prepare the data sets that the user named; a case that is done already is left as it is.

    Args:
        settings: from ``read_settings``.
        catalogue: of known sets.
        vocabulary: of names.
        transform: see ``prepare_case``, for labelled cases.
        recipe: likewise.
        image_transform: likewise, for images without labels.
        image_recipe: likewise.
        bundle_root: where workers find ``scripts``.

    Returns:
        See ``Outcome.counts``.

    Raises:
        SystemExit: one line, for a set that is not there or is being prepared already, and where no case can be
            prepared; 130 after a signal, when the cases that are done have been kept.
    """
    ways = {True: (transform, recipe), False: (image_transform, image_recipe)}
    prepared_sets(settings.output_dir, settings.beside)
    selections = select_sets(settings, catalogue, vocabulary)
    outcome = Outcome(selections)
    with ExitStack() as stack:
        for selection in selections:
            stack.enter_context(_alone_in(selection.folder))
        try:
            items = list(_missing(selections, vocabulary, ways, outcome))
            for (folder, raw_case, _), result in _run_all(settings, items, partial(_prepare, ways=ways), bundle_root):
                outcome.add(folder, raw_case["case"], result)
        except KeyboardInterrupt:
            logger.warning("stopped; %d cases are new, and the same command goes on from there", outcome.new)
            raise SystemExit(INTERRUPTED) from None
        with _locked(settings.output_dir, wait=True):  # the splits of one run are to be seen by the next
            write_sets(settings, selections, outcome, vocabulary)
    counts = outcome.counts()
    logger.info("%(prepared)d cases prepared, %(done)d were done before, %(left_out)d left out", counts)
    return counts


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """No other preparation works on the same set; before and after, what killed ones have left is removed."""
    with _locked(folder):
        try:
            sweep_set(folder)
            yield
        finally:
            sweep_set(folder)


@contextmanager
def _locked(folder: Path, wait: bool = False) -> Iterator[None]:
    """Make a folder and hold it alone; where another process does, an error, or a wait. Windows holds nothing."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = None if fcntl is None else os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise ValueError(f"output_dir: {folder} cannot be written ({error.strerror})") from None
    if handle is None:
        yield
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(handle)
        raise ValueError(f"output_dir: {folder} is being prepared by another process; wait for it") from None
    except OSError:
        logger.warning("%s cannot be locked on its file system; let no other run prepare the same sets", folder)
    try:
        yield
    finally:
        os.close(handle)


def _missing(selections: Sequence[Selection], vocabulary: Vocabulary, ways: Ways, outcome: Outcome) -> Iterator[Item]:
    """The cases that are still to be prepared; the others' records are taken in."""
    cases = [(selection.folder, raw_case) for selection in selections for raw_case in selection.cases]
    for folder, raw_case in tqdm(cases, desc="find what is done", unit="case"):
        _, recipe = ways[raw_case["label"] is not None]
        known = finished(folder, raw_case["case"], key_of(raw_case, recipe))
        if known is None:
            yield folder, raw_case, colors_of(raw_case["labels"], vocabulary)
        else:
            outcome.add(folder, raw_case["case"], known, new=False)


def _run_all(
    settings: Settings, items: Sequence[Item], function: partial[Record], bundle_root: str | Path
) -> Iterator[tuple[Item, Record | Failure]]:
    """Spread the items over workers, or go through them here."""
    if not items:
        return
    if settings.workers == 0:
        for item in tqdm(items, unit="case"):
            yield item, _attempt(function, item)
        return
    with open_cluster(settings.scheduler, settings.workers, bundle_root) as client:
        yield from run_all(client, function, items, progress=True)


def _attempt(function: partial[Record], item: Item) -> Record | Failure:
    try:
        return function(item)
    except Exception as error:  # noqa: BLE001  one bad case must not end a run
        return Failure(one_line(error))


def _prepare(item: Item, ways: Ways) -> Record:
    """On a worker."""
    folder, raw_case, colors = item
    transform, recipe = ways[raw_case["label"] is not None]
    return prepare_case(raw_case, folder, transform, recipe, colors)
