"""Scores of what was drawn against what was saved as final, value by value."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from lib.local_store import SegVolLocalStore
from lib.results import write_result
from lib.scoring import DicePerLabel, dice_per_value

pytestmark = pytest.mark.usefixtures("scratch")

TRUTH = np.zeros((6, 5, 4), np.uint8)
TRUTH[:2], TRUTH[4:] = 1, 2
DRAWN = np.zeros((6, 5, 4), np.uint8)
DRAWN[1:3], DRAWN[4:] = 1, 2


def test_each_value_has_its_own_dice():
    assert dice_per_value(TRUTH, DRAWN) == {"1": 0.5, "2": 1.0, "mean": 0.75}


def test_a_value_that_only_one_of_them_has_counts_0():
    assert dice_per_value(TRUTH, TRUTH * (TRUTH == 1)) == {"1": 1.0, "2": 0.0, "mean": 0.5}


def test_two_empty_maps_have_no_score():
    assert dice_per_value(TRUTH * 0, TRUTH * 0) == {}


@pytest.fixture
def store(tmp_path: Path) -> SegVolLocalStore:
    """Three images: scored, without a prediction, and with one on another grid."""
    folder = tmp_path / "studies"
    folder.mkdir()
    for name in ("scored", "bare", "other"):
        nib.save(nib.Nifti1Image(TRUTH.astype(np.int16), np.eye(4)), folder / f"{name}.nii.gz")
    store = SegVolLocalStore(str(folder), extensions=["*.nii.gz", "*.nrrd"], auto_reload=False)
    save(store, "scored", TRUTH, "final", ".nrrd")
    save(store, "scored", DRAWN, "original", ".nii.gz")
    save(store, "bare", TRUTH, "final", ".nrrd")
    save(store, "other", TRUTH, "final", ".nrrd")
    save(store, "other", DRAWN[1:], "original", ".nrrd")
    return store


def save(store: Any, image: str, label: np.ndarray, tag: str, extension: str) -> None:
    store.save_label(image, str(write_result(label, np.eye(4), {"result_extension": extension})), tag, {})


def test_images_with_both_labels_on_one_grid_are_scored(store):
    assert DicePerLabel()({}, store) == {"scored": {"1": 0.5, "2": 1.0, "mean": 0.75}}


def test_the_scores_are_kept_with_the_image(store):
    DicePerLabel()({}, store)
    assert store.get_image_info("scored")["dice"]["mean"] == 0.75
    assert "dice" not in store.get_image_info("bare")


def test_other_tags_can_be_compared(store):
    save(store, "bare", TRUTH, "second", ".nrrd")
    assert DicePerLabel()({"y": "final", "y_pred": "second"}, store) == {"bare": {"1": 1.0, "2": 1.0, "mean": 1.0}}
