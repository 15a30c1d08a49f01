"""The catalogue: the shipped file says what the paper's tables say, and a broken one is told in one line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scripts.data.catalogue import Catalogue, DataSet, main
from scripts.data.catalogue_page import as_markdown
from scripts.vocabulary import Vocabulary

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "bundle" / "configs"
TABLE_4 = {  # name: (category number, volumes)
    "3D-IRCADb": (47, 20),
    "AbdomenCT-1k": (4, 1000),
    "AMOS22": (15, 240),
    "BTCV": (13, 30),
    "CHAOS": (1, 20),
    "CT-ORG": (6, 140),
    "FLARE22": (13, 50),
    "HaN-Seg": (30, 42),
    "KiPA22": (4, 70),
    "KiTS19": (2, 210),
    "KiTS23": (3, 489),
    "LUNA16": (3, 888),
    "MSD-Colon": (1, 126),
    "MSD-HepaticVessel": (2, 303),
    "MSD-Liver": (2, 131),
    "MSD-lung": (1, 63),
    "MSD-pancreas": (2, 281),
    "MSD-spleen": (1, 41),
    "Pancreas-CT": (1, 82),
    "QUBIQ": (3, 82),
    "SegTHOR": (4, 40),
    "SLIVER07": (1, 20),
    "TotalSegmentator": (104, 1203),
    "ULS23": (0, 1618),  # the table has a dash
    "VerSe19": (28, 80),
    "VerSe20": (28, 61),
    "WORD": (16, 100),
}
UNCOUNTED = {"3D-IRCADb", "ULS23"}  # folders with several names for one structure; no number in the table
LUNA = "1.3.6.1.4.1.14519.5.2.1.6279.6001.105756658031515062000744821260"

TOY = {
    "name": "Toy",
    "targets": ["liver"],
    "volumes": 2,
    "categories": 1,
    "source": "https://example.org/toy",
    "licence": "CC0 1.0",
    "download": "toy.zip.",
    "role": "train",
    "layout": [{"image": r"img/(?P<case>\d{4})\.nii", "label": "seg/{case}.nii"}],
    "labels": {"1": "liver", "2": None},
    "patient": r"img/(\d\d)",
    "confirmed": {"layout": True, "labels": False, "from": "nothing"},
    "note": "",
}
IMAGE = {"image": r"(?P<case>\d+)/ct\.nii"}


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.load(CONFIGS / "vocabulary.json")


@pytest.fixture(scope="module")
def catalogue(vocabulary: Vocabulary) -> Catalogue:
    return Catalogue.load(CONFIGS / "datasets.json", vocabulary)


@pytest.fixture
def load(tmp_path: Path, vocabulary: Vocabulary) -> Callable[..., Catalogue]:
    """Load a catalogue with this text, or with these entries."""

    def load(content: str | list[Any]) -> Catalogue:
        path = tmp_path / "datasets.json"
        path.write_text(content if isinstance(content, str) else json.dumps({"data_sets": content}))
        return Catalogue.load(path, vocabulary)

    return load


def image_of(data_set: DataSet, path: str) -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Blocks whose images include the path, with the groups they find in it."""
    for block in data_set.layout:
        found = re.fullmatch(block["image"], path)
        if found:
            yield dict(block), found.groupdict(default="")


def filled(template: str, groups: dict[str, str], quoted: Callable[[str], str] = str) -> str:
    for name, text in groups.items():
        template = template.replace(f"{{{name}}}", quoted(text))
    return template


def test_the_file_has_the_27_sets_of_table_4_with_its_numbers(catalogue: Catalogue) -> None:
    assert len(catalogue) == 27
    assert {each.name: (each.categories, each.volumes) for each in catalogue} == TABLE_4


def test_all_targets_and_labels_are_canonical_names(catalogue: Catalogue, vocabulary: Vocabulary) -> None:
    known = {structure.name for structure in vocabulary}
    for each in catalogue:
        assert set(each.targets) <= known
        assert {name for name in each.labels.values() if name} <= known


def test_each_set_labels_just_its_targets_or_newer_structures_too(catalogue: Catalogue) -> None:
    for each in catalogue:
        assert set(each.targets) <= set(each.labels.values())
        assert set(each.targets) == set(each.labels.values()) or each.name == "TotalSegmentator"


