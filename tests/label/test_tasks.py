"""The three tasks: every payload of both viewers gets an answer or one sentence; undo, mending, saving."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi import HTTPException
from grids import read_with_itk
from lib.engine import Engine, Segmentation
from lib.history import History
from lib.infers import SegVolInfer
from lib.memory import Memory

pytestmark = pytest.mark.usefixtures("scratch")

SHAPE = (72, 64, 40)
MODELS = ("segvol", "segvol_classes", "segvol_text")
OHIF = (
    *("deepgrow_points", "deepgrow_no_points", "vista_points", "vista_background_row", "deepedit_points"),
    *("class_prompt", "class_prompt_option_text_no_class", "class_prompt_stale_points", "auto_vista"),
    "auto_segmentation",
)
SLICER = (
    *("deepgrow_point", "deepgrow_roi", "deepgrow_point_and_roi", "deepgrow_label_only", "deepedit"),
    "auto_segmentation",
)
LIVER = {"text": "liver"}
CLICK = {"foreground": [[48, 30, 18]]}


@pytest.fixture(scope="module")
def shared_engine(small_bundle: Any) -> Engine:
    return Engine(small_bundle, Memory(1 << 30))


@pytest.fixture
def tasks(app: Any, shared_engine: Engine) -> dict[str, SegVolInfer]:
    """The app's tasks with a history of their own and an engine whose memory the module's tests share."""
    history = History()
    made = {}
    for name, task in app._infers.items():
        made[name] = SegVolInfer(shared_engine, history, task.spec, name)
    return made


@pytest.fixture
def ask(tasks: dict[str, SegVolInfer], phantom: Path) -> Any:
    """``ask(model, **params)``: voxels of the answer, and what was said."""

    def call(model: str, **params: Any) -> tuple[np.ndarray, dict[str, Any]]:
        file, told = tasks[model]({"image": str(phantom), "client_id": "user", **params})
        return read_with_itk(file)[0], told

    return call


def refused(call: Any, *args: Any, **params: Any) -> str:
    """The sentence of a refusal."""
    with pytest.raises(HTTPException) as caught:
        call(*args, **params)
    assert caught.value.status_code == 400
    sentence = caught.value.detail
    assert isinstance(sentence, str) and sentence and "\n" not in sentence and len(sentence) < 400
    return sentence


def test_the_payloads_below_are_all_that_were_recorded(shared):
    recorded = json.loads((shared / "clients" / "requests.json").read_text())
    assert (set(recorded["ohif"]), set(recorded["slicer"])) == (set(OHIF), set(SLICER))


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(("viewer", "name"), [*(("ohif", n) for n in OHIF), *(("slicer", n) for n in SLICER)])
def test_every_payload_is_answered_on_the_stored_grid_or_refused_in_one_sentence(viewer, name, model, shared, ask):
    recorded = json.loads((shared / "clients" / "requests.json").read_text())
    params = recorded[viewer][name] | (recorded["ohif_suffix"] if viewer == "ohif" else {})
    try:
        label, told = ask(model, **params)
    except HTTPException:
        assert not refused(ask, model, **params).startswith("image")
        return
    assert label.dtype == np.uint8 and label.shape == SHAPE
    assert sorted(set(np.unique(label)) - {0}) == list(told["label_names"].values())
    assert told["used"]
    json.dumps(told)


ANSWERED = [
    ("segvol", "ohif", "deepgrow_points"),
    ("segvol", "slicer", "deepgrow_point"),
    ("segvol", "slicer", "deepgrow_roi"),
    ("segvol", "slicer", "deepgrow_point_and_roi"),
    ("segvol_classes", "ohif", "vista_points"),
    ("segvol_classes", "ohif", "class_prompt"),
    ("segvol_classes", "ohif", "class_prompt_option_text_no_class"),
    ("segvol_classes", "ohif", "class_prompt_stale_points"),
    ("segvol_classes", "ohif", "auto_vista"),
    ("segvol_text", "ohif", "auto_segmentation"),
    ("segvol_text", "slicer", "auto_segmentation"),
]


@pytest.mark.parametrize(("model", "viewer", "name"), ANSWERED)
def test_what_a_viewer_sends_to_its_own_model_is_answered(model, viewer, name, shared, ask):
    recorded = json.loads((shared / "clients" / "requests.json").read_text())
    label, told = ask(model, **recorded[viewer][name])
    assert label.shape == SHAPE and told["used"]


@pytest.mark.parametrize("extension", [".mha", "nrrd"])
def test_a_file_kind_that_is_not_allowed_is_one_sentence(ask, extension):
    assert "result_extension" in refused(ask, "segvol", **LIVER, result_extension=extension)


def test_a_mistake_in_the_prompt_is_one_sentence(ask):
    assert "lies outside the image" in refused(ask, "segvol", foreground=[[500, 0, 0]])
    assert "liver" in refused(ask, "segvol", text_prompt="livre")


def test_a_missing_image_is_one_sentence_without_its_folder(tasks, tmp_path):
    path = tmp_path / "gone.nii.gz"
    assert refused(tasks["segvol"], {"image": str(path), **LIVER}).startswith("image: gone.nii.gz cannot be read")


def test_a_text_that_looks_like_code_is_a_text(ask, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "$" in refused(ask, "segvol", text_prompt="$__import__('os').mkdir('run')")
    assert not (tmp_path / "run").exists()


def test_a_single_target_is_0_or_1_and_classes_have_the_values_of_their_labels(ask, tasks):
    assert set(np.unique(ask("segvol", **LIVER)[0])) == {0, 1}
    values = tasks["segvol_classes"].labels
    label, told = ask("segvol_classes", label_prompt=[values["spleen"], values["liver"]])
    assert told["label_names"] == {"liver": values["liver"], "spleen": values["spleen"]}
    assert set(np.unique(label)) == {0, values["liver"], values["spleen"]}


def test_the_names_in_the_reply_are_those_drawn_by_ascending_value(ask):
    _, told = ask("segvol_text", text_prompt="right kidney, liver, spleen")
    values = list(told["label_names"].values())
    assert values == sorted(values) and len(values) >= 2


def test_undo_and_redo_bring_back_the_same_voxels(ask):
    first, _ = ask("segvol", **LIVER)
    second, _ = ask("segvol", **CLICK)
    assert not np.array_equal(first, second)
    back, told = ask("segvol", undo=1)
    assert np.array_equal(back, first) and told["label_names"] == {"liver": 1}
    assert np.array_equal(ask("segvol", undo=-1)[0], second)


def test_undo_keeps_the_values_of_classes(ask):
    first, told = ask("segvol_text", text_prompt="liver, spleen")
    ask("segvol_text", text_prompt="aorta")
    back, again = ask("segvol_text", undo=1)
    assert np.array_equal(back, first) and again["label_names"] == told["label_names"]


@pytest.mark.parametrize("steps", [1, -1])
def test_undo_without_a_former_result_is_one_sentence(ask, steps):
    assert "0 results to go back to" in refused(ask, "segvol", undo=steps)


def test_users_and_models_undo_only_their_own(ask):
    ask("segvol", **LIVER)
    ask("segvol", **CLICK)
    refused(ask, "segvol", undo=1, client_id="else")
    refused(ask, "segvol_text", undo=1)


def voxel_in(label: np.ndarray) -> list[int]:
    inside = np.argwhere(label)
    return [int(x) for x in inside[len(inside) // 2]]


def test_mending_takes_a_negative_click_out_and_encodes_nothing(ask):
    first, _ = ask("segvol", **CLICK)
    voxel = voxel_in(first)
    mended, told = ask("segvol", **CLICK, background=[voxel], refine=True)
    assert first[tuple(voxel)] == 1 and mended[tuple(voxel)] == 0
    assert told["latencies"]["embedding_misses"] == 0


def test_mending_with_no_new_click_changes_nothing(ask):
    first, _ = ask("segvol", **CLICK)
    again, _ = ask("segvol", **CLICK, refine=True)
    assert first.any() and np.array_equal(first, again)


def test_mending_without_a_former_result_segments_anew(ask):
    assert np.array_equal(ask("segvol", **CLICK, refine=True)[0], ask("segvol", **CLICK)[0])


def test_mending_a_segment_of_another_name_starts_from_nothing(ask):
    ask("segvol", text_prompt="liver", label="liver")
    mended, _ = ask("segvol", **CLICK, label="other", refine=True)
    assert np.array_equal(mended, ask("segvol", **CLICK, label="other")[0])


def test_mending_after_undo_starts_from_the_result_that_counts(ask):
    first, _ = ask("segvol", **CLICK)
    voxel = voxel_in(first)
    ask("segvol", **CLICK, background=[voxel], refine=True)
    ask("segvol", undo=1)
    again, _ = ask("segvol", **CLICK, refine=True)
    assert np.array_equal(again, first)


def test_a_result_saved_to_the_study_is_the_final_label_of_the_store(app):
    result = app.infer({"model": "segvol_text", "image": "phantom", "text_prompt": "liver", "save_to_study": True})
    assert result["params"]["messages"][-1] == "saved to the study"
    store = app.datastore()
    saved = store.get_label_uri(store.get_label_by_image_id("phantom", "final"), "final")
    assert np.array_equal(read_with_itk(saved)[0], read_with_itk(result["file"])[0])
    info = store.get_label_info("phantom", "final")
    assert info["label_info"] == [{"name": "liver", "idx": result["params"]["label_names"]["liver"]}]


def test_nothing_is_saved_where_nothing_was_asked_or_drawn(app, monkeypatch):
    stored = []
    monkeypatch.setattr(app.datastore(), "save_label", lambda *args: stored.append(args))
    request = {"model": "segvol_text", "image": "phantom", "text_prompt": "liver"}
    app.infer(request)
    empty = Segmentation(np.zeros(SHAPE, np.uint8), np.eye(4), np.zeros((2, 2, 2), np.uint8), [], [[]], False, [], {})
    monkeypatch.setattr(app.engine, "segment", lambda *args: empty)
    result = app.infer(request | {"save_to_study": True})
    assert result["params"]["messages"] == ["nothing was drawn, so that nothing was saved"]
    assert not stored
