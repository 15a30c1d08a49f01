"""Scores of what the model drew against what was saved as final."""

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
from monai.transforms import LoadImage
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.scoring import ScoringMethod

logger = logging.getLogger(__name__)


class DicePerLabel(ScoringMethod):
    """Dice of every value that either label map has; the stock score takes several labels for one mask."""

    def __init__(self) -> None:
        super().__init__("Dice of the submitted label map with the one that the model drew, per value")

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, dict[str, float]]:
        """Score every image that has both; the scores are kept in the image's info.

        Args:
            request: ``y`` and ``y_pred``, the tags of truth and prediction.
            datastore: where both lie.

        Returns:
            image id -> value -> Dice, with the mean under ``mean``.
        """
        tags = request.get("y") or DefaultLabelTag.FINAL, request.get("y_pred") or DefaultLabelTag.ORIGINAL
        scores = {}
        for image in datastore.list_images():
            labels = [datastore.get_label_by_image_id(image, tag) for tag in tags]
            if not all(labels):
                continue
            truth, drawn = (
                np.asarray(LoadImage(image_only=True)(datastore.get_label_uri(label, tag)))
                for label, tag in zip(labels, tags, strict=True)
            )
            if truth.shape != drawn.shape:
                logger.warning("an image's labels lie on different grids and are not scored")
                continue
            scores[image] = dice_per_value(truth, drawn)
            datastore.update_image_info(image, {"dice": scores[image]})
        return scores


def dice_per_value(truth: np.ndarray, drawn: np.ndarray) -> dict[str, float]:
    """Dice of each value above 0 that either label map has, and their ``mean``; two empty maps have none."""
    values = sorted((set(np.unique(truth)) | set(np.unique(drawn))) - {0})
    dice = {}
    for value in values:
        one, other = truth == value, drawn == value
        dice[str(int(value))] = float(2 * (one & other).sum() / (one.sum() + other.sum()))
    return {**dice, "mean": float(np.mean(list(dice.values())))} if dice else {}
