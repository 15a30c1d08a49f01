"""The bundle as the app knows it: items of its configs by their ids, built once and late.

Nothing here imports the bundle's scripts; what they are is the configs' business.
"""

import json
import threading
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

SIZES = ("base", "small")
MODES = ("zoom", "fit", "published", "resize", "sliding_window")


class NotReady(ValueError):
    """The server lacks something, its weights above all; one sentence."""


class Bundle:
    """Parts of the bundle's inference workflow.

    Args:
        root: the bundle's folder.
        size: ``base``, or ``small`` with the weights that lie in the bundle.
        device: where the network runs, ``cpu`` or ``cuda:0``.
        checkpoint: other weights than the configs name.
        tokenizer: another folder of the CLIP tokenizer than the configs name.

    Raises:
        ValueError: one line, for a folder that is no bundle or a setting that is not allowed.
    """

    def __init__(
        self,
        root: Path,
        size: str = "small",
        device: str = "cpu",
        checkpoint: str | None = None,
        tokenizer: str | None = None,
    ) -> None:
        if size not in SIZES:
            raise ValueError(f"size is {size!r}; allowed are {', '.join(SIZES)}")
        files = ["inference.json", *(["small.json"] if size == "small" else [])]
        missing = [name for name in files if not (root / "configs" / name).is_file()]
        if missing:
            raise ValueError(f"bundle: {root} has no configs/{missing[0]}; it must be the folder of the SegVol bundle")
        self.root = root
        self.size = size
        self.device = device
        self._tokenizer = tokenizer
        self._parser = ConfigParser()
        self._parser.read_config([str(root / "configs" / name) for name in files])
        given = {"bundle_root": str(root), "device": device, "checkpoint": checkpoint, "tokenizer": tokenizer}
        for key, value in given.items():
            if value is not None:
                self._parser[key] = _plain(key, value)
        self._lock = threading.RLock()

    def on(self, checkpoint: Path, device: str | None = None) -> "Bundle":
        """The same bundle with other weights; nothing is loaded yet."""
        return Bundle(self.root, self.size, device or self.device, str(checkpoint), self._tokenizer)

    def part(self, name: str) -> Any:
        """The object behind a config id, built at the first call.

        Raises:
            NotReady: the bundle's own sentence, where its weights cannot be loaded.
        """
        with self._lock:  # the parser is not made for several threads
            try:
                return self._parser.get_parsed_content(name)
            except SystemExit as error:  # how a step of a config tells a user's mistake
                raise NotReady(str(error)) from error

    def inferer(self, mode: str) -> Any:
        """The inferer in a mode; it keeps no state."""
        default = self.part("inferer")  # the parser keeps one answer an id, so that it cannot be asked for another mode
        return type(default)(default.roi_size, mode, default.overlap)

    @cached_property
    def vocabulary(self) -> Any:
        """The project's names; needs no weights."""
        return self.part("vocabulary")

    @cached_property
    def version(self) -> str:
        """The bundle's version."""
        metadata = json.loads((self.root / "configs" / "metadata.json").read_text(encoding="utf-8"))
        return str(metadata["version"])

    @property
    def weights_file(self) -> Path:
        """Where the weights lie or are expected."""
        return Path(self.part("checkpoint"))

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Structures that these weights take as text: a closed list for *small*, the whole vocabulary for *base*."""
        if self.size == "small":
            return tuple(self.vocabulary.trained("small"))
        return tuple(structure.name for structure in self.vocabulary)


def _plain(key: str, value: str) -> str:
    """A setting is a text; a config would evaluate one that starts like an expression."""
    if value.startswith(("$", "@", "%")):
        raise ValueError(f"{key} is {value!r}; it must not start with $, @ or %")
    return value


def first_line(error: BaseException) -> str:
    """The sentence of an error that MONAI may have wrapped: that of the first ValueError in the chain."""
    chain: list[BaseException] = [error]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    told: Sequence[BaseException] = [each for each in chain if isinstance(each, ValueError)] or chain[-1:]
    return " ".join(str(told[0]).split())
