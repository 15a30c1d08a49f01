"""A shared memory of what is dear to compute: bounded in bytes, one computation a key however many ask for it."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any


class Memory:
    """Keeps values until they are too many bytes; the longest unused goes first.

    Args:
        limit: bytes of all values together. A value above it is handed out and not kept.
    """

    def __init__(self, limit: int) -> None:
        if limit < 0:
            raise ValueError(f"limit is {limit} bytes; it must be 0 or more")
        self.limit = limit
        self._values: OrderedDict[Hashable, tuple[Any, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._making: dict[Hashable, threading.Event] = {}

    @property
    def used(self) -> int:
        """Bytes that are kept now."""
        return self._bytes

    def __len__(self) -> int:
        """Count the values."""
        return len(self._values)

    def get(self, key: Hashable, make: Callable[[], Any], size: Callable[[Any], int]) -> tuple[Any, bool]:
        """The value of ``key``, made at most once at a time.

        Args:
            key: what the value depends on, all of it.
            make: computes the value; where it fails its error goes to the caller, and the next who waited tries again.
            size: bytes of a value.

        Returns:
            The value, and whether it was there already.
        """
        while True:
            with self._lock:
                if key in self._values:
                    self._values.move_to_end(key)
                    return self._values[key][0], True
                done = self._making.get(key)
                if done is None:
                    self._making[key] = threading.Event()
                    break
            done.wait()
        try:
            value = make()
            self._keep(key, value, size(value))
        finally:
            with self._lock:
                self._making.pop(key).set()
        return value, False

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._values.clear()
            self._bytes = 0

    def forget(self, kind: str) -> None:
        """Forget the values whose keys begin with a word."""
        with self._lock:
            for key in [key for key in self._values if isinstance(key, tuple) and key[0] == kind]:
                self._bytes -= self._values.pop(key)[1]

    def _keep(self, key: Hashable, value: Any, size: int) -> None:
        if size > self.limit:
            return
        with self._lock:
            self._values[key] = (value, size)
            self._bytes += size
            while self._bytes > self.limit:
                _, (_, freed) = self._values.popitem(last=False)
                self._bytes -= freed
