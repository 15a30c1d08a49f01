"""The generated patients: repeatable, varied, anatomically the right way round."""

import json

import nibabel as nib
import numpy as np
import pytest
from scripts.phantom import Phantom, make_phantom, save_phantom
from scripts.phantom.anatomy import STRUCTURES

SEEDS = range(6)


@pytest.fixture(scope="module")
def phantoms() -> list[Phantom]:
    return [make_phantom(seed, spacing=(3.2, 3.2, 6.0)) for seed in SEEDS]


def value(phantom: Phantom, name: str) -> int | None:
    return next((v for v, n in phantom.names.items() if n == name), None)


def world_centre(phantom: Phantom, name: str) -> np.ndarray:
    voxels = np.argwhere(phantom.label == value(phantom, name)).mean(axis=0)
    return phantom.affine[:3, :3] @ voxels + phantom.affine[:3, 3]


def test_same_seed_gives_same_bytes() -> None:
    one, two = (make_phantom(3, shape=(64, 64, 32)) for _ in range(2))
    assert one.image.tobytes() == two.image.tobytes()
    assert one.label.tobytes() == two.label.tobytes()
    assert np.array_equal(one.affine, two.affine)


def test_other_seed_gives_another_patient() -> None:
    one, two = (make_phantom(seed, shape=(64, 64, 32)) for seed in (3, 4))
    assert (one.label != two.label).mean() > 0.02


def test_types_and_shape_of_a_drawn_scan() -> None:
    phantom = make_phantom(1)
    assert phantom.image.dtype == np.int16
    assert phantom.label.dtype == np.uint8
    assert phantom.image.shape == phantom.label.shape
    i, j, k = phantom.image.shape
    assert 112 <= i <= 176 and 112 <= j <= 176 and 48 <= k <= 112


def test_grid_lies_along_right_anterior_superior(phantoms: list[Phantom]) -> None:
    assert all(nib.aff2axcodes(phantom.affine) == ("R", "A", "S") for phantom in phantoms)


@pytest.mark.parametrize(("left", "right"), [("left kidney", "right kidney"), ("left lung", "right lung"),
                                             ("spleen", "liver"), ("aorta", "inferior vena cava")])  # fmt: skip
def test_left_is_the_patients_left(phantoms: list[Phantom], left: str, right: str) -> None:
    both = [p for p in phantoms if {left, right} <= set(p.names.values())]
    assert both
    assert all(world_centre(p, left)[0] < world_centre(p, right)[0] for p in both)


def test_lungs_lie_above_and_spine_behind(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        assert world_centre(phantom, "spine")[1] < world_centre(phantom, "liver")[1]
        if value(phantom, "left lung"):
            assert world_centre(phantom, "left lung")[2] > world_centre(phantom, "liver")[2]


def test_hounsfield_units_are_plausible(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        median = {n: np.median(phantom.image[phantom.label == v]) for v, n in phantom.names.items()}
        assert 20 < median["liver"] < 150
        assert median["spine"] > 80
        assert median.get("right lung", -800) < -600
        assert phantom.image.min() < -900


def test_every_value_is_named_and_large_enough(phantoms: list[Phantom]) -> None:
    for phantom in phantoms:
        values, counts = np.unique(phantom.label[phantom.label > 0], return_counts=True)
        assert {int(v): STRUCTURES[int(v)] for v in values} == phantom.names
        assert counts.min() >= 60


def test_each_patient_shows_at_least_eight_structures(phantoms: list[Phantom]) -> None:
    assert min(len(phantom.names) for phantom in phantoms) >= 8


@pytest.mark.parametrize("shape", [(48, 48, 20), (64, 64, 1), (8, 8, 8), (1, 1, 1)])
def test_small_grids_are_allowed(shape: tuple[int, int, int]) -> None:
    phantom = make_phantom(1, shape=shape)
    assert phantom.image.shape == shape


def test_a_chosen_spacing_is_kept() -> None:
    phantom = make_phantom(2, spacing=(6.0, 6.0, 8.0))
    assert np.allclose(np.diag(phantom.affine)[:3], (6, 6, 8))


@pytest.mark.parametrize(("arguments", "word"), [({"seed": -1}, "seed"), ({"seed": 1, "shape": (0, 4, 4)}, "shape"),
                                                 ({"seed": 1, "spacing": (1.0, 0.0, 1.0)}, "spacing")])  # fmt: skip
def test_impossible_requests_say_why(arguments: dict, word: str) -> None:
    with pytest.raises(ValueError, match=word):
        make_phantom(**arguments)


def test_saved_files_round_trip(tmp_path) -> None:
    phantom = make_phantom(5, shape=(48, 48, 32))
    image, label = save_phantom(phantom, tmp_path / "case")
    assert np.array_equal(np.asarray(nib.load(image).dataobj), phantom.image)
    assert np.array_equal(np.asarray(nib.load(label).dataobj), phantom.label)
    assert np.allclose(nib.load(image).affine, phantom.affine)
    names = json.loads((tmp_path / "case" / "labels.json").read_text())
    assert names == {str(v): n for v, n in phantom.names.items()}
    assert sorted(p.name for p in image.parent.iterdir()) == ["ct.nii.gz", "label.nii.gz", "labels.json"]
