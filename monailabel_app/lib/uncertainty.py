"""Active learning: the image whose masks are least certain comes first.

A structure that the model knows well is drawn alike however it is asked for. So each image is encoded once, every
default structure is found by its name, and then asked for again by clicks in that mask and by boxes around it, all a
little different. Where these masks disagree, a label teaches most.
"""

import logging
import zlib
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from numpy.typing import NDArray
from scipy.ndimage import distance_transform_edt

from .engine import Engine, UserMistake
from .local_store import SegVolLocalStore
from .sentence import sentence
from .zoom_out import ZoomOut

logger = logging.getLogger(__name__)

NAME = "segvol_uncertainty"  # of the strategy, of the scoring method and of what they keep with an image
CLICKS = 4
BOXES = 4
JITTER = 0.15  # part of its length by which a side of the box may move
DEEP = 0.5  # clicks go to the deeper part of a mask, as users' do

Mask = NDArray[np.bool_]


class Uncertainty(ScoringMethod):
    """Scores images without a finished label and keeps the scores with them.

    Args:
        engine: encodes the images.
        names: structures to ask for, which the weights know.
    """

    def __init__(self, engine: Engine, names: Sequence[str]) -> None:
        super().__init__("Spread of the masks of each image without a label, over jittered prompts; 0 to 1")
        self._engine = engine
        self._names = tuple(names)

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, float]:
        """Score what has no score by the weights that count.

        Args:
            request: ``limit``, how many images at most.
            datastore: where the images lie.

        Returns:
            image id -> score of those that were scored now.

        Raises:
            HTTPException: 400 and one sentence, for a limit that is none.
        """
        limit = _limit(request.get("limit"))
        scores: dict[str, float] = {}
        for image in sorted(datastore.get_unlabeled_images()):
            if limit is not None and len(scores) >= limit:
                break
            if (score := self._score(image, datastore)) is not None:
                scores[image] = score
        return scores

    def _score(self, image: str, datastore: Datastore) -> float | None:
        """The score of an image, None where it has one already or cannot be read."""
        try:
            path = Path(datastore.get_image_uri(image))
        except Exception as error:  # a series of an archive fails in many ways, and hinders no other
            logger.warning("an image cannot be scored: %s", sentence(error).replace(image, "it"))
            return None
        try:
            known = score_of(datastore.get_image_info(image))
            about = {"weights": self._engine.weights()["sha256"], "content": self._engine.identity(path)}
            if known is not None and {key: known.get(key) for key in about} == about:
                return None
            spreads = spread_of(self._engine.zoom_out(path), self._names)
        except UserMistake as error:
            logger.warning("an image cannot be scored: %s", str(error).replace(path.name, "it"))
            return None
        score = round(mean(spreads.values()), 4) if spreads else 1.0  # a model that finds nothing knows nothing here
        datastore.update_image_info(image, {NAME: {"score": score, **about, "structures": spreads}})
        return score


class LeastCertain(Strategy):
    """Proposes the image with the highest score, the first one while none has a score; computes nothing."""

    def __init__(self) -> None:
        super().__init__(f"Least certain first, by the scores that POST /scoring/{NAME} keeps")

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        """The next image, None where all have a label.

        Scores of different weights cannot be compared: those count that most images have.
        """
        if isinstance(datastore, SegVolLocalStore):
            datastore.reread()
        images = sorted(datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels")))
        if not images:
            return None
        found = {image: score_of(datastore.get_image_info(image)) for image in images}
        scored = {image: score for image, score in found.items() if score is not None}
        if not scored:
            return {"id": images[0]}
        weights = [str(score.get("weights")) for score in scored.values()]
        commonest = max(sorted(set(weights)), key=weights.count)
        scores = {image: float(s["score"]) for image, s in scored.items() if str(s.get("weights")) == commonest}
        best = max(sorted(scores), key=scores.__getitem__)
        return {"id": best, "score": scores[best]}


def score_of(info: Mapping[str, Any]) -> dict[str, Any] | None:
    """What was kept with an image, if it is a score: clients, too, may write into an image's info."""
    kept = info.get(NAME)
    value = kept.get("score") if isinstance(kept, dict) else None
    fits = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1
    return kept if fits else None


def spread_of(view: ZoomOut, names: Sequence[str]) -> dict[str, float]:
    """How much the masks of each structure differ over the prompts, 0 to 1; a structure that is not found has none."""
    spreads = {}
    for name in names:
        mask = view.by_name(name)
        if not mask.any():
            continue
        rng = np.random.default_rng(zlib.crc32(f"{view.identity} {name}".encode()))
        clicks = [view.by_click(click) for click in draw_clicks(mask, CLICKS, rng)]
        boxes = [view.by_box(box) for box in draw_boxes(mask, BOXES, rng)]
        spreads[name] = round(1 - mean(dice(a, b) for a, b in combinations([mask, *clicks, *boxes], 2)), 4)
    return spreads


def draw_clicks(mask: Mask, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(count, 3) voxels in the deeper part of a mask that is not empty."""
    depth = distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1, 1:-1]
    inside = np.argwhere(mask & (depth >= np.quantile(depth[mask], DEEP)))
    return np.asarray(inside[rng.integers(len(inside), size=count)], dtype=float)


def draw_boxes(mask: Mask, count: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """(count, 2, 3) boxes around a mask that is not empty, each side moved in or out; the upper corner is included."""
    voxels = np.argwhere(mask)
    box = np.stack([voxels.min(axis=0), voxels.max(axis=0)]).astype(float)
    moved = box + rng.uniform(-JITTER, JITTER, size=(count, 2, 3)) * (box[1] - box[0] + 1)
    return np.sort(np.clip(np.rint(moved), 0, np.asarray(mask.shape) - 1), axis=1)


def dice(one: Mask, other: Mask) -> float:
    """Dice of two masks; 1 for two empty ones."""
    total = int(one.sum() + other.sum())
    return 2 * int((one & other).sum()) / total if total else 1.0


def _limit(value: Any) -> int | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not str(value).isdecimal() or int(value) < 1:
        raise HTTPException(400, "limit must be a whole number of at least 1")
    return int(value)
