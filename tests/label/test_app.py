"""The app as MONAI Label starts it: settings, models, the next sample, batch and scoring."""

import logging
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from lib.bundle import MODES
from lib.local_store import SegVolLocalStore
from lib.targets import BOX_LABEL, TEXT_LABEL

pytestmark = pytest.mark.usefixtures("scratch")


@pytest.mark.parametrize(
    ("conf", "says"),
    [
        ({"size": "medium"}, "^size is 'medium'; allowed are base, small$"),
        ({"cache_mib": "-1"}, "^cache_mib is '-1'; it must be a whole number of MiB, 0 or more$"),
        ({"cache_mib": "4 GB"}, "^cache_mib is '4 GB'; it must be"),
        ({"cache_mib": ""}, "^cache_mib is ''; it must be"),
        ({"defaults": "liver,splen"}, "^defaults: 'splen' is unknown to these weights; nearest: spleen"),
        ({"device": "cuda:99"}, "^device is 'cuda:99'; this machine has cpu"),
        ({"device": "gpu"}, "^device is 'gpu'; this machine has cpu"),
        ({"checkpoint": "$import os"}, "^checkpoint is "),
        ({"bundle": "/nowhere"}, r"^bundle: /nowhere has no configs/inference\.json; it must be the folder"),
    ],
)
def test_a_setting_that_is_not_allowed_is_one_line(starting, tmp_path, conf, says):
    with pytest.raises(ValueError, match=says) as caught, starting(tmp_path, **conf):
        pass
    assert "\n" not in str(caught.value)


def test_default_names_may_be_synonyms_with_blanks(starting, tmp_path):
    with starting(tmp_path, defaults=" Liver , kidney_left,,", cache_mib="7") as app:
        assert app.defaults == ("liver", "left kidney")
        assert app.engine.memory.limit == 7 << 20


def test_no_weights_are_loaded_before_the_first_request(starting, tmp_path):
    with starting(tmp_path, checkpoint=str(tmp_path / "gone.pt")) as app:
        assert len(app.info()["models"]) == 3


def test_info_has_the_three_models_with_their_types(app):
    info = app.info()
    types = {name: model["type"] for name, model in info["models"].items()}
    assert types == {"segvol": "deepgrow", "segvol_classes": "vista3d", "segvol_text": "segmentation"}
    assert info["name"] == "SegVol (small)" and info["version"] == app.bundle.version


def test_the_classes_are_the_names_of_the_weights_and_two_helpers_at_the_end(app):
    models = app.info()["models"]
    names = list(app.bundle.names)
    assert models["segvol_text"]["labels"] == {name: value for value, name in enumerate(names, 1)}
    classes = models["segvol_classes"]["labels"]
    assert list(classes) == [*names, BOX_LABEL, TEXT_LABEL]
    assert list(classes.values()) == list(range(1, len(names) + 3))
    assert not models["segvol"]["labels"]


def test_the_options_never_take_a_key_that_slicer_sends_points_in(app):
    for model in app.info()["models"].values():
        assert not {"foreground", "background", "points", "label", "roi", "label_prompt"} & model["config"].keys()
        assert model["config"]["mode"] == list(MODES)
        assert model["config"]["text_prompt"] == "" and model["config"]["refine"] is False


def test_a_folder_is_our_own_data_store(app):
    assert isinstance(app.datastore(), SegVolLocalStore)
    assert app.datastore().list_images() == ["phantom"]


def finish_ahead(app: Any) -> None:
    """Wait until nothing is being prepared any more."""
    app._ahead.submit(int).result(60)


def test_the_next_sample_is_prepared_while_the_viewer_loads_it(app):
    app.engine.memory.clear()
    assert app.next_sample({"strategy": "random"})["id"] == "phantom"
    finish_ahead(app)
    told = app.infer({"model": "segvol", "image": "phantom", "text_prompt": "liver", "mode": "resize"})["params"]
    assert told["latencies"]["volume_hits"] == 1
    assert (told["latencies"]["embedding_hits"], told["latencies"]["embedding_misses"]) == (1, 0)


def broken_studies(folder: Path) -> Path:
    folder.mkdir()
    (folder / "broken.nii.gz").write_bytes(b"no image")
    return folder


def test_an_image_that_cannot_be_prepared_is_handed_out_and_logged(starting, tmp_path, caplog):
    with starting(broken_studies(tmp_path / "studies")) as app, caplog.at_level(logging.WARNING):
        assert app.next_sample({"strategy": "random"})["id"] == "broken"
        finish_ahead(app)
    assert "an image could not be prepared ahead" in caplog.text


def test_an_empty_folder_has_no_next_sample(starting, tmp_path):
    (tmp_path / "studies").mkdir()
    with starting(tmp_path / "studies") as app:
        assert app.next_sample({"strategy": "random"}) == {}


def test_batch_draws_every_image_without_a_gpu(starting, tmp_path, phantom):
    studies = tmp_path / "studies"
    studies.mkdir()
    for name in ("a", "b"):
        (studies / f"{name}.nii.gz").write_bytes(phantom.read_bytes())
    with starting(studies) as app:
        app.batch_infer({"model": "segvol_text", "images": "all", "text_prompt": "liver", "multi_gpu": True})
        store = app.datastore()
        drawn = [store.get_label_by_image_id(image, "original") for image in ("a", "b")]
    assert drawn == ["a", "b"]


def test_scoring_compares_final_labels_with_what_was_drawn(starting, tmp_path, phantom):
    studies = tmp_path / "studies"
    studies.mkdir()
    (studies / "ct.nii.gz").write_bytes(phantom.read_bytes())
    label = np.zeros(nib.load(phantom).shape, np.uint8)
    label[:9] = 3
    nib.save(nib.Nifti1Image(label, nib.load(phantom).affine), tmp_path / "label.nii.gz")
    with starting(studies) as app:
        for tag in ("final", "original"):
            app.datastore().save_label("ct", str(tmp_path / "label.nii.gz"), tag, {})
        assert app.scoring({"method": "dice"}) == {"ct": {"3": 1.0, "mean": 1.0}}


def test_a_dicom_seg_of_a_folder_of_files_is_refused_in_one_sentence(app):
    from fastapi import HTTPException

    with pytest.raises(HTTPException) as caught:
        app.dicom_segmentation({"model": "segvol", "image": "phantom", "text_prompt": "liver"})
    assert caught.value.status_code == 400 and "DICOMweb" in caught.value.detail


@pytest.mark.parametrize(
    ("name", "code", "side"),
    [("liver", "10200004", None), ("left kidney", "64033007", "left"), ("lesion of mine", None, None)],
)
def test_a_segment_is_coded_by_the_vocabulary(app, name, code, side):
    (segment,) = app.saving.segments_for([{"name": name, "idx": 5}], [5])
    assert (segment.value, segment.name, segment.side) == (5, name, side)
    assert (segment.code and segment.code[0]) == code


def test_label_info_without_values_names_them_in_ascending_order(app):
    named = app.saving.segments_for([{"name": "liver"}, {"name": "spleen"}], [9, 2])
    assert {segment.value: segment.name for segment in named} == {2: "liver", 9: "spleen"}


def test_a_session_that_a_killed_server_left_half_made_ends_no_start(app, monkeypatch, tmp_path):
    old, young = tmp_path / "old", tmp_path / "young"
    old.mkdir()
    young.mkdir()
    os.utime(old, (0, 0))
    monkeypatch.setattr(app.sessions(), "store_path", str(tmp_path))
    app.cleanup_sessions()
    assert not old.exists() and young.exists()
