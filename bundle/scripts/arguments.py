"""The border of the command line: mistyped keys, flags that arrive as words, and mistakes told in one line."""

import contextlib
import difflib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser

# what `python -m monai.bundle run` takes beside the ids of the config
RUN_KEYS = (
    "run_id",
    "init_id",
    "final_id",
    "meta_file",
    "config_file",
    "logging_file",
    "tracking",
    "args_file",
    "workflow_name",
    "workflow_type",
)


CHOICES = {
    "mode": ("zoom", "fit", "published", "resize", "sliding_window"),
    "modes": ("zoom", "fit", "published", "resize", "sliding_window"),
    "size": ("base", "small"),
}
FLAGS = ("bfloat16", "checkpoint_activations", "tensorboard", "images_only", "pseudo_masks")


@contextlib.contextmanager
def exit_on_error() -> Iterator[None]:
    """Turn a user's mistake (ValueError) into exit 1 with its one line last on stderr, and no traceback."""
    try:
        yield
    except ValueError as error:
        raise SystemExit(" ".join(str(error).split())) from None


def check_arguments(settings: Mapping[str, Any] | None = None) -> None:
    """Check what the user said before anything is built from it.

    Args:
        settings: values of ``mode``, ``modes``, ``size``, ``device``, ``output_dir`` and of flags, those that the
            config has.

    Raises:
        SystemExit: one line that names the argument and what is allowed.
    """
    with exit_on_error():
        check_keys(sys.argv[1:])
        for name, value in (settings or {}).items():
            if name == "device":
                check_device(value)
            elif name == "output_dir":
                check_output_dir(value)
            elif name in FLAGS:
                as_flag(value, name)
            else:
                for one in value if name == "modes" else [value]:
                    one_of(one, CHOICES[name], name)


def check_keys(argv: Sequence[str]) -> None:
    """Refuse keys on the command line that the configs do not have; MONAI would ignore them in silence.

    Args:
        argv: the command line after the program; anything but a ``run`` of config files is left alone.

    Raises:
        ValueError: naming the key and the nearest real one.
    """
    if not argv or argv[0] != "run":
        return
    given = dict(_given(argv[1:]))
    files = given.get("config_file")
    if files is None:  # named in an args_file, whose keys cannot be told from the command line's
        return
    known = {*RUN_KEYS, *_top_level_ids(files)}
    for key in given:
        _check_key(key, known)


def command_line() -> tuple[dict[str, Any], dict[str, Any]]:
    """What the user typed, for another process to do the same.

    Returns:
        The merged content of the config files as it was written, and the overrides, both unevaluated.

    Raises:
        ValueError: where this is no ``run`` with config files on the command line.
    """
    argv = sys.argv[1:]
    given = dict(_given(argv[1:])) if argv and argv[0] == "run" else {}
    files = given.get("config_file")
    if files is None or "args_file" in given:
        raise ValueError("workers need a run from the command line, python -m monai.bundle run with --config_file")
    overrides = {key: _fire_value(word) for key, word in given.items() if key not in RUN_KEYS}
    return ConfigParser.load_config_files(DefaultParseValue(files)), overrides


def check_device(value: Any) -> None:
    """Refuse a device that PyTorch cannot use here.

    Raises:
        ValueError: naming the device.
    """
    try:
        torch.empty(0, device=torch.device(str(value)))
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device is {value!r}, which cannot be used here; 'cpu' always works") from error


def check_output_dir(value: Any) -> None:
    """Refuse a folder that results cannot be written to; it is not made yet.

    Raises:
        ValueError: naming the folder.
    """
    folder = as_path(value, "output_dir")
    if folder is None:
        raise ValueError("output_dir is missing; it takes a folder for the results")
    try:
        existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    except OSError as error:  # a name that is too long
        raise ValueError(f"output_dir: {folder} cannot be written ({error.strerror})") from error
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise ValueError(f"output_dir: {folder} cannot be written; {existing} is no folder that you may write to")


def as_flag(value: Any, name: str) -> bool:
    """True or false, also as a word in any case, which is how the command line hands them over.

    Raises:
        ValueError: for anything else.
    """
    word = str(value).strip().lower()
    if word not in ("true", "false"):
        raise ValueError(f"{name} is {value!r}; allowed are true and false")
    return word == "true"


def whole_number(value: Any, name: str, least: int) -> int:
    """A whole number from ``least`` on.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} is {value!r}; allowed is a whole number of at least {least}")
    return value


def share(value: Any, name: str) -> float:
    """A number of at least 0 and below 1.

    Raises:
        ValueError: for anything else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"{name} is {value!r}; allowed is a number of at least 0 and below 1")
    return float(value)


def as_path(value: Any, name: str) -> Path | None:
    """A path relative to the current folder; None stays None, a number (``--image 20240101``) is a name.

    Raises:
        ValueError: for what cannot be a path.
    """
    if value is None:
        return None
    if isinstance(value, bool | dict | list | tuple) or not str(value).strip():
        raise ValueError(f"{name} is {value!r}; it takes one path")
    try:
        return Path(str(value)).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{name} is {value!r}, and there is no such user") from error


def one_of(value: Any, allowed: Iterable[str], name: str) -> str:
    """``value`` if it is allowed.

    Raises:
        ValueError: naming what is.
    """
    if value not in (choices := tuple(allowed)):
        raise ValueError(f"{name} is {value!r}; allowed are {', '.join(choices)}")
    return str(value)


def _given(words: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Keys and their values as fire reads them: ``--k v``, ``--k=v``, ``-k v``."""
    for i, word in enumerate(words):
        match = re.match(r"^--?([A-Za-z_][\w#:.-]*)(?:=(.*))?$", word, re.DOTALL)
        if match:
            follower = words[i + 1] if i + 1 < len(words) else None
            yield match[1].replace("-", "_"), match[2] if match[2] is not None else follower


def _fire_value(word: str | None) -> Any:
    """The value of a key; one that another key follows is a flag."""
    return True if word is None or re.match(r"^--?[A-Za-z_]", word) else DefaultParseValue(word)


def _top_level_ids(files: str) -> set[str]:
    return set(ConfigParser.load_config_files(DefaultParseValue(files)))


def _check_key(key: str, known: set[str]) -> None:
    top = re.split(r"#|::", key)[0]
    if top not in known:
        near = difflib.get_close_matches(top, sorted(known), 1, 0)
        raise ValueError(f"unknown key --{key}; the nearest that exists is --{near[0]}")
