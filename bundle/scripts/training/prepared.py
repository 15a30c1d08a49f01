"""Cases after their deterministic transforms, kept compactly in memory, and on disk where a cache folder is given."""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import Dataset, PersistentDataset
from monai.data.utils import pickle_hashing
from monai.transforms import Compose, Transform
from monai.utils import convert_to_tensor
from scipy import ndimage
from tqdm import tqdm

from ..arguments import exit_on_error
from ..label_names import label_names
from .datalist import Paths, read_datalist, read_images

logger = logging.getLogger(__name__)

Preparation = Callable[[dict[str, Any]], dict[str, Any]]

CENTRES = 256  # voxels kept of each structure for a view to be placed on
GRIDS = ("image", "label", "pseudo_mask")


class PreparedCase:
    """One volume, with what is known of its structures.

    Attributes:
        image: (D, H, W) float16 in [0, 1].
        label: (D, H, W) of label values, 0 everywhere in an unlabelled image.
        pseudo_mask: (D, H, W) int16 of region numbers, 0 for none, and everywhere where none were made.
        names: label value -> name, None for a structure without one.
        complete: what is not labelled is not there.

    Raises:
        ValueError: for labels that are no values and names (``label_names``).
    """

    def __init__(self, case: dict[str, Any]) -> None:
        self.image: torch.Tensor = case["image"][0]
        label = case["label"][0] if "label" in case else self._nothing()
        self.label = label.to(torch.uint8 if label.max() < 256 else torch.int16)
        self.pseudo_mask = case["pseudo_mask"][0].to(torch.int16) if "pseudo_mask" in case else self._nothing()
        self.names = label_names(case) if case.get("labels") else {}
        self.complete = bool(case.get("complete", False))
        values = list(self.names)
        self._centres = _voxels_of(self.label.cpu().numpy(), values) if values else []
        self._extents = _extents_of(self.label.cpu().numpy(), values) if values else []

    def extent(self, rng: np.random.Generator) -> np.ndarray | None:
        """First and last voxel (2, 3) of a random structure; None where nothing is labelled."""
        return self._extents[int(rng.integers(len(self._extents)))] if self._extents else None

    def _nothing(self) -> torch.Tensor:
        """Zeros like the image that take no memory."""
        return torch.zeros((), dtype=torch.uint8, device=self.image.device).expand(self.image.shape)

    def centre(self, rng: np.random.Generator) -> np.ndarray:
        """A voxel of a random structure; the middle of a volume where nothing is labelled."""
        if not self._centres:
            return np.array(self.image.shape) // 2
        return rng.choice(self._centres[int(rng.integers(len(self._centres)))])


@exit_on_error()
def load_cases(
    datalist: Paths, split: str | None, transform: Preparation, cache_dir: str | Path | None = None
) -> list[PreparedCase]:
    """``read_datalist`` and ``prepare_cases`` as a step of a config.

    Raises:
        SystemExit: one line, for a datalist that cannot be used.
    """
    return prepare_cases(read_datalist(datalist, split), transform, cache_dir)


@exit_on_error()
def load_images(
    datalist: Paths, split: str | None, transform: Preparation, cache_dir: str | Path | None = None
) -> list[PreparedCase]:
    """``read_images`` and ``prepare_cases`` as a step of a config.

    Raises:
        SystemExit: one line, for images that cannot be used.
    """
    return prepare_cases(read_images(datalist, split), transform, cache_dir)


def prepare_cases(
    datalist: Sequence[dict[str, Any]], transform: Preparation, cache_dir: str | Path | None = None
) -> list[PreparedCase]:
    """Run the deterministic transforms once; a bad case is left out with a warning.

    Args:
        datalist: from ``read_datalist`` or ``read_images``; a case that is listed several times is drawn as often, and
            kept once.
        transform: makes ``image`` (1, D, H, W) in [0, 1], and ``label`` and ``pseudo_mask`` where there are such.
        cache_dir: folder that keeps the results for the next run; a changed file or setting is prepared anew. None
            keeps nothing.

    Raises:
        ValueError: where no case is left.
    """
    files = [{key: case[key] for key in GRIDS if key in case} for case in datalist]
    stages = Compose([transform, _Compact()])
    prepared: Dataset = Dataset(files, stages)
    if cache_dir is not None:
        prepared = PersistentDataset(files, stages, cache_dir, hash_func=_state_of, hash_transform=pickle_hashing)
    cases: list[PreparedCase] = []
    known: dict[str, PreparedCase] = {}
    for index, case in enumerate(tqdm(datalist, desc="load cases", unit="case")):
        key = json.dumps(case, sort_keys=True)
        if key in known:
            cases.append(known[key])
            continue
        try:
            known[key] = PreparedCase({**case, **prepared[index]})
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


def _extents_of(label: np.ndarray, values: Sequence[int]) -> list[np.ndarray]:
    """First and last voxel (2, 3) of every structure that is there."""
    found = ndimage.find_objects(label, max(values))
    boxes = [found[value - 1] for value in values if found[value - 1] is not None]
    return [np.array([[side.start for side in box], [side.stop - 1 for side in box]]) for box in boxes]


def _voxels_of(label: np.ndarray, values: Sequence[int]) -> list[np.ndarray]:
    """Up to ``CENTRES`` voxels (n, 3) of every structure that is there."""
    rng = np.random.default_rng(0)
    places = []
    for value in values:
        flat = np.flatnonzero(label == value)
        if len(flat):
            picked = rng.choice(flat, min(CENTRES, len(flat)), replace=False)
            places.append(np.stack(np.unravel_index(picked, label.shape), axis=1))
    return places
