"""Pseudo masks: the regions of a volume, their cleaning, and the transform that puts them beside the true masks."""

import importlib
import itertools
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import PersistentDataset
from scripts.phantom import make_phantom, save_phantom
from scripts.training.felzenszwalb import felzenszwalb
from scripts.training.pseudo_masks import PseudoMasksd, clean_regions, pseudo_mask

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "benchmarks"))

from pseudo_masks import plain_felzenszwalb  # noqa: E402

KINDS = list(itertools.product(("adaptive", "percentile"), ("six", "published")))


def noise(*shape: int, amplitude: float = 1.0, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-amplitude, amplitude, shape).astype(np.float32)


def blocks(*shape: int) -> np.ndarray:
    """Four values, one in each quarter of the (H, W) plane, numbered in the order of their first voxels."""
    index = np.indices(shape)
    return 2 * (index[1] >= shape[1] // 2) + (index[2] >= shape[2] // 2)


def two_things(shape: tuple[int, int, int] = (16, 48, 48)) -> tuple[np.ndarray, np.ndarray]:
    """An image in [0, 1] of two bright blocks in a grey body with air around it, and a label of the first one."""
    image, label = np.zeros(shape, np.float32), np.zeros(shape, np.uint8)
    image[:, 4:-4, 4:-4] = 0.4
    image[4:12, 8:20, 8:20] = 1.0
    image[4:12, 26:40, 26:40] = 0.8
    label[4:12, 8:20, 8:20] = 3
    return image, label


def same_partition(a: np.ndarray, b: np.ndarray) -> bool:
    pairs = set(zip(a.ravel().tolist(), b.ravel().tolist(), strict=True))
    return len(pairs) == len(np.unique(a)) == len(np.unique(b))


# --- segmentation


@pytest.mark.parametrize(("rule", "neighbours"), KINDS)
def test_blocks_are_told_apart_where_the_noise_stays_below_their_contrast(rule: str, neighbours: str):
    expected = blocks(6, 20, 20)
    volume = 10 * expected + noise(*expected.shape, amplitude=0.2)
    labels = felzenszwalb(volume, 1000.0, 0, 20, rule, percentile=90, neighbours=neighbours)
    assert labels.dtype == np.int32 and np.array_equal(labels, expected)


def test_noise_above_the_contrast_hides_the_blocks():
    expected = blocks(6, 20, 20)
    labels = felzenszwalb(0.1 * expected + noise(*expected.shape, amplitude=2.0), 1000.0, 0, 20)
    assert labels.max() == 0


@pytest.mark.parametrize(
    ("scale", "expected"), [(0.9, [0, 0, 1, 2, 3]), (3.5, [0, 0, 1, 1, 1]), (3.8, [0, 0, 1, 1, 1]), (4.0, [0] * 5)]
)
def test_the_adaptive_rule_joins_where_the_edge_is_no_heavier_than_both_regions_allow(scale: float, expected: list):
    """Edges weigh 0.5, 2.3, 1, 1. Two voxels allow 0.5 + scale / 2, three 1 + scale / 3: 2.3 from 3.6 and 3.9 on."""
    volume = np.array([0, 0.5, 2.8, 3.8, 4.8], np.float32).reshape(1, 1, 5)
    assert felzenszwalb(volume, scale, 0, 0).ravel().tolist() == expected


def test_a_whole_number_is_the_same_scale_as_a_decimal_one():
    volume = noise(4, 8, 8)
    assert np.array_equal(felzenszwalb(volume, 1, 0, 0), felzenszwalb(volume, 1.0, 0, 0))
    assert 0 < felzenszwalb(volume, 1, 0, 0).max() < volume.size - 1


def test_the_percentile_rule_joins_below_that_percentile_of_the_edges_that_weigh_anything():
    volume = np.array([0, 0, 1, 3, 6, 10, 15], np.float32).reshape(7, 1, 1)  # 1, 2, 3, 4, 5: the median is 3
    labels = felzenszwalb(volume, 0, 0, 0, "percentile", percentile=50)
    assert labels.ravel().tolist() == [0, 0, 0, 0, 1, 2, 3]


def test_a_region_below_the_minimum_joins_the_neighbour_along_the_lightest_edge():
    volume = np.array([0, 0, 0, 4, 9, 9, 9], np.float32).reshape(1, 7, 1)
    assert felzenszwalb(volume, 0.0, 0, 1).ravel().tolist() == [0, 0, 0, 1, 2, 2, 2]
    assert felzenszwalb(volume, 0.0, 0, 2).ravel().tolist() == [0, 0, 0, 0, 1, 1, 1]


def test_published_neighbours_reach_over_both_diagonals_of_the_axial_plane_and_no_other():
    volume = 10 * np.arange(27, dtype=np.float32).reshape(3, 3, 3) ** 2
    volume[1, 0, 0] = volume[1, 1, 1] = -5
    volume[0, 0, 2] = volume[0, 1, 1] = -9
    volume[2, 2, 2] = -5
    labels = felzenszwalb(volume, 0.0, 0, 0, neighbours="published")
    assert labels[1, 0, 0] == labels[1, 1, 1] != labels[2, 2, 2] and labels[0, 0, 2] == labels[0, 1, 1]
    assert labels.max() == 24 and felzenszwalb(volume, 0.0, 0, 0).max() == 26


@pytest.mark.parametrize(("rule", "neighbours"), KINDS)
@pytest.mark.parametrize("seed", range(3))
def test_the_labels_are_those_of_plain_python(rule: str, neighbours: str, seed: int):
    volume = noise(5, 9, 8, seed=seed)
    ties = np.round(3 * noise(4, 6, 7, seed=seed + 10))
    for case, scale, sigma, minimum in ((volume, 0.7, 0.6, 12), (volume, 0.2, 0, 4), (ties, 2.5, 0, 2)):
        settings = (case, scale, sigma, minimum, rule, 10, neighbours)
        labels = felzenszwalb(*settings)
        assert 0 < labels.max() < case.size - 1
        assert np.array_equal(labels, plain_felzenszwalb(*settings))


@pytest.mark.parametrize("rule", ["adaptive", "percentile"])
def test_turning_the_volume_turns_the_partition(rule: str):
    volume = noise(7, 8, 9)
    labels = felzenszwalb(volume, 0.7, 0, 9, rule)
    assert labels.max() > 2
    for turn in (lambda a: a.transpose(2, 0, 1), lambda a: a[::-1, :, ::-1], lambda a: a.swapaxes(1, 2)[:, ::-1]):
        turned: np.ndarray = turn(volume)
        assert same_partition(felzenszwalb(turned, 0.7, 0, 9, rule), turn(labels))


def test_a_volume_of_one_intensity_is_one_region():
    for rule, neighbours in KINDS:
        assert not felzenszwalb(np.full((3, 4, 5), 0.3), 1.0, 0.8, 2, rule, neighbours=neighbours).any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "fixed"}, "rule is 'fixed'; allowed are adaptive, percentile"),
        ({"neighbours": 26}, "neighbours is 26; allowed are six, published"),
        ({"scale": -1.0}, "scale is -1.0; it must be a number from 0 on"),
        ({"sigma": "0.8"}, "sigma is '0.8'; it must be a number from 0 on"),
        ({"minimum_size": float("nan")}, "minimum_size is nan; it must be a number from 0 on"),
        ({"percentile": 101}, "percentile is 101; it must be a number from 0 to 100"),
        ({"volume": np.full((2, 2, 2), np.nan)}, "finite intensities"),
        ({"volume": np.zeros((2, 2))}, r"volume has the shape \(2, 2\)"),
    ],
)
def test_a_setting_that_means_nothing_is_told_in_one_line(settings: dict[str, Any], message: str):
    good = {"volume": np.zeros((2, 2, 2)), "scale": 1.0, "sigma": 0.8, "minimum_size": 1}
    with pytest.raises(ValueError, match=message) as caught:
        felzenszwalb(**{**good, **settings})
    assert "\n" not in str(caught.value)


