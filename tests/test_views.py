"""Views are drawn from cases as promised, with prompts that belong to what they show."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from scripts.data.storage.store import open_case, write_case
from scripts.training.datasets import PromptedViews, collate_views
from scripts.training.prepared import PreparedCase
from scripts.training.views import View, draw_view, nearest_voxels
from torch.nn import functional as F

ROI = (8, 12, 10)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def case(**more: Any) -> dict[str, Any]:
    """A volume whose intensity says where a voxel is labelled: 0.5 and 1 in the structures, little noise elsewhere."""
    label = torch.zeros(1, 16, 24, 20, dtype=torch.float32)
    label[0, 2:8, 3:12, 4:10] = 1
    label[0, 9:14, 13:22, 11:18] = 2
    image = label / 2 + 0.1 * torch.rand(label.shape, generator=torch.Generator().manual_seed(0)) * (label == 0)
    return {"image": image.half(), "label": label, "labels": {"1": "liver", "2": "spleen", "9": "aorta"}} | more


def of(*cases: dict[str, Any], **more: Any) -> PromptedViews:
    return PromptedViews([PreparedCase.of_tensors(each) for each in cases], ROI, **{"length": 40, "seed": 3} | more)


def views(**more: Any) -> PromptedViews:
    return of(case(), **more)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key] for key in a)


def test_a_view_has_its_shapes_and_types():
    data = views(targets=3, max_points=3)
    view = data[0]
    assert len(data) == 40
    assert view["image"].shape == (1, *ROI) and view["image"].dtype == torch.float32
    assert view["masks"].shape == (3, 1, *ROI) and view["masks"].dtype == torch.bool
    assert view["points"].shape == (3, 7, 3) and view["point_labels"].shape == (3, 7)
    assert view["boxes"].shape == (3, 6) and len(view["names"]) == 3 and isinstance(view["draw"], int)
    assert view["image"].min() >= 0 and view["image"].max() <= 1


def test_a_view_is_drawn_from_seed_epoch_and_index_alone():
    data, other = views(), views()
    order = [data[i] for i in (0, 5, 7)], [other[i] for i in (7, 5, 0)][::-1]
    assert all(same(a, b) for a, b in zip(*order, strict=True))
    assert not same(data[0], data[1]) and not same(data[0], views(seed=4)[0])


def test_an_epoch_changes_the_views_and_comes_back():
    data = views()
    first = data[2]
    data.epoch = 1
    assert not same(first, data[2])
    data.epoch = 0
    assert same(first, data[2])


def test_as_a_handler_the_views_follow_the_epochs():
    data, seen = views(), []
    engine = Engine(lambda *_: seen.append(data.epoch))
    data.attach(engine)
    engine.run([0], max_epochs=3)
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("shares", [(1, 0), (0, 1), (0, 0), (0.4, 0.4)])
def test_masks_points_and_boxes_of_a_view_belong_together(shares: tuple[float, float]):
    data = views(whole=shares[0], window=shares[1], jitter=0, intensity=0, absent=0.2)
    values = {"liver": 0.5, "spleen": 1.0}
    for view in (data[i] for i in range(40)):
        for k, name in enumerate(view["names"]):
            mask, labels = view["masks"][k, 0], view["point_labels"][k]
            if name in values:  # the image and its label went the same way
                torch.testing.assert_close(mask, (view["image"][0] - values[name]).abs() < 0.01)
            if not mask.any():
                assert (labels == -1).all() and not view["boxes"][k].any()
                continue
            places = mask.nonzero()
            assert view["boxes"][k].tolist() == [*places.amin(dim=0).tolist(), *places.amax(dim=0).tolist()]
            inside = mask[tuple(view["points"][k].long().T)]
            assert inside[labels == 1].all() and (labels == 1).any() and not inside[labels == 0].any()


def test_a_whole_view_is_the_resized_volume_and_a_window_a_piece_of_it():
    volume = case()["image"][0].float()
    whole = torch.nn.functional.interpolate(volume[None, None], ROI, mode="nearest-exact")[0]
    data = views(whole=1, window=0, intensity=0)
    assert all(torch.equal(data[i]["image"], whole) for i in range(5))
    pieces = volume.unfold(0, ROI[0], 1).unfold(1, ROI[1], 1).unfold(2, ROI[2], 1)
    data = views(whole=0, window=1, intensity=0)
    for i in range(10):
        assert (pieces == data[i]["image"][0]).flatten(3).all(dim=3).any()


def test_a_volume_smaller_than_the_window_is_padded_in_the_middle():
    image = torch.ones(1, 4, 30, 5)
    data = of(case(image=image, label=image), whole=0, window=1, intensity=0, absent=0)
    for i in range(5):
        assert data[i]["image"][0, 2:6, :, 2:7].all() and data[i]["image"].sum() == 4 * 12 * 5
        assert torch.equal(data[i]["masks"][0, 0], data[i]["image"][0] > 0)


def test_structures_that_are_not_in_the_view_are_asked_for_in_their_share():
    for absent, low, high in ((0, 0, 0), (0.5, 0.35, 0.65), (1, 1, 1)):
        data = views(whole=1, window=0, absent=absent)
        assert low <= np.mean([not mask.any() for i in range(100) for mask in data[i]["masks"]]) <= high
    named = {name for i in range(40) for name in views(whole=1, window=0, absent=1)[i]["names"]}
    assert named == {"aorta"}


def test_too_few_voxels_do_not_count_as_present():
    label = torch.zeros(1, 16, 24, 20)
    label[0, 5, 5, 5] = 1
    data = of(case(label=label), whole=0, window=1, absent=0, minimum_voxels=2)
    asked = [(name, mask) for i in range(40) for name, mask in zip(data[i]["names"], data[i]["masks"], strict=True)]
    assert any(name == "liver" for name, _ in asked)  # where the view does not hold that voxel
    assert not any(mask.any() for name, mask in asked if name == "liver")


def test_intensities_change_in_half_of_the_views_and_stay_in_range():
    plain, changed = views(intensity=0), views(intensity=0.2)
    differs = [not torch.equal(plain[i]["image"], changed[i]["image"]) for i in range(40)]
    assert 8 < sum(differs) < 32
    for i in range(40):
        assert torch.equal(plain[i]["masks"], changed[i]["masks"])
        assert changed[i]["image"].min() >= 0 and changed[i]["image"].max() <= 1


def test_all_cases_are_drawn():
    data = of(*(case(labels={"1": name}) for name in ("a", "b", "c")), length=50)
    assert {name for i in range(50) for name in data[i]["names"]} == {"a", "b", "c"}


def test_label_values_above_255_survive():
    label = case()["label"] * 300
    data = of(case(label=label, labels={"300": "a", "600": "b"}), whole=1, window=0, absent=0)
    assert all(mask.any() for i in range(10) for mask in data[i]["masks"])


def test_a_mirrored_view_changes_the_sides_in_its_names():
    sided = case(labels={"1": "left kidney", "2": "liver"})
    plain, mirrored = of(sided, whole=1, window=0, intensity=0), of(sided, whole=1, window=0, intensity=0, flip=1)
    assert torch.equal(plain[0]["image"].flip((1, 2, 3)), mirrored[0]["image"])
    assert {name for i in range(20) for name in mirrored[i]["names"]} == {"right kidney", "liver"}
    named = of(case(labels={"1": "Lesion_left", "2": None}), whole=1, window=0, flip=1, absent=0)
    assert {name for i in range(20) for name in named[i]["names"]} == {"right lesion", None}
    some = of(sided, whole=1, window=0, intensity=0, flip=0.5, length=80)
    images = {tuple(some[i]["image"].flatten().tolist()) for i in range(80)}
    assert len(images) == 8


def test_a_fitted_view_shows_one_structure_with_a_margin():
    label = torch.zeros(1, 60, 80, 100)
    label[0, 20:40, 30:70, 10:80], label[0, 50:53, 2:5, 3:8] = 1, 2
    data = of(case(image=label, label=label), whole=0, window=0, fit=1, absent=0, intensity=0, targets=8)
    shares = []
    for view in (data[i] for i in range(40)):
        for name, mask in zip(view["names"], view["masks"][:, 0], strict=True):
            if name == "liver" and mask.any(dim=1).any(dim=1).sum() > 4:
                shares.append(mask.nonzero().amax(dim=0) - mask.nonzero().amin(dim=0) + 1)
    spans = torch.stack(shares).float() / torch.tensor(ROI)
    assert len(spans) > 20 and 0.4 < spans.mean() < 0.9  # 1 / 1.2 to 1 / 2, or less where it fills the volume
    small = [view for view in (data[i] for i in range(40)) if "spleen" in view["names"]]
    assert any(view["masks"][view["names"].index("spleen")].sum() >= 45 for view in small)  # at full resolution


def test_structures_without_a_name_are_asked_for_where_they_are_and_never_missed():
    data = of(case(labels={"1": None, "2": None, "9": None}), whole=1, window=0, absent=0.5)
    for i in range(20):
        assert data[i]["names"] == [None, None] and data[i]["masks"].flatten(1).any(dim=1).all()


def test_a_case_in_which_nothing_is_labelled_gives_empty_masks():
    view = of(case(labels={}))[0]
    assert view["names"] == [None, None] and not view["masks"].any() and (view["point_labels"] == -1).all()


def pseudo_case() -> dict[str, Any]:
    regions = torch.zeros(1, 16, 24, 20, dtype=torch.int16)
    regions[0, :, :, :2], regions[0, :, 22:, 3:], regions[0, :2, 3:12, 4:10] = 1, 2, 3
    return case(pseudo_mask=regions)


def test_pseudo_masks_are_asked_for_by_points_and_boxes_in_turn():
    data = of(pseudo_case(), pseudo_masks=4, whole=1, window=0, jitter=0, minimum_voxels=1)
    regions = draw_view((16, 24, 20), ROI, None, rng(), 1, 0).of(pseudo_case()["pseudo_mask"][0])
    seen = set()
    for view in (data[i] for i in range(30)):
        assert view["pseudo_point_masks"].shape == view["pseudo_box_masks"].shape == (2, 1, *ROI)
        assert view["pseudo_boxes"].shape == (2, 6) and view["pseudo_points"].shape == (2, 21, 3)
        for mask, points, labels in zip(
            view["pseudo_point_masks"][:, 0], view["pseudo_points"], view["pseudo_point_labels"], strict=True
        ):
            (number,) = regions[mask].unique().tolist()
            assert torch.equal(mask, regions == number)
            seen.add(number)
            inside = mask[tuple(points.long().T)]
            assert inside[labels == 1].all() and not inside[labels == 0].any() and 5 <= (labels == 1).sum() <= 11
        for mask in view["pseudo_box_masks"][:, 0]:
            assert mask.any() and not (mask & (regions == 0)).any()
    assert seen == {1, 2, 3}


def test_a_view_without_pseudo_masks_has_empty_ones():
    data = of(case(pseudo_mask=torch.zeros(1, 16, 24, 20, dtype=torch.int16)), pseudo_masks=2)
    assert not data[0]["pseudo_point_masks"].any() and not data[0]["pseudo_box_masks"].any()
    assert (data[0]["pseudo_point_labels"] == -1).all() and "pseudo_boxes" not in views()[0]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"pseudo_masks": 3}, "pseudo_masks is 3"),
        ({"whole": 0.8, "window": 0.4}, "whole_share 0.8, window_share 0.4 and fit_share 0.0"),
    ],
)
def test_settings_that_cannot_be_are_told_in_one_line(options: dict[str, Any], told: str):
    with pytest.raises(SystemExit, match=told):
        views(**options)


def test_collated_views_line_up_their_prompts():
    data = views(targets=2)
    batch = collate_views([data[0], data[1], data[2]])
    assert batch["image"].shape == (3, 1, *ROI) and batch["masks"].shape == (6, 1, *ROI)
    assert batch["points"].shape[:1] == batch["point_labels"].shape[:1] == batch["boxes"].shape[:1] == (6,)
    assert batch["names"] == [*data[0]["names"], *data[1]["names"], *data[2]["names"]]
    assert torch.equal(batch["boxes"][2:4], data[1]["boxes"]) and batch["draw"] == data[0]["draw"]


# ---------------------------------------------------------------- what a view shows, of memory and of the disk


def resized(view: View, volume: torch.Tensor) -> torch.Tensor:
    """What ``View.of`` stands for, written down: cut, pad, resize to the nearest voxel, mirror."""
    cut = F.pad(volume[tuple(slice(a, b) for a, b in zip(view.start, view.stop, strict=True))], view.padding)
    shown = F.interpolate(cut[None, None].float(), view.roi_size, mode="nearest-exact")[0, 0].flip(view.flips)
    return shown.to(torch.float32 if volume.is_floating_point() else volume.dtype)


@pytest.mark.parametrize("shape", [(21, 50, 43), (5, 60, 9), (3, 4, 5)])
def test_a_view_is_cut_padded_resized_and_mirrored_on_disk_as_in_memory(shape: tuple[int, ...], tmp_path: Path):
    generator = torch.Generator().manual_seed(0)
    volumes = {
        "image": torch.rand(shape, generator=generator).half(),
        "label": torch.randint(0, 200, shape, generator=generator, dtype=torch.uint8),
        "pseudo_mask": torch.randint(0, 30000, shape, generator=generator, dtype=torch.int16),
    }
    write_case(tmp_path / "case", {name: volume.numpy() for name, volume in volumes.items()}, {})
    stored = open_case(tmp_path / "case").grids
    extent = np.array([[1, 2, 2], [2, 3, 4]])
    for seed in range(60):
        roi = tuple(rng(seed).integers(2, 30, 3)) if seed % 2 else ROI
        fits = all(a <= b for a, b in zip(roi, shape, strict=True))
        view = draw_view(shape, roi, None, rng(seed), 0.3, 0.3, 0.4, 0.2, extent if fits else None)
        for name, volume in volumes.items():
            expected = resized(view, volume)
            for shown in (view.of(volume), view.of(stored[name])):
                assert shown.dtype == expected.dtype and torch.equal(shown, expected)
                assert shown.untyped_storage().nbytes() == shown.numel() * shown.element_size()


def test_the_nearest_voxels_are_those_of_torch_in_three_dimensions():
    for length in (*range(1, 66), 99, 128, 300, 511, 512, 640, 1024):
        voxels = torch.arange(length).float()
        for size in (4, 8, 10, 12, 32, 64, 256):
            nearest = torch.from_numpy(nearest_voxels(length, size).copy())
            for axis in range(3):
                volume = voxels.reshape([-1 if axis == other else 1 for other in range(3)])
                window = [size if axis == other else 1 for other in range(3)]
                shown = F.interpolate(volume[None, None], window, mode="nearest-exact").flatten()
                assert torch.equal(shown.long(), nearest)


@pytest.mark.parametrize("size", [32, 64, 256])
def test_for_the_windows_of_the_networks_they_are_what_whole_numbers_give(size: int):
    for length in range(1, 1200):
        assert np.array_equal(nearest_voxels(length, size), np.arange(1, 2 * size, 2) * length // (2 * size))
