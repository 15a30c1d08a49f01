"""The guard lets through what real clients send; what it refuses is in test_server_hostile."""

import gzip
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from lib.serving.guard import body_limit, check_form, check_head, check_json
from lib.serving.limits import MIB, Limits
from lib.serving.names import check_file_name, check_id, check_session, check_tag
from lib.serving.params import check_infer, read_object
from lib.serving.refusals import Refusal
from lib.serving.uploads import check_upload

LIMITS = Limits()


def _form(query: str, *items: tuple[str, object]) -> dict:
    asked = check_head("POST", "/infer/segvol", query.encode(), {}, LIMITS)
    return check_form(asked, items, LIMITS)


def _upload(name: str, content: bytes = b"data") -> SimpleNamespace:
    return SimpleNamespace(filename=name, file=io.BytesIO(content))


def test_every_request_of_ohif_passes(shared):
    sent = json.loads((shared / "clients" / "requests.json").read_text())
    for params in sent["ohif"].values():
        text = json.dumps(params | sent["ohif_suffix"])
        assert _form("image=1.2.840.113619&output=all", ("params", text)) == json.loads(text)


def test_every_request_of_slicer_passes(shared):
    sent = json.loads((shared / "clients" / "requests.json").read_text())
    for params in sent["slicer"].values():
        assert _form("image=CT%201&output=image", ("params", json.dumps(params))) == params


@pytest.mark.parametrize(
    "name",
    ["1.2.840.113619.2.55", "case_1", "2: Thorax 1.0 (CT)", "Größe 12.5mm", "病例", "a+b=c [x]", "O'Neill & Co, #3"],
)
def test_ids_may_be_what_people_write(name):
    assert check_id(name, "image") == name


@pytest.mark.parametrize("tag", ["final", "original", "version_2.1", "_x-Y"])
def test_tags_may_be_what_clients_write(tag):
    assert check_tag(tag, "tag") == tag


def test_session_ids_of_the_server_pass():
    assert check_session("0b1a2c3d-aaaa-11ef-9f00-0242ac120002", "session_id")


@pytest.mark.parametrize(
    ("sent", "name"),
    [("/tmp/slicer/CT 1.nii.gz", "CT 1.nii.gz"), ("C:\\Users\\me\\mask.seg.nrrd", "mask.seg.nrrd")],
)
def test_clients_may_send_paths_of_their_own_machine(sent, name):
    assert check_file_name(sent, "file", (".nii.gz", ".nii", ".nrrd")) == name


@pytest.mark.parametrize(
    "params",
    [
        {"text_prompt": "liver, 50% of it\nand more"},
        {"device": "NVIDIA H100 80GB HBM3:0"},
        {"device": "cuda:1", "result_extension": "", "result_dtype": None, "client_id": None},
        {"label": "left kidney ($)", "save_label": True, "label_tag": "original"},
        {"targets": [{"points": [[1, 2.5, -3]], "point_labels": [1], "box": [0, 0, 0, 1, 1, 1]}]},
        {"label_info": [{"name": "liver", "color": [1, 0, 0], "segmentAttribute": {"code": "T-62000"}}]},
    ],
)
def test_options_of_an_inference_pass(params):
    check_infer(read_object(json.dumps(params), "params"))


@pytest.mark.parametrize(
    "body",
    [
        {"device": "cuda", "multi_gpu": True, "gpus": "0,1", "save_label": True, "label_tag": "original"},
        {"images": ["case 1", "1.2.3"], "max_workers": 1, "max_batch_size": 0},
        {"images": "unlabeled", "client_id": "user-xyz"},
        {"name": "train_01", "pretrained": True, "max_epochs": 50, "val_split": 0.2, "dataset": "CacheDataset"},
    ],
)
def test_options_of_tasks_pass(body):
    assert check_json(json.dumps(body).encode()) == body


@pytest.mark.parametrize("body", [b"", b"null", b" {} "])
def test_a_task_without_options_passes(body):
    assert check_json(body) == {}


def _zip() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("series/", b"")
        archive.writestr("series/1.dcm", bytes(1000))
        archive.writestr("labels/1.nii.gz", gzip.compress(bytes(MIB)))
    return file.getvalue()


