"""What the user names becomes cases; a bad one is reported in one line and the rest goes on."""

import json
import logging
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose, Lambdad
from scripts.cases import CaseStream, InferenceBatch, case_name, many_cases, one_case
from scripts.prompts import Prompt, parse_document
from scripts.transforms import LoadVolumed

NOTHING = {"text": None, "points": None, "point_labels": None, "box": None, "coordinates": "voxel"}  # as in the config


def volume(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(np.random.default_rng(0).normal(size=(4, 5, 6)).astype(np.float32), np.eye(4)), path)
    return path


def named(cases: list[dict[str, Any]]) -> dict[str, str]:
    return {case["case"]: str(case["image"]) for case in cases}


def sentence_of(function: Callable, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(SystemExit) as caught:
        function(*args, **kwargs)
    assert isinstance(caught.value.code, str) and "\n" not in caught.value.code
    return caught.value.code


# ---------------------------------------------------------------- one image


def test_one_case_holds_its_name_path_and_document(tmp_path: Path):
    path = volume(tmp_path / "ct.nii.gz")
    (case,) = one_case(str(path), None, **NOTHING | {"text": "liver"})
    assert case == {"case": "ct", "image": path, "document": {"coordinates": "voxel", "targets": [{"text": "liver"}]}}


def test_one_case_takes_its_prompts_from_a_file(tmp_path: Path):
    document = {"coordinates": "ras", "targets": [{"text": "liver"}]}
    (tmp_path / "prompts.json").write_text(json.dumps(document))
    (case,) = one_case(volume(tmp_path / "ct.nii"), tmp_path / "prompts.json", **NOTHING)
    assert case["document"] == document


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"text": "liver"}, "text"),
        ({"points": [1, 2, 3]}, "points"),
        ({"box": [0, 0, 0, 1, 1, 1], "coordinates": "lps"}, "box, coordinates"),
        ({"coordinates": "ras"}, "coordinates"),
    ],
)
def test_prompts_beside_a_file_of_prompts_are_refused(given: dict, told: str, tmp_path: Path):
    (tmp_path / "prompts.json").write_text('{"targets": [{"text": "liver"}]}')
    sentence = sentence_of(one_case, volume(tmp_path / "a.nii"), tmp_path / "prompts.json", **NOTHING | given)
    assert sentence == f"prompts names a file; {told} cannot be given beside it"


def test_a_file_of_prompts_that_cannot_be_read_is_told(tmp_path: Path):
    image = volume(tmp_path / "a.nii")
    path = tmp_path / "prompts.json"
    assert "cannot be read as JSON" in sentence_of(one_case, image, path, **NOTHING)
    for content in (b"{", b"", b"\xff\xfe\x00", b"[" * 100_000, b"\x89PNG"):
        path.write_bytes(content)
        assert sentence_of(one_case, image, path, **NOTHING).startswith(f"prompts: {path} cannot be read as JSON")


def test_an_image_that_is_missing_or_no_path_is_told(tmp_path: Path):
    given = NOTHING | {"text": "liver"}
    assert "image is missing; it takes a NIfTI" in sentence_of(one_case, None, None, **given)
    assert "it takes one path" in sentence_of(one_case, ["a.nii", "b.nii"], None, **given)
    for name in ("none.nii", "n" * 300 + ".nii", "$1/0", "@image", "%x", "a\nb"):
        assert "does not exist" in sentence_of(one_case, tmp_path / name, None, **given)
    assert "no prompt: give at least one" in sentence_of(one_case, volume(tmp_path / "a.nii"), None, **NOTHING)


@pytest.mark.parametrize(
    ("path", "name"),
    {
        "a/ct.nii.gz": "ct",
        "ct.NII.GZ": "ct",
        "ct.nii": "ct",
        "ct.nrrd": "ct",
        "ct.mhd": "ct",
        "1.3.6.1.mhd": "1.3.6.1",
        "ct.v2.nii.gz": "ct.v2",
        "series": "series",
        "series.dcm": "series.dcm",
        ".nii": ".nii",
        "$1/0.nii": "0",
        "@x %y.nii": "@x %y",
    }.items(),
)
def test_a_case_is_named_after_its_file_or_folder(path: str, name: str):
    assert case_name(Path(path)) == name


def test_the_current_folder_has_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "series" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "series")
    assert case_name(Path(".")) == "series"
    monkeypatch.chdir(tmp_path / "series" / "below")
    assert case_name(Path("..")) == "series"


# ---------------------------------------------------------------- a folder or a pattern


