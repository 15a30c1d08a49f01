"""Points and boxes are drawn from masks as promised."""

import numpy as np
import torch
from scripts.training.sampling import sample_box, sample_points, sample_pseudo_box


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def cube(shape: tuple[int, ...] = (12, 20, 16)) -> torch.Tensor:
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[3:8, 5:15, 4:9] = True
    return mask


def test_points_lie_where_their_labels_say():
    mask, seen = cube(), set()
    for seed in range(200):
        points, labels = sample_points(mask, rng(seed), (0, 4), (0, 3), single=0.5)
        assert points.shape == (8, 3) and points.dtype == torch.float32
        assert labels.shape == (8,) and labels.dtype == torch.int64
        inside = mask[tuple(points.long().T)]
        assert inside[labels == 1].all() and not inside[labels == 0].any() and not points[labels == -1].any()
        seen.add((int((labels == 1).sum()), int((labels == 0).sum())))
    assert {positive for positive, _ in seen} == {1, 2, 3, 4, 5} and {negative for _, negative in seen} == {0, 1, 2, 3}


def test_a_share_of_the_draws_is_one_click():
    drawn = [sample_points(cube(), rng(seed), (2, 4), (1, 3), single=0.3)[1] for seed in range(300)]
    alone = [int((labels >= 0).sum()) == 1 for labels in drawn]
    assert 0.2 < np.mean(alone) < 0.4
    others = [labels for labels, single in zip(drawn, alone, strict=True) if not single]
    assert {int((labels == 1).sum()) for labels in others} == {3, 4, 5}
    assert {int((labels == 0).sum()) for labels in others} == {1, 2, 3}


def test_every_voxel_of_a_mask_may_be_clicked():
    mask = torch.zeros(3, 3, 3, dtype=torch.bool)
    mask[1, 1, :], mask[0, 0, 0] = True, True
    clicked = {tuple(sample_points(mask, rng(seed), (0, 0), (0, 0))[0][0].tolist()) for seed in range(100)}
    assert clicked == {tuple(map(float, place)) for place in mask.nonzero().tolist()}


def test_an_empty_mask_has_no_points_and_no_box():
    points, labels = sample_points(torch.zeros(4, 5, 6, dtype=torch.bool), rng(), (0, 2), (0, 2))
    assert not points.any() and (labels == -1).all() and len(labels) == 5
    assert sample_box(torch.zeros(4, 5, 6, dtype=torch.bool), rng(), 0.1).tolist() == [0] * 6


def test_a_full_mask_has_no_negative_points():
    for seed in range(20):
        points, labels = sample_points(torch.ones(4, 5, 6, dtype=torch.bool), rng(seed), (0, 2), (0, 5))
        assert 0 not in labels and len(points) == 8


def test_without_jitter_a_box_is_the_bounding_box():
    for seed in range(5):
        assert sample_box(cube(), rng(seed), 0).tolist() == [3, 5, 4, 7, 14, 8]


def test_a_jittered_box_moves_by_its_share_and_stays_in_the_volume():
    boxes = np.array([sample_box(cube(), rng(seed), 0.3).numpy() for seed in range(300)])
    exact, reach = np.array([3, 5, 4, 7, 14, 8]), 0.3 * np.array([5, 10, 5] * 2)
    assert boxes.dtype == np.float32 and np.array_equal(boxes, np.rint(boxes))
    assert (np.abs(boxes - exact) <= np.rint(reach)).all()
    assert (np.abs(boxes - exact).max(axis=0) >= 1).all() and len(np.unique(boxes, axis=0)) > 100
    wild = np.array([sample_box(cube(), rng(seed), 5).numpy() for seed in range(200)])
    assert (wild[:, :3] >= 0).all() and (wild[:, 3:] < (12, 20, 16)).all() and (wild[:, :3] <= wild[:, 3:]).all()


def test_a_pseudo_box_takes_in_what_lies_in_it_by_more_than_nine_tenths():
    regions = torch.zeros(4, 10, 30, dtype=torch.int16)
    regions[1:3, 2:8, 2:20] = 1
    regions[1:3, 4:6, 5:10] = 2  # within 1, and so in its box
    regions[1, 2:4, 11:30] = 3  # 9 of 19 in each row
    regions[2, 7, 10:20] = 4
    regions[3, 7, 10] = 4  # 10 of 11 voxels in the box: 0.909
    regions[2, 2, 11:20] = 5
    regions[0, 2, 11] = 5  # 9 of 10: not more than 0.9
    box, mask = sample_pseudo_box(regions, 1, rng(), 0)
    assert box.tolist() == [1, 2, 2, 2, 7, 19]
    assert torch.equal(mask, torch.isin(regions, torch.tensor([1, 2, 4])))


def test_a_pseudo_box_keeps_its_own_mask_however_far_it_is_jittered():
    regions = torch.zeros(6, 10, 12, dtype=torch.int16)
    regions[1:5, 2:8, 3:9] = 1
    for seed in range(30):
        _, mask = sample_pseudo_box(regions, 1, rng(seed), 0.4)
        assert torch.equal(mask, regions == 1)


def test_prompts_stay_on_the_device_of_the_mask_and_are_the_same_on_each():
    device = "cuda" if torch.cuda.is_available() else "cpu"
    here, there = cube(), cube().to(device)
    for a, b in zip(
        sample_points(here, rng(1), (0, 4), (0, 4)), sample_points(there, rng(1), (0, 4), (0, 4)), strict=True
    ):
        assert b.device.type == device and torch.equal(a, b.cpu())
    assert torch.equal(sample_box(here, rng(1), 0.2), sample_box(there, rng(1), 0.2).cpu())
    box, mask = sample_pseudo_box(there.short(), 1, rng(1), 0.2)
    assert box.device.type == mask.device.type == device


def test_points_are_those_that_lists_of_all_voxels_would_give():
    generator = torch.Generator().manual_seed(0)
    for seed in range(100):
        mask = torch.rand(3, 5, 4, generator=generator) < (0.02, 0.3, 0.9, 1)[seed % 4]
        points, labels = sample_points(mask, rng(seed), (3, 3), (6, 6))
        draws = rng(seed)
        draws.random(), draws.integers(3, 4), draws.integers(6, 7)
        shares = draws.random(len(points))
        inside, outside = mask.nonzero().tolist(), (~mask).nonzero().tolist()
        if not inside:
            assert (labels == -1).all()
            continue
        expected = [inside[int(share * len(inside))] for share in shares[:4]]
        expected += [outside[int(share * len(outside))] for share in shares[4 : 4 + min(6, len(outside))]]
        assert points[labels >= 0].tolist() == expected
        box = [*mask.nonzero().amin(dim=0).tolist(), *mask.nonzero().amax(dim=0).tolist()]
        assert sample_box(mask, rng(), 0).tolist() == box
