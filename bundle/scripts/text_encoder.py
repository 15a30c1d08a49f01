"""A name becomes a vector: by the frozen CLIP tower of the released weights, or by the small model's table of names.

Vectors are computed once per name and kept. The network aligns them with its image features (``SegVol.text_align``),
so whatever is trained about text is trained inside the network.
"""

import difflib
import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from .network import SegVol
from .vocabulary import Vocabulary

logger = logging.getLogger(__name__)

TEMPLATE = "A computerized tomography of a {}."


class TextEncoder(Protocol):
    """What the rest of the bundle needs of a text encoder."""

    def __call__(self, names: Sequence[str]) -> torch.Tensor:
        """Vectors (N, text_dim) of resolved names."""

    def resolve(self, text: str) -> str:
        """The name that stands for ``text``; ValueError where it cannot be encoded."""


class ClipText:
    """Any text, through the CLIP tower that the released weights carry.

    Args:
        tower: a ``CLIPTextModel``; its pooled output is the vector.
        tokenizer: folder of the CLIP tokenizer.
        vocabulary: known names; a text outside it is encoded all the same, with a warning.
    """

    def __init__(self, tower: nn.Module, tokenizer: str | Path, vocabulary: Vocabulary) -> None:
        self.tower = tower
        self.vocabulary = vocabulary
        self.tokenizer_folder = Path(tokenizer)
        self._tokenizer = None
        self._vectors: dict[str, torch.Tensor] = {}

    def resolve(self, text: str) -> str:
        """The vocabulary's prompt name for ``text``, or the text as it is where the vocabulary has none.

        Raises:
            ValueError: where there is no tokenizer to encode it with.
        """
        self._load_tokenizer()
        structure = self.vocabulary.find(text)
        if structure is None:
            near = ", ".join(self.vocabulary.nearest(text))
            logger.warning("text %r is not among the names of the vocabulary; nearest: %s", text, near)
            return text
        if "base" not in structure.weights:
            logger.warning("text %r: the released weights were not trained on %s", text, structure.name)
        return structure.name

    @torch.no_grad()
    def __call__(self, names: Sequence[str]) -> torch.Tensor:
        """Pooled CLIP vectors, (N, 512), of the names set into SegVol's sentence."""
        device = next(self.tower.parameters()).device
        for name in [n for n in dict.fromkeys(names) if n not in self._vectors]:
            sentence = TEMPLATE.replace("{}", name)  # not format(): a name may hold braces
            tokens = self._load_tokenizer()(sentence, return_tensors="pt", truncation=True, max_length=77).to(device)
            self._vectors[name] = self.tower(**tokens).pooler_output[0]
        return torch.stack([self._vectors[n].to(device) for n in names])

    def state_dict(self) -> dict[str, list[str]]:
        """Nothing: the tower is part of the network's own state."""
        return {}

    def load_state_dict(self, state: dict[str, list[str]]) -> None:
        """Nothing to take."""

    def _load_tokenizer(self):  # noqa: ANN202  (a transformers tokenizer)
        if self._tokenizer is None:
            self._tokenizer = load_tokenizer(self.tokenizer_folder)
        return self._tokenizer


class TextTable:
    """A closed list of names: each is one row of the network's ``text_align``, which training fills.

    Args:
        names: the names in row order; at most ``text_dim``.
        text_dim: length of the vectors, the network's ``text_dim``.
        vocabulary: gives synonyms their name.

    Raises:
        ValueError: for more names than rows.
    """

    def __init__(self, names: Iterable[str], text_dim: int, vocabulary: Vocabulary) -> None:
        self.names = list(names)
        self.vocabulary = vocabulary
        if len(self.names) > text_dim:
            raise ValueError(f"the text table has {len(self.names)} names; the network has {text_dim} rows")
        self._vectors = torch.eye(len(self.names), text_dim)

    def resolve(self, text: str) -> str:
        """The table's name for ``text``.

        Raises:
            ValueError: naming the nearest known names, for a text that these weights were not trained on.
        """
        structure = self.vocabulary.find(text)
        name = text if structure is None else structure.name
        if name in self.names:
            return name
        near = self.vocabulary.nearest(text, names=self.names) or difflib.get_close_matches(text, self.names, 3, 0)
        raise ValueError(
            f"text {text!r} is unknown to these weights, which know {len(self.names)} names; nearest: {', '.join(near)}"
        )

    def __call__(self, names: Sequence[str]) -> torch.Tensor:
        """One-hot vectors, (N, text_dim), of names of the table."""
        return self._vectors[[self.names.index(n) for n in names]]

    def state_dict(self) -> dict[str, list[str]]:
        """The row order, which belongs into every checkpoint that holds the rows."""
        return {"names": self.names}

    def load_state_dict(self, state: dict[str, list[str]]) -> None:
        """Take the row order of a checkpoint."""
        self.__init__(state["names"], self._vectors.shape[1], self.vocabulary)  # type: ignore[misc]


def build_text_encoder(
    network: SegVol,
    vocabulary: Vocabulary,
    tokenizer: str | Path | None = None,
    names: Sequence[str] | None = None,
) -> ClipText | TextTable:
    """The encoder that fits a network: CLIP where it carries the tower, else a table.

    Args:
        network: a SegVol.
        vocabulary: the project's names.
        tokenizer: folder of the CLIP tokenizer, for a network with a tower.
        names: row order of the table (``CheckpointInfo.text_names``); by default the vocabulary's names that
            the small weights are trained on.
    """
    if network.text_encoder is not None:
        return ClipText(network.text_encoder, tokenizer or "models/clip_tokenizer", vocabulary)
    return TextTable(names or vocabulary.trained("small"), network.text_dim, vocabulary)


def load_tokenizer(folder: Path):  # noqa: ANN201  (a transformers tokenizer)
    """The CLIP tokenizer from a local folder; nothing is downloaded.

    Raises:
        ValueError: where the folder or its files are missing.
    """
    # its name in transformers 4, which 5 keeps as an alias made at run time
    from transformers import CLIPTokenizerFast  # type: ignore[attr-defined]

    if not (folder / "tokenizer.json").is_file() and not (folder / "vocab.json").is_file():
        raise ValueError(
            f"tokenizer: {folder} holds no CLIP tokenizer (tokenizer.json); large_files.yml names where to get it"
        )
    return CLIPTokenizerFast.from_pretrained(str(folder), local_files_only=True)
