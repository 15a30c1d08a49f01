"""Files of states: written whole or not at all, told apart by their names, and read without trust.

What ignite's atomic ``DiskSaver`` leaves behind when it is killed has no name to know it by.
"""

import logging
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)

_STATE = re.compile(r"checkpoint_(epoch|iteration)=(\d+)\.pt")
_LEFTOVER = re.compile(r"\..+\.tmp-[0-9a-f]{32}")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A hidden file that takes the place of ``path`` once the block ends well, and vanishes if it fails."""
    temporary = path.with_name(f".{path.name}.tmp-{uuid.uuid4().hex}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(content: Any, path: Path) -> None:
    """``torch.save`` under another name, onto the disk, then under its own; with the rights of any new file."""
    with whole(path) as temporary, temporary.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())


def sweep(folder: Path) -> None:
    """Remove what a killed writer has left."""
    for path in folder.glob(".*.tmp-*"):
        if _LEFTOVER.fullmatch(path.name):
            path.unlink(missing_ok=True)


def states_in(folder: Path, epoch_length: int) -> list[Path]:
    """States in ``folder``, the most advanced first; of two after the same step the one that ends the epoch."""
    found = [p for p in folder.glob("checkpoint_*.pt") if _STATE.fullmatch(p.name)]
    return sorted(found, key=lambda p: (_iteration_of(p, epoch_length), "epoch" in p.name), reverse=True)


def prune_states(new: Path, n_saved: int, epoch_length: int) -> None:
    """Keep ``new`` and those before it, ``n_saved`` in all; what lies ahead of it is of an earlier run, and goes."""
    others = [p for p in states_in(new.parent, epoch_length) if p.name != new.name]
    before = [p for p in others if _iteration_of(p, epoch_length) < _iteration_of(new, epoch_length)]
    for old in set(others) - set(before[: n_saved - 1]):
        old.unlink(missing_ok=True)


def newest_state(states: Sequence[Path]) -> tuple[Path, Mapping[str, Any]]:
    """The first of ``states`` that can be read, and what it holds.

    Raises:
        ValueError: where none can be read.
    """
    for path in states:
        try:
            return path, read_state(path)
        except ValueError as error:
            logger.warning("%s", error)
    raise ValueError(f"resume: {states[0].parent} holds no state that can be read")


def read_state(path: Path) -> Mapping[str, Any]:
    """What ``path`` holds.

    Raises:
        ValueError: one line, for what is no file of tensors.
    """
    if not os.path.isfile(path):  # pathlib's raises for a name that is too long
        raise ValueError(f"resume is {str(path)!r}, which is no file; it takes a state of a training run, or latest")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001  whatever a broken or hostile file raises becomes one line
        raise ValueError(f"resume: {path} is damaged, or no state of a training run") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"resume: {path} is no state of a training run")
    return content


def _iteration_of(path: Path, epoch_length: int) -> int:
    match = _STATE.fullmatch(path.name)
    assert match is not None
    return int(match[2]) * (epoch_length if match[1] == "epoch" else 1)
