"""Every layout of Table 4 is read to the right names on the right voxels; what is not there, or twice, is told."""

import dataclasses
import json
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from miniature import Scene, grid, intensities, seen, world, write
from miniature_sets import SETS, Case, amos22, generic, ircadb, m3d_seg, normalised, totalsegmentator
from monai.data import MetaTensor
from monai.transforms import Orientation
from scripts.data.catalogue import Catalogue, DataSet
from scripts.data.layouts import RawCase, find_cases, generic_set
from scripts.data.layouts.tree import Tree, literal_prefix
from scripts.data.sources import read_image, read_label
from scripts.vocabulary import Vocabulary


@pytest.fixture(scope="module")
def vocabulary(bundle: Path) -> Vocabulary:
    return Vocabulary.load(bundle / "configs" / "vocabulary.json")


@pytest.fixture(scope="module")
def catalogue(bundle: Path, vocabulary: Vocabulary) -> Catalogue:
    return Catalogue.load(bundle / "configs" / "datasets.json", vocabulary)


def named(label: np.ndarray, raw: RawCase) -> dict[str, np.ndarray]:
    """Name -> voxels of a label map; a structure without a name is called after its value."""
    found: dict[str, np.ndarray] = {}
    for value, name in raw["labels"].items():
        mask = label == int(value)
        if mask.any():
            key = name or f"shape {value}"
            assert key not in found, f"{key} has two values"
            found[key] = mask
    assert set(np.unique(label)) - {0} <= {int(value) for value in raw["labels"]}
    return found


def assert_shows(raw: RawCase, objects: Scene) -> MetaTensor:
    """The case's image and label are those of the scene, voxel by voxel in world space."""
    image = read_image(raw["image"])
    points = world(image.shape[1:], image.affine.numpy())
    np.testing.assert_allclose(image[0], intensities(points), atol=1)
    label, _ = read_label(raw["label"], image, raw["labels"])
    assert label.shape == tuple(image.shape[1:]) and label.dtype == np.int16
    expected = {name: mask for name, mask in seen(objects, points).items() if mask.any()}
    found = named(label, raw)
    assert set(found) == set(expected) and expected
    for name, mask in expected.items():
        np.testing.assert_array_equal(found[name], mask, err_msg=name)
    return image


def assert_reads(data_set: DataSet, root: Path, tree: dict[str, Case], vocabulary: Vocabulary) -> list[RawCase]:
    cases = find_cases(data_set, root, vocabulary).cases
    assert json.loads(json.dumps(cases)) == cases
    assert [case["case"] for case in cases] == sorted(f"{data_set.name}_{name}" for name in tree)
    for raw in cases:
        told = tree[raw["case"].removeprefix(f"{data_set.name}_")]
        assert raw["data_set"] == data_set.name and raw["complete"] is False and raw["split"] == told.split
        if told.patient is not None:
            assert raw["patient"] == f"{data_set.name}/{told.patient}"
    return cases


# ---------------------------------------------------------------- Table 4


def test_every_data_set_of_table_4_has_a_miniature(catalogue: Catalogue):
    assert sorted(SETS) == sorted(data_set.name for data_set in catalogue) and len(SETS) == 27


@pytest.mark.parametrize("name", SETS)
def test_a_data_set_is_read_to_the_right_names_on_the_right_voxels(
    name: str, catalogue: Catalogue, vocabulary: Vocabulary, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    tree = SETS[name](tmp_path)
    with caplog.at_level(logging.WARNING, "scripts"):
        cases = assert_reads(catalogue.find(name), tmp_path, tree, vocabulary)
    for raw in cases:
        assert_shows(raw, tree[raw["case"].removeprefix(f"{name}_")].scene)
    if not any(told.patient for told in tree.values()):
        assert len({raw["patient"] for raw in cases}) == len(cases)
    assert not [record for record in caplog.records if record.name.startswith("scripts")]


def test_a_set_may_lie_deeper_and_behind_links(catalogue: Catalogue, vocabulary: Vocabulary, tmp_path: Path):
    tree = amos22(tmp_path / "store")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "round").symlink_to(tmp_path / "store")
    for raw in assert_reads(catalogue.find("AMOS22"), tmp_path / "data", tree, vocabulary):
        assert_shows(raw, tree[raw["case"].removeprefix("AMOS22_")].scene)