@pytest.fixture
def folder(tmp_path: Path, shared: Path) -> Path:
    """Volumes, a DICOM series, and what is neither."""
    for name in ("b.nii.gz", "a.nrrd.nii", "C.NII.GZ"):
        volume(tmp_path / "in" / name)
    (tmp_path / "in" / "readme.txt").write_text("no volume")
    (tmp_path / "in" / "empty").mkdir()
    shutil.copytree(shared / "data" / "dcmqi" / "ct-3slice", tmp_path / "in" / "series", copy_function=shutil.copyfile)
    (tmp_path / "in" / "series").chmod(0o755)
    return tmp_path / "in"


def test_a_folder_gives_its_volumes_and_series_with_one_set_of_prompts(folder: Path):
    cases = many_cases(str(folder), None, None, **NOTHING | {"text": ("liver", "spleen")})
    assert list(named(cases)) == ["C", "a.nrrd", "b", "series"]
    assert {len(case["document"]["targets"]) for case in cases} == {2}


def test_a_pattern_gives_what_it_matches(tmp_path: Path):
    for name in ("p1/ct.nii.gz", "p2/ct.nii.gz", "p2/seg.nii.gz", "deep/p3/ct.nii.gz"):
        volume(tmp_path / name)
    given = NOTHING | {"text": "liver"}
    assert list(named(many_cases(tmp_path / "p*" / "ct.nii.gz", None, None, **given))) == ["p1_ct", "p2_ct"]
    assert len(many_cases(tmp_path / "**" / "ct.nii.gz", None, None, **given)) == 3


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path):
    path = volume(tmp_path / "ct[1]*.nii.gz")
    assert named(many_cases(path, None, None, **NOTHING | {"text": "liver"})) == {"ct[1]*": str(path)}


def test_equal_names_get_their_folder_and_then_a_number(tmp_path: Path):
    names = ["x/p/ct.nii", "x/p/ct.nii.gz", "y/p/ct.nii", "y/q/ct.nii", "y/q/other.nii"]
    cases = [{"image": str(volume(tmp_path / name)), "prompts": {}} for name in names]
    (tmp_path / "cases.json").write_text(json.dumps(cases))
    cases = many_cases(None, tmp_path / "cases.json", None, **NOTHING)
    assert list(named(cases)) == ["p_ct", "p_ct_2", "p_ct_3", "q_ct", "other"]


