"""Settings of `--conf`, all of them texts, as what they mean."""

from collections.abc import Mapping
from pathlib import Path

import torch

from .bundle import Bundle

DEFAULT_NAMES = "liver,spleen,left kidney,right kidney"
CACHE_MIB = "4096"
UNWANTED = "$@%#"  # a config would read them as its own signs


def read_device(given: Mapping[str, str]) -> str:
    """A device of this machine, the first GPU by default.

    Raises:
        ValueError: one line.
    """
    text = given.get("device", "cuda:0" if torch.cuda.is_available() else "cpu")
    cards = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if text not in ("cpu", *cards, *(["cuda"] if cards else [])):
        raise ValueError(f"device is {text!r}; this machine has {', '.join(['cpu', *cards])}")
    return text


def read_cache(given: Mapping[str, str]) -> int:
    """Bytes of all that is kept.

    Raises:
        ValueError: one line.
    """
    text = given.get("cache_mib", CACHE_MIB)
    if not text.isdigit():
        raise ValueError(f"cache_mib is {text!r}; it must be a whole number of MiB, 0 or more")
    return int(text) << 20


def read_models(given: Mapping[str, str], app_dir: str) -> Path:
    """The folder of fine-tuned weights.

    Raises:
        ValueError: one line.
    """
    folder = Path(given.get("models") or Path(app_dir) / "model").resolve()
    if any(sign in str(folder) for sign in UNWANTED):
        raise ValueError(f"models is {str(folder)!r}; the path must be free of {' '.join(UNWANTED)}")
    return folder


def read_defaults(given: Mapping[str, str], bundle: Bundle) -> tuple[str, ...]:
    """Names of the vocabulary in a list with commas.

    Raises:
        ValueError: one line.
    """
    names = []
    for asked in filter(None, (part.strip() for part in given.get("defaults", DEFAULT_NAMES).split(","))):
        structure = bundle.vocabulary.find(asked)
        if structure is None or structure.name not in bundle.names:
            near = ", ".join(bundle.vocabulary.nearest(asked, names=bundle.names))
            raise ValueError(f"defaults: {asked!r} is unknown to these weights; nearest: {near}")
        names.append(structure.name)
    return tuple(names)