def test_a_structure_keeps_its_value_whatever_else_a_case_has(
    catalogue: Catalogue, vocabulary: Vocabulary, tmp_path: Path
):
    totalsegmentator(tmp_path)
    folder = tmp_path / "Totalsegmentator_dataset" / "s0000" / "segmentations"
    (folder / "kidney_left.nii.gz").unlink()
    shutil.copy(folder / "kidney_right.nii.gz", folder / "my_invention.nii.gz")
    shutil.copy(folder / "kidney_right.nii.gz", folder / "pituitary.nii.gz")
    first, second = find_cases(catalogue.find("TotalSegmentator"), tmp_path, vocabulary).cases
    labels = catalogue.find("TotalSegmentator").labels
    assert "left kidney" not in first["labels"].values() and second["labels"]["3"] == "left kidney"
    assert first["labels"][str(list(labels).index("vertebrae_L4") + 1)] == "vertebrae L4"
    unlisted = {value: name for value, name in first["labels"].items() if int(value) > len(labels)}
    assert list(unlisted.values()) == [None, "pituitary gland"]
    painted = [Path(entry["path"]).name.split(".")[0] for entry in first["label"]["files"]]
    assert painted[:2] == ["my_invention", "pituitary"]  # they hide nothing that the set names


def test_structures_of_one_name_share_a_value(catalogue: Catalogue, vocabulary: Vocabulary, tmp_path: Path):
    ircadb(tmp_path)
    (raw,) = find_cases(catalogue.find("3D-IRCADb"), tmp_path, vocabulary).cases
    tumors = {e["value"] for e in raw["label"]["files"] if "livertumor" in e["path"]}
    assert len(tumors) == 1 and list(raw["labels"].values()).count("liver tumor") == 1


def test_a_set_without_labels_is_read_for_pre_training(vocabulary: Vocabulary, tmp_path: Path):
    write(tmp_path / "ct" / "a b.nii.gz", intensities(grid().world()), grid().affine)
    write(tmp_path / "ct" / "\u75c5.nii.gz", intensities(grid().world()), grid().affine)
    block = {"image": r"ct/(?P<case>[^/]+)\.nii\.gz", "split": "train"}
    data_set = dataclasses.replace(generic_set("My CTs"), layout=(block,))
    cases = find_cases(data_set, tmp_path, vocabulary).cases
    assert [case["case"] for case in cases] == ["My_CTs_a_b", "My_CTs_u75c5"]
    assert all((case["label"], case["labels"], case["split"]) == (None, {}, "train") for case in cases)
    assert cases[0]["patient"] == "My CTs/a b"


def test_a_path_that_two_blocks_match_belongs_to_the_first(vocabulary: Vocabulary, tmp_path: Path):
    for name in ("1", "2"):
        write(tmp_path / f"ct{name}.nii.gz", intensities(grid().world()), grid().affine)
    blocks = (
        {"image": r"ct(?P<case>1)\.nii\.gz", "split": "test"},
        {"image": r"ct(?P<case>\d)\.nii\.gz"},
        {"image": r"mr(?P<case>\d)\.nii\.gz", "optional": True},
    )
    cases = find_cases(dataclasses.replace(generic_set("X"), layout=blocks), tmp_path, vocabulary).cases
    assert [(case["case"], case["split"]) for case in cases] == [("X_1", "test"), ("X_2", None)]


# ---------------------------------------------------------------- the processed release


@pytest.mark.parametrize("where", [".", "0003"])
def test_m3d_seg_is_recognised_and_keeps_its_axes(
    where: str, catalogue: Catalogue, vocabulary: Vocabulary, tmp_path: Path
):
    tree = m3d_seg(tmp_path)
    for data_set in (generic_set("M3D"), catalogue.find("MSD-Liver")):
        for raw in assert_reads(data_set, tmp_path / where, tree, vocabulary):
            image = read_image(raw["image"])
            stored = Orientation(axcodes="SAR", labels=None)(image)
            np.testing.assert_array_equal(stored[0], np.load(raw["image"]["path"])[0])
            label, overlaps = read_label(raw["label"], image, raw["labels"])
            found = named(
                Orientation(axcodes="SAR", labels=None)(MetaTensor(label[None], image.affine))[0].numpy(), raw
            )
            expected = seen(tree[raw["case"].removeprefix(f"{data_set.name}_")].scene, grid("SAR").world())
            assert set(found) == set(expected) == {"liver", "liver tumor", "left kidney"}
            for name, mask in expected.items():
                np.testing.assert_array_equal(found[name], mask)
            assert overlaps == {"liver tumor over liver": int(expected["liver tumor"].sum())}


def test_masks_of_m3d_seg_that_the_set_names_freely_get_its_names(
    catalogue: Catalogue, vocabulary: Vocabulary, tmp_path: Path
):
    m3d_seg(tmp_path)
    listing = tmp_path / "0003" / "0003.json"
    content = json.loads(listing.read_text())
    content["labels"] = {"0": "background", "1": "livertumor01", "2": "livertumor02", "3": "what is this"}
    listing.write_text(json.dumps(content))
    raw = find_cases(catalogue.find("3D-IRCADb"), tmp_path, vocabulary).cases[0]
    values = {entry["channel"]: entry["value"] for entry in raw["label"]["channels"]}
    assert values[0] == values[1] != values[2]
    assert raw["labels"] == {str(values[0]): "liver tumor", str(values[2]): None}


