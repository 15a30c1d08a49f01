"""Which windows a target gets and what is left of its prompt there, without a network."""

import numpy as np
import pytest
import torch
from monai.data.utils import dense_patch_slices
from scripts.plans import (
    NOTHING_FOUND,
    plan_fit,
    plan_published,
    plan_sliding_window,
    plan_zoom,
    published_zoom_out_prompt,
)
from scripts.prompts import Prompt, box_of
from scripts.windows import CoarseView, slices
from torch.nn import functional as F

SIZE = (8, 16, 16)
BASE = (32, 256, 256)
NOWHERE = [[-1, -1, -1], [-1, -1, -1]]


def coarse(shape: tuple[int, ...], *boxes: list[list[int]], resize: str = "nearest", size=SIZE) -> CoarseView:
    """A view that found these boxes of the zoom-out grid."""
    logits = torch.full(size, -1.0)
    for box in boxes:
        logits[slices(np.array(box))] = 1
    return CoarseView(logits, shape, resize)


@pytest.mark.parametrize(
    ("shape", "found", "windows"),
    [
        ((1200, 512, 512), [[0, 120, 120], [31, 136, 136]], 74),  # a spine: 1200 slices, one window across
        ((1200, 512, 512), [[15, 120, 120], [15, 136, 136]], 2),  # 38 slices of it
        ((1200, 512, 512), [[0, 0, 0], [31, 255, 255]], 74 * 3 * 3),
        ((40, 512, 512), [[4, 100, 100], [20, 140, 140]], 1),  # a kidney in thick slices
        ((12, 2000, 130), [[0, 10, 0], [31, 250, 255]], 14),
        ((1, 1, 1), [[0, 0, 0], [31, 255, 255]], 1),
    ],
)
def test_windows_of_huge_thin_and_tiny_volumes(shape, found, windows):
    view = coarse(shape, found, resize="nearest-exact", size=BASE)
    assert len(plan_zoom(Prompt("spine"), view, shape, BASE, 0.5).steps) == windows


def test_windows_between_two_finds_are_left_out():
    shape = (8, 16, 160)
    view = coarse(shape, [[2, 2, 0], [4, 9, 0]], [[2, 2, 15], [4, 9, 15]], resize="nearest-exact")
    plan = plan_zoom(Prompt("both"), view, shape, SIZE, 0.5)
    assert [window.start[2] for window, _ in plan.steps] == [0, 8, 136, 144]
    assert plan.steps[0][1].box.tolist() == [[2, 2, 0], [4, 9, 9]]
    assert plan.steps[3][1].box.tolist() == [[2, 2, 6], [4, 9, 15]]


def test_a_fitted_view_takes_half_as_much_again_and_never_less_than_a_window():
    shape = (40, 160, 160)
    prompt = Prompt("box", box=np.array([[10.0, 40, 60], [29, 119, 63]]))
    plan = plan_fit(prompt, coarse(shape), shape, SIZE)
    extent, local = plan.fitted
    assert extent.tolist() == [[5, 20, 54], [34, 139, 69]] and not plan.steps
    assert plan.within.tolist() == [[10, 40, 60], [29, 119, 63]]
    (d0, h0, w0), (d1, h1, w1) = local.box
    assert (w0, w1) == (6, 9)  # at full resolution along the last axis
    assert 1 <= d0 <= 2 and 5 <= d1 <= 6 and 2 <= h0 <= 3 and 12 <= h1 <= 13


def test_a_fitted_view_stays_in_the_volume_and_shows_the_whole_of_a_small_one():
    for shape in ((3, 100, 16), (8, 16, 16), (1, 1, 1)):
        last = [n - 1 for n in shape]
        plan = plan_fit(Prompt("box", box=np.array([last, last], dtype=float)), coarse(shape), shape, SIZE)
        extent = plan.fitted[0]
        assert (extent[0] >= 0).all() and extent[1].tolist() == last
        assert (extent[1] - extent[0] + 1).tolist() == [min(n, s) for n, s in zip(shape, SIZE, strict=True)]


def test_a_fitted_view_follows_the_coarse_mask_or_else_the_clicks():
    shape = (8, 160, 160)
    text = Prompt("liver", text="liver")
    found = plan_fit(text, coarse(shape, [[0, 2, 2], [7, 5, 5]], resize="nearest-exact"), shape, SIZE)
    assert found.fitted[0].tolist() == [[0, 10, 10], [7, 69, 69]] and found.fitted[1].box is not None
    assert plan_fit(text, coarse(shape), shape, SIZE).message == NOTHING_FOUND
    points, labels = np.array([[4.0, 80, 80], [4, 100, 90], [0, 0, 0]]), np.array([1, 1, 0])
    clicked = plan_fit(Prompt("it", points=points, point_labels=labels), coarse(shape), shape, SIZE)
    (d0, h0, w0), (d1, h1, w1) = clicked.fitted[0]
    assert (h0, h1) == (74, 105) and w0 <= 80 and w1 >= 90 and (d0, d1) == (0, 7)
    assert clicked.fitted[1].point_labels.tolist() == [1, 1] and clicked.fitted[1].box is None


