"""Labelled volumes become prompted views: the whole volume, a window, or something between (multi-size training)."""

import contextlib
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.utils import convert_to_tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from tqdm import tqdm

from ..arguments import exit_on_error
from ..text_encoder import TextTable
from .dense import class_map
from .sampling import sample_box, sample_points

logger = logging.getLogger(__name__)


def read_datalist(path: str | Path | Sequence[str | Path], split: str | None = None) -> list[dict[str, Any]]:
    """Cases of one or more datalists.

    A datalist is a JSON file ``{"cases": [{"image", "label", "labels": {"1": "liver"}, "split"}, ...]}``; paths in it
    are relative to its folder. ``"complete": true`` in a case says that what is not labelled in it is not there.

    Args:
        path: the file, or several.
        split: only cases of this split; None takes all.

    Raises:
        ValueError: for a missing file, another format, or no case left.
    """
    paths = [path] if isinstance(path, str | Path) else list(path)
    cases = [case for p in paths for case in _cases_of(Path(p)) if split in (None, case.get("split"))]
    if not cases:
        raise ValueError(f"datalist: {[str(p) for p in paths]} holds no case of split {split!r}")
    return cases


class PromptedViews(Dataset):
    """Random views of prepared cases, each with prompts for some of its structures.

    A view is drawn from (seed, epoch, index) alone, so that a resumed run sees what an unbroken one would.

    Args:
        cases: prepared cases: ``image`` (1, D, H, W) in [0, 1], ``label`` (1, D, H, W), ``labels`` value -> name.
        roi_size: (d, h, w) of a view.
        length: views per epoch.
        targets: structures per view, each with its prompts.
        seed: of all random draws.
        whole: share of views that show the whole volume (the zoom-out view).
        window: share of views at full resolution (the zoom-in view); the rest lies between the two.
        absent: share of targets that name a structure that is labelled in the case but not in the view.
        jitter: boxes move by up to this share of their length.
        max_extra: more positive points.
        max_negative: negative points.
        intensity: largest random shift and scale of intensities, drawn in half of the views.
        minimum_voxels: a structure counts as present in a view from this size on.
        table: names as rows, for dense supervision; None leaves ``classes`` out.
    """

    def __init__(
        self,
        cases: Iterable[dict[str, Any]],
        roi_size: Sequence[int],
        length: int,
        targets: int = 2,
        seed: int = 0,
        whole: float = 0.4,
        window: float = 0.4,
        absent: float = 0.1,
        jitter: float = 0.1,
        max_extra: int = 5,
        max_negative: int = 5,
        intensity: float = 0.1,
        minimum_voxels: int = 20,
        table: TextTable | None = None,
    ) -> None:
        self.cases = [_Case(case) for case in cases]
        self.rows = None if table is None else _rows(table, self.cases)
        self.roi_size = tuple(int(n) for n in roi_size)
        self.length = length
        self.targets = targets
        self.seed = seed
        self.shares = (whole, window)
        self.absent = absent
        self.jitter = jitter
        self.max_points = (max_extra, max_negative)
        self.intensity = intensity
        self.minimum_voxels = minimum_voxels
        self.epoch = 0

    def attach(self, engine: Engine) -> None:
        """As a handler: every epoch draws other views."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda e: setattr(self, "epoch", e.state.epoch))

    def __len__(self) -> int:
        """Views per epoch."""
        return self.length

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One view: ``image`` (1, *roi), ``masks`` (K, 1, *roi), ``points``, ``point_labels``, ``boxes``, ``names``,
        ``draw``, a number for choices that concern a whole batch, and with a table ``classes`` (``dense.class_map``).
        """
        rng = np.random.default_rng((self.seed, self.epoch, index))
        case = self.cases[int(rng.integers(len(self.cases)))]
        image, label = self._view(case, rng)
        chosen = self._choose(case, label.numpy(), rng)
        masks = np.stack([label.numpy() == value for value in chosen])
        drawn = [sample_points(mask, rng, *self.max_points) for mask in masks]
        view = {
            "image": self._augment(image, rng).unsqueeze(0),
            "masks": torch.from_numpy(masks).unsqueeze(1),
            "points": torch.from_numpy(np.stack([points for points, _ in drawn])),
            "point_labels": torch.from_numpy(np.stack([labels for _, labels in drawn])),
            "boxes": torch.from_numpy(np.stack([sample_box(mask, rng, self.jitter) for mask in masks])),
            "names": [case.names[value] for value in chosen],
            "draw": int(rng.integers(2**31)),
        }
        if self.rows is not None:
            view["classes"] = class_map(label, case.names, self.rows, case.complete)
        return view

    def _view(self, case: "_Case", rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
        """A sub-volume of the case, resized to the roi: image float32 and label, both (*roi)."""
        full = case.image.shape
        low = np.minimum(self.roi_size, full)
        kind = rng.random()
        if kind < self.shares[0]:
            size = np.array(full)
        elif kind < sum(self.shares):
            size = np.array(self.roi_size)
        else:
            size = np.rint(low + rng.random(3) * (np.array(full) - low)).astype(int)
        centre = case.voxel(rng) if rng.random() < 2 / 3 else rng.integers(0, full)
        start = np.clip(centre - rng.integers(0, np.minimum(size, full)), 0, np.maximum(np.array(full) - size, 0))
        box = tuple(slice(int(a), int(a + n)) for a, n in zip(start, np.minimum(size, full), strict=True))
        image, label = case.image[box].float(), case.label[box]
        padding = [p for n, s in zip(reversed(size), reversed(image.shape), strict=True) for p in _split(n - s)]
        return self._resize(F.pad(image, padding)), self._resize(F.pad(label, padding)).to(label.dtype)

    def _resize(self, volume: torch.Tensor) -> torch.Tensor:
        if tuple(volume.shape) == self.roi_size:
            return volume
        return F.interpolate(volume[None, None].float(), self.roi_size, mode="nearest-exact")[0, 0]

    def _choose(self, case: "_Case", label: np.ndarray, rng: np.random.Generator) -> list[int]:
        values, counts = np.unique(label, return_counts=True)
        present = [int(v) for v, n in zip(values, counts, strict=True) if v in case.names and n >= self.minimum_voxels]
        missing = [v for v in case.names if v not in values]
        chosen = []
        for _ in range(self.targets):
            pool = missing if missing and (not present or rng.random() < self.absent) else present
            chosen.append(int(rng.choice(pool or list(case.names))))
        return chosen

    def _augment(self, image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        if rng.random() < 0.5:
            scale, shift = rng.uniform(-self.intensity, self.intensity, 2)
            image = (image * (1 + float(scale)) + float(shift)).clamp(0, 1)
        return image


def collate_views(views: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Stack images; line the prompts of all views up one after another, N = views x targets."""
    batch: dict[str, Any] = {"image": torch.stack([v["image"] for v in views])}
    for key in ("masks", "points", "point_labels", "boxes"):
        batch[key] = torch.cat([v[key] for v in views])
    if "classes" in views[0]:
        batch["classes"] = torch.stack([v["classes"] for v in views])
    batch["draw"] = views[0]["draw"]
    batch["names"] = [name for v in views for name in v["names"]]
    return batch


@exit_on_error()
def load_cases(
    datalist: str | Path | Sequence[str | Path],
    split: str | None,
    transform: Callable[[dict[str, Any]], dict[str, Any]],
) -> list[dict[str, Any]]:
    """``read_datalist`` and ``prepare_cases`` as a step of a config.

    Raises:
        SystemExit: one line, for a datalist that cannot be used.
    """
    return prepare_cases(read_datalist(datalist, split), transform)


def prepare_cases(
    datalist: Sequence[dict[str, Any]], transform: Callable[[dict[str, Any]], dict[str, Any]]
) -> list[dict[str, Any]]:
    """Run the deterministic transforms once and keep the results compactly in memory; a bad case is left out.

    Raises:
        ValueError: where no case is left.
    """
    prepared = []
    for case in tqdm(datalist, desc="load cases", unit="case"):
        try:
            data = transform(dict(case))
        except (ValueError, RuntimeError) as error:
            logger.warning("left out %s: %s", case["image"], " ".join(str(error.__cause__ or error).split()))
            continue
        image, label = (convert_to_tensor(data[key], track_meta=False) for key in ("image", "label"))
        prepared.append(
            {
                "image": image.half(),
                "label": label,
                "labels": case["labels"],
                "complete": case.get("complete", False),
            }
        )
    if not prepared:
        raise ValueError(f"datalist: none of its {len(datalist)} cases can be used")
    return prepared


class _Case:
    """One prepared volume with the voxels that a view may be centred on."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.image = case["image"][0]
        label = case["label"][0]
        self.label = label.to(torch.uint8 if label.max() < 256 else torch.int16)
        self.names = {int(v): str(name) for v, name in case["labels"].items()}
        self.complete = bool(case.get("complete", False))
        array, rng = self.label.numpy(), np.random.default_rng(0)
        self._voxels = []
        for value in self.names:
            flat = np.flatnonzero(array == value)
            if len(flat):
                picked = rng.choice(flat, min(256, len(flat)), replace=False)
                self._voxels.append(np.stack(np.unravel_index(picked, array.shape), axis=1))

    def voxel(self, rng: np.random.Generator) -> np.ndarray:
        """A voxel of a random structure; the middle where nothing is labelled."""
        if not self._voxels:
            return np.array(self.image.shape) // 2
        return rng.choice(self._voxels[int(rng.integers(len(self._voxels)))])


def _rows(table: TextTable, cases: Iterable[_Case]) -> dict[str, int]:
    """The row of every name of the cases that the table knows."""
    with exit_on_error():
        if not isinstance(table, TextTable):
            raise ValueError("dense_weight needs a closed list of names, which --size small has; base takes any text")
    rows = {}
    for name in {name for case in cases for name in case.names.values()}:
        with contextlib.suppress(ValueError):
            rows[name] = table.names.index(table.resolve(name))
    return rows


def _cases_of(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise ValueError(f"datalist: {path} does not exist")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"datalist: {path} cannot be read as JSON ({error})") from error
    if not isinstance(content, dict) or not isinstance(content.get("cases"), list):
        raise ValueError(f'datalist: {path} is not of the form {{"cases": [...]}}')
    for number, case in enumerate(content["cases"], start=1):
        if not isinstance(case, dict) or not {"image", "label", "labels"} <= case.keys():
            raise ValueError(f"datalist: case {number} of {path} lacks image, label or labels")
    return [
        {**case, "image": str(path.parent / case["image"]), "label": str(path.parent / case["label"])}
        for case in content["cases"]
    ]


def _split(total: int) -> tuple[int, int]:
    return int(total) // 2, int(total) - int(total) // 2
