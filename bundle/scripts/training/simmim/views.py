"""Unlabelled images become views with a mask of what is hidden."""

import contextlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from torch.utils.data import Dataset

from ...arguments import exit_on_error
from ..datalist import Paths, read_images
from ..prepared import Preparation, PreparedCase, prepare_cases
from ..views import draw_view
from .masking import Masking

logger = logging.getLogger(__name__)


class UnlabelledViews(Dataset):
    """Random views of images, each with its mask, drawn from (seed, epoch, index) alone.

    Args:
        cases: prepared images; labels are not read.
        masking: draws what is hidden.
        length: views per epoch.
        seed: of all random draws.
        whole: share of views that show the whole volume.
        window: share of views at full resolution; the rest lies between the two.
        flip: probability of mirroring, for each axis.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        masking: Masking,
        length: int,
        seed: int = 0,
        whole: float = 0.4,
        window: float = 0.4,
        flip: float = 0.0,
    ) -> None:
        with exit_on_error():
            if whole < 0 or window < 0 or whole + window > 1:
                raise ValueError(f"whole_share {whole} and window_share {window} are shares of 1")
        self.cases = cases
        self.masking = masking
        self.length = length
        self.seed = seed
        self.shares = whole, window, flip
        self.epoch = 0

    def attach(self, engine: Engine) -> None:
        """As a handler: every epoch draws other views."""
        engine.add_event_handler(Events.EPOCH_STARTED, lambda e: setattr(self, "epoch", e.state.epoch))

    def __len__(self) -> int:
        """Views per epoch."""
        return self.length

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        """``image`` (1, d, h, w) float32 in [0, 1] and ``mask`` (1, d, h, w) bool, True where hidden."""
        rng = np.random.default_rng((self.seed, self.epoch, index))
        case = self.cases[int(rng.integers(len(self.cases)))]
        view = draw_view(case.image.shape, self.masking.window_size, None, rng, *self.shares)
        return {"image": view.of(case.image).unsqueeze(0), "mask": self.masking.draw(rng)}

    def mean(self) -> float:
        """The mean voxel of the images, each of which counts the same: it is drawn as often."""
        return float(np.mean([case.mean() for case in self.cases]))


@exit_on_error()
def load_held_out(
    datalist: Paths,
    train_split: str | None,
    val_split: str | None,
    transform: Preparation,
    cache_dir: str | Path | None,
    trained: UnlabelledViews,
    settings: Mapping[str, Any] | None = None,
) -> Sequence[PreparedCase]:
    """The images of ``val_split`` that are not trained on; where there are none, ``trained``'s own, and a warning.

    Pre-training is mostly given a heap of images without splits. A reconstruction of known images in views that
    training does not draw still tells whether anything is learned.

    Raises:
        SystemExit: one line, for images that cannot be used.
    """
    seen = {case["image"] for case in read_images(datalist, train_split)}
    found = []
    with contextlib.suppress(ValueError):  # of the datalist only this can be wrong now: it has no such split
        found = [case for case in read_images(datalist, val_split) if case["image"] not in seen]
    if not found:
        logger.warning("no image of split %r that is not trained on: validation shows images of training", val_split)
        return trained.cases
    return prepare_cases(found, transform, cache_dir, settings)