def test_there_are_as_many_targets_as_the_paper_counts_categories(catalogue: Catalogue) -> None:
    counted = {each.name: len(each.targets) for each in catalogue if each.name not in UNCOUNTED}
    assert counted == {name: count for name, (count, _) in TABLE_4.items() if name not in UNCOUNTED}


def test_3d_ircadb_has_47_folder_names_and_totalsegmentator_those_of_both_versions(catalogue: Catalogue) -> None:
    assert len(catalogue.find("3D-IRCADb").labels) == 47
    labels = catalogue.find("TotalSegmentator").labels
    assert len(labels) == 124
    assert {"heart_atrium_left", "face", "heart", "skull"} <= set(labels)


def test_external_test_sets_of_the_paper_are_not_for_training(catalogue: Catalogue) -> None:
    assert {each.name for each in catalogue if each.role == "test"} == {"SegTHOR", "ULS23"}
    assert {block.get("split") for name in ("SegTHOR", "ULS23") for block in catalogue.find(name).layout} == {"test"}


@pytest.mark.parametrize(
    ("name", "value", "structure"),
    [
        ("AMOS22", "2", "right kidney"),
        ("AMOS22", "3", "left kidney"),
        ("AMOS22", "11", "right adrenal gland"),
        ("BTCV", "2", "right kidney"),
        ("BTCV", "12", "right adrenal gland"),
        ("FLARE22", "2", "right kidney"),
        ("FLARE22", "13", "left kidney"),
        ("WORD", "3", "left kidney"),
        ("WORD", "4", "right kidney"),
        ("WORD", "15", "left femoral head"),
        ("LUNA16", "3", "left lung"),
        ("LUNA16", "4", "right lung"),
        ("LUNA16", "5", "trachea"),
        ("CT-ORG", "3", "lung"),
        ("KiPA22", "1", "renal vein"),
        ("SegTHOR", "2", "heart"),
        ("VerSe19", "8", "vertebrae T1"),
        ("VerSe20", "28", "vertebrae T13"),
        ("HaN-Seg", "Eye_PL", "left posterior eyeball"),
        ("3D-IRCADb", "livertumor03", "liver tumor"),
        ("TotalSegmentator", "kidney_left", "left kidney"),
    ],
)
def test_values_mean_what_the_sets_say(catalogue: Catalogue, name: str, value: str, structure: str) -> None:
    assert catalogue.find(name).labels[value] == structure


@pytest.mark.parametrize(
    ("name", "image", "label", "split"),
    [
        ("AbdomenCT-1k", "AbdomenCT-1K-ImagePart1/Case_00001_0000.nii.gz", "Mask/Case_00001.nii.gz", None),
        ("AMOS22", "amos22/imagesTr/amos_0001.nii.gz", "amos22/labelsTr/amos_0001.nii.gz", None),
        ("AMOS22", "imagesVa/amos_0500.nii.gz", "labelsVa/amos_0500.nii.gz", "test"),
        ("BTCV", "RawData/Training/img/img0001.nii.gz", "RawData/Training/label/label0001.nii.gz", None),
        ("CT-ORG", "volumes/volume-20.nii.gz", "labels/labels-20.nii.gz", "test"),
        ("CT-ORG", "volume-21.nii", "labels-21.nii", None),
        ("FLARE22", "images/FLARE22_Tr_0001_0000.nii.gz", "labels/FLARE22_Tr_0001.nii.gz", None),
        ("KiPA22", "train/image/70.nii.gz", "train/label/70.nii.gz", None),
        ("KiTS19", "data/case_00209/imaging.nii.gz", "data/case_00209/segmentation.nii.gz", None),
        ("KiTS23", "dataset/case_00588/imaging.nii.gz", "dataset/case_00588/segmentation.nii.gz", None),
        ("LUNA16", f"subset3/{LUNA}.mhd", f"seg-lungs-LUNA16/{LUNA}.mhd", None),
        ("MSD-Colon", "Task10_Colon/imagesTr/colon_001.nii.gz", "Task10_Colon/labelsTr/colon_001.nii.gz", None),
        ("MSD-HepaticVessel", "imagesTr/hepaticvessel_001.nii.gz", "labelsTr/hepaticvessel_001.nii.gz", None),
        ("MSD-Liver", "imagesTr/liver_0.nii.gz", "labelsTr/liver_0.nii.gz", None),
        ("MSD-lung", "imagesTr/lung_001.nii.gz", "labelsTr/lung_001.nii.gz", None),
        ("MSD-pancreas", "imagesTr/pancreas_001.nii.gz", "labelsTr/pancreas_001.nii.gz", None),
        ("MSD-spleen", "imagesTr/spleen_10.nii.gz", "labelsTr/spleen_10.nii.gz", None),
        ("Pancreas-CT", "PANCREAS_0001/1.2/3.4", "TCIA_pancreas_labels-02-05-2017/label0001.nii.gz", None),
        ("SegTHOR", "train/Patient_01/Patient_01.nii.gz", "train/Patient_01/GT.nii.gz", "test"),
        ("SLIVER07", "scan/liver-orig001.mhd", "label/liver-seg001.mhd", None),
        ("SLIVER07", "training/liver-orig001.mhd", "training/liver-seg001.mhd", None),
        (
            "VerSe19",
            "dataset-verse19training/rawdata/sub-verse004/sub-verse004_ct.nii.gz",
            "dataset-verse19training/derivatives/sub-verse004/sub-verse004_seg-vert_msk.nii.gz",
            None,
        ),
        (
            "VerSe20",
            "dataset-verse20test/rawdata/sub-verse768/sub-verse768_dir-iso_ct.nii.gz",
            "dataset-verse20test/derivatives/sub-verse768/sub-verse768_dir-iso_seg-vert_msk.nii.gz",
            "test",
        ),
        ("WORD", "WORD-V0.1.0/imagesVal/word_0001.nii.gz", "WORD-V0.1.0/labelsVal/word_0001.nii.gz", "validation"),
    ],
)
def test_an_image_finds_its_label_map(
    catalogue: Catalogue, name: str, image: str, label: str, split: str | None
) -> None:
    block, groups = next(image_of(catalogue.find(name), image))
    assert filled(block["label"], groups) == label
    assert block.get("split") == split


