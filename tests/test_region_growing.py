"""Region growing inside a box: which voxels it takes, and what it leaves."""

import numpy as np
import pytest
import torch
from scripts.evaluation.region_growing import RegionGrowingInferer, grow
from scripts.prompts import Prompt


def ball(shape: tuple[int, ...], centre: tuple[int, ...], radius: float) -> np.ndarray:
    away = np.stack(np.meshgrid(*[np.arange(n) - c for n, c in zip(shape, centre, strict=True)], indexing="ij"))
    return np.sqrt((away**2).sum(axis=0)) <= radius


def noisy(mask: np.ndarray, inside: float = 0.6, outside: float = 0.3) -> np.ndarray:
    return np.where(mask, inside, outside) + np.random.default_rng(0).normal(0, 0.02, mask.shape)


def test_a_noisy_ball_in_its_box_is_found() -> None:
    truth = ball((21, 21, 21), (10, 10, 10), 10)
    found = grow(noisy(truth), 2.0, 1 / 3)
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.97


def test_what_is_alike_but_not_connected_is_left_out() -> None:
    image = np.where(ball((21, 21, 21), (10, 10, 10), 6), 0.6, 0.3)
    image[0, 0, 0] = 0.6
    found = grow(image, 2.0, 1 / 3)
    assert found[10, 10, 10] and not found[0, 0, 0]


def test_a_hole_is_filled() -> None:
    truth = ball((21, 21, 21), (10, 10, 10), 9)
    image = np.where(truth, 0.6, 0.3)
    image[9:12, 9:12, 9:12] = 0.9
    assert (grow(image, 2.0, 1 / 3) == truth).all()


def test_it_grows_where_the_middle_of_the_box_is_deepest_not_at_its_very_centre() -> None:
    image = np.full((9, 9, 9), 0.6)
    image[4, 4, 4] = 0.0
    assert grow(image, 2.0, 1 / 3).all()


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 5, 2), (2, 2, 2)])
def test_a_tiny_or_flat_box_gets_a_mask(shape: tuple[int, ...]) -> None:
    assert grow(np.full(shape, 0.5), 2.0, 1 / 3).all()


def test_nothing_is_drawn_outside_the_box_and_every_target_has_its_own_mask() -> None:
    image = torch.full((1, 1, 8, 9, 10), 0.5)
    prompts = [Prompt("a", box=[[1, 2, 3], [4, 5, 6]]), Prompt("b", box=[[0, 0, 0], [0, 8, 9]])]
    report: dict = {}
    masks = RegionGrowingInferer()(image, None, prompts, [None, None], report=report) > 0
    assert masks.shape == (1, 2, 8, 9, 10)
    assert masks[0, 0, 1:5, 2:6, 3:7].all() and masks[0, 0].sum() == 64
    assert masks[0, 1, 0].all() and masks[0, 1].sum() == 90
    assert report == {"encoder_runs": 0, "decoder_runs": 0, "targets": [{"windows": 0, "message": None}] * 2}


def test_a_prompt_without_a_box_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match="^target 'liver' has no box; region_growing takes boxes alone$"):
        RegionGrowingInferer()(torch.zeros(1, 1, 4, 4, 4), None, [Prompt("liver", text="liver")], [None])
