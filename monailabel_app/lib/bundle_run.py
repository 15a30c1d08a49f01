"""A workflow of the bundle in a process of its own: it can be stopped, and takes nobody down with it."""

import logging
import os
import re
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .parent import end_with_parent

logger = logging.getLogger(__name__)

Relay = Callable[[str], None]
LAST_LINES = 20
PATIENCE_S = 10
PROGRESS = re.compile(r"\d+%\|")  # bars are for terminals
NOISE = ("nvImageCodec", "NvImgCodec", "parsing config_file", " - INFO - ")  # MONAI's, before the bundle speaks


class RunFailed(RuntimeError):
    """A workflow ended without its result; the last line that it said."""


def command_for(root: Path, config: str, settings: Mapping[str, Any]) -> list[str]:
    """The command line of a workflow.

    Args:
        root: folder of the bundle.
        config: file name in its configs.
        settings: ids of the config and their values: ours, never a user's words.
    """
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(root / "configs" / config)]
    for key, value in {"bundle_root": root, **settings}.items():
        command += [f"--{key}", str(value)]
    return command


def run(command: list[str], folder: Path, relay: Relay) -> None:
    """Run a workflow to its end.

    Args:
        command: from ``command_for``.
        folder: where it runs.
        relay: gets every line that it says.

    Raises:
        RunFailed: it ended with an error.
    """
    said: deque[str] = deque(maxlen=LAST_LINES)
    with _running(command, folder) as process:
        assert process.stdout is not None
        for line in filter(None, (line.strip() for line in process.stdout)):
            if PROGRESS.search(line) or any(word in line for word in NOISE):
                continue
            said.append(line)
            relay(line)
        code = process.wait()
    if code:
        raise RunFailed(said[-1] if said else f"it ended with status {code}")


@contextmanager
def _running(command: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The process, which is gone when the block ends, however it ends."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=_begin,  # noqa: PLW1509 - calls nothing but the kernel
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _begin() -> None:
    """In the child, before it begins: be killed where the parent is, and let requests of users go first."""
    end_with_parent()
    os.nice(5)
