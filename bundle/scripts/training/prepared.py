"""Cases after their deterministic transforms: compactly in memory, or on disk, of which views read what they show.

On disk are prepared data sets (``data.storage``). ``cache_dir`` is the simpler way: it spares the transforms, and what
it keeps is read whole into memory.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import Dataset, PersistentDataset
from monai.data.utils import pickle_hashing
from monai.transforms import Compose, Transform
from monai.utils import convert_to_tensor
from tqdm import tqdm

from ..arguments import exit_on_error
from ..data.storage.places import Places, find_places, no_places
from ..data.storage.store import StoredCase, mean_voxel
from ..data.storage.stored_grid import StoredGrid
from ..label_names import label_names
from .datalist import Paths, read_datalist, read_images
from .stores import StoredCases

logger = logging.getLogger(__name__)

Preparation = Callable[[dict[str, Any]], dict[str, Any]]

GRIDS = ("image", "label", "pseudo_mask")


@dataclass(frozen=True, eq=False)
class PreparedCase:
    """One volume, with what is known of its structures.

    Attributes:
        image: (D, H, W) float16 in [0, 1].
        label: (D, H, W) of label values, 0 everywhere in an unlabelled image.
        pseudo_mask: (D, H, W) int16 of region numbers, 0 for none, and everywhere where none were made.
        names: label value -> name, None for a structure without one.
        complete: what is not labelled is not there.
        places: where the structures of ``names`` lie.
        known_mean: the mean voxel of the image, where it is known without reading it.
    """

    image: torch.Tensor | StoredGrid
    label: torch.Tensor | StoredGrid
    pseudo_mask: torch.Tensor | StoredGrid
    names: Mapping[int, str | None]
    complete: bool
    places: Places
    known_mean: float | None = None

    @classmethod
    def of_tensors(cls, case: Mapping[str, Any]) -> "PreparedCase":
        """From what the transforms make.

        Args:
            case: of a datalist, with ``image`` (1, D, H, W), and ``label`` and ``pseudo_mask`` where there are such.

        Raises:
            ValueError: for labels that are no values and names (``label_names``).
        """
        image: torch.Tensor = case["image"][0]
        label = case["label"][0] if "label" in case else _nothing(image)
        label = label.to(torch.uint8 if label.max() < 256 else torch.int16)
        pseudo_mask = case["pseudo_mask"][0].to(torch.int16) if "pseudo_mask" in case else _nothing(image)
        names = _names(case)
        places = find_places(label.cpu().numpy()).of(list(names)) if names else no_places()
        return cls(image, label, pseudo_mask, names, _complete(case), places)

    @classmethod
    def of_store(cls, case: Mapping[str, Any], stored: StoredCase) -> "PreparedCase":
        """From a case on disk; its voxels are read when views show them.

        Args:
            case: of a datalist; without ``label`` it is an image alone.
            stored: its grids; those that it lacks are empty.

        Raises:
            ValueError: see ``of_tensors``.
        """
        image, names = stored.grids["image"], _names(case)
        label = stored.grids.get("label") if "label" in case else None
        pseudo_mask = stored.grids.get("pseudo_mask")
        nothing = torch.zeros((), dtype=torch.uint8).expand(image.shape)
        places = stored.places.of(list(names)) if label is not None and names else no_places()
        return cls(image, label or nothing, pseudo_mask or nothing, names, _complete(case), places, stored.mean)

    def centre(self, rng: np.random.Generator) -> np.ndarray:
        """A voxel of a random structure; the middle of a volume where nothing is labelled."""
        return self.places.centre(rng) if len(self.places) else np.array(self.image.shape) // 2

    def extent(self, rng: np.random.Generator) -> np.ndarray | None:
        """First and last voxel (2, 3) of a random structure; None where nothing is labelled."""
        return self.places.extent(rng) if len(self.places) else None

    def mean(self) -> float:
        """The mean voxel of the image."""
        if self.known_mean is not None:
            return self.known_mean
        return mean_voxel(self.image.cpu().numpy() if isinstance(self.image, torch.Tensor) else self.image.read())


@exit_on_error()
def load_cases(
    datalist: Paths,
    split: str | None,
    transform: Preparation,
    cache_dir: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> list[PreparedCase]:
    """``read_datalist`` and ``prepare_cases`` as a step of a config.

    Raises:
        SystemExit: one line, for a datalist that cannot be used.
    """
    return prepare_cases(read_datalist(datalist, split), transform, cache_dir, settings)


@exit_on_error()
def load_images(
    datalist: Paths,
    split: str | None,
    transform: Preparation,
    cache_dir: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> list[PreparedCase]:
    """``read_images`` and ``prepare_cases`` as a step of a config.

    Raises:
        SystemExit: one line, for images that cannot be used.
    """
    return prepare_cases(read_images(datalist, split), transform, cache_dir, settings)


def prepare_cases(
    datalist: Sequence[dict[str, Any]],
    transform: Preparation,
    cache_dir: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> list[PreparedCase]:
    """Open what is prepared, run the deterministic transforms once on the rest; leave out bad cases with a warning.

    Args:
        datalist: from ``read_datalist`` or ``read_images``; a case that is listed several times is drawn as often, and
            kept once. ``prepared`` in a case is the folder of its store.
        transform: makes ``image`` (1, D, H, W) in [0, 1], and ``label`` and ``pseudo_mask`` where there are such.
        cache_dir: folder that keeps the results for the next run; a changed file or setting is prepared anew. None
            keeps nothing.
        settings: what ``transform`` does, as a store says it (``data.storage.store.write_case``); a store that was
            prepared in another way is not opened. None opens none.

    Raises:
        ValueError: where no case is left.
    """
    files = [{key: case[key] for key in GRIDS if key in case} for case in datalist]
    stages = Compose([transform, _Compact()])
    prepared: Dataset = Dataset(files, stages)
    if cache_dir is not None:
        prepared = PersistentDataset(files, stages, cache_dir, hash_func=_state_of, hash_transform=pickle_hashing)
    stores = StoredCases(settings)
    cases: list[PreparedCase] = []
    known: dict[str, PreparedCase] = {}
    for index, case in enumerate(tqdm(datalist, desc="load cases", unit="case")):
        key = json.dumps(case, sort_keys=True)
        if key in known:
            cases.append(known[key])
            continue
        try:
            stored = stores.find(case)
            known[key] = (
                PreparedCase.of_tensors({**case, **prepared[index]})
                if stored is None
                else PreparedCase.of_store(case, stored)
            )
        except (ValueError, RuntimeError) as error:
            logger.warning("left out %s: %s", case["image"], " ".join(str(_first_cause(error)).split()))
            continue
        cases.append(known[key])
    if not cases:
        raise ValueError(f"datalist: none of its {len(datalist)} cases can be used")
    return cases


def _first_cause(error: BaseException) -> BaseException:
    """What a transform said, under the layers that each ``Compose`` puts around it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


