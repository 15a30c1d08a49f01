"""Windows cover what they must, stay inside, overlap enough, recur; small-grid answers equal full-size ones."""

from itertools import product

import numpy as np
import pytest
import torch
from monai.data.utils import dense_patch_slices
from scripts.prompts import box_of
from scripts.windows import (
    CoarseView,
    Window,
    axis_starts,
    dense_starts,
    meet,
    nearest_map,
    published_range,
    scan_interval,
    slices,
    voxels_of,
    whole,
)
from torch.nn import functional as F

OVERLAPS = [0.0, 0.25, 0.5, 0.6, 0.75, 0.9]


def random_axes(count: int) -> list[tuple[int, int, int, int, float]]:
    """Extent, window, size and overlap, by chance and at every edge."""
    rng = np.random.default_rng(7)
    axes = []
    for _ in range(count):
        size, window = (int(n) for n in rng.integers(1, [400, 80]))
        a, b = sorted(int(n) for n in rng.integers(0, size, 2))
        axes.append((a, b, window, size, float(rng.choice(OVERLAPS))))
    edges = product(((0, 0), (39, 39), (0, 39), (20, 21)), (1, 2, 3, 16, 39, 40, 41), OVERLAPS)
    return axes + [(a, b, window, 40, overlap) for (a, b), window, overlap in edges]


AXES = random_axes(3000)


