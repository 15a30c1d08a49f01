"""The last results of every client and image, for refining, undo and redo: bounded, and gone with the process."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Key = tuple[str, str, str]  # client, content of the image, model


@dataclass(frozen=True)
class State:
    """One answered request.

    Attributes:
        asked: all that was asked for but the points.
        values: value of each target in the reply.
        names: shown name of each target.
        packed: (T, bytes) bits of the targets' parts of the label map in the model's frame.
        shape: (D, H, W) of that frame.
        points: per target (P, 4) points in that frame, each with its label.
        starts: per target where its windows began.
        weights: which weights drew it.
    """

    asked: str
    values: tuple[int, ...]
    names: tuple[str, ...]
    packed: NDArray[np.uint8]
    shape: tuple[int, ...]
    points: list[NDArray[np.float64]]
    starts: list[list[Any]]
    weights: dict[str, str] = field(default_factory=dict)

    def mask(self, target: int) -> NDArray[np.bool_]:
        """(D, H, W) of one target."""
        bits = np.unpackbits(self.packed[target], count=int(np.prod(self.shape)))
        return bits.reshape(self.shape).astype(bool)

    def label(self) -> NDArray[np.uint8]:
        """(D, H, W), t + 1 for target t."""
        label = np.zeros(self.shape, dtype=np.uint8)
        for target in range(len(self.values)):
            label[self.mask(target)] = target + 1
        return label


@dataclass
class _Line:
    states: list[State] = field(default_factory=list)
    position: int = -1


class History:
    """States by client, image and model, with a place in them that undo and redo move.

    Args:
        steps: states kept for one client, image and model.
        limit: bytes of all masks together; the longest untouched line goes first.
    """

    def __init__(self, steps: int = 20, limit: int = 256 << 20) -> None:
        self.steps = steps
        self.limit = limit
        self._lines: OrderedDict[Key, _Line] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def used(self) -> int:
        """Bytes of all masks."""
        return sum(state.packed.nbytes for line in self._lines.values() for state in line.states)

    def last(self, key: Key) -> State | None:
        """The state that counts now."""
        with self._lock:
            line = self._lines.get(key)
            return None if line is None or line.position < 0 else line.states[line.position]

    def add(self, key: Key, state: State) -> None:
        """A new state after the one that counts; those that were undone are gone."""
        with self._lock:
            line = self._lines.setdefault(key, _Line())
            self._lines.move_to_end(key)
            line.states = [*line.states[: line.position + 1], state][-self.steps :]
            line.position = len(line.states) - 1
            while self.used > self.limit and len(self._lines) > 1:
                self._lines.popitem(last=False)
            while self.used > self.limit and len(line.states) > 1:
                line.states.pop(0)
                line.position -= 1

    def move(self, key: Key, back: int) -> State:
        """Go ``back`` states (negative: forward again).

        Raises:
            ValueError: one sentence, where there are not so many.
        """
        with self._lock:
            line = self._lines.get(key) or _Line()
            position = line.position - back
            if not 0 <= position < len(line.states):
                before, after = max(line.position, 0), len(line.states) - 1 - line.position if line.states else 0
                raise ValueError(f"undo is {back}; this image has {before} results to go back to and {after} to redo")
            line.position = position
            return line.states[position]


def pack(masks: Sequence[NDArray[np.bool_]]) -> NDArray[np.uint8]:
    """Bool masks (D, H, W) as bits, (T, bytes)."""
    return np.stack([np.packbits(mask) for mask in masks])


def fresh_points(before: NDArray[np.float64], now: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which rows of ``now`` (points with their labels) were not among ``before``, each old one accounting for one."""
    old = [tuple(point) for point in before]
    fresh = []
    for point in map(tuple, now):
        known = point in old
        if known:
            old.remove(point)
        fresh.append(not known)
    return np.array(fresh, dtype=bool)