@pytest.mark.parametrize(
    ("name", "image", "kind", "piece", "structure"),
    [
        (
            "3D-IRCADb",
            "3Dircadb1/3Dircadb1.12/PATIENT_DICOM",
            "folders",
            "3Dircadb1/3Dircadb1.12/MASKS_DICOM/portalvein",
            "portal vein",
        ),
        ("CHAOS", "Train_Sets/CT/14/DICOM_anon", "folders", "Train_Sets/CT/14/Ground", "liver"),
        (
            "HaN-Seg",
            "HaN-Seg/set_1/case_01/case_01_IMG_CT.nrrd",
            "files",
            "HaN-Seg/set_1/case_01/case_01_OAR_A_Carotid_R.seg.nrrd",
            "right carotid artery",
        ),
        (
            "QUBIQ",
            "training_data_v3_QC/pancreatic-lesion/case02/image.nii.gz",
            "raters",
            "training_data_v3_QC/pancreatic-lesion/case02/task01_seg02.nii.gz",
            "pancreas lesion",
        ),
        (
            "QUBIQ",
            "validation_data_qubiq2021/kidney/Validation/case21/image.nii.gz",
            "raters",
            "validation_data_qubiq2021/kidney/Validation/case21/task01_seg01.nii.gz",
            "kidney",
        ),
        ("TotalSegmentator", "s0011/ct.nii.gz", "files", "s0011/segmentations/rib_left_1.nii.gz", "left rib 1"),
        (
            "ULS23",
            "novel_data/ULS23_Radboudumc_Bone/images/bone_00002_lesion_01.nii.gz",
            "files",
            "novel_data/ULS23_Radboudumc_Bone/labels/bone_00002_lesion_01.nii.gz",
            "bone lesion",
        ),
    ],
)
def test_an_image_finds_the_pieces_of_its_label(
    catalogue: Catalogue, name: str, image: str, kind: str, piece: str, structure: str
) -> None:
    data_set = catalogue.find(name)
    block, groups = next(image_of(data_set, image))
    found = re.fullmatch(filled(block[kind], groups, re.escape), piece)
    assert found is not None
    assert data_set.labels[found.groupdict().get("structure") or block["structure"]] == structure


