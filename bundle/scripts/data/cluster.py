"""Many workers behind one Dask client: processes of this machine by default, or a cluster that is already there.

Every worker must see the bundle under the same path as this process does.
"""

import asyncio
import logging
import os
import signal
import sys
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .tasks import one_line

logger = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0


@contextmanager
def open_cluster(scheduler: Any, workers: Any, bundle_root: str | Path) -> Iterator[Any]:
    """A Dask client whose workers, also those that join later, can import ``scripts``.

    SIGTERM ends the block like Ctrl-C, as a KeyboardInterrupt, so that no local worker stays behind.

    Args:
        scheduler: address of a running scheduler, such as tcp://host:8786; whoever reaches it can run code on its
            workers, so it must be a trusted one.
        workers: instead, number of processes on this machine, with one thread each; None: one for each core.
        bundle_root: folder that holds ``scripts``, at the same path on every worker.

    Raises:
        ValueError: one line, for a number or an address that is none, a scheduler or a bundle that is not reached,
            and where Dask is missing.
    """
    if scheduler is not None and workers is not None:
        raise ValueError("give either scheduler (an address) or workers (processes of this machine), and not both")
    if scheduler is not None and (not isinstance(scheduler, str) or not scheduler.strip()):
        raise ValueError(f"scheduler is {scheduler!r}; it takes an address such as tcp://host:8786")
    count = _worker_count(workers)
    _require_dask("scheduler" if workers is None else "workers")
    root = os.path.abspath(bundle_root)
    for told_by_us in ("distributed", "distributed.client"):  # each has a level of its own
        logging.getLogger(told_by_us).setLevel(logging.CRITICAL)
    with _interrupted_by_sigterm(), _connected(scheduler) if scheduler is not None else _local(count) as client:
        name = f"segvol-{uuid.uuid4().hex}"
        _show_bundle(client, root, name, own=scheduler is None)
        try:
            yield client
        finally:
            _forget_bundle(client, name)


def _worker_count(workers: Any) -> int:
    if workers is None:
        return _cores()
    from ..arguments import whole_number  # here, for it needs MONAI, which takes a new worker seconds to import

    return whole_number(workers, "workers", 1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _require_dask(name: str) -> None:
    try:
        import distributed  # noqa: F401
    except ImportError as error:
        raise ValueError(f"{name}: needs Dask, which the data extra installs: pip install '.[data]'") from error


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt in the block; threads other than the main one cannot set that up."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


@contextmanager
def _local(count: int) -> Iterator[Any]:
    """Processes of this machine, which share its cores, reachable from it alone."""
    import dask
    from distributed import Client, LocalCluster

    threads = str(max(1, _cores() // count))
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    settings = {
        "distributed.nanny.pre-spawn-environ": dict.fromkeys(names, threads),
        "distributed.worker.profile.enabled": False,
        "distributed.scheduler.http.routes": [],  # nothing is served beside the work
        "distributed.worker.http.routes": [],
        "distributed.scheduler.worker-saturation": 1.0,
    }
    with (
        tempfile.TemporaryDirectory(prefix="segvol-workers-") as folder,
        dask.config.set(settings),
        LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
            worker_dashboard_address="127.0.0.1:0",
            local_directory=folder,
            memory_limit=0,  # at a limit Dask pauses a worker, and with nothing to spill it would wait for ever
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


@contextmanager
def _connected(address: str) -> Iterator[Any]:
    """A cluster that is there already, and has a worker."""
    from distributed import Client

    try:
        found = asyncio.run(asyncio.wait_for(_identity(address), CONNECT_SECONDS))
    except Exception as error:  # noqa: BLE001  whatever answers there, if anything does, is no scheduler
        raise ValueError(f"scheduler: {address} is not reached ({one_line(error)})") from error
    if found.get("type") != "Scheduler":
        raise ValueError(f"scheduler: {address} is a {found.get('type')}, and no scheduler")
    if not found["workers"]:
        raise ValueError(f"scheduler: {address} has no worker; start one with: dask worker {address} --nthreads 1")
    with Client(address, timeout=CONNECT_SECONDS) as client:
        yield client


async def _identity(address: str) -> Any:
    """Who answers; a client that fails to connect would hold up the end of the process."""
    from distributed import rpc

    async with rpc(address) as remote:
        return await remote.identity()


def _show_bundle(client: Any, root: str, name: str, own: bool) -> None:
    """Put ``root`` on the path of every worker, now or later; workers of our own leave Ctrl-C to this process."""
    from distributed import WorkerPlugin

    class Bundle(WorkerPlugin):  # pickled by value, for workers cannot import this module before
        def setup(self, worker: Any) -> None:
            if own and threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGINT, signal.SIG_IGN)
            package = os.path.join(root, "scripts", "__init__.py")
            held = getattr(sys.modules.get("scripts"), "__file__", None)
            if not os.path.isfile(package):
                raise OSError(f"the worker at {worker.address} sees no bundle at {root}")
            if held is not None and not os.path.samefile(held, package):
                raise OSError(f"the worker at {worker.address} holds another bundle, {held}; start it anew")
            if root not in sys.path:
                sys.path.insert(1, root)

    try:
        client.register_plugin(Bundle(), name=name)
    except OSError as error:
        raise ValueError(f"scheduler: {one_line(error).partition(': ')[2]}") from error


def _forget_bundle(client: Any, name: str) -> None:
    """Workers that join after us need no longer see our bundle."""
    try:
        client.unregister_worker_plugin(name)
    except Exception:  # noqa: BLE001  whatever a lost scheduler raises, the block has ended
        logger.debug("the scheduler is gone", exc_info=True)