# --- cleaning


def test_true_masks_win_and_no_region_takes_their_voxels_or_anothers():
    regions = blocks(8, 20, 20)
    label = np.zeros(regions.shape, np.uint8)
    label[:, 4:16, 8:9] = 7
    label[2:5, 2:5, 12:18] = 2
    masks = clean_regions(regions, label)
    assert masks.dtype == np.int16 and not masks[label > 0].any()
    for number in range(1, masks.max() + 1):
        assert len(np.unique(regions[masks == number])) == 1


def test_closing_fills_what_is_free_and_leaves_true_masks_and_neighbours_alone():
    regions = np.zeros((9, 24, 24), int)
    regions[:, :, 12:] = 1
    regions[4, 6, 6], regions[4, 16, 6], regions[4, 6, 18] = 2, 3, 4  # specks: too small to stay
    label = np.zeros(regions.shape, np.uint8)
    label[4, 16, 6] = 1
    masks = clean_regions(regions, label, 1e-3)
    assert masks[4, 6, 6] == 1 and masks[4, 6, 18] == 2 and masks[4, 16, 6] == 0
    assert (masks[:, :, :12] != 2).all() and (masks[:, :, 12:] == 2).all()


def test_tiny_regions_go_and_so_do_tiny_pieces_after_opening():
    regions = np.full((10, 20, 20), -1)
    regions[2:8, 2:8, 2:8] = 0
    regions[5, 5, 8:14] = 0  # a bridge one voxel wide
    regions[4:7, 4:7, 14:17] = 0
    regions[1:3, 15:17, 15:17] = 1
    masks = clean_regions(regions, None, 30 / regions.size)
    assert masks.max() == 1 and masks[5, 5, 5] == 1
    assert not masks[5, 5, 9:].any() and not masks[1:3, 15:17, 15:17].any()