def test_the_pieces_of_one_case_are_not_those_of_another(catalogue: Catalogue) -> None:
    block, groups = next(image_of(catalogue.find("QUBIQ"), "kidney/Training/case01/image.nii.gz"))
    expression = filled(block["raters"], groups, re.escape)
    assert re.fullmatch(expression, "kidney/Training/case01/task01_seg03.nii.gz")
    assert not re.fullmatch(expression, "kidney/Training/case02/task01_seg03.nii.gz")
    assert not re.fullmatch(expression, "pancreas/case01/task01_seg03.nii.gz")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("AMOS22", "imagesTr/amos_0501.nii.gz"),  # MRI
        ("AMOS22", "imagesVa/amos_0600.nii.gz"),
        ("AMOS22", "imagesTs/amos_0004.nii.gz"),
        ("BTCV", "RawData/Training/label/label0001.nii.gz"),
        ("CHAOS", "Train_Sets/MR/1/T2SPIR/DICOM_anon"),
        ("CHAOS", "Test_Sets/CT/3/DICOM_anon"),
        ("HaN-Seg", "set_1/case_01/case_01_IMG_MR_T1.nrrd"),
        ("KiTS19", "data/case_00210/imaging.nii.gz"),
        ("MSD-Liver", "imagesTs/liver_132.nii.gz"),
        ("MSD-Liver", "imagesTr/._liver_0.nii.gz"),
        ("QUBIQ", "prostate/Training/case01/image.nii.gz"),
        ("SegTHOR", "train/Patient_01/GT.nii.gz"),
        ("VerSe20", "dataset-verse19training/rawdata/sub-verse004/sub-verse004_ct.nii.gz"),
    ],
)
def test_what_is_not_to_be_read_matches_nothing(catalogue: Catalogue, name: str, path: str) -> None:
    assert not list(image_of(catalogue.find(name), path))


@pytest.mark.parametrize(
    ("name", "path", "patient"),
    [
        ("VerSe20", "dataset-verse20training/rawdata/sub-gl003/sub-gl003_dir-ax_ct.nii.gz", "sub-gl003"),
        ("ULS23", "ULS23_Radboudumc_Bone/images/bone_00002_lesion_01.nii.gz", "bone_00002"),
        ("ULS23", "ULS23_Radboudumc_Pancreas/images/diag_pancreas_0004_lesion_01.nii.gz", "diag_pancreas_0004"),
        ("ULS23", "ULS23_DeepLesion3D/images/000010_02_02_100_lesion_01.nii.gz", "000010"),
    ],
)
def test_several_images_of_one_patient_are_told(catalogue: Catalogue, name: str, path: str, patient: str) -> None:
    expression = catalogue.find(name).patient
    assert expression is not None
    found = re.search(expression, path)
    assert found is not None and found[1] == patient


@pytest.mark.parametrize("text", ["AMOS22", "amos22", "AMOS-22", "amos_22", " Amos 22 "])
def test_spelling_does_not_matter_to_find(catalogue: Catalogue, text: str) -> None:
    assert text in catalogue
    assert catalogue.find(text).name == "AMOS22"


def test_every_set_is_found_by_its_name(catalogue: Catalogue) -> None:
    assert [catalogue.find(each.name) for each in catalogue] == list(catalogue)


def test_an_unknown_name_is_told_the_nearest(catalogue: Catalogue) -> None:
    assert "amos2" not in catalogue and 22 not in catalogue
    with pytest.raises(ValueError, match="^data_set is 'amos2', which the catalogue does not have; nearest: AMOS22"):
        catalogue.find("amos2")
    with pytest.raises(ValueError, match="nearest: VerSe19, VerSe20|nearest: VerSe20, VerSe19"):
        catalogue.find("verse")


def test_a_name_that_is_like_none_is_told_all(load: Callable[..., Catalogue]) -> None:
    with pytest.raises(ValueError, match="^data_set is 'xyz', which the catalogue does not have; it has Toy, Toy2$"):
        load([TOY, {**TOY, "name": "Toy2"}]).find("xyz")


def test_a_set_says_where_it_is_to_be_had(load: Callable[..., Catalogue], catalogue: Catalogue) -> None:
    said = load([TOY]).find("toy").where()
    assert said == "Toy is to be had from https://example.org/toy (toy.zip); terms: CC0 1.0; nothing is downloaded"
    assert all("\n" not in each.where() for each in catalogue)


def test_the_keys_of_an_entry_become_a_data_set(load: Callable[..., Catalogue]) -> None:
    toy = load([TOY]).find("Toy")
    assert toy.targets == ("liver",) and toy.layout == tuple(TOY["layout"])
    lists = {"targets": list(toy.targets), "layout": list(toy.layout)}
    assert {key: lists.get(key, getattr(toy, key)) for key in TOY} == TOY