@pytest.mark.parametrize(
    "path", ["/etc/passwd", "../secret/image.npy", "0003/../../secret/image.npy", "..\\x\\image.npy"]
)
def test_paths_in_a_listing_may_not_leave_the_folder(path: str, vocabulary: Vocabulary, tmp_path: Path):
    m3d_seg(tmp_path / "data")
    (tmp_path / "secret").mkdir()
    np.save(tmp_path / "secret" / "image.npy", normalised(grid("SAR")))
    assert sentence_of_listing(tmp_path / "data", vocabulary, image=path).endswith("not below the set's own folder")


def test_a_listing_of_another_form_is_told(vocabulary: Vocabulary, tmp_path: Path):
    m3d_seg(tmp_path)
    for content, says in (
        ("[]", "is not of the form"),
        ("{", "cannot be read as JSON"),
        ('{"train": [3], "labels": {}}', "names no image and label"),
        ('{"train": [{"image": "a"}], "labels": {}}', "names no image and label"),
        ('{"train": [{"image": "a", "label": "b"}]}', "has no labels"),
        ('{"train": [{"image": "a", "label": "b"}], "labels": {"one": "liver"}}', "has no labels"),
        ('{"train": {"image": "a"}, "labels": {}}', "is not of the form"),
    ):
        (tmp_path / "0003" / "0003.json").write_text(content)
        assert says in sentence_of(generic_set("M3D"), tmp_path, vocabulary), content


def sentence_of_listing(root: Path, vocabulary: Vocabulary, **entry: str) -> str:
    listing = root / "0003" / "0003.json"
    content = json.loads(listing.read_text())
    content["train"][0] |= entry
    listing.write_text(json.dumps(content))
    return sentence_of(generic_set("M3D"), root, vocabulary)


# ---------------------------------------------------------------- any folder


def test_the_generic_layout_reads_every_format(vocabulary: Vocabulary, tmp_path: Path):
    tree = generic(tmp_path)
    for raw in assert_reads(generic_set("MyHospital"), tmp_path, tree, vocabulary):
        assert raw["labels"] == {"1": "liver", "2": "left kidney", "3": "my own structure", "7": None}
        assert_shows(raw, tree[raw["case"].removeprefix("MyHospital_")].scene)


def test_a_folder_of_images_alone_has_no_labels(vocabulary: Vocabulary, tmp_path: Path):
    generic(tmp_path)
    shutil.rmtree(tmp_path / "labels")
    cases = find_cases(generic_set("CTs"), tmp_path, vocabulary).cases
    assert len(cases) == 4 and all(case["label"] is None and case["labels"] == {} for case in cases)


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"liver": 1}', '{"0": "background"}', '{"1.5": "liver"}'])
def test_labels_need_their_names(content: str | None, vocabulary: Vocabulary, tmp_path: Path):
    generic(tmp_path)
    (tmp_path / "labels.json").unlink()
    if content is not None:
        (tmp_path / "labels.json").write_text(content)
    assert "labels.json" in (said := sentence_of(generic_set("CTs"), tmp_path, vocabulary)) and '{"1": "liver"' in said


# ---------------------------------------------------------------- what is not there, or twice


def sentence_of(data_set: DataSet, root: Path, vocabulary: Vocabulary) -> str:
    with pytest.raises(ValueError) as caught:
        find_cases(data_set, root, vocabulary)
    sentence = str(caught.value)
    assert sentence.startswith("data_dir: ") and str(root) in sentence and "\n" not in sentence
    return sentence


def test_a_set_that_is_not_there_says_where_to_get_it(catalogue: Catalogue, vocabulary: Vocabulary, tmp_path: Path):
    for data_set in catalogue:
        said = sentence_of(data_set, tmp_path / "none", vocabulary)
        assert data_set.source in said and data_set.licence in said and "nothing is downloaded" in said
    assert "images/, labels/ and labels.json" in sentence_of(generic_set("CTs"), tmp_path / "none", vocabulary)


def test_a_folder_without_the_set_says_what_it_found(catalogue: Catalogue, vocabulary: Vocabulary, tmp_path: Path):
    SETS["BTCV"](tmp_path)
    for name in SETS:
        if name != "BTCV":
            said = sentence_of(catalogue.find(name), tmp_path, vocabulary)
            assert f"holds no image of {name}" in said and "RawData/Training/img/img0001.nii.gz" in said
    (tmp_path / "empty").mkdir()
    assert "found nothing at all" in sentence_of(catalogue.find("BTCV"), tmp_path / "empty", vocabulary)
    assert "looked for images/" in sentence_of(generic_set("CTs"), tmp_path, vocabulary)