NRRD = b"NRRD0005\ntype: uint8\ndimension: 3\nsizes: 2 2 2\n"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("empty_mask.nii.gz", gzip.compress(bytes(16 * MIB))),
        ("two_parts.nii.gz", gzip.compress(b"a") + gzip.compress(b"b")),
        ("raw.nrrd", NRRD + b"encoding: raw\n\n" + bytes(8)),
        ("packed.nrrd", NRRD.replace(b"\n", b"\r\n") + b"encoding: gzip\r\n\r\n" + gzip.compress(bytes(8))),
        ("series.zip", _zip()),
        ("slice.dcm", b"\0" * 128 + b"DICM"),
    ],
)
def test_honest_files_pass_and_are_rewound(name, content):
    file = io.BytesIO(content)
    check_upload(file, name, "file", 32 * MIB)
    assert file.read() == content


def test_a_file_at_its_limit_passes_and_one_byte_more_does_not():
    content = gzip.compress(bytes(MIB))
    check_upload(io.BytesIO(content), "a.nii.gz", "file", MIB)
    with pytest.raises(Refusal, match="unpacks to more"):
        check_upload(io.BytesIO(content), "a.nii.gz", "file", MIB - 1)


def test_only_uploads_may_be_large():
    asked = check_head("PUT", "/datastore/image", b"image=x", {"content-length": str(100 * MIB)}, LIMITS)
    assert body_limit(asked.route, LIMITS) == LIMITS.upload
    with pytest.raises(Refusal, match="at most 2 MiB"):
        check_head("POST", "/train/x", b"", {"content-length": str(100 * MIB)}, LIMITS)


@pytest.mark.parametrize(
    ("switch", "method", "path"),
    [
        ("weights", "PUT", "/model/segvol"),
        ("weights", "DELETE", "/model/segvol"),
        ("logs", "GET", "/logs/"),
        ("reload", "POST", "/reload"),
        ("stow", "POST", "/proxy/dicom/wado/studies"),
    ],
)
def test_a_closed_route_opens_by_its_switch(switch, method, path):
    with pytest.raises(Refusal, match=f"SEGVOL_ALLOW={switch}"):
        check_head(method, path, b"", {}, LIMITS)
    assert check_head(method, path, b"", {}, Limits(allowed=frozenset({switch}))).route.switch == switch


@pytest.mark.parametrize(
    "path",
    [
        "studies",
        "studies/1.2/series",
        "studies/1.2/series/1.3/metadata",
        "studies/1.2/series/1.3/instances/1.4/frames/1,2",
        "studies/1.2/series/1.3/instances/1.4/bulk/00420011",
        "studies/1.2/series/1.3/instances/1.4/rendered",
    ],
)
def test_dicom_web_passes_the_proxy(path):
    query = b"limit=101&fuzzymatching=true&includefield=00081030%2C00080060&PatientName=*DOE*"
    assert check_head("GET", f"/proxy/dicom/qido/{path}", query, {}, LIMITS).route.pool == "proxy"


def test_every_stock_address_is_known_or_closed_on_purpose():
    stock = pytest.importorskip("monailabel.app").app
    closed = {
        "/infer/wsi/{model}",
        "/infer/wsi_v2/{model}",
        "/proxy/dicom/stow/{path:path}",
        "/proxy/dicom/{path:path}",
    }
    unknown = set()
    for path, methods in stock.openapi()["paths"].items():
        concrete = path.replace("{session_id}", "0b1a").replace("{", "").replace("}", "")
        for method in methods:
            try:
                check_head(method.upper(), concrete, b"", {}, Limits(allowed=frozenset({"logs", "weights"})))
            except Refusal as refusal:
                unknown |= {path} if refusal.status in {403, 404, 405} else set()
    assert unknown - closed == set()


def test_the_guard_needs_neither_monai_nor_torch():
    code = "import sys, lib.serving.guard; print({'monai', 'monailabel', 'torch', 'numpy'} & set(sys.modules))"
    app = Path(__file__).parents[2] / "monailabel_app"
    run = subprocess.run([sys.executable, "-c", code], cwd=app, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
