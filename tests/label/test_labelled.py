"""Finished labels as cases to train on: exact names, a fair split, and no word of a user in what a config reads."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from lib import local_store
from lib.labelled import Case, digest_of, known_names, names_of, read_cases, split_cases, write_datalist
from lib.local_store import FinalLabel, SegVolLocalStore

SHAPE = (8, 6, 4)
AFFINE = np.diag([-1.5, -1.5, 3, 1])


def named(*names: Any) -> dict[str, Any]:
    return {"label_info": [{"name": name, "idx": value} for value, name in names]}


@pytest.mark.parametrize(
    ("info", "names"),
    [
        (named((2, "liver"), (7, "my lesion")), {2: "liver", 7: "my lesion"}),
        (named((7, "spleen"), (9, "not drawn")), {2: None, 7: "spleen"}),
        ({"label_info": [{"name": "liver"}, {"name": "spleen"}]}, {2: "liver", 7: "spleen"}),
        ({"label_info": [{"name": "liver"}, {"name": "spleen"}, {"name": "aorta"}]}, {2: None, 7: None}),
        ({"params": {"label_names": {"liver": 7}}}, {2: None, 7: "liver"}),
        (named((2, "liver")) | {"params": {"label_names": {"spleen": 7}}}, {2: "liver", 7: None}),
        ({}, {2: None, 7: None}),
        (named((True, "liver"), ("7", "spleen"), (2, "")), {2: None, 7: None}),
        ({"label_info": "liver"}, {2: None, 7: None}),
        ({"label_info": [3, None], "params": [1]}, {2: None, 7: None}),
        ({"params": {"label_names": {"liver": "7"}}}, {2: None, 7: None}),
    ],
)
def test_a_value_has_the_name_that_was_saved_for_it_or_none(info, names):
    assert names_of([2, 7], info) == names


@pytest.mark.parametrize(
    ("given", "known"),
    [
        ({1: "Liver", 2: "kidney_left"}, {1: "liver", 2: "left kidney"}),
        ({1: "$import('os')", 2: None}, {1: None, 2: None}),
        ({1: "liver", 2: "the Liver", 3: "spleen"}, {1: None, 2: None, 3: "spleen"}),
    ],
)
def test_only_names_that_the_weights_take_as_text_go_on(small_bundle, given, known):
    assert known_names(given, small_bundle) == known


def test_a_name_of_the_vocabulary_that_the_small_weights_lack_trains_by_points_and_boxes(small_bundle):
    missing = next(s.name for s in small_bundle.vocabulary if s.name not in small_bundle.names)
    assert known_names({1: missing}, small_bundle) == {1: None}


def save_nifti(path: Path, voxels: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(voxels, affine), path)
    return path


def final_label(folder: Path, label: Path, image_id: str = "ct") -> FinalLabel:
    image = save_nifti(folder / f"{image_id}.nii.gz", np.zeros(SHAPE, np.int16))
    return FinalLabel(image_id, image, label, named((1, "liver")))


def drawn(value: float = 1) -> np.ndarray:
    label = np.zeros(SHAPE, np.float32 if value % 1 else np.uint8)
    label[2:4, 1:3, 1] = value
    return label


def test_a_label_in_another_order_of_axes_is_a_case(small_bundle, tmp_path):
    turned = nib.Nifti1Image(drawn(), AFFINE).as_reoriented(np.array([[2, 1], [0, -1], [1, 1]]))
    nib.save(turned, tmp_path / "label.nii")
    (case,), left_out = read_cases([final_label(tmp_path, tmp_path / "label.nii")], small_bundle)
    assert (case.labels, left_out) == ({1: "liver"}, {})


def test_a_nrrd_label_of_a_nrrd_image_is_a_case(small_bundle, tmp_path):
    for name, voxels in (("image", np.zeros(SHAPE, np.int16)), ("label", drawn(3))):
        image = sitk.GetImageFromArray(voxels.T)
        image.SetSpacing((1.5, 1.5, 3))
        sitk.WriteImage(image, str(tmp_path / f"{name}.nrrd"))
    found = FinalLabel("ct", tmp_path / "image.nrrd", tmp_path / "label.nrrd", {})
    (case,), _ = read_cases([found], small_bundle)
    assert case.labels == {3: None}


@pytest.mark.parametrize(
    ("label", "affine", "reason"),
    [
        (drawn(), np.diag([-1.5, -1.5, 4, 1]), "another grid than the image"),
        (drawn()[:5], AFFINE, "another grid than the image"),
        (drawn(0), AFFINE, "it is empty"),
        (drawn(0.5), AFFINE, "values that are no labels"),
    ],
)
def test_a_label_that_cannot_be_used_is_left_out_with_its_reason(small_bundle, tmp_path, label, affine, reason):
    found = final_label(tmp_path, save_nifti(tmp_path / "label.nii", label, affine))
    cases, left_out = read_cases([found], small_bundle)
    assert not cases and reason in left_out["ct"] and "\n" not in left_out["ct"]


def test_a_folder_of_slices_and_a_damaged_label_are_left_out(small_bundle, tmp_path):
    label = save_nifti(tmp_path / "label.nii", drawn())
    (tmp_path / "series").mkdir()
    (tmp_path / "half.nii.gz").write_bytes(label.read_bytes()[:50])
    found = [FinalLabel("series", tmp_path / "series", label, {}), final_label(tmp_path, tmp_path / "half.nii.gz")]
    cases, left_out = read_cases(found, small_bundle)
    assert not cases and left_out.keys() == {"series", "ct"}


def some(*ids: str) -> list[Case]:
    return [Case(digest_of(each), Path(each), Path(each), {1: None}) for each in ids]


def judges(*args: Any) -> set[str]:
    return {case.image.name for case in split_cases(*args)["validation"]}


@pytest.mark.parametrize(("count", "share", "expected"), [(2, 0.01, 1), (2, 0.99, 1), (10, 0.2, 2), (10, 0.99, 9)])
def test_at_least_one_case_judges_and_one_trains(count, share, expected):
    cases = some(*map(str, range(count)))
    split = split_cases(cases, share, 0)
    assert len(split["validation"]) == expected
    assert sorted(case.digest for part in split.values() for case in part) == sorted(case.digest for case in cases)


def test_the_split_depends_on_the_seed_and_not_on_the_order():
    ids = [str(n) for n in range(12)]
    assert judges(some(*ids), 0.3, 0) == judges(some(*reversed(ids)), 0.3, 0)
    assert len({frozenset(judges(some(*ids), 0.3, seed)) for seed in range(5)}) > 1


def test_a_case_that_was_trained_on_judges_only_where_there_is_no_other():
    trained, judged = [digest_of(n) for n in "abc"], [digest_of("d")]
    assert judges(some(*"abcd"), 0.25, 0, trained, judged) == {"d"}
    assert judges(some(*"abcdef"), 0.5, 0, trained, judged) == {"d", "e", "f"}
    assert len(judges(some(*"abc"), 0.3, 0, trained, judged)) == 1


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_large_share_does_not_make_cases_judge_that_were_trained_on(share):
    trained, judged = [digest_of(n) for n in "abcd"], [digest_of("e")]
    assert judges(some(*"abcdef"), share, 0, trained, judged) == {"e", "f"}


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_labels_are_told_in_one_sentence(count):
    with pytest.raises(ValueError, match=f"there are {count} finished labels .* at least 2, one to train on") as caught:
        split_cases(some(*map(str, range(count))), 0.2, 0)
    assert "\n" not in str(caught.value)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """The working folder of a training."""
    (tmp_path / "run").mkdir()
    return tmp_path / "run"


@pytest.fixture
def stores(tmp_path: Path) -> list[SegVolLocalStore]:
    """Two processes' views of one folder with two images."""
    studies = tmp_path / "studies"
    studies.mkdir()
    for name in ("a", "DOE^JOHN"):
        save_nifti(studies / f"{name}.nii.gz", np.zeros(SHAPE, np.int16))
    return [SegVolLocalStore(str(studies), extensions=["*.nii.gz"], auto_reload=False) for _ in range(2)]