def test_a_part_that_the_set_must_have_is_missed(catalogue: Catalogue, vocabulary: Vocabulary, tmp_path: Path):
    amos22(tmp_path)
    shutil.rmtree(tmp_path / "amos22" / "imagesTr")
    assert "imagesTr/" in sentence_of(catalogue.find("AMOS22"), tmp_path, vocabulary)


@pytest.mark.parametrize(
    ("name", "gone", "case", "told"),
    [
        ("AMOS22", "amos22/labelsVa/amos_0013.nii.gz", "amos_0013", "labelsVa/amos_0013.nii.gz is not there"),
        ("TotalSegmentator", "Totalsegmentator_dataset/s0864/segmentations", "s0864", "s0864/segmentations/"),
        ("QUBIQ", "training_data_v3_QC/kidney/Training/case02/task01*", "kidney_Training_case02", "task01_seg"),
        ("M3D", "0003/14/mask*", "0003_14", "0003/14/mask_(3, 12, 14, 16).npz is not there"),
        ("M3D", "0003/14/image.npy", "0003_14", "the image 0003/14/image.npy is not there"),
        ("CTs", "labels/p2.seg.nrrd", "p2", "labels/ holds no volume called p2"),
    ],
)
def test_an_image_without_its_label_is_left_out_and_listed(
    name: str,
    gone: str,
    case: str,
    told: str,
    catalogue: Catalogue,
    vocabulary: Vocabulary,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
):
    tree = {**SETS, "M3D": m3d_seg, "CTs": generic}[name](tmp_path)
    for path in tmp_path.glob(gone):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    data_set = catalogue.find(name) if name in SETS else generic_set(name)
    with caplog.at_level(logging.WARNING, "scripts"):
        found = find_cases(data_set, tmp_path, vocabulary)
    (fault,) = found.faults
    assert fault["case"] == f"{name}_{case}" and told in fault["sentence"] and fault["kind"].endswith(" missing")
    assert sorted(c["case"] for c in found.cases) == sorted(f"{name}_{c}" for c in tree if c != case)
    assert f"case {name}_{case} left out: {fault['sentence']}" in caplog.messages


def test_a_set_whose_labels_are_all_missing_is_told(catalogue: Catalogue, vocabulary: Vocabulary, tmp_path: Path):
    SETS["BTCV"](tmp_path)
    shutil.rmtree(tmp_path / "RawData" / "Training" / "label")
    said = sentence_of(catalogue.find("BTCV"), tmp_path, vocabulary)
    assert "label/label0001.nii.gz is not there" in said


def test_two_images_of_one_name_are_told(catalogue: Catalogue, vocabulary: Vocabulary, tmp_path: Path):
    SETS["BTCV"](tmp_path / "a")
    SETS["BTCV"](tmp_path / "b")
    said = sentence_of(catalogue.find("BTCV"), tmp_path, vocabulary)
    assert "called BTCV_0001: a/RawData/Training/img/img0001.nii.gz and b/RawData" in said


# ---------------------------------------------------------------- the tree


@pytest.mark.parametrize(
    ("pattern", "prefix"),
    {
        r"labels/a b\.nii": "labels/a b.nii",
        r"a/1\.2\-x/[^/]+": "a/1.2-x/",
        r"ab?c": "a",
        r"ab*": "a",
        r"a\.{2}": "a",
        r"ab+c": "ab",
        r"(?P<case>x)": "",
        r"ab|cd": "",
        r"a(b|c)d": "a",
        r"a\d": "a",
    }.items(),
)
def test_the_plain_beginning_of_an_expression_is_known(pattern: str, prefix: str):
    assert literal_prefix(pattern) == prefix


def test_a_tree_finds_what_a_search_of_all_paths_would(tmp_path: Path):
    for name in ("a/x.nii", "a/b/x.nii", "a.b/x.nii", "A/x.nii", ".hidden/x.nii", "__MACOSX/x.nii", "z/.x.nii"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "nowhere").symlink_to(tmp_path / "gone")
    (tmp_path / "self").symlink_to(tmp_path / "self")
    tree = Tree(tmp_path)
    assert list(tree.files) == ["A/x.nii", "a.b/x.nii", "a/b/x.nii", "a/x.nii"]
    assert [path for path, _ in tree.matching(r"a/(?:b/)?x\.nii")] == ["a/b/x.nii", "a/x.nii"]
    assert [path for path, _ in tree.matching(r"[aA](\.b)?", folders=True)] == ["A", "a", "a.b"]
    assert tree.in_folder("a") == ["x.nii"] and "a/x.nii" in tree and "z/.x.nii" not in tree
    assert tree.absolute("a/x.nii") == os.path.join(tmp_path, "a", "x.nii")