@pytest.mark.parametrize("shape", [(8, 16, 16), (20, 48, 40), (3, 100, 16), (9, 17, 129)])
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.5, 0.75])
def test_a_sliding_window_lies_as_the_stock_one(shape, overlap):
    plan = plan_sliding_window(Prompt("liver"), True, shape, SIZE, overlap)
    padded = [max(n, w) for n, w in zip(shape, SIZE, strict=True)]
    stock = dense_patch_slices(padded, SIZE, [max(1, int(w * (1 - overlap))) for w in SIZE])
    front = [(w - n) // 2 if n < w else 0 for n, w in zip(shape, SIZE, strict=True)]
    expected = [tuple(s.start - f for s, f in zip(cut, front, strict=True)) for cut in stock]
    assert [window.start for window, _ in plan.steps] == expected


def test_published_windows_start_where_the_roi_starts_and_see_nothing_beyond_it():
    shape = (16, 64, 64)
    plan = plan_published(Prompt("x"), coarse(shape, [[2, 4, 4], [4, 8, 6]]), shape, SIZE, 0.5)
    # found: 4 to 9, 16 to 35, 16 to 27; ROI: 3 to 10, 16 to 35, 14 to 29
    assert [window.start for window, _ in plan.steps] == [(3, 16, 14), (3, 20, 14)]


def test_a_published_roi_shorter_than_the_window_is_padded_even_inside_the_volume():
    shape = (8, 16, 23)
    plan = plan_published(Prompt("x"), coarse(shape, [[2, 4, 4], [4, 8, 6]]), shape, SIZE, 0.5)
    # found: 2 to 4, 4 to 8, 6 to 10; ROI: 0 to 6, 0 to 13, 1 to 15, hence 1, 2 and 1 voxels short
    ((window, _),) = plan.steps
    assert (window.start, window.first, window.last) == ((0, -1, 1), (0, 0, 1), (6, 13, 15))


def test_published_text_alone_gets_no_box_and_many_windows_ignore_the_users_box():
    shape = (8, 16, 160)
    view = coarse(shape, [[2, 2, 0], [4, 9, 0]], [[2, 2, 15], [4, 9, 15]])
    assert all(local.box is None for _, local in plan_published(Prompt("x"), view, shape, SIZE, 0.5).steps)
    boxed = plan_published(Prompt("x", box=[[0, 0, 0], [7, 15, 159]]), view, shape, SIZE, 0.5).steps
    assert len(boxed) == 19
    assert boxed[0][1].box.tolist() == [[2, 3, 0], [4, 10, 9]]  # the window is padded by a row in front
    assert boxed[2][1].box.tolist() == NOWHERE


def test_published_points_are_the_positives_in_the_window_with_the_coarse_box():
    shape = (8, 16, 40)
    prompt = Prompt("x", points=[[3, 5, 18], [3, 12, 20], [1, 1, 39]], point_labels=[1, 0, 1])
    ((window, local),) = plan_published(prompt, coarse(shape, [[2, 2, 6], [4, 9, 8]]), shape, SIZE, 0.5).steps
    assert window.start == (0, -1, 11)
    assert local.points.tolist() == [[3, 6, 7]]
    assert local.point_labels.tolist() == [1]
    assert local.box.tolist() == [[2, 3, 4], [4, 10, 11]]


def test_a_published_box_counts_from_the_roi_even_in_a_padded_window():
    shape = (4, 10, 40)
    prompt = Prompt("x", box=[[1, 2, 15], [3, 8, 22]])
    ((window, local),) = plan_published(prompt, coarse(shape, [[0, 0, 6], [7, 15, 8]]), shape, SIZE, 0.5).steps
    assert window.start[:2] == (-2, -3)
    mask = torch.zeros(1, 1, *shape)
    mask[(..., *slices(np.array(prompt.box, dtype=int)))] = 1
    grid = box_of(F.interpolate(mask, size=SIZE, mode="nearest-exact")[0, 0].numpy())
    raster = torch.zeros(1, 1, *SIZE)
    raster[(..., *slices(grid))] = 1
    back = F.interpolate(raster, size=shape, mode="nearest")[0, 0].numpy()
    assert local.box.tolist() == box_of(back[slices(window.extent)]).tolist()


def test_the_published_zoom_out_box_is_the_resized_raster_of_the_users():
    rng = np.random.default_rng(2)
    for _ in range(300):
        shape = tuple(int(n) for n in rng.integers(1, 50, 3))
        box = np.sort(rng.integers(0, shape, (2, 3)), axis=0)
        mask = torch.zeros(1, 1, *shape)
        mask[(..., *slices(box))] = 1
        expected = box_of(F.interpolate(mask, size=SIZE, mode="nearest-exact")[0, 0].numpy())
        found = published_zoom_out_prompt(Prompt("x", box=box), shape, SIZE).box
        assert (found >= 0).all()
        assert (found < SIZE).all()
        assert expected is None or found.tolist() == expected.tolist()
