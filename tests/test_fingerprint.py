"""A scan is known again under other names, axes, types and offsets; different scans are not taken for one."""

import json
from itertools import permutations, product
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy.ndimage import zoom
from scripts.data.patients.fingerprint import SIDE, fingerprint
from scripts.data.patients.same_scans import LIKENESS, Match, same_scans
from scripts.phantom import make_phantom

SHAPE = (56, 48, 40)


def patient(seed: int) -> np.ndarray:
    return make_phantom(seed, SHAPE).image


def record(case: str, image: np.ndarray, affine: np.ndarray | None = None, patient: str | None = None) -> dict:
    data_set = case.split("_")[0]
    mark = fingerprint(image, np.eye(4) if affine is None else affine)
    return {"case": case, "data_set": data_set, "patient": patient, "fingerprint": mark}


def turned(image: np.ndarray, codes: str) -> tuple[np.ndarray, np.ndarray]:
    """An image in RAS, stored along other axes, and the affine that says so."""
    wanted = nib.orientations.axcodes2ornt(tuple(codes))
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), wanted)
    return nib.orientations.apply_orientation(image, turn), nib.orientations.inv_ornt_aff(turn, image.shape)


def matches(*records: dict) -> list[Match]:
    return [match for group in same_scans(records) for match in group.matches]


def test_the_exact_mark_outlives_axes_type_offset_slope_and_affine():
    image = patient(3)
    mark = fingerprint(image, np.eye(4))["exact"]
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        other = image.transpose(order)[tuple(slice(None, None, sign) for sign in signs)]
        assert fingerprint(other, np.diag([2.0, 3.0, 5.0, 1.0]))["exact"] == mark
    for other in (
        image.astype(np.float32),
        image.astype(np.float64) + 1024,
        image.astype(np.int32) + 1000,
        image.astype(np.float32) * np.float32(0.0173) - np.float32(3.1),
    ):
        assert fingerprint(other, np.zeros((4, 4)))["exact"] == mark


def test_the_exact_mark_sees_one_voxel_and_another_shape():
    image = patient(3)
    mark = fingerprint(image, np.eye(4))["exact"]
    changed = image.copy()
    changed[20, 20, 20] += 1
    for other in (changed, image[:-1], image.reshape(28, 96, 40)):
        assert fingerprint(other, np.eye(4))["exact"] != mark


def test_images_whose_values_hardly_repeat_have_marks_of_their_own():
    draws = [np.random.default_rng(seed).normal(size=(9, 8, 7)) for seed in range(20)]
    marks = [fingerprint(draw, np.eye(4)) for draw in draws]
    assert len({mark["exact"] for mark in marks}) == 20
    assert fingerprint(draws[0].transpose(2, 0, 1)[::-1], np.eye(4))["exact"] == marks[0]["exact"]
    counted = np.random.default_rng(0).permutation(504).reshape(9, 8, 7)
    assert fingerprint(counted + 1024, np.eye(4))["exact"] == fingerprint(counted, np.eye(4))["exact"]


def test_the_thumbnail_is_seen_from_the_patient_and_not_from_the_file():
    image = patient(5)
    mark = fingerprint(image, np.eye(4))
    assert len(mark["thumbnail"]) == SIDE**3 and json.loads(json.dumps(mark)) == mark
    assert min(mark["thumbnail"]) >= 0 and max(mark["thumbnail"]) <= 255
    for codes in ("LPS", "PIR", "SRA"):
        other, affine = turned(image, codes)
        found = fingerprint(other, affine)
        assert found["slices"] == mark["slices"]
        assert np.abs(np.subtract(found["thumbnail"], mark["thumbnail"])).max() <= 1


def test_a_bright_corner_stays_in_its_corner():
    image = np.full((64, 64, 64), -1000, np.int16)
    image[8:56, 8:56, 8:56] = -60
    image[38:52, 38:52, 12:26] = 180
    cells = np.reshape(fingerprint(image, np.diag([-1.0, 1.0, 1.0, 1.0]))["thumbnail"], (SIDE, SIDE, SIDE))
    half = SIDE // 2
    octants = {c: cells[tuple(slice(half * n, half * (n + 1)) for n in c)].mean() for c in product((0, 1), repeat=3)}
    assert max(octants, key=octants.get) == (0, 1, 0)  # the first axis runs to the left


def test_a_duplicate_in_another_set_is_found_under_another_name_orientation_affine_and_offset():
    image = patient(7)
    stored, affine = turned(image, "PIR")
    wrong = np.diag([1.0, -4.0, 2.0, 1.0])
    records = [record(f"SetA_{seed}", patient(seed)) for seed in (6, 7, 8)]
    twins = [record("SetB_x", stored.astype(np.float32) + 1024, affine), record("SetC_y", stored, wrong)]
    groups = same_scans([*twins, *records])
    assert [group.cases for group in groups] == [("SetA_6",), ("SetA_7", "SetB_x", "SetC_y"), ("SetA_8",)]
    assert groups[1].matches == (Match("SetA_7", "SetB_x", "exact"), Match("SetA_7", "SetC_y", "exact"))


