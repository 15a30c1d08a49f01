"""A request's body, taken in whole before a thread is spent on it: a slow client costs a file, not a thread."""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from typing import IO, Any

from .guard import check_size

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]

IN_MEMORY = 8 * 2**20
CHUNK = 2**20


class Disconnected(Exception):
    """The client went away before its request was complete."""


async def read_body(receive: Receive, limit: int) -> IO[bytes]:
    """Read the body into a spooled file, above `IN_MEMORY` on disk.

    Args:
        receive: the connection.
        limit: largest size in bytes; what was announced counts no more than what arrives.

    Raises:
        Refusal: 413.
        Disconnected: the client went away.
    """
    body = tempfile.SpooledTemporaryFile(max_size=IN_MEMORY)  # noqa: SIM115 - outlives this function
    try:
        await _fill(body, receive, limit)
    except BaseException:
        body.close()
        raise
    body.seek(0)
    return body


def replay(body: IO[bytes]) -> Receive:
    """The body from its beginning, as a connection of its own, which then stays silent."""
    body.seek(0)
    more = True

    async def receive() -> Message:
        nonlocal more
        if not more:
            await asyncio.Future()
        chunk = body.read(CHUNK)
        more = len(chunk) == CHUNK
        return {"type": "http.request", "body": chunk, "more_body": more}

    return receive


async def _fill(body: IO[bytes], receive: Receive, limit: int) -> None:
    size, pending, more = 0, bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        pending += message.get("body", b"")
        more = message.get("more_body", False)
        check_size(size + len(pending), limit)
        if pending and (len(pending) >= CHUNK or not more):
            size += await _write(body, bytes(pending), size)
            pending.clear()


async def _write(body: IO[bytes], data: bytes, size: int) -> int:
    """Write where it costs nothing: in memory here, on disk in a thread."""
    if size + len(data) <= IN_MEMORY:
        return body.write(data)
    return await asyncio.to_thread(body.write, data)
