"""The one way in which this server says no: a status and one plain sentence, as JSON.

Every check raises `Refusal`; one place turns it into an answer. Pure, so that the checks need neither MONAI Label nor
a network to be tested.
"""

import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

Send = Callable[[dict[str, Any]], Awaitable[None]]


class Refusal(Exception):
    """A request that is not served, and why.

    Args:
        status: HTTP status, 4xx for the client's mistake and 503 for a server that is busy.
        sentence: what the user reads; it names the field and what is allowed.
        headers: extra headers of the answer.
    """

    def __init__(self, status: int, sentence: str, headers: Iterable[tuple[str, str]] = ()) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence
        self.headers = tuple(headers)


async def send_refusal(send: Send, refusal: Refusal) -> None:
    """Answer one request with a refusal."""
    body = json.dumps({"detail": refusal.sentence}).encode()
    headers = [("content-type", "application/json"), ("content-length", str(len(body))), *refusal.headers]
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": refusal.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