def save(store: SegVolLocalStore, folder: Path, value: int, name: str) -> bytes:
    """Finish the label of an image; returns the file's content."""
    label = save_nifti(folder / "label.nii.gz", drawn(value))
    store.save_label("DOE^JOHN", str(label), "final", named((value, name)))
    return label.read_bytes()


def test_the_datalist_names_no_image(stores, tmp_path, run, small_bundle):
    content = save(stores[0], tmp_path, 1, "liver")
    cases, _ = read_cases(stores[0].final_labels(run), small_bundle)
    path = write_datalist(run, {"train": cases, "validation": []})
    assert "DOE" not in path.read_text() and not list(run.glob("*DOE*"))
    (entry,) = json.loads(path.read_text())["cases"]
    assert entry == {
        "image": "image_0001.nii.gz",
        "label": "label_0001.nii.gz",
        "id": "case 1",
        "labels": {"1": "liver"},
        "split": "train",
    }
    assert (run / entry["label"]).read_bytes() == content


def test_the_store_lists_finished_labels_with_what_was_saved_and_takes_in_what_others_wrote(stores, tmp_path, run):
    content = save(stores[0], tmp_path, 1, "liver")
    stores[0].save_label("a", str(tmp_path / "label.nii.gz"), "original", {})
    (found,) = stores[1].final_labels(run)
    assert (found.image_id, found.info["label_info"]) == ("DOE^JOHN", named((1, "liver"))["label_info"])
    assert found.label.read_bytes() == content