def test_large_pieces_become_masks_of_their_own():
    regions = np.full((10, 20, 20), -1)
    regions[2:8, 2:8, 2:8] = regions[2:8, 2:8, 12:18] = 0
    regions[5, 5, 8:12] = 0
    masks = clean_regions(regions, None, 30 / regions.size)
    assert masks.max() == 2 and masks[5, 5, 5] == 1 and masks[5, 5, 15] == 2 and not masks[5, 5, 9:11].any()


def test_a_region_keeps_the_outermost_slices_of_the_volume():
    regions = np.zeros((3, 12, 12), int)
    assert (clean_regions(regions, None) == 1).all()


def test_a_volume_without_regions_has_no_masks():
    assert not clean_regions(np.full((4, 5, 6), -1), None).any()
    assert not clean_regions(np.zeros((4, 5, 6), int), np.ones((4, 5, 6))).any()


# --- masks of an image


def test_a_thing_without_a_label_gets_a_mask_and_the_labelled_one_does_not():
    image, label = two_things()
    masks = pseudo_mask(image, label, image.shape, sigma=0)
    assert masks.shape == image.shape and masks.dtype == np.int16
    assert not masks[label > 0].any()
    (number,) = np.unique(masks[5:11, 28:38, 28:38])
    assert number > 0 and ((masks == number) <= (image == np.float32(0.8))).all()


def test_the_air_around_the_body_is_no_target_but_air_inside_is():
    image, _ = two_things()
    image[:, 10:18, 28:40] = 0  # like a lung, cut by the first and last slice
    masks = pseudo_mask(image, None, image.shape, sigma=0)
    assert not masks[:, :4].any() and not masks[:, :, -4:].any()
    assert masks[8, 14, 34] > 0


def test_ids_come_back_to_the_full_grid_unblended_and_the_label_wins_there():
    image, label = (array.repeat(2, 0).repeat(3, 1).repeat(3, 2) for array in two_things())
    label[8, 69, 69] = 1  # has no voxel on the small grid
    masks = pseudo_mask(image, label, (16, 48, 48), sigma=0)
    small = pseudo_mask(*two_things(), (16, 48, 48), sigma=0)
    expected = small.repeat(2, 0).repeat(3, 1).repeat(3, 2)
    expected[8, 69, 69] = 0
    assert np.array_equal(masks, expected) and expected.any()


def test_an_axis_that_is_shorter_than_the_shape_keeps_its_length():
    image, label = two_things((6, 48, 48))
    assert np.array_equal(pseudo_mask(image, label), pseudo_mask(image, label, (6, 48, 48)))


def test_shift_and_scale_of_the_intensities_change_nothing():
    image, label = two_things()
    image += noise(*image.shape, amplitude=0.01)
    settings = {"shape": image.shape, "scale": 0.5}
    expected = pseudo_mask(image - image.min() + 0.1, label, **settings)
    assert expected.max() > 0
    assert same_partition(pseudo_mask(0.25 * (image - image.min() + 0.1), label, **settings), expected)


def test_the_values_of_the_true_masks_do_not_matter():
    image, label = two_things()
    label[4:12, 30:34, 30:34] = 1
    swapped = np.array([0, 200, 0, 9], np.uint8)[label]
    assert np.array_equal(pseudo_mask(image, label), pseudo_mask(image, swapped))


@pytest.mark.parametrize(
    ("image", "label", "message"),
    [
        (np.full((2, 3, 4), np.nan), None, "image has"),
        (np.zeros((3, 4)), None, "image has the shape"),
        (np.zeros((2, 3, 4)), np.zeros((2, 3, 5)), "label has the shape"),
    ],
)
def test_a_volume_that_cannot_be_used_is_told_in_one_line(image: np.ndarray, label: np.ndarray | None, message: str):
    with pytest.raises(ValueError, match=message) as caught:
        pseudo_mask(image, label)
    assert "\n" not in str(caught.value)


def test_a_shape_of_two_axes_is_told_in_one_line():
    with pytest.raises(ValueError, match=r"^shape is \(32, 256\); it must be three whole numbers"):
        pseudo_mask(two_things()[0], shape=(32, 256))