class _Compact(Transform):
    """Plain tensors in the smallest type that holds them."""

    def __call__(self, data: dict[str, Any]) -> dict[str, torch.Tensor]:
        grids = {key: convert_to_tensor(data[key], track_meta=False) for key in GRIDS if key in data}
        types = {"image": torch.float16, "pseudo_mask": torch.int16}
        return {key: grid.to(types.get(key, grid.dtype)).contiguous() for key, grid in grids.items()}


def _state_of(files: dict[str, str]) -> bytes:
    """Where the files of a case lie, how large and how old they are: whether a kept result is still theirs."""
    found: list[Path] = []
    for path in map(Path, files.values()):
        found += sorted(path.glob("*")) if path.is_dir() else [path]
    states = [(str(p.resolve()), p.stat().st_size, p.stat().st_mtime_ns) for p in found if p.exists()]
    return hashlib.sha256(json.dumps([sorted(files.items()), states]).encode()).hexdigest().encode()


def _names(case: Mapping[str, Any]) -> dict[int, str | None]:
    return label_names(case) if case.get("labels") else {}


def _complete(case: Mapping[str, Any]) -> bool:
    return bool(case.get("complete", False))


def _nothing(image: torch.Tensor) -> torch.Tensor:
    """Zeros like the image that take no memory."""
    return torch.zeros((), dtype=torch.uint8, device=image.device).expand(image.shape)