@pytest.mark.parametrize(
    "layout",
    [
        [{"kind": "generic"}],
        [{"kind": "m3d"}],
        [IMAGE],
        [{**IMAGE, "is": "dicom", "folders": "{case}/masks", "slices": "png", "structure": "1"}],
        [{**IMAGE, "files": "{case}/(?P<structure>[^/]{2,5})", "split": "test", "optional": True}],
        [{**IMAGE, "raters": r"{case}/(?P<rater>\d)\.nii", "structure": "2"}],
    ],
)
def test_every_kind_of_block_is_allowed(load: Callable[..., Catalogue], layout: list[dict[str, Any]]) -> None:
    assert load([{**TOY, "layout": layout}]).find("Toy").layout == tuple(layout)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "line 1"),
        ("[]", "expected an object with a list 'data_sets'"),
        ('{"data_sets": {}}', "expected an object with a list 'data_sets'"),
        ('{"data_sets": [{"name": "Toy", "labels": {"1": "liver", "1": "spleen"}}]}', "key '1' stands twice"),
        ([7], "every data set needs a name, got 7"),
        ([{"name": ""}], "every data set needs a name"),
        ([TOY, {**TOY, "name": "t-O_y"}], "name of 't-O_y' stands twice, if only spelled as 'Toy'"),
    ],
)
def test_a_broken_file_is_named_in_one_clear_line(
    tmp_path: Path, load: Callable[..., Catalogue], content: str | list[Any], said: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        load(content)
    assert str(error.value).startswith(f"catalogue {tmp_path / 'datasets.json'}: ")
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named_in_one_clear_line(tmp_path: Path, vocabulary: Vocabulary) -> None:
    with pytest.raises(ValueError, match="No such file"):
        Catalogue.load(tmp_path / "missing.json", vocabulary)


@pytest.mark.parametrize("key", [key for key in TOY if key != "name"])
def test_no_key_may_be_missing(load: Callable[..., Catalogue], key: str) -> None:
    with pytest.raises(ValueError, match=f"{key} of 'Toy' is missing"):
        load([{other: value for other, value in TOY.items() if other != key}])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"colour": "red"}, "key 'colour' of 'Toy' is unknown, expected one of name, targets"),
        ({"targets": []}, "targets of 'Toy' is [], expected names, each once"),
        ({"targets": ["liver", "liver"]}, "targets of 'Toy'"),
        ({"targets": "liver"}, "targets of 'Toy' is 'liver'"),
        (
            {"targets": ["postcava"]},
            "targets of 'Toy' has 'postcava', expected a canonical name of the vocabulary, nearest: ",
        ),
        (
            {"labels": {"1": "livr"}},
            "labels of 'Toy' has 'livr', expected a canonical name of the vocabulary, nearest: liver",
        ),
        ({"labels": ["liver"]}, "labels of 'Toy' is ['liver'], expected an object"),
        ({"labels": {"1": 7}}, "labels of 'Toy' is {'1': 7}"),
        (
            {"labels": {"0": "liver"}},
            "a value of labels, for label of layout block 1 of 'Toy', is '0', expected a whole",
        ),
        ({"labels": {"one": "liver"}}, "is 'one', expected a whole number above 0"),
        ({"volumes": -1}, "volumes of 'Toy' is -1, expected a whole number, 0 or more"),
        ({"volumes": True}, "volumes of 'Toy' is True"),
        ({"categories": "1"}, "categories of 'Toy' is '1'"),
        ({"source": "example.org"}, "source of 'Toy' is 'example.org', expected a link"),
        ({"licence": ""}, "licence of 'Toy' is '', expected a text"),
        ({"download": "one\ntwo"}, "download of 'Toy'"),
        ({"role": "validation"}, "role of 'Toy' is 'validation', expected train or test"),
        ({"role": []}, "role of 'Toy' is []"),
        ({"note": None}, "note of 'Toy' is None"),
        ({"patient": "("}, "patient of 'Toy' is '(', expected a regular expression (missing )"),
        ({"patient": "a+"}, "patient of 'Toy' is 'a+', expected an expression with one group"),
        ({"patient": 7}, "patient of 'Toy' is 7, expected null or a text"),
        ({"confirmed": {"layout": True}}, "confirmed of 'Toy' is {'layout': True}, expected layout and labels"),
        ({"confirmed": {"layout": 1, "labels": True, "from": "it"}}, "confirmed of 'Toy'"),
        ({"confirmed": True}, "confirmed of 'Toy' is True"),
        ({"layout": []}, "layout of 'Toy' is [], expected a list of blocks"),
        ({"layout": {"kind": "generic"}}, "layout of 'Toy' is {'kind': 'generic'}, expected a list of blocks"),
    ],
)
def test_a_wrong_value_names_entry_and_key(load: Callable[..., Catalogue], change: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        load([{**TOY, **change}])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ("img/", "layout is 'img/' of layout block 2 of 'Toy', expected an object"),
        ({"kind": "pairs"}, "kind of layout block 2 of 'Toy' is 'pairs', expected generic or m3d"),
        ({"kind": "m3d", "image": "x"}, "key 'image' of layout block 2 of 'Toy' is unknown, expected one of kind"),
        ({"label": "x"}, "image of layout block 2 of 'Toy' is missing"),
        ({**IMAGE, "lable": "x"}, "key 'lable' of layout block 2 of 'Toy' is unknown, expected one of image, label"),
        ({"image": "(?P<case>"}, "image of layout block 2 of 'Toy' is '(?P<case>', expected a regular expression"),
        ({"image": 7}, "image of layout block 2 of 'Toy' is 7, expected a text"),
        ({"image": r"\d+"}, "expected an expression with a group 'case'"),
        ({**IMAGE, "is": "folder"}, "is of layout block 2 of 'Toy' is 'folder', expected file or dicom"),
        ({**IMAGE, "split": "val"}, "split of layout block 2 of 'Toy' is 'val', expected train or validation or test"),
        ({**IMAGE, "optional": 1}, "optional of layout block 2 of 'Toy' is 1, expected True or False"),
        ({**IMAGE, "slices": "jpg"}, "slices of layout block 2 of 'Toy' is 'jpg', expected png or tif"),
        ({**IMAGE, "label": "a", "files": "b"}, "label and files of layout block 2 of 'Toy' exclude each other"),
        ({**IMAGE, "slices": "png", "label": "a"}, "slices of layout block 2 of 'Toy' has no meaning without folders"),
        ({**IMAGE, "structure": "1"}, "structure of layout block 2 of 'Toy' has no meaning without files or folders"),
        (
            {**IMAGE, "label": "{cse}.nii"},
            "label of layout block 2 of 'Toy' has the field 'cse', expected a named group",
        ),
        ({**IMAGE, "files": "{set}/(?P<structure>.+)"}, "files of layout block 2 of 'Toy' has the field 'set'"),
        ({**IMAGE, "files": "{case}/(?P<structure>.+"}, "files of layout block 2 of 'Toy' is"),
        ({**IMAGE, "folders": "{case}/.+"}, "expected an expression with a group 'structure', or a key 'structure'"),
        (
            {**IMAGE, "files": "{case}/x", "structure": "x"},
            "structure of layout block 2 of 'Toy' is 'x', expected a key",
        ),
        ({**IMAGE, "raters": "{case}/.+", "structure": "1"}, "expected an expression with a group 'rater'"),
    ],
)
def test_a_wrong_block_names_entry_and_key(load: Callable[..., Catalogue], block: Any, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        load([{**TOY, "layout": [*TOY["layout"], block]}])  # type: ignore[misc]
    assert "\n" not in str(error.value)


def test_the_page_is_what_the_catalogue_prints(capsys: pytest.CaptureFixture[str]) -> None:
    main()
    assert (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8") == capsys.readouterr().out


def test_the_page_tells_what_is_not_confirmed(load: Callable[..., Catalogue]) -> None:
    page = as_markdown(load([{**TOY, "licence": "one | another", "categories": 0}]))
    link = "[example.org](https://example.org/toy)"
    assert f"| Toy | liver | 2 | - | train | one &#124; another | {link} | **labels not confirmed**; nothing |" in page
    assert "- **Toy**: toy.zip.\n" in page


def test_the_page_has_a_row_for_each_set_with_its_link(catalogue: Catalogue) -> None:
    page = (ROOT / "docs" / "datasets.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith(tuple(f"| {each.name} |" for each in catalogue))]
    assert len(rows) == 27
    for row, each in zip(rows, catalogue, strict=True):
        assert row.count(" | ") == 7 and f"({each.source})" in row and each.licence in row
