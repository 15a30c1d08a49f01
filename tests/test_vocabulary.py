"""The vocabulary: the shipped file keeps its promises, and names are found however they are written."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from scripts.vocabulary import Vocabulary

FILE = Path(__file__).parents[1] / "bundle" / "configs" / "vocabulary.json"
LIVER = {"name": "liver", "synonyms": [], "side": None, "snomed": None, "color": [1, 2, 3], "weights": ["base"]}


@pytest.fixture(scope="module")
def vocabulary() -> Vocabulary:
    return Vocabulary.load(FILE)


def found(vocabulary: Vocabulary, text: str) -> str | None:
    structure = vocabulary.find(text)
    return None if structure is None else structure.name


def written(folder: Path, content: str | list[dict[str, Any]]) -> Path:
    """A vocabulary file with this text, or with these structures."""
    path = folder / "vocabulary.json"
    path.write_text(content if isinstance(content, str) else json.dumps({"structures": content}))
    return path


def test_the_file_lists_more_than_200_structures_most_of_them_coded(vocabulary: Vocabulary) -> None:
    assert len(vocabulary) > 200
    assert sum(structure.snomed is not None for structure in vocabulary) >= 120


def test_no_name_stands_twice_in_the_file(vocabulary: Vocabulary) -> None:
    texts = [text for structure in vocabulary for text in (structure.name, *structure.synonyms)]
    keys = [" ".join(re.split(r"[\s_-]+", text.casefold().strip())) for text in texts]
    assert sorted(set(keys)) == sorted(keys)


def test_every_name_and_synonym_finds_its_own_structure(vocabulary: Vocabulary) -> None:
    for structure in vocabulary:
        for text in (structure.name, *structure.synonyms, structure.name.upper(), structure.name.replace(" ", "_")):
            assert vocabulary.find(text) is structure


def test_the_side_is_the_side_in_the_name(vocabulary: Vocabulary) -> None:
    for structure in vocabulary:
        assert structure.side is None or structure.side in structure.name.split()


def test_every_left_structure_of_a_pair_has_its_right_one_in_another_colour(vocabulary: Vocabulary) -> None:
    for left in (structure for structure in vocabulary if structure.side == "left"):
        right = vocabulary.find(left.name.replace("left", "right"))
        assert right is not None and right.side == "right"
        assert right.snomed == left.snomed and right.color != left.color


def test_no_two_structures_share_a_colour(vocabulary: Vocabulary) -> None:
    assert len({structure.color for structure in vocabulary}) == len(vocabulary)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("kidney_left", "left kidney"),
        ("lung_upper_lobe_left", "left lung upper lobe"),
        ("lung_middle_lobe_right", "right lung middle lobe"),
        ("vertebrae_L1", "vertebrae L1"),
        ("rib_left_7", "left rib 7"),
        ("heart_atrium_left", "left heart atrium"),
        ("iliac_vena_right", "right iliac vein"),
        ("clavicula_right", "right clavicle"),
        ("autochthon_left", "left autochthon"),
        ("small_bowel", "small bowel"),
        ("portal_vein_and_splenic_vein", "portal vein and splenic vein"),
    ],
)
def test_totalsegmentator_names_are_found(vocabulary: Vocabulary, text: str, name: str) -> None:
    assert found(vocabulary, text) == name


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("postcava", "inferior vena cava"),
        ("bladder", "urinary bladder"),
        ("gall bladder", "gallbladder"),
        ("prostate/uterus", "prostate or uterus"),
        ("RK", "right kidney"),
        ("L2", "vertebrae L2"),
        ("cervical spine C2", "vertebrae C2"),
        ("Head_of_femur_L", "left femoral head"),
        ("Glnd_Submand_R", "right submandibular gland"),
        ("colon cancer primaries", "colon tumor"),
        ("kidneys", "kidney"),
    ],
)
def test_names_of_other_data_sets_are_found(vocabulary: Vocabulary, text: str, name: str) -> None:
    assert found(vocabulary, text) == name


@pytest.mark.parametrize(
    ("british", "american"),
    [("oesophagus", "esophagus"), ("liver tumour", "liver tumor"), ("lung tumours", "lung tumor")],
)
def test_british_spelling_is_found(vocabulary: Vocabulary, british: str, american: str) -> None:
    assert found(vocabulary, british) == american


@pytest.mark.parametrize(
    "text",
    [
        "left adrenal gland",
        "Left  Adrenal-Gland",
        "adrenal gland left",
        "Adrenal gland(L)",
        "Adrenal gland (left)",
        "(L)adrenal gland",
        "adrenal gland, left",
        "adrenal_gland_L",
        "L adrenal gland",
        "the left adrenal gland",
        "a left adrenal gland",
    ],
)
def test_the_place_of_the_side_and_articles_do_not_matter(vocabulary: Vocabulary, text: str) -> None:
    assert found(vocabulary, text) == "left adrenal gland"


@pytest.mark.parametrize("text", ["", "  ", "the", "left", "flux capacitor", "left liver", "left and right kidney"])
def test_an_unknown_name_finds_nothing(vocabulary: Vocabulary, text: str) -> None:
    assert vocabulary.find(text) is None
    assert text not in vocabulary


def test_the_vocabulary_contains_names_and_synonyms_only(vocabulary: Vocabulary) -> None:
    assert "liver" in vocabulary and "IVC" in vocabulary
    assert 7 not in vocabulary


def test_a_misspelled_name_has_its_right_spelling_nearest(vocabulary: Vocabulary) -> None:
    assert vocabulary.nearest("kidny left")[0] == "left kidney"
    assert vocabulary.nearest("livr", n=1) == ["liver"]
    assert vocabulary.nearest("inferior vena kava")[0] == "inferior vena cava"


def test_nearest_names_are_canonical_and_come_once(vocabulary: Vocabulary) -> None:
    names = vocabulary.nearest("hepatic tumr", n=5)
    assert names[0] == "liver tumor"
    assert len(names) == len(set(names)) == 5


def test_nearest_chooses_among_the_given_names_only(vocabulary: Vocabulary) -> None:
    assert vocabulary.nearest("kidny left", names=["spleen", "right kidney"]) == ["right kidney"]
    assert vocabulary.nearest("kidny", names=[]) == []
    assert vocabulary.nearest("zzzzzz") == []


def test_trained_names_come_in_file_order(vocabulary: Vocabulary) -> None:
    names = vocabulary.trained("base")
    assert names[:2] == ["liver", "spleen"]
    assert names == [structure.name for structure in vocabulary if structure.name in set(names)]
    assert not {"carina", "lymph node", "soft tissue sarcoma", "lung lesion"} & set(names)
    assert vocabulary.trained("no such weights") == []


def test_a_synonym_has_the_colour_of_its_structure(vocabulary: Vocabulary) -> None:
    assert vocabulary.color("kidney_left") == vocabulary.color("left kidney")


def test_an_unknown_name_keeps_one_colour_of_its_own(vocabulary: Vocabulary) -> None:
    color = vocabulary.color("flux capacitor")
    assert color == vocabulary.color("Flux_Capacitor") != vocabulary.color("warp core")
    assert all(0 <= channel <= 255 for channel in color)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "line 1"),
        ("[]", "list 'structures'"),
        ('{"structures": {}}', "list 'structures'"),
        ([LIVER, LIVER], "'liver' is claimed"),
        ([LIVER, {**LIVER, "name": "spleen", "synonyms": ["the_Liver"]}], "'the_Liver' is claimed by 'liver'"),
        ([{**LIVER, "name": ""}], "needs a name"),
        ([{**LIVER, "synonyms": "hepar"}], "synonyms of 'liver'"),
        ([{**LIVER, "side": "up"}], "side of 'liver' is 'up', expected left, right or null"),
        ([{**LIVER, "snomed": {"code": 10200004, "meaning": "Liver"}}], "snomed of 'liver'"),
        ([{**LIVER, "color": [0, 0, 256]}], "color of 'liver' is [0, 0, 256], expected three of 0 to 255"),
        ([{**LIVER, "color": [0, 0]}], "color of 'liver'"),
        ([{**LIVER, "color": [0, 0, True]}], "color of 'liver'"),
        ([{**LIVER, "synonyms": ["the"]}], "synonyms of 'liver'"),
        ([{**LIVER, "weights": None}], "weights of 'liver'"),
    ],
)
def test_a_broken_file_is_named_in_one_clear_line(
    tmp_path: Path, content: str | list[dict[str, Any]], said: str
) -> None:
    path = written(tmp_path, content)
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        Vocabulary.load(path)
    assert str(error.value).startswith(f"vocabulary {path}: ")
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named_in_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="No such file"):
        Vocabulary.load(tmp_path / "missing.json")


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("left kidney", "right kidney"),
        ("kidney_left", "right kidney"),
        ("Kidney_L", "right kidney"),
        ("RK", "left kidney"),
        ("Cyst_right", "left cyst"),
        ("liver", "liver"),
        ("Liver", "Liver"),
        ("L5", "L5"),
    ],
)
def test_a_name_changes_sides(vocabulary: Vocabulary, text: str, other: str) -> None:
    assert vocabulary.mirrored(text) == other


def test_every_sided_name_has_another_side_and_comes_back(vocabulary: Vocabulary) -> None:
    for structure in (structure for structure in vocabulary if structure.side):
        other = vocabulary.mirrored(structure.name)
        assert other != structure.name and vocabulary.mirrored(other) == structure.name
