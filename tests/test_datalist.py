"""Datalists and folders of images are read, cases are prepared once."""

import json
import logging
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, ScaleIntensityd
from scripts.training.datalist import read_datalist, read_images
from scripts.training.prepared import prepare_cases
from scripts.transforms import LoadVolumed


def datalist(path: Path, *splits: str | None) -> Path:
    cases = [{"image": f"{i}/ct.nii", "label": f"{i}/seg.nii", "labels": {"1": "a"}} for i in range(len(splits))]
    for entry, split in zip(cases, splits, strict=True):
        entry |= {"split": split} if split else {}
    path.write_text(json.dumps({"cases": cases}))
    return path


def test_a_datalist_is_read_by_split_with_paths_beside_it(tmp_path: Path):
    path = datalist(tmp_path / "datalist.json", "train", "test", None, "train")
    cases = read_datalist(path, "train")
    assert [c["image"] for c in cases] == [str(tmp_path / "0" / "ct.nii"), str(tmp_path / "3" / "ct.nii")]
    assert cases[1]["label"] == str(tmp_path / "3" / "seg.nii") and cases[0]["labels"] == {"1": "a"}
    assert len(read_datalist(str(path))) == 4
    (tmp_path / "more").mkdir()
    other = datalist(tmp_path / "more" / "list.json", "train")
    assert len(read_datalist([path, other], "train")) == 3


def test_a_datalist_that_is_none_is_told_in_one_line(tmp_path: Path):
    path = tmp_path / "datalist.json"
    for content, says in (
        (None, "does not exist"),
        ("[", "cannot be read as JSON"),
        ("[]", "is not of the form"),
        ('{"cases": {}}', "is not of the form"),
        ('{"cases": []}', "holds no case of split 'train'"),
        ('{"cases": ["a"]}', "case 1 of"),
        ('{"cases": [{"image": "a.nii", "label": "b.nii"}]}', "lacks image, label or labels"),
    ):
        if content is not None:
            path.write_text(content)
        with pytest.raises(ValueError) as caught:
            read_datalist(path, "train")
        sentence = str(caught.value)
        assert sentence.startswith("datalist: ") and str(path) in sentence and says in sentence and "\n" not in sentence


def test_the_decathlons_form_is_read_with_its_lists_as_splits(tmp_path: Path):
    path = tmp_path / "dataset.json"
    lists = {
        "training": [{"image": "./imagesTr/a.nii.gz", "label": "./labelsTr/a.nii.gz", "fold": 0}],
        "validation": [{"image": "b.nii", "label": "c.nii", "labels": {"3": None}, "prepared": "prepared/b"}],
        "test": ["./imagesTs/d.nii.gz", {"image": "e.nii"}],
    }
    path.write_text(json.dumps({"name": "Liver", "labels": {"0": "background", "1": "liver"}, **lists}))
    first, second = read_datalist(path)
    assert first == {
        "image": str(tmp_path / "imagesTr" / "a.nii.gz"),
        "label": str(tmp_path / "labelsTr" / "a.nii.gz"),
        "labels": {"1": "liver"},
        "fold": 0,
        "split": "train",
    }
    assert second["split"] == "validation" and second["labels"] == {"3": None}
    assert second["prepared"] == str(tmp_path / "prepared" / "b") and read_datalist(path, "train") == [first]
    with pytest.raises(ValueError, match="holds no case of split 'test'"):
        read_datalist(path, "test")
    images = read_images(path, "test")
    assert images == [{"image": str(tmp_path / "imagesTs" / "d.nii.gz")}, {"image": str(tmp_path / "e.nii")}]
    assert read_images(path, "validation") == [{key: second[key] for key in ("image", "prepared")}]
    path.write_text(json.dumps({"testing": lists["validation"]}))
    assert [case["split"] for case in read_datalist(path)] == ["test"]


