"""What a worker thread answers, brought to the connection in order.

The queue between them is bounded, so that a stream waits for its client. A file does not: the worker hands it over
open, goes on to its next request, and the main loop sends it. A client that went away is answered into the void, so
that the worker reaches its end and removes its temporary files.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from typing import IO, Any

Message = dict[str, Any]
Send = Callable[[Message], Awaitable[None]]

WAITING = 16
CHUNK = 2**18


class Relay:
    """One answer on its way from a worker's event loop to the main one.

    Args:
        loop: the main loop.
        unlink: whether a file is removed as soon as it is open, because the stock server forgets it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, unlink: bool = False) -> None:
        self.started = False
        self._loop = loop
        self._unlink = unlink
        self._queue: asyncio.Queue[Message | None] = asyncio.Queue(WAITING)
        self._gone = False

    async def send(self, message: Message) -> None:
        """The worker's `send`: returns as soon as there is room, or nobody left to read."""
        self.started = True
        if message["type"] == "http.response.pathsend":
            message = {"type": "file", "file": self._open(message["path"])}
        if self._gone:
            _close(message)
            return
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._queue.put(message), self._loop))

    async def forward(self, send: Send) -> None:
        """Send what comes until the worker has ended."""
        while (message := await self._queue.get()) is not None:
            if self._gone:
                _close(message)
                continue
            try:
                await _send(message, send)
            except OSError:
                self._gone = True

    def abandon(self) -> None:
        """The client is gone: what still comes is dropped."""
        self._gone = True

    def leave(self) -> None:
        """Nobody forwards any more: make room for a worker that still waits to hand something over."""
        self.abandon()
        with contextlib.suppress(asyncio.QueueEmpty):
            while True:
                _close(self._queue.get_nowait())

    def end(self) -> None:
        """The worker has ended; called from any thread."""
        with contextlib.suppress(RuntimeError):  # the main loop may be closed already
            self._loop.call_soon_threadsafe(lambda: self._loop.create_task(self._queue.put(None)))

    def _open(self, path: str) -> IO[bytes]:
        file = open(path, "rb")  # noqa: SIM115 - the main loop closes it
        if self._unlink:
            os.unlink(path)
        return file


async def _send(message: Message, send: Send) -> None:
    if message["type"] != "file":
        await send(message)
        return
    with message["file"] as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _close(message: Message | None) -> None:
    if message is not None and message["type"] == "file":
        message["file"].close()
