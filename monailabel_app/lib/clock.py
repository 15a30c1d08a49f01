"""Where the time of a request went, and what did not have to be done again."""

from collections.abc import Mapping
from time import perf_counter


class Clock:
    """Seconds per stage, and how often the memory had what was asked for."""

    def __init__(self) -> None:
        self._begin = perf_counter()
        self._seconds = {"load": 0.0, "preprocess": 0.0, "encode": 0.0, "decode": 0.0, "restore": 0.0}
        self._counts = {"volume_hits": 0, "volume_misses": 0, "embedding_hits": 0, "embedding_misses": 0}

    def __call__(self, stage: str) -> "_Stage":
        """Add what the block takes to a stage."""
        return _Stage(self._seconds, stage)

    def found(self, kind: str, hit: bool) -> None:
        """Count an answer of the memory."""
        self._counts[f"{kind}_{'hits' if hit else 'misses'}"] += 1

    def told(self, inferer: Mapping[str, float]) -> dict[str, float]:
        """Seconds and counts; those of the inferer join in."""
        seconds = {**self._seconds, **inferer, "total": perf_counter() - self._begin}
        return {**{stage: round(value, 4) for stage, value in seconds.items()}, **self._counts}


class _Stage:
    def __init__(self, seconds: dict[str, float], stage: str) -> None:
        self._seconds, self._stage = seconds, stage

    def __enter__(self) -> None:
        self._begin = perf_counter()

    def __exit__(self, *_: object) -> None:
        self._seconds[self._stage] += perf_counter() - self._begin
