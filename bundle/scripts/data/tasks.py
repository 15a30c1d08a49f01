"""Many items through the workers of a cluster, a few at a time, and each comes back with what became of it.

A function of the bundle travels by name, its item as plain data. The scheduler reads neither, so it needs no bundle.
"""

import itertools
import logging
import pickle
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from tqdm import tqdm

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

CHECK_SECONDS = 5.0  # how often a wait looks whether a worker is left
AHEAD = 2  # items in flight for each thread of a worker: one in hand, one to follow


@dataclass(frozen=True)
class Failure:
    """What became of an item that failed: one line, and the traceback of what nobody expected."""

    sentence: str
    traceback: str | None = None


def run_all(
    client: Any,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    progress: bool = False,
    total: int | None = None,
    unit: str = "case",
) -> Iterator[tuple[Item, Result | Failure]]:
    """Run ``function`` on every item, and yield each with its result as it is completed.

    ``items`` is drawn from as workers get free, so that of very many only a few are in flight. An item whose worker was
    killed goes to another one, up to four times.

    Args:
        client: from ``open_cluster``.
        function: of the bundle, at the top level of a module, or a partial of such a one.
        items: plain data.
        progress: show a progress bar.
        total: number of items, where ``items`` has no length.
        unit: of the progress bar.

    Yields:
        The item, and its result or a ``Failure``.

    Raises:
        ValueError: one line, where the scheduler is lost.
    """
    total = len(items) if total is None and hasattr(items, "__len__") else total  # type: ignore[arg-type]
    waiting, flying = iter(items), dict[Any, Item]()
    try:
        with tqdm(total=total, disable=not progress, unit=unit) as bar:
            while _refill(client, function, waiting, flying):
                for future in _completed(client, list(flying)):
                    item = flying.pop(future)
                    outcome = _outcome(future)
                    future.release()
                    bar.update()
                    yield item, outcome
    finally:
        for future in flying:
            future.cancel()


def one_line(error: BaseException) -> str:
    """The user's mistake in a chain of errors (a ValueError, which MONAI wraps), else the last one with its kind."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ValueError):
        cause = cause.__cause__
    text = " ".join(str(cause or error).split())
    return text if cause is not None and text else f"{type(error).__name__}: {text}".removesuffix(": ")


def _refill(client: Any, function: Callable[..., Any], waiting: Iterator[Item], flying: dict[Any, Item]) -> bool:
    """Bring ``AHEAD`` items for every thread into flight; whether any is."""
    with _told_if_lost():
        room = AHEAD * max(1, sum(client.nthreads().values())) - len(flying)
    call = _by_value()
    for item in itertools.islice(waiting, max(0, room)):
        payload = pickle.dumps((_guarded, function, item))
        flying[client.submit(call, payload, pure=False)] = item
    return bool(flying)


def _by_value() -> Callable[[bytes], Any]:
    """What the scheduler gets to see of a task: a function without a module, so that it needs no bundle."""

    def item(payload: bytes) -> Any:
        import pickle

        guarded, function, argument = pickle.loads(payload)
        return guarded(function, argument)

    return item


def _guarded(function: Callable[[Item], Result], item: Item) -> Result | Failure:
    """On the worker: an error becomes words there, where its classes are known."""
    try:
        return function(item)
    except ValueError as error:
        return Failure(one_line(error))
    except Exception as error:  # noqa: BLE001  one bad item must not end a run
        known = one_line(error)
        return Failure(known, traceback.format_exc())


def _completed(client: Any, flying: Sequence[Any]) -> list[Any]:
    """Wait for the first futures that are done."""
    from distributed import wait

    told = False
    while True:
        with _told_if_lost():
            try:
                return list(wait(flying, timeout=CHECK_SECONDS, return_when="FIRST_COMPLETED").done)
            except TimeoutError:
                if not told and not client.nthreads():
                    told = True
                    logger.warning("no worker is left; waiting for one to join")


@contextmanager
def _told_if_lost() -> Iterator[None]:
    try:
        yield
    except (OSError, CancelledError) as error:
        raise ValueError(f"scheduler: the connection to it is lost ({type(error).__name__})") from error


def _outcome(future: Any) -> Any:
    """The result of a future that is done, or a ``Failure`` where its worker could not even report one."""
    from distributed import KilledWorker

    try:
        return future.result()
    except KilledWorker:
        return Failure("its worker was killed again and again; it may need more memory than there is")
    except CancelledError as error:
        raise ValueError("scheduler: the connection to it is lost") from error
    except Exception as error:  # noqa: BLE001  a worker that cannot read the task, or whose result cannot be read
        return Failure(one_line(error), traceback.format_exc())