# --- the transform


def case(*keys: str) -> dict[str, torch.Tensor]:
    image, label = two_things()
    return {key: torch.from_numpy({"image": image, "label": label}[key])[None] for key in keys}


def test_the_transform_adds_the_masks_and_leaves_the_case_alone():
    given = case("image", "label")
    made = PseudoMasksd()(given)
    assert made["pseudo_mask"].shape == given["image"].shape and made["pseudo_mask"].dtype == torch.int16
    assert made["pseudo_mask"].max() > 0 and not made["pseudo_mask"][given["label"] > 0].any()
    assert "pseudo_mask" not in given and torch.equal(made["image"], case("image")["image"])


def test_an_image_without_a_label_has_pseudo_masks_too():
    for transform in (PseudoMasksd(sigma=0), PseudoMasksd(label_key=None, sigma=0)):
        masks = transform(case("image"))["pseudo_mask"]
        assert masks[0, 8, 14, 14] > 0  # where the labelled case has its true mask


def test_the_same_case_always_gets_the_same_masks():
    first, second = (PseudoMasksd()(case("image", "label"))["pseudo_mask"] for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "both"}, "rule is 'both'"),
        ({"neighbours": "26"}, "neighbours is '26'"),
        ({"shape": (32, 256)}, "shape is"),
        ({"shape": (32, 256, 0)}, "shape is"),
        ({"shape": "32,256,256"}, "shape is"),
        ({"minimum_share": 0}, "minimum_share is 0"),
        ({"keys": ("image", "label")}, "keys is"),
    ],
)
def test_a_wrong_setting_of_the_transform_ends_the_run_in_one_line(settings: dict[str, Any], message: str):
    with pytest.raises(SystemExit, match=message) as caught:
        PseudoMasksd(**settings)
    assert "\n" not in str(caught.value)


def test_a_persistent_dataset_keeps_the_masks_and_tells_settings_apart(tmp_path: Path):
    assert pickle.dumps(PseudoMasksd()) == pickle.dumps(PseudoMasksd())
    assert pickle.dumps(PseudoMasksd()) != pickle.dumps(PseudoMasksd(rule="percentile"))
    given = {key: volume.numpy() for key, volume in case("image", "label").items()}
    kept = [PersistentDataset([given], PseudoMasksd(), tmp_path)[0] for _ in range(2)]
    assert torch.equal(kept[0]["pseudo_mask"], kept[1]["pseudo_mask"]) and len(list(tmp_path.glob("*.pt"))) == 1


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    """A phantom after the preprocessing of train.json, with pseudo masks."""
    folder = tmp_path_factory.mktemp("phantom")
    save_phantom(make_phantom(3, (72, 64, 40)), folder)
    config = ConfigParser()
    config.read_config(ROOT / "bundle" / "configs" / "train.json")
    config.update({"bundle_root": str(ROOT / "bundle")})
    transform = config.get_parsed_content("preprocessing")

    def prepare(**settings: Any) -> dict[str, Any]:
        data = transform({"image": str(folder / "ct.nii.gz"), "label": str(folder / "label.nii.gz")})
        return PseudoMasksd(**settings)(data)

    return prepare


@pytest.mark.parametrize(("rule", "neighbours"), KINDS)
def test_a_phantom_gets_masks_beside_its_organs(prepared: Callable, rule: str, neighbours: str):
    data = prepared(rule=rule, neighbours=neighbours)
    masks = data["pseudo_mask"]
    assert masks.shape == data["image"].shape == data["label"].shape
    assert masks.max() >= 3 and not masks[data["label"] > 0].any()
    assert np.allclose(masks.affine, data["image"].affine)


def test_without_its_label_a_phantom_has_masks_like_its_organs(prepared: Callable):
    data = prepared(label_key=None)
    masks, label = (np.asarray(data[key]) for key in ("pseudo_mask", "label"))
    dice = []
    for value in np.unique(label)[1:]:
        organ = label == value
        inside, sizes = (np.bincount(m.ravel(), minlength=masks.max() + 1)[1:] for m in (masks[organ], masks))
        dice.append((2 * inside / (organ.sum() + sizes)).max())
    assert max(dice) > 0.7


def test_a_missing_numba_names_the_extra_that_has_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "numba", None)
    for module in ("felzenszwalb", "pseudo_masks"):
        monkeypatch.delitem(sys.modules, f"scripts.training.{module}")
        with pytest.raises(ImportError, match="^pseudo masks need numba, which the train extra installs: .*$"):
            importlib.import_module(f"scripts.training.{module}")
