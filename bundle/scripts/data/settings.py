"""What the user chose for a preparation, checked before anything is read."""

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..arguments import as_flag, as_path, exit_on_error, share, whole_number


@dataclass(frozen=True)
class Settings:
    """What the user chose, checked; see ``read_settings``."""

    data_sets: Mapping[str, Path | None]
    output_dir: Path
    beside: tuple[Path, ...]
    workers: int | None
    scheduler: str | None
    test_share: float
    validation_share: float
    images_only: bool
    seed: int


@exit_on_error()
def read_settings(
    data_set: Any = None,
    data_dir: Any = None,
    data_sets: Any = None,
    output_dir: Any = "out/data",
    beside: Any = None,
    workers: Any = None,
    scheduler: Any = None,
    test_share: Any = 0.2,
    validation_share: Any = 0.05,
    images_only: Any = False,
    seed: Any = 0,
) -> Settings:
    """Check what came from the command line.

    Args:
        data_set: name of a set, of the catalogue or any other.
        data_dir: its folder; without it the run ends by saying where the set is to be had.
        data_sets: instead of both, several: name -> folder.
        output_dir: where the prepared sets go, each in a folder of its name.
        beside: folders of sets that were prepared elsewhere, one or several; a patient that is in them too stays in the
            split that it has there.
        workers: processes on this machine; 0 prepares in this process, None takes one for each core.
        scheduler: address of a Dask scheduler, whose workers see the same files; instead of ``workers``.
        test_share: share of the patients that are held out for testing.
        validation_share: share of the patients for validation.
        images_only: read no labels, for pre-training.
        seed: of the splits.

    Raises:
        SystemExit: one line that names the argument and what is allowed, or a library that is missing.
    """
    if importlib.util.find_spec("blosc2") is None:
        raise ValueError("prepared cases need Blosc2, which the data extra installs: pip install '.[data]'")
    output = as_path(output_dir, "output_dir")
    if output is None:
        raise ValueError("output_dir is missing; it takes a folder for the prepared sets")
    if workers is not None and scheduler is not None:
        raise ValueError(f"workers is {workers!r} and scheduler is {scheduler!r}; a scheduler has workers of its own")
    shares = share(test_share, "test_share"), share(validation_share, "validation_share")
    if sum(shares) >= 1:
        raise ValueError(f"test_share is {shares[0]:g} and validation_share {shares[1]:g}; nothing is left to train on")
    return Settings(
        data_sets=_named_folders(data_set, data_dir, data_sets),
        output_dir=output.absolute(),  # workers may stand in another folder
        beside=tuple(_folders(beside)),
        workers=None if workers is None else whole_number(workers, "workers", 0),
        scheduler=None if scheduler is None else str(scheduler),
        test_share=shares[0],
        validation_share=shares[1],
        images_only=as_flag(images_only, "images_only"),
        seed=whole_number(seed, "seed", 0),
    )


def _named_folders(data_set: Any, data_dir: Any, data_sets: Any) -> dict[str, Path | None]:
    """Name -> folder, of one set or of several; None where none is given, and it is to be said where to get the set."""
    if data_sets is not None:
        if data_set is not None or data_dir is not None:
            raise ValueError("data_sets names the sets and their folders; give no data_set or data_dir beside it")
        if not isinstance(data_sets, Mapping) or not data_sets:
            raise ValueError(f"data_sets is {data_sets!r}; it takes {{'AMOS22': '/data/amos22', ...}}")
        return {str(name): _folder(path, f"data_sets, {name}") for name, path in data_sets.items()}
    if data_set is None:
        raise ValueError("data_set is missing; it takes the name of a set, and data_dir its folder")
    return {str(data_set): as_path(data_dir, "data_dir")}


def _folders(beside: Any) -> list[Path]:
    listed = beside if isinstance(beside, list | tuple) else [] if beside is None else [beside]
    return [_folder(path, "beside") for path in listed]


def _folder(value: Any, name: str) -> Path:
    path = as_path(value, name)
    if path is None:
        raise ValueError(f"{name} is missing; it takes a folder")
    return path
