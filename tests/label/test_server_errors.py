"""Errors: one sentence for the user's mistake, an id for ours, and nothing of the inside in either."""

import json
import logging
from collections.abc import Iterator

import pytest
from fake_server import Running, running_server
from lib.serving.gate import make_app
from lib.serving.limits import Limits
from monailabel.app import app as stock


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_server(tmp_path_factory.mktemp("errors"), make_app(Limits(), stock)) as running:
        yield running


@pytest.mark.parametrize(
    ("kind", "status", "sentence"),
    [("http", 400, "the box is empty"), ("input", 400, "points are missing")],
)
def test_a_users_mistake_is_a_sentence(server, kind, status, sentence):
    answer = server.infer({"fail": kind})
    assert (answer.status, answer.detail) == (status, sentence)


def test_a_crash_tells_the_client_an_id_and_the_log_the_reason(server, caplog):
    with caplog.at_level(logging.ERROR):
        answer = server.infer({"fail": "crash"})
    assert answer.status == 500
    assert "secret" not in answer.body.decode()
    number = answer.detail.split()[-1]
    assert any(number in record.getMessage() and record.exc_info for record in caplog.records)


def test_an_unknown_model_is_named(server):
    answer = server.form("POST", "/infer/other?image=case_1", ("params", None, b"{}"))
    assert (answer.status, answer.detail) == (400, "There is no model 'other' available")


@pytest.mark.parametrize(
    ("method", "path", "sentence"),
    [
        ("GET", "/datastore/image?image=nobody", "there is no such image in the data store"),
        ("HEAD", "/datastore/image?image=nobody", None),
        ("GET", "/datastore/image/info?image=nobody", "there is no such image in the data store"),
        ("DELETE", "/datastore/image?id=nobody", "there is no such image in the data store"),
        ("GET", "/datastore/label?label=nobody&tag=final", "Label NOT Found"),
        ("GET", "/datastore/dataset", "there is no finished label yet, so there is nothing to download"),
        ("GET", "/session/12345", "Session (12345) Not Found"),
        ("GET", "/model/other", "Model File NOT Found for other"),
        ("GET", "/nowhere", "there is no such address on this server"),
    ],
)
def test_what_is_not_there_is_404(server, method, path, sentence):
    answer = server.ask(method, path)
    assert answer.status == 404
    assert sentence is None or answer.detail == sentence


@pytest.mark.parametrize(
    ("path", "sentence"),
    [
        ("/train/other", "there is no trainer named 'other'"),
        ("/batch/infer/other", "there is no model named 'other'"),
        ("/scoring/other", "there is no scoring method named 'other'"),
        ("/activelearning/other", "there is no strategy named 'other'"),
    ],
)
def test_a_task_that_does_not_exist_starts_nothing(server, path, sentence):
    answer = server.json("POST", path, {})
    assert (answer.status, answer.detail) == (404, sentence)


def test_next_sample_still_works(server):
    answer = server.json("POST", "/activelearning/random", {"client_id": "me"})
    assert answer.json["id"] in {"case_1", "case 2 ö.v1"}


def test_inference_on_an_unknown_image_is_404(server):
    answer = server.infer({}, "image=nobody")
    assert (answer.status, answer.detail) == (404, "there is no such image in the data store")


def test_inference_on_an_unknown_session_is_404(server):
    answer = server.infer({}, "session_id=0b1a")
    assert (answer.status, answer.detail) == (404, "there is no such session, or it has expired")


def test_a_json_body_is_not_read_and_says_so(server):
    answer = server.json("POST", "/infer/task?image=case_1", {"params": {}})
    assert answer.status == 415
    assert "params is a form field" in answer.detail


def test_a_wrong_type_is_422_with_one_sentence(server):
    answer = server.ask("GET", "/datastore/dataset?limit_cases=many")
    assert answer.status in {404, 422}
    answer = server.ask("GET", "/session/0b1a?update_ts=perhaps")
    assert answer.status == 422
    assert answer.detail.startswith("update_ts: Input should be a valid boolean")


def test_a_wrong_method_names_the_right_ones(server):
    answer = server.ask("POST", "/info/")
    assert (answer.status, answer.detail, answer.headers["allow"]) == (405, "this address takes GET", "GET")


def test_pages_of_other_sites_may_not_write(server):
    answer = server.infer({}, sec_fetch_site="cross-site", origin="http://evil.example")
    assert answer.status == 403
    assert "access-control-allow-origin" not in server.ask("GET", "/info/", origin="http://evil.example").headers


def test_the_log_of_a_request_holds_no_patient(server, caplog, capsys):
    from lib.serving.logs import install_filter

    handler = logging.StreamHandler()
    logging.getLogger().addHandler(handler)
    install_filter()
    try:
        server.infer({"fail": "crash", "label": "DOE^JANE"})
    finally:
        logging.getLogger().removeHandler(handler)
    written = capsys.readouterr().err
    assert "request failed, error" in written
    assert "DOE" not in written


def test_an_unread_form_is_400(server):
    answer = server.ask("POST", "/infer/task?image=case_1", b"no form at all", content_type="multipart/form-data")
    assert (answer.status, json.loads(answer.body)["detail"]) == (
        400,
        "the form cannot be read: Missing boundary in multipart.",
    )
