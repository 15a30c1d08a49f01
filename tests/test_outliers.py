"""What is suspicious: planted faults are found and named with their numbers, and a sound set has none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scripts.data.quality.nesting import is_lesion, may_overlap
from scripts.data.quality.outliers import Peers, faults_of, faults_of_set, reading_fault
from scripts.data.quality.statistics import describe
from scripts.transforms import load_volume
from scripts.vocabulary import Vocabulary

NAMES = {"1": "liver", "2": "spleen", "3": "left kidney", "4": "right kidney", "5": "urinary bladder", "6": None}
# i, j, k of a block in a trunk of (64, 48, 60) voxels of 5 mm, RAS: large i is the patient's right, large k is up
PLACES = {
    1: ((38, 54), (20, 36), (36, 50)),
    2: ((12, 20), (14, 22), (38, 46)),
    3: ((16, 22), (12, 18), (26, 36)),
    4: ((42, 48), (12, 18), (26, 36)),
    5: ((28, 36), (24, 32), (6, 14)),
}
AFFINE = np.array([[5.0, 0, 0, -160], [0, 5.0, 0, -120], [0, 0, 5.0, 0], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def vocabulary(bundle: Path) -> Vocabulary:
    return Vocabulary.load(bundle / "configs" / "vocabulary.json")


def scan() -> tuple[np.ndarray, np.ndarray]:
    image = np.full((64, 48, 60), -1000, np.float32)
    image[8:56, 8:40] = 0
    label = np.zeros(image.shape, np.int16)
    for value, extents in PLACES.items():
        label[tuple(slice(*extent) for extent in extents)] = value
    image[label > 0] = 60
    return image, label


def record_of(
    image: np.ndarray, label: np.ndarray, case: str = "case_0", affine: np.ndarray = AFFINE
) -> dict[str, Any]:
    tensor = MetaTensor(torch.from_numpy(np.ascontiguousarray(image))[None], affine=affine)
    about = {"case": case, "patient": case, "label": "label.nii.gz", "labels": NAMES, "overlaps": {}}
    return about | describe(tensor, label, NAMES)


def sound_set(count: int = 24) -> list[dict[str, Any]]:
    """Cases that differ as patients do."""
    one, rng, cases = record_of(*scan()), np.random.default_rng(0), []
    for number in range(count):
        record = json.loads(json.dumps(one)) | {"case": f"case_{number}"}
        for structure in record["structures"].values():
            structure["ml"] = round(structure["ml"] * float(np.exp(rng.normal(0, 0.25))), 3)
        cases.append(record)
    return cases


def told(record: dict[str, Any], vocabulary: Vocabulary, peers: Any = ()) -> dict[str, str]:
    faults = faults_of(record, vocabulary, peers)
    assert all(fault["case"] == record["case"] and fault["sentence"].startswith(record["case"]) for fault in faults)
    return {fault["kind"]: fault["sentence"] for fault in faults}


def test_a_sound_set_has_no_fault(vocabulary: Vocabulary) -> None:
    assert faults_of_set(sound_set(), vocabulary) == []


def test_an_empty_label_is_found_and_an_image_without_one_is_none(vocabulary: Vocabulary) -> None:
    image, label = scan()
    record = record_of(image, label * 0)
    assert told(record, vocabulary) == {
        "empty": "case_0: its label is empty; nothing is there of liver, spleen, left kidney and 3 more"
    }
    assert told(record | {"label": None}, vocabulary) == {}


def test_swapped_names_are_told_from_a_mirrored_image(vocabulary: Vocabulary) -> None:
    image, label = scan()
    swapped = label.copy()
    swapped[label == 3], swapped[label == 4] = 4, 3
    assert told(record_of(image, swapped), vocabulary) == {
        "side": "case_0: left kidney lies 130 mm to the patient's right of right kidney "
        "(3 of 4 sides are as they should be: its name seems swapped)"
    }
    mirrored = told(record_of(image, label, affine=np.diag([-1.0, 1, 1, 1]) @ AFFINE), vocabulary)
    assert list(mirrored) == ["mirrored"]
    assert "left kidney lies 130 mm to the patient's right of right kidney" in mirrored["mirrored"]
    assert "spleen lies 150 mm to the patient's right of liver" in mirrored["mirrored"]


def test_a_lone_organ_on_the_wrong_side_of_the_body_is_found(vocabulary: Vocabulary) -> None:
    image, label = scan()
    label[label != 4] = 0
    label[label == 4] = 3
    found = told(record_of(image, label), vocabulary)
    assert list(found) == ["side"]
    assert "left kidney lies 65 mm to the patient's right of the midline" in found["side"]


def test_the_spine_is_the_midline_where_it_is_labelled(vocabulary: Vocabulary) -> None:
    record = record_of(*scan())
    spine = record["structures"]["liver"] | {"centroid_ras": [-100.0, 0, 0]}
    record["structures"] = {"vertebrae L1": spine, "left kidney": record["structures"]["left kidney"]}
    assert (
        "of the midline" in told(record, vocabulary)["side"]
    )  # it lies on the left of the body, and right of the spine


def test_what_may_cross_the_midline_and_what_is_cut_off_is_no_fault(vocabulary: Vocabulary) -> None:
    record = record_of(*scan())
    right = record["structures"]["right kidney"]
    for name in ("left brachiocephalic vein", "left common carotid artery", "left heart ventricle"):
        assert told(record | {"structures": {name: right}}, vocabulary) == {}
    assert "side" in told(record | {"structures": {"spleen": right}}, vocabulary)
    assert told(record | {"structures": {"spleen": right | {"cut": True}}}, vocabulary) == {}
    assert told(record | {"structures": {"left kidney": right}, "body_centroid_ras": None}, vocabulary) == {}


def test_an_image_upside_down_or_back_to_front_is_found(vocabulary: Vocabulary) -> None:
    image, label = scan()
    found = told(record_of(image, label, affine=np.diag([1.0, 1, -1, 1]) @ AFFINE), vocabulary)
    assert found["turned"].startswith(
        "case_0: the image seems to lie upside down: liver lies 165 mm below urinary bladder"
    )
    record = record_of(image, label)
    record["structures"]["spinal cord"] = record["structures"]["liver"] | {"centroid_ras": [0.0, 100, 200]}
    assert "back to front: liver lies" in told(record, vocabulary)["turned"]


def test_two_labels_on_one_voxel_are_named_but_not_a_tumour_in_its_organ(vocabulary: Vocabulary) -> None:
    overlaps = {"liver tumor over liver": 900, "spleen over liver": 12, "kidney_left over pancreas": 40}
    assert told(record_of(*scan()) | {"overlaps": overlaps}, vocabulary) == {
        "overlap": "case_0: kidney_left and pancreas share 40 voxels, spleen and liver share 12 voxels"
    }


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("liver tumor", "liver", True),
        ("liver", "liver tumor", True),
        ("kidney cyst", "left kidney", True),
        ("left kidney cyst", "right kidney", False),
        ("lung nodule", "left lung upper lobe", True),
        ("left lung upper lobe", "left lung", True),
        ("left lung upper lobe", "right lung", False),
        ("bone lesion", "vertebrae L3", True),
        ("colon tumor", "intestine", False),
        ("tumor", "pancreas", True),
        ("liver tumor", "spleen", False),
        ("liver tumor", "tumor", True),
        ("hepatic vessel", "liver", True),
        ("left rib 3", "bone", True),
        ("left kidney", "right kidney", False),
        ("pancreas", "duodenum", False),
        ("liver cyst", "liver tumor", False),
    ],
)
def test_what_lies_in_what_is_told_by_the_names(one: str, other: str, expected: bool) -> None:
    assert may_overlap(one, other) is may_overlap(other, one) is expected


def test_a_lesion_is_told_by_its_name() -> None:
    assert is_lesion("abdominal lymph node") and not is_lesion("left kidney")


def test_a_value_that_labels_do_not_list_is_named_and_one_that_they_leave_nameless_is_not(
    vocabulary: Vocabulary,
) -> None:
    image, label = scan()
    label[30, 30, 30], label[31:33, 30, 30] = 6, 9
    assert told(record_of(image, label), vocabulary) == {
        "nameless": "case_0: label value 9 (2 voxels) has no name in labels"
    }


def test_a_label_shifted_into_the_air_is_found(vocabulary: Vocabulary) -> None:
    image, label = scan()
    found = told(record_of(image, np.roll(label, -20, axis=1)), vocabulary)
    assert "spleen has a mean of -1000 HU" in found["air"]


def test_a_volume_far_from_the_others_is_found_where_there_are_enough_of_them(vocabulary: Vocabulary) -> None:
    records = sound_set()
    records[3]["structures"]["liver"]["ml"] = 9.0
    assert [fault["case"] for fault in faults_of_set(records, vocabulary)] == ["case_3"]
    assert "liver has 9 ml, where the median of 24 cases is" in told(records[3], vocabulary, records)["volume"]
    assert told(records[3], vocabulary, records[:7]) == {}
    records[3]["structures"]["liver"]["cut"] = True
    assert told(records[3], vocabulary, Peers.of(records)) == {}
    records[3]["structures"]["liver"]["ml"] = 90000.0
    assert "liver has 9e+04 ml" in told(records[3], vocabulary, records)["volume"]


def test_lesions_of_any_size_are_no_outliers(vocabulary: Vocabulary) -> None:
    records = sound_set()
    for record in records:
        record["structures"]["liver tumor"] = record["structures"]["liver"] | {"ml": 20.0}
    records[0]["structures"]["liver tumor"]["ml"] = 0.01
    assert told(records[0], vocabulary, records) == {}


def test_unusual_spacing_and_size_are_found_by_the_patients_axes(vocabulary: Vocabulary) -> None:
    records = sound_set()
    records[1] |= {"spacing_mm": [5.0, 5.0, 50.0], "field_of_view_mm": [320.0, 240.0, 3000.0]}
    found = told(records[1], vocabulary, records)
    assert found["spacing"] == "case_1: the spacing along S-I is 50 mm, where the median of 24 cases is 5 mm"
    assert "the field of view along S-I is 3000 mm" in found["size"]
    stored_otherwise = records[2] | {"axcodes": "SAR", "spacing_mm": [5.0, 5.0, 5.0]}
    assert told(stored_otherwise, vocabulary, records) == {}


def test_a_set_of_two_kinds_of_scans_has_no_unusual_spacing(vocabulary: Vocabulary) -> None:
    records = sound_set()
    for record in records[:6]:
        record["spacing_mm"] = [1.0, 1.0, 1.0]
    assert faults_of_set(records, vocabulary) == []


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda hu: hu * 0 + 7, "constant", "the image is constant (7)"),
        (lambda hu: (hu + 1000) / 1060, "intensity", "between 0 and 1: normalised"),
        (lambda hu: (hu + 1000) / 5, "intensity", "between 0 and 212: grey values"),
        (lambda hu: hu + 1024, "intensity", "between 24 and 1084: no HU, perhaps a CT without its rescale"),
        (lambda hu: np.maximum(hu, -160), "intensity", "between -160 and 60: no air"),
        (lambda hu: np.where(hu > 0, np.nan, hu), "intensity", "no finite numbers"),
    ],
)
def test_intensities_that_are_no_hounsfield_units_are_found(
    change: Any, kind: str, words: str, vocabulary: Vocabulary
) -> None:
    image, label = scan()
    found = told(record_of(change(image).astype(np.float32), label), vocabulary)
    assert words in found.pop(kind)
    assert found == {}


def test_what_nearly_all_cases_have_and_one_lacks_is_mentioned(vocabulary: Vocabulary) -> None:
    records = sound_set()
    del records[4]["structures"]["spleen"]
    assert faults_of_set(records, vocabulary) == [
        {"case": "case_4", "kind": "absent", "sentence": "case_4: no spleen (23 of 24 labelled cases have it)"}
    ]
    for record in records[:6]:
        record["structures"].pop("liver")
    assert "liver" not in told(records[4], vocabulary, records)["absent"]


def test_an_error_of_the_reader_becomes_a_fault() -> None:
    grid = reading_fault("a", ValueError("label grid differs from the image's: origin off by 12.0 mm"))
    assert grid == {
        "case": "a",
        "kind": "grid",
        "sentence": "a: label grid differs from the image's: origin off by 12.0 mm",
    }
    assert reading_fault("b", "image: b.nii.gz cannot be read")["kind"] == "unreadable"


@pytest.mark.slow
@pytest.mark.parametrize("case", ["ts_example_ct", "ts_example_ct_sm", "ts_example_ct_dicom", "ts_aorta"])
def test_real_scans_raise_no_alarm_and_their_mirror_images_do(case: str, shared: Path, vocabulary: Vocabulary) -> None:
    listed = json.loads((shared / "data" / "MANIFEST.json").read_text())["cases"]
    entry = next(one for one in listed if one["id"] == case)
    image, truth = (load_volume(shared / "data" / entry[key]) for key in ("image", "label"))
    label = on_grid(truth, image)
    about = {"case": case, "patient": case, "label": entry["label"], "labels": entry["labels"], "overlaps": {}}
    record = about | describe(image, label, entry["labels"])
    assert faults_of(record, vocabulary) == []
    mirror = np.diag([-1.0, 1, 1, 1])
    turned = about | describe(
        MetaTensor(image.as_tensor(), affine=mirror @ image.affine.numpy()), label, entry["labels"]
    )
    kinds = {fault["kind"] for fault in faults_of(turned, vocabulary)}
    assert kinds == (set() if case == "ts_aorta" else {"mirrored"})


def on_grid(label: MetaTensor, image: MetaTensor) -> np.ndarray:
    """The label in the image's storage: axes that run the other way are turned."""
    steps = np.rint(np.linalg.inv(np.asarray(label.affine)) @ np.asarray(image.affine))[:3, :3]
    assert np.array_equal(np.abs(steps), np.eye(3))
    return np.ascontiguousarray(label[0].numpy()[tuple(slice(None, None, int(d)) for d in np.diag(steps))], np.int16)