@pytest.mark.parametrize("where", ["empty", "none", "*.nrrd", "n" * 300])
def test_a_place_without_volumes_is_told(where: str, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    sentence = sentence_of(many_cases, tmp_path / where, None, None, **NOTHING | {"text": "liver"})
    assert str(tmp_path / where) in sentence and "holds no volume" in sentence


def test_either_an_image_or_a_list_must_be_given(tmp_path: Path):
    for image, cases in ((None, None), (tmp_path, tmp_path / "cases.csv")):
        assert "give either image" in sentence_of(many_cases, image, cases, None, **NOTHING)


# ---------------------------------------------------------------- lists


def test_a_json_list_brings_images_with_their_prompts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(volume(tmp_path / "elsewhere" / "cwd.nii").parent)
    volume(tmp_path / "beside.nii")
    document = {"targets": [{"text": "liver"}]}
    entries = [{"image": name, "prompts": document} for name in ("beside.nii", "cwd.nii", str(tmp_path / "x.nii"))]
    (tmp_path / "cases.json").write_text(json.dumps(entries))
    cases = many_cases(None, str(tmp_path / "cases.json"), None, **NOTHING)
    assert named(cases) == {"beside": str(tmp_path / "beside.nii"), "cwd": "cwd.nii", "x": str(tmp_path / "x.nii")}
    assert all(case["document"] == document for case in cases)


def test_a_csv_brings_one_target_or_several_texts_per_line(tmp_path: Path):
    (tmp_path / "cases.csv").write_text(
        "image,text,points,point_labels,box,coordinates\n"
        'a.nii,liver,"[[1,2,3],[4,5,6]]","[1,0]",,ras\n'
        "\n"
        'b.nii,"[""liver"", ""left kidney""]",,,,\n'
        'c.nii,"left, right",,,"[0,0,0,9,9,9]",LPS\n',
        encoding="utf-8-sig",
    )
    documents = [case["document"] for case in many_cases(None, tmp_path / "cases.csv", None, **NOTHING)]
    assert documents == [
        {
            "coordinates": "ras",
            "targets": [{"text": "liver", "points": [[1, 2, 3], [4, 5, 6]], "point_labels": [1, 0]}],
        },
        {"coordinates": "voxel", "targets": [{"text": "liver"}, {"text": "left kidney"}]},
        {"coordinates": "LPS", "targets": [{"text": "left, right", "box": [0, 0, 0, 9, 9, 9]}]},
    ]
    assert [len(parse_document(document).targets) for document in documents] == [1, 2, 1]


def test_a_list_that_is_none_is_told(tmp_path: Path):
    for name, content, says in (
        ("a.json", "{}", "must be a list"),
        ("a.json", "[]", "must be a list"),
        ("a.json", "[", "cannot be read as JSON"),
        ("a.csv", "", "has the columns None; allowed are image, text"),
        ("a.csv", "image,txt\na.nii,liver\n", "has the columns ['image', 'txt']; allowed are image, text"),
        ("a.csv", "text\nliver\n", "has the columns ['text']"),
        ("a.csv", "image,text\n", "with at least one entry"),
    ):
        (tmp_path / name).write_text(content)
        sentence = sentence_of(many_cases, None, tmp_path / name, None, **NOTHING)
        assert sentence.startswith(f"cases: {tmp_path / name} ") and says in sentence
    (tmp_path / "a.csv").write_bytes(b"image\n\xff\xfe\n")
    assert "cannot be read" in sentence_of(many_cases, None, tmp_path / "a.csv", None, **NOTHING)
    assert "cannot be read" in sentence_of(many_cases, None, tmp_path / "none.csv", None, **NOTHING)
    assert "cannot be read" in sentence_of(many_cases, None, tmp_path, None, **NOTHING)


@pytest.mark.parametrize("given", [{"text": "liver"}, {"box": [0, 0, 0, 1, 1, 1]}, {"coordinates": "ras"}])
def test_prompts_beside_a_list_are_refused(given: dict, tmp_path: Path):
    (tmp_path / "a.csv").write_text("image,text\na.nii,liver\n")
    sentence = sentence_of(many_cases, None, tmp_path / "a.csv", None, **NOTHING | given)
    assert sentence == "cases brings its own prompts; name none beside it"
    assert "cases brings" in sentence_of(many_cases, None, tmp_path / "a.csv", tmp_path / "p.json", **NOTHING)


# ---------------------------------------------------------------- the stream


def loading() -> Compose:
    return Compose([Lambdad("document", parse_document, track_meta=False), LoadVolumed("image")])


def test_bad_entries_of_a_list_are_reported_and_the_rest_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    volume(tmp_path / "good.nii")
    (tmp_path / "broken.nii").write_bytes(b"no volume")
    liver = {"targets": [{"text": "liver"}]}
    entries: list[Any] = [
        {"image": "good.nii", "prompts": liver},
        {"image": "broken.nii", "prompts": liver},
        {"image": "missing.nii", "prompts": liver},
        {"image": "~nobody.like.this/ct.nii", "prompts": liver},
        {"image": "n" * 300 + ".nii", "prompts": liver},
        {"image": str(tmp_path / "." / "good.nii"), "prompts": {"targets": [{"txt": "liver"}]}},
        {"image": "good.nii"},
        {"image": 7, "prompts": liver},
        {"image": " ", "prompts": liver},
        {"prompts": liver},
        "good.nii",
        None,
        {"image": "good.nii", "prompts": liver},
    ]
    (tmp_path / "cases.json").write_text(json.dumps(entries))
    stream = CaseStream(many_cases(None, tmp_path / "cases.json", None, **NOTHING), loading())
    with caplog.at_level(logging.ERROR):
        done = [case["case"] for case in stream]
    assert len(done) == 2 and len(stream.failures) == len(entries) - 2 == len(caplog.messages)
    told = "\n".join(caplog.messages)
    for says in (
        f"case broken left out: image: {tmp_path / 'broken.nii'} cannot be read",
        "case missing left out: image: missing.nii does not exist",
        "'txt'",
        f"cases: entry 8 of {tmp_path / 'cases.json'} names no image",
        "entry 12",
    ):
        assert says in told
    sentence = sentence_of(stream.finish)
    assert sentence.startswith("11 of 13 cases failed: ") and "missing: image: missing.nii does not exist" in sentence


def test_a_bad_line_of_a_csv_is_reported_and_the_rest_goes_on(tmp_path: Path):
    volume(tmp_path / "good.nii")
    lines = [
        "good.nii,liver,",
        'good.nii,,"[1,2"',
        f'good.nii,,"{"[" * 100_000}"',
        "good.nii,,",
        ",liver,",
        "a,b,c,d,e",
    ]
    (tmp_path / "cases.csv").write_text("\n".join(["image,text,points", *lines, "good.nii,spleen,"]))
    stream = CaseStream(many_cases(None, tmp_path / "cases.csv", None, **NOTHING), loading())
    assert len(list(stream)) == 2
    assert len(stream.failures) == 5


def test_texts_and_paths_from_a_file_are_never_code(tmp_path: Path):
    for word in ("$__import__('os').mkdir('made')", "@image", "%inference.json::image", "{text}", "$(touch made)"):
        name = word.replace("/", "_")
        path = volume(tmp_path / f"{name}.nii")
        target = {"text": word, "name": word}
        (tmp_path / "cases.json").write_text(json.dumps([{"image": str(path), "prompts": {"targets": [target]}}]))
        (case,) = CaseStream(many_cases(None, tmp_path / "cases.json", None, **NOTHING), loading())
        assert case["case"] == name and case["image_path"] == str(path)
        assert (case["document"].targets[0].text, case["document"].targets[0].name) == (word, word)
    assert not (tmp_path / "made").exists()


def test_a_prepared_case_says_how_long_it_took(tmp_path: Path):
    cases = one_case(volume(tmp_path / "ct.nii"), None, **NOTHING | {"text": "liver"})
    stream = CaseStream(cases, loading())
    for _ in range(2):  # a stream may be gone through again
        (case,) = stream
        assert case["image"].shape == (1, 4, 5, 6) and case["report"]["seconds"]["load"] > 0
    stream.finish()
    assert stream.failures == {}


def test_a_single_case_that_fails_ends_with_its_own_sentence(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "ct.nii.gz"
    path.write_bytes(volume(tmp_path / "whole.nii.gz").read_bytes()[:100])
    stream = CaseStream(one_case(path, None, **NOTHING | {"text": "liver"}), loading())
    with caplog.at_level(logging.ERROR):
        assert list(stream) == []
    assert sentence_of(stream.finish).startswith(f"image: {path} cannot be read")
    assert not caplog.messages  # it is said once, at the end


def wrapped(error: Exception) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    def raise_it(_: object) -> None:
        raise error

    return Compose([Compose([Lambdad("image", raise_it)])])


def test_a_mistake_is_unwrapped_from_what_monai_makes_of_it():
    stream = CaseStream([{"case": "a", "image": "a.nii"}], wrapped(ValueError("box: two\nlines")))
    assert list(stream) == []
    assert sentence_of(stream.finish) == "box: two lines"


def test_a_mistake_keeps_its_own_words_over_those_of_a_library(tmp_path: Path):
    def read(_: object) -> None:
        try:
            raise ValueError("negative count")
        except ValueError as error:
            raise ValueError("image: a.nii cannot be read (negative count)") from error

    stream = CaseStream([{"case": "a", "image": "a.nii"}], Compose([Lambdad("image", read)]))
    assert list(stream) == []
    assert sentence_of(stream.finish) == "image: a.nii cannot be read (negative count)"


@pytest.mark.parametrize("error", [KeyError("image"), RuntimeError("no memory"), MemoryError(), ZeroDivisionError("x")])
def test_an_unexpected_error_is_reported_with_its_traceback(error: Exception, caplog: pytest.LogCaptureFixture):
    stream = CaseStream([{"case": name, "image": "a.nii"} for name in "ab"], wrapped(error))
    with caplog.at_level(logging.ERROR):
        assert list(stream) == []
    assert set(stream.failures) == {"a", "b"} and all(stream.failures.values())
    assert "case a: unexpected error" in caplog.text and type(error).__name__ in caplog.text
    assert "Traceback" in caplog.text
    assert sentence_of(stream.finish).startswith("2 of 2 cases failed: a: ")


def test_an_unexpected_error_without_words_is_told_by_its_kind():
    def fail(_: object) -> dict:
        raise MemoryError

    stream = CaseStream([{"case": "a", "image": "a.nii"}], fail)
    assert list(stream) == []
    assert sentence_of(stream.finish) == "MemoryError"


# ---------------------------------------------------------------- into the engine


def test_a_batch_hands_image_prompts_and_vectors_to_the_inferer():
    prompts = [Prompt("a", text="liver"), Prompt("b", points=np.zeros((1, 3)), point_labels=np.ones(1))]
    report: dict[str, Any] = {}
    case = {"image": torch.ones(1, 3, 4, 5), "model_prompts": prompts, "names": ["liver", None], "report": report}
    batch = InferenceBatch(lambda names: torch.full((len(names), 7), 2.0))
    image, target, args, kwargs = batch(case, torch.device("cpu"), non_blocking=True, unknown=1)
    assert image.shape == (1, 1, 3, 4, 5) and target is None and args == ()
    assert kwargs["prompts"] is prompts and kwargs["report"] is report
    assert kwargs["text_vectors"][0].shape == (7,) and kwargs["text_vectors"][1] is None