@pytest.mark.parametrize("way", ["cropped", "padded", "clipped", "resampled", "all of it, by a wrong affine", "noisy"])
def test_a_changed_copy_is_found_by_its_thumbnail_and_told_to_be(way: str):
    image = patient(9).astype(np.float32)
    inside = np.argwhere(image > -500)
    cropped = image[tuple(slice(a, b + 1) for a, b in zip(inside.min(0), inside.max(0), strict=True))]
    changed = {
        "cropped": cropped,
        "padded": np.pad(image, ((5, 9), (0, 12), (3, 3)), constant_values=-1024),
        "clipped": image.clip(-160, 240),
        "resampled": zoom(image, 0.7, order=1, grid_mode=True, mode="nearest"),
        "all of it, by a wrong affine": zoom(cropped.clip(-160, 240), 0.8, order=1, grid_mode=True, mode="nearest").T,
        "noisy": image + np.random.default_rng(0).normal(0, 20, image.shape).astype(np.float32),
    }[way]
    (match,) = matches(record("A_1", image), record("B_1", changed), record("B_2", patient(10)))
    assert (match.first, match.second, match.found_by) == ("A_1", "B_1", "thumbnail")
    assert LIKENESS <= match.likeness <= 1


def test_a_stack_of_a_scans_slices_is_found_by_them():
    image = patient(11)
    stack, affine = turned(image[:, :, 8:24], "LPS")
    (match,) = matches(record("A_1", image), record("B_1", stack + 1024, affine), record("B_2", patient(12)))
    assert (match.first, match.second, match.found_by) == ("A_1", "B_1", "slices")


def test_sixty_different_scans_are_sixty_patients():
    rng = np.random.default_rng(0)
    records = [record(f"A_{seed}", patient(seed)) for seed in range(20)]
    records += [record(f"B_{n}", rng.normal(0, 60, SHAPE)) for n in range(20)]
    records += [record(f"C_{n}", rng.normal(0, 60, SHAPE).astype(np.int16)) for n in range(20)]
    assert [group.cases for group in same_scans(records)] == [(case,) for case in sorted(r["case"] for r in records)]


def test_empty_and_flat_images_are_not_taken_for_one_another():
    flat = [np.full((9, 9, 9 + n), 5.0 * n) for n in range(4)]
    assert matches(*[record(f"A_{n}", image) for n, image in enumerate(flat)]) == []


def test_names_tie_within_a_set_alone_and_chains_make_one_group():
    images = [patient(seed) for seed in range(20, 24)]
    records = [
        record("A_1", images[0], patient="p"),
        record("A_2", images[1], patient="p"),
        record("B_1", images[1], patient="q"),
        record("B_2", images[2], patient="q"),
        record("B_3", images[3], patient="p"),
        {"case": "B_4", "data_set": "B", "patient": "p"},
    ]
    expected = [("A_1", "A_2", "B_1", "B_2"), ("B_3", "B_4")]
    for seed in range(5):
        order = np.random.default_rng(seed).permutation(len(records))
        groups = same_scans([records[n] for n in order])
        assert [group.cases for group in groups] == expected and groups == same_scans(records)
    assert [match.found_by for match in groups[0].matches] == ["exact", "patient", "patient"]


def test_what_is_no_scan_or_comes_twice_is_refused_in_one_line():
    for bad in (np.zeros((4, 4)), np.zeros((1, 4, 4, 4)), np.zeros((4, 0, 4)), np.full((4, 4, 4), np.nan)):
        with pytest.raises(ValueError, match="^image: .*allowed"):
            fingerprint(bad, np.eye(4))
    twice = {"case": "A_1", "data_set": "A", "patient": None}
    with pytest.raises(ValueError, match="^records: A_1 comes twice"):
        same_scans([twice, dict(twice)])


@pytest.mark.slow
def test_real_scans_are_apart_and_their_clipped_crops_are_not(shared: Path):
    """The measurement of ``same_scans``: real patients differ by far more than one patient from a changed copy."""
    paths = sorted((shared / "data" / "ibsi_sts").glob("STS_*/CT_image.nii.gz"))
    paths += [shared / "data" / "totalsegmentator" / name for name in ("example_ct.nii.gz", "aorta/ct_cropped.nii.gz")]
    originals, copies = [], []
    for n, path in enumerate(paths):
        loaded = nib.load(path)
        image = np.asarray(loaded.dataobj, np.float32)
        low = image.min()
        copy = np.pad(image, 6, constant_values=low)[:, :, 6:-6].clip(-175, 250) + 1024
        originals.append(record(f"A_{n:02}", image, loaded.affine))
        copies.append(record(f"B_{n:02}", zoom(copy[::-1], 0.8, order=1, grid_mode=True, mode="nearest")))
    assert len(originals) == 22
    assert len(same_scans(originals, least=0.6)) == 22
    assert [group.cases for group in same_scans(originals + copies)] == [(f"A_{n:02}", f"B_{n:02}") for n in range(22)]