def test_windows_cover_the_extent_inside_the_volume_with_the_overlap():
    for axis in AXES:
        a, b, window, size, overlap = axis
        for snap in (True, False):
            starts = axis_starts(*axis, snap=snap)
            if size < window:
                assert starts == [-((window - size) // 2)], axis
                continue
            assert starts[0] <= a, axis
            assert starts[-1] + window > b, axis
            assert starts[0] >= 0, axis
            assert starts[-1] + window <= size, axis
            steps = np.diff(starts)
            assert (steps > 0).all(), axis
            assert (steps <= scan_interval(window, overlap)).all(), axis


def test_snapping_never_costs_a_window_and_leaves_the_grid_only_for_exact_starts():
    snapped = 0
    for axis in AXES:
        a, b, window, size, overlap = axis
        starts, exact = axis_starts(*axis), axis_starts(*axis, snap=False)
        assert len(starts) == len(exact), axis
        on_grid = all(start % max(1, window // 4) == 0 or start == size - window for start in starts)
        assert on_grid or starts == exact, axis
        snapped += on_grid
    assert snapped > len(AXES) / 2


def test_as_few_windows_as_the_overlap_allows():
    for a, b, window, size, overlap in AXES:
        if size >= window:
            reach = window + (len(axis_starts(a, b, window, size, overlap)) - 2) * scan_interval(window, overlap)
            assert len(axis_starts(a, b, window, size, overlap)) == 1 or reach < b - a + 1


@pytest.mark.parametrize(
    ("extent", "starts"),
    [
        ((100, 200), [0]),  # centred would be 22
        ((300, 300), [192]),  # centred would be 172
        ((60, 320), [0, 128]),
        ((440, 500), [256]),  # flush with the end
        ((250, 505), [250]),  # as long as a window: it stays where it is
    ],
)
def test_windows_snap_to_the_quarters_nearest_to_centred_where_they_can(extent, starts):
    assert axis_starts(*extent, window=256, size=512, overlap=0.5) == starts


def test_neighbouring_prompts_meet_in_the_same_window():
    assert {tuple(axis_starts(a, a + 40, 256, 512, 0.5)) for a in range(190, 250)} == {(64,), (128,)}
    assert len({tuple(axis_starts(a, a + 40, 256, 512, 0.5, snap=False)) for a in range(190, 250)}) == 60


def test_a_snapped_window_may_lie_flush_with_an_end_off_the_grid():
    assert axis_starts(480, 509, 256, 510, 0.5) == [254]
    assert axis_starts(200, 509, 256, 510, 0.5) == [192, 254]


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_dense_starts_are_those_of_the_stock_sliding_window(overlap):
    for size in (16, 17, 40, 99, 128):
        interval = scan_interval(16, overlap)
        stock = dense_patch_slices((size,), (16,), (interval,), return_slice=False)
        assert dense_starts(0, size - 1, 16, interval) == [int(start[0]) for start in np.asarray(stock)[..., 0]]


def test_the_published_range_grows_evenly_and_is_clipped():
    assert published_range(10, 20, 32, 100) == (0, 30)
    assert published_range(50, 60, 32, 100) == (40, 70)  # 31 long: an odd extent leaves it a voxel short
    assert published_range(50, 61, 32, 100) == (40, 71)
    assert published_range(95, 99, 32, 100) == (82, 99)
    assert published_range(10, 90, 32, 100) == (10, 90)


@pytest.mark.parametrize("shape", [(1, 7, 5), (3, 4, 16), (20, 9, 11), (8, 8, 8), (64, 31, 40)])
@pytest.mark.parametrize("start", [(0, 0, 0), (-2, 0, -1), (0, -3, 1)])
def test_a_cut_shows_the_volume_and_zero_around_it(shape, start):
    image = torch.rand((1, 1, *shape)) + 1
    window = Window.at(start, (8, 8, 8), whole(shape))
    padded = F.pad(image, [16] * 6)
    expected = padded[(..., *(slice(16 + s, 24 + s) for s in start))]
    assert torch.equal(window.cut(image, (8, 8, 8)), expected)
    pasted = torch.zeros(shape)
    pasted[window.in_volume] = expected[0, 0][window.in_window]
    assert pasted.count_nonzero() == expected.count_nonzero()
    assert torch.equal(pasted[pasted > 0], image[0, 0][pasted > 0])


@pytest.mark.parametrize("resize", ["nearest", "nearest-exact"])
def test_index_maps_equal_torchs_three_dimensional_resize(resize):
    for n in (1, 3, 8, 32):
        for m in range(1, 90):
            cube = torch.arange(n, dtype=torch.float32)[None, None, :, None, None].expand(1, 1, n, 2, 3)
            expected = F.interpolate(cube, size=(m, 3, 2), mode=resize)[0, 0, :, 0, 0]
            assert nearest_map(n, m, resize).tolist() == expected.tolist()


@pytest.mark.parametrize("resize", ["nearest", "nearest-exact"])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (8, 9, 10), (13, 40, 31), (64, 9, 100)])
def test_a_coarse_view_knows_the_full_size_mask(shape, resize):
    rng = np.random.default_rng(3)
    for density in (0.0, 0.004, 0.05, 0.5):
        logits = torch.from_numpy(rng.random((8, 9, 10)) - 1 + density)
        coarse = CoarseView(logits, shape, resize)
        full = F.interpolate(logits[None, None], size=shape, mode=resize)[0, 0]
        assert torch.equal(coarse.full_size(), full)
        for _ in range(20):
            within = np.sort(rng.integers(0, shape, (2, 3)), axis=0)
            inside = box_of((full > 0).numpy()[slices(within)])
            expected = None if inside is None else (inside + within[0]).tolist()
            found = coarse.extent(within)
            assert (found if found is None else found.tolist()) == expected


def test_extents_meet_or_do_not():
    one = np.array([[0, 0, 0], [4, 4, 4]])
    assert meet(one, one + 4).tolist() == [[4, 4, 4], [4, 4, 4]]
    assert meet(one, one + [0, 5, 0]) is None


def test_the_voxels_of_a_box_are_never_none_and_the_same_seen_from_the_other_side():
    rng = np.random.default_rng(5)
    boxes = np.sort(np.round(rng.uniform(-1, 9, (2000, 2, 3)), 1), axis=1)
    for box in boxes:
        extent = voxels_of(box)
        assert (extent[0] <= extent[1]).all()
        assert np.array_equal(9 - voxels_of(9 - box[::-1])[::-1], extent)
    assert voxels_of(np.array([[1, 2.4, 2.6], [1, 2.4, 4.4]])).tolist() == [[1, 2, 3], [1, 2, 4]]
