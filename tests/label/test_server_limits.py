"""Bounds and switches from the environment, and a body that outgrows its bound as it arrives."""

import asyncio
from collections.abc import Callable

import pytest
from lib.serving.body import Disconnected, read_body, replay
from lib.serving.limits import MIB, Limits
from lib.serving.refusals import Refusal


def test_nothing_set_gives_the_defaults():
    assert Limits.from_environment({}) == Limits()
    assert Limits().upload == 2048 * MIB
    assert Limits().allowed == frozenset()


def test_the_environment_is_read():
    limits = Limits.from_environment(
        {"SEGVOL_MAX_UPLOAD_MIB": "10", "SEGVOL_INFER_THREADS": " 2 ", "SEGVOL_ALLOW": "stow, logs"}
    )
    assert (limits.upload, limits.infer_threads, limits.allowed) == (10 * MIB, 2, {"stow", "logs"})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("SEGVOL_MAX_UPLOAD_MIB", "0", "must be a positive integer; got '0'"),
        ("SEGVOL_SERVER_THREADS", "many", "must be a positive integer; got 'many'"),
        ("SEGVOL_ALLOW", "everything", "takes words of logs, reload, stow, weights; got 'everything'"),
    ],
)
def test_a_wrong_value_stops_the_start(name, value, message):
    with pytest.raises(ValueError, match=message):
        Limits.from_environment({name: value})


def _arriving(*chunks: bytes | None) -> Callable:
    messages = [
        {"type": "http.request", "body": chunk, "more_body": n < len(chunks) - 1}
        if chunk is not None
        else {"type": "http.disconnect"}
        for n, chunk in enumerate(chunks)
    ]

    async def receive():
        return messages.pop(0)

    return receive


@pytest.mark.parametrize("size", [0, 1, MIB, 20 * MIB])
def test_a_body_is_read_and_replayed_whole(size):
    content = bytes(size)
    chunks = [content[n : n + 300_000] for n in range(0, size, 300_000)] or [b""]

    async def walk() -> bytes:
        with await read_body(_arriving(*chunks), 32 * MIB) as body:
            receive, read, more = replay(body), b"", True
            while more:
                message = await receive()
                read, more = read + message["body"], message["more_body"]
        return read

    assert asyncio.run(walk()) == content


def test_a_body_that_outgrows_its_limit_is_refused_as_it_arrives():
    with pytest.raises(Refusal, match="at most 1 MiB"):
        asyncio.run(read_body(_arriving(bytes(MIB), b"x", bytes(MIB)), MIB))


def test_a_client_that_leaves_is_noticed():
    with pytest.raises(Disconnected):
        asyncio.run(read_body(_arriving(b"x", None), MIB))