def test_a_decathlon_list_that_is_none_is_told_in_one_line(tmp_path: Path):
    path = tmp_path / "dataset.json"
    case = {"image": "a.nii", "label": "b.nii"}
    for content, says in (
        ({"training": {}}, "is not of the form"),
        ({"train": [case]}, "is not of the form"),
        ({"training": [case]}, "case 1 of .* lacks image, label or labels"),
        ({"training": ["a.nii", {"label": "b.nii", "labels": {"1": "a"}}]}, "lacks image, label or labels"),
        ({"training": [7]}, "case 1 of .* lacks"),
        ({"training": [{**case, "image": ["a.nii"], "labels": {}}]}, "image of case 1 of .* is \\['a.nii'\\]; allowed"),
    ):
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=says) as caught:
            read_datalist(path)
        assert str(caught.value).startswith("datalist: ") and "\n" not in str(caught.value)


def test_a_bad_case_is_left_out_with_its_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    array = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "good.nii")
    good, missing = str(tmp_path / "good.nii"), str(tmp_path / "missing.nii")
    cases = [{"image": image, "label": good, "labels": {"1": "a"}} for image in (good, missing)]
    cases.append({"image": good, "label": good, "labels": {"0": "background", "1": "a"}})
    load = Compose([LoadVolumed(["image", "label"])])
    with caplog.at_level(logging.WARNING):
        (prepared,) = prepare_cases(cases, load)
    told = [record.getMessage() for record in caplog.records if record.name.startswith("scripts.")]
    assert told == [
        f"left out {missing}: image: {missing} does not exist",
        f"left out {good}: labels has the value '0'; allowed are whole numbers above 0",
    ]
    assert prepared.image.dtype == torch.float16 and type(prepared.label) is torch.Tensor
    assert prepared.image.shape == prepared.label.shape == (4, 5, 6) and prepared.names == {1: "a"}
    with pytest.raises(ValueError, match="^datalist: none of its 2 cases can be used$"):
        prepare_cases(cases[1:], load)


def test_images_come_from_datalists_and_folders_each_once(tmp_path: Path):
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps({"cases": [{"image": "scans/a.nii.gz", "split": "train"}, {"image": "b.nii"}]}))
    (tmp_path / "scans" / "deep").mkdir(parents=True)
    for name in ("a.nii.gz", "deep/c.NRRD", "notes.txt"):
        (tmp_path / "scans" / name).touch()
    found = [case["image"] for case in read_images([path, tmp_path / "scans"], "train")]
    assert found == [str(tmp_path / "scans" / name) for name in ("a.nii.gz", "deep/c.NRRD")]
    assert len(read_images(path)) == 2
    for bad, told in ((tmp_path / "scans" / "deep" / "none", "does not exist"), (path, "no case of split 'test'")):
        with pytest.raises(ValueError, match=told):
            read_images(bad, "test")
    path.write_text('{"cases": [{"label": "a"}]}')
    with pytest.raises(ValueError, match="case 1 of .* lacks image$"):
        read_images(path)


def test_prepared_cases_are_kept_on_disk_until_file_or_setting_changes(tmp_path: Path):
    array = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "a.nii")
    cases = [{"image": str(tmp_path / "a.nii"), "labels": {}}]

    def prepared(factor: float) -> torch.Tensor:
        (case,) = prepare_cases(
            cases, Compose([LoadVolumed("image"), ScaleIntensityd("image", None, None, factor)]), kept
        )
        return case.image

    kept = tmp_path / "kept"
    first = prepared(1.0)
    assert torch.equal(first, prepared(1.0)) and len(list(kept.glob("*.pt"))) == 1
    assert not torch.equal(first, prepared(2.0)) and len(list(kept.glob("*.pt"))) == 2
    nib.save(nib.Nifti1Image(array + 1, np.eye(4)), tmp_path / "a.nii")
    os.utime(tmp_path / "a.nii", (1, 1))
    assert not torch.equal(first, prepared(1.0)) and len(list(kept.glob("*.pt"))) == 3


def test_a_case_that_is_listed_several_times_is_kept_once(tmp_path: Path):
    array = np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32)
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "a.nii")
    case = {"image": str(tmp_path / "a.nii"), "labels": {}}
    listed = [case, dict(case), {**case, "complete": True}]
    first, second, other = prepare_cases(listed, Compose([LoadVolumed("image")]))
    assert first is second and other is not first and other.complete
