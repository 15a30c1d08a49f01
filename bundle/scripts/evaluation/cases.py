"""A labelled case for the evaluation: what it can be asked, and what an answer is worth.

Answers are scored on the whole stored grid (oriented, which changes no voxel), though they are drawn in the foreground
crop: what the crop cut off counts as missed.
"""

import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..arguments import exit_on_error
from ..cases import case_name
from ..label_names import label_names
from ..prompts import Prompt, PromptKind, prompt_from_mask, to_model_frame
from .settings import Settings

Entry = dict[str, Any]


@dataclass(frozen=True)
class LabelledCase:
    """A case in memory.

    Attributes:
        name: tells it apart from the others.
        modality: as the datalist has it.
        image: (1, 1, d, h, w) in [0, 1], cropped to the foreground.
        truth: (D, H, W) label values, not cropped.
        start: (3,) first voxel of the crop in the truth.
        spacing: (3,) mm.
        labels: value -> name, None for a structure without one.
        complete: whether a name that the label lacks is truly absent from the image.
    """

    name: str
    modality: str | None
    image: torch.Tensor
    truth: NDArray[Any]
    start: NDArray[np.int64]
    spacing: NDArray[np.float64]
    labels: dict[int, str | None]
    complete: bool

    def mask(self, value: int) -> NDArray[np.bool_]:
        """Where the truth (D, H, W) has this value."""
        return np.asarray(self.truth == value)

    def draw(
        self, value: int, name: str, kind: PromptKind, rng: np.random.Generator, jitter: float
    ) -> tuple[Prompt | None, str | None]:
        """A user's prompt for a label value, see ``prompt_from_mask``.

        Returns:
            The prompt in voxels of the crop, None where nothing of it lies there, and what there is to say about it.
        """
        drawn = prompt_from_mask(self.mask(value), name, kind, rng, jitter=jitter, spacing=tuple(self.spacing))
        to_crop = np.eye(4)
        to_crop[:3, 3] = -self.start
        try:
            prompts, messages = to_model_frame([drawn], to_crop, self.image.shape[2:])
        except ValueError as error:
            return None, one_line(error)
        return prompts[0], "; ".join(messages) or None

    def millilitres(self, voxels: int) -> float:
        """The volume of so many voxels."""
        return voxels * float(np.prod(self.spacing)) / 1000


@exit_on_error()
def read_cases(read_datalist: Callable[..., list[Entry]], settings: Settings) -> list[Entry]:
    """The entries of the datalist, each with a name ``case``.

    Args:
        read_datalist: ``read_datalist(paths, split)``, the one that training uses.
        settings: from ``read_settings``.

    Raises:
        SystemExit: one line, for a datalist that cannot be used.
    """
    try:
        return name_cases(read_datalist(list(settings.datalist), settings.split))
    except (json.JSONDecodeError, OSError) as error:
        raise ValueError(f"datalist: {settings.datalist[0]} cannot be read as JSON ({one_line(error)})") from error
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"datalist: a case is not of the form image, label, labels ({one_line(error)})") from error


def name_cases(entries: Sequence[Entry]) -> list[Entry]:
    """Give every entry of a datalist its ``case``: its ``id``, else folder and file; a number where that is taken."""
    named: dict[str, Entry] = {}
    for entry in entries:
        path = Path(entry["image"])
        name = unique = str(entry.get("id") or f"{path.parent.name}/{case_name(path)}")
        count = 1
        while unique in named:
            count += 1
            unique = f"{name} ({count})"
        named[unique] = {**entry, "case": unique}
    return list(named.values())


def load_case(
    entry: Entry, preprocessing: Callable[[Entry], Mapping[str, Any]], device: torch.device, complete: bool = False
) -> LabelledCase:
    """Read a case that ``name_cases`` has named.

    Args:
        entry: of the datalist.
        preprocessing: ``image`` to the cropped model frame, with ``foreground_start_coord``, and ``label`` to the
            same orientation, not cropped.
        device: where the image goes.
        complete: whether all cases are labelled completely; else the entry's own ``complete`` says it.

    Raises:
        ValueError: one line, for what cannot be read or does not fit together.
    """
    labels = label_names(entry)
    try:
        data = preprocessing({"image": entry["image"], "label": entry["label"]})
    except (ValueError, RuntimeError) as error:
        raise ValueError(one_line(error)) from error
    label = data["label"]
    return LabelledCase(
        name=entry["case"],
        modality=entry.get("modality"),
        image=data["image"].as_tensor()[None].to(device),
        truth=label.as_tensor()[0].numpy(),
        start=np.asarray(data["foreground_start_coord"], dtype=np.int64),
        spacing=np.linalg.norm(np.asarray(label.affine, dtype=np.float64)[:3, :3], axis=0),
        labels=labels,
        complete=complete or entry.get("complete") is True,
    )


def dice(mask: NDArray[np.bool_], truth: NDArray[np.bool_], start: Sequence[int] | NDArray[np.int64]) -> float:
    """Dice of a mask that was drawn in a crop.

    Args:
        mask: (d, h, w) in the crop.
        truth: (D, H, W) in the whole grid, not empty.
        start: (3,) first voxel of the crop in the whole grid.
    """
    seen = truth[tuple(slice(a, a + n) for a, n in zip(start, mask.shape, strict=True))]
    overlap = int(np.count_nonzero(mask & seen))
    return 2 * overlap / (int(np.count_nonzero(mask)) + int(np.count_nonzero(truth)))


def prompt_rng(seed: int, case: str, value: int, kind: PromptKind) -> np.random.Generator:
    """Random numbers for one prompt, whatever else is evaluated.

    A case goes by its name, so that its place in the list does not matter. ``point+text`` clicks where ``point``
    does and boxes go likewise, so that these kinds can be compared target by target.
    """
    located = kind.split("+")[0]
    return np.random.default_rng([seed, zlib.crc32(case.encode()), value, zlib.crc32(located.encode())])


def absent_from(known: Iterable[str | None], present: Iterable[str | None]) -> list[str]:
    """Names of ``known`` that are not ``present``, sorted; None stands for a name that cannot be encoded."""
    return sorted({name for name in known if name is not None} - set(present))


def names_of(entry: Entry) -> list[str]:
    """The names of an entry's labels; none where it has no such thing, which ``load_case`` reports."""
    labels = entry.get("labels")
    return [str(name) for name in labels.values() if name is not None] if isinstance(labels, dict) else []


def one_line(error: BaseException) -> str:
    """What the first ValueError of a chain says, else the innermost error (MONAI wraps what its transforms raise)."""
    while not isinstance(error, ValueError) and error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:300] or type(error).__name__
