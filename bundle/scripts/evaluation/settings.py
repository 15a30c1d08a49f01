"""What the user chose for an evaluation, checked before anything is loaded."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from ..arguments import as_flag, as_path, exit_on_error, one_of, share, whole_number
from ..prompts import PROMPT_KINDS, PromptKind


@dataclass(frozen=True)
class Settings:
    """What the user chose, checked; see ``read_settings``."""

    datalist: tuple[str, ...]
    split: str | None
    output_dir: Path
    kinds: tuple[PromptKind, ...]
    modes: tuple[str, ...]
    seed: int
    jitter: float
    minimum_voxels: int
    targets_per_call: int
    labels_complete: bool
    absent_names: tuple[str, ...] | None
    baseline: bool


@exit_on_error()
def read_settings(
    datalist: Any,
    output_dir: Any,
    split: Any = None,
    kinds: Any = PROMPT_KINDS,
    modes: Any = "zoom",
    seed: Any = 0,
    jitter: Any = 0.0,
    minimum_voxels: Any = 50,
    targets_per_call: Any = 16,
    labels_complete: Any = False,
    absent_names: Any = None,
    baseline: Any = False,
) -> Settings:
    """Check what came from the command line.

    Args:
        datalist: one file or a list of them, in the form that training takes.
        output_dir: where the report goes.
        split: only cases of this split; None takes all.
        kinds: one or several of ``PROMPT_KINDS``.
        modes: one or several modes of the inferer.
        seed: of the prompts.
        jitter: each side of a box moves in or out by up to this part of its length, in [0, 1).
        minimum_voxels: smaller targets are skipped; in voxels of the stored grid.
        targets_per_call: most targets that share one call of the inferer, which bounds the memory.
        labels_complete: what the label of a case lacks is truly absent from its image; where only some cases are
            like that, each says so with ``"complete": true`` in the datalist.
        absent_names: names to ask for where they are absent; by default all names of the datalist.
        baseline: answer boxes by region growing too, as a mode beside the others; ``kinds`` must hold box.

    Raises:
        SystemExit: one line that names the argument and what is allowed.
    """
    paths = [as_path(path, "datalist") for path in (datalist if isinstance(datalist, list | tuple) else [datalist])]
    output = as_path(output_dir, "output_dir")
    if not paths or None in paths:
        raise ValueError('datalist is missing; it takes a JSON file {"cases": [{"image", "label", "labels"}, ...]}')
    if output is None:
        raise ValueError("output_dir is missing; it takes a folder for the report")
    chosen_kinds = tuple(cast(PromptKind, one_of(kind, PROMPT_KINDS, "kinds")) for kind in _words(kinds, "kinds"))
    with_baseline = as_flag(baseline, "baseline")
    if with_baseline and "box" not in chosen_kinds:
        raise ValueError(f"baseline is true, but kinds is {', '.join(chosen_kinds)}; region growing takes the kind box")
    return Settings(
        datalist=tuple(map(str, paths)),
        split=None if split is None else str(split),
        output_dir=output,
        kinds=chosen_kinds,
        modes=_words(modes, "modes"),
        seed=whole_number(seed, "seed", 0),
        jitter=share(jitter, "jitter"),
        minimum_voxels=whole_number(minimum_voxels, "minimum_voxels", 1),
        targets_per_call=whole_number(targets_per_call, "targets_per_call", 1),
        labels_complete=as_flag(labels_complete, "labels_complete"),
        absent_names=None if absent_names is None else _words(absent_names, "absent_names"),
        baseline=with_baseline,
    )


def bundle_version(metadata: str | Path) -> str | None:
    """The version that a bundle's metadata.json names; None without the file."""
    path = Path(metadata)
    return str(json.loads(path.read_text(encoding="utf-8"))["version"]) if path.is_file() else None


def _words(value: Any, name: str) -> tuple[str, ...]:
    """One word, several with commas, or a list, as the command line may hand them over; each once."""
    listed = value.split(",") if isinstance(value, str) else value
    if not isinstance(listed, list | tuple) or not listed:
        raise ValueError(f"{name} is {value!r}; it takes one word or a list of at least one")
    return tuple(dict.fromkeys(str(word).strip() for word in listed))
