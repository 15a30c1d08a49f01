"""Threads for blocking routes: every stock route is an `async def` around blocking calls.

A request runs in a thread with an event loop of its own, so that the main loop only ever moves bytes. Three pools keep
kinds of work apart; each has a bound on what may wait.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from .limits import Limits
from .refusals import Refusal
from .relay import Message, Relay, Send
from .routes import Pool as PoolName

Receive = Callable[[], Awaitable[Message]]
Job = Callable[[Relay], Coroutine[Any, Any, None]]


class Pool:
    """A bounded number of threads, and of requests that wait for one.

    Args:
        name: prefix of the threads' names, seen in the log.
        threads: requests at the same time.
        waiting: requests that may wait.
    """

    def __init__(self, name: str, threads: int, waiting: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._places = threading.Semaphore(threads + waiting)

    def submit(self, work: Callable[[], Any]) -> "Future[Any]":
        """Hand over some work.

        Raises:
            Refusal: 503, too many wait already.
        """
        if not self._places.acquire(blocking=False):
            raise Refusal(503, "the server is busy, please try again in a moment", [("retry-after", "5")])
        future = self._executor.submit(work)
        future.add_done_callback(lambda _: self._places.release())
        return future

    def close(self) -> None:
        """Drop what waits; what runs, runs to its end."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def make_pools(limits: Limits) -> dict[PoolName, Pool]:
    """The pools by name."""
    threads: dict[PoolName, int] = {
        "inference": limits.infer_threads,
        "proxy": limits.proxy_threads,
        "server": limits.server_threads,
    }
    return {name: Pool(name, count, limits.waiting) for name, count in threads.items()}


async def run_job(pool: Pool, job: Job, relay: Relay, receive: Receive, send: Send, done: Callable[[], None]) -> None:
    """Run a job in the pool and send what it answers.

    Args:
        pool: where it runs.
        job: coroutine function of the relay; runs in the thread's own event loop.
        relay: its way to the client.
        receive: the connection, watched for the client's leaving: a job that still waits is then dropped.
        send: the connection.
        done: called once the job has ended or was dropped.

    Raises:
        Refusal: 503; `done` was called then, too.
    """
    try:
        future = pool.submit(lambda: asyncio.run(job(relay)))
    except Refusal:
        done()
        raise
    future.add_done_callback(lambda _: done())
    future.add_done_callback(lambda _: relay.end())
    watcher = asyncio.create_task(_watch(receive, future, relay))
    try:
        await relay.forward(send)
    finally:
        watcher.cancel()
        relay.leave()


async def _watch(receive: Receive, future: "Future[Any]", relay: Relay) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    future.cancel()
    relay.abandon()