@pytest.mark.parametrize("linked", [True, False], ids=["one_file_system", "two"])
def test_what_is_saved_during_a_training_does_not_reach_it(stores, tmp_path, run, monkeypatch, linked):
    def refuse(*_: object) -> None:
        raise OSError("Invalid cross-device link")

    if not linked:
        monkeypatch.setattr(local_store.os, "link", refuse)
    content = save(stores[0], tmp_path, 1, "liver")
    (found,) = stores[0].final_labels(run)
    image = found.image.read_bytes()
    save(stores[1], tmp_path, 2, "spleen")
    other = save_nifti(tmp_path / "other.nii.gz", np.ones(SHAPE, np.int16))
    stores[1].add_image("DOE^JOHN", str(other), {})
    assert (found.label.read_bytes(), found.image.read_bytes()) == (content, image)


def test_a_label_that_is_saved_while_labels_are_listed_comes_with_its_own_names(
    stores, tmp_path, run, monkeypatch, small_bundle
):
    save(stores[0], tmp_path, 1, "liver")
    reread, calls = stores[0].reread, []

    def save_meanwhile() -> None:
        reread()
        if not calls:
            calls.append(save(stores[1], tmp_path, 2, "spleen"))

    monkeypatch.setattr(stores[0], "reread", save_meanwhile)
    (case,), _ = read_cases(stores[0].final_labels(run), small_bundle)
    assert case.labels == {2: "spleen"} and case.label.read_bytes() == calls[0]


def test_an_image_that_is_a_link_is_taken_for_what_it_points_to(stores, tmp_path, run):
    image = tmp_path / "studies" / "DOE^JOHN.nii.gz"
    image.rename(tmp_path / "elsewhere.nii.gz")
    image.symlink_to("../elsewhere.nii.gz")
    save(stores[0], tmp_path, 1, "liver")
    (found,) = stores[0].final_labels(run)
    assert found.image.read_bytes() == (tmp_path / "elsewhere.nii.gz").read_bytes()
