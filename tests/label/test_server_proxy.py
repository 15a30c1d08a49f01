"""The way to the image archive: the query and what the viewer accepts go along, the client's own headers do not."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from fake_server import Running, running_server
from lib.serving.gate import make_app
from lib.serving.limits import MIB, Limits
from monailabel.app import app as stock
from monailabel.config import settings


class Archive(BaseHTTPRequestHandler):
    """Answers with what it was asked, or with a large body, or with nothing at all."""

    release = threading.Event()

    def do_GET(self) -> None:
        if self.path.endswith("/1.9"):
            self.release.wait(20)
        if self.path.endswith("/1.8"):
            self.send_response(302)
            self.send_header("Location", "/system")
            self.end_headers()
            return
        length = int(self.headers.get("content-length", 0))
        asked = {"path": self.path, "headers": dict(self.headers), "body": self.rfile.read(length).decode()}
        body = bytes(range(256)) * (4 * MIB // 256) if self.path.endswith("/1.7") else json.dumps(asked).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/dicom+json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Set-Cookie", "archive=1")
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@pytest.fixture(scope="module")
def archive() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Archive)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
    Archive.release.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    limits = Limits(allowed=frozenset({"stow"}), proxy_threads=2)
    with running_server(tmp_path_factory.mktemp("proxy"), make_app(limits, stock)) as running:
        yield running


@pytest.fixture
def _archived(archive: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "MONAI_LABEL_STUDIES", archive)


@pytest.mark.usefixtures("_archived")
def test_query_and_accept_go_along_and_nothing_else(server):
    answer = server.ask(
        "GET", "/proxy/dicom/qido/studies?limit=5&PatientID=%2A1", accept="application/dicom+json", cookie="mine=1"
    )
    assert answer.status == 200
    assert answer.json["path"] == "/dicom-web/studies?limit=5&PatientID=%2A1"
    assert answer.json["headers"]["accept"] == "application/dicom+json"
    assert "mine" not in json.dumps(answer.json)
    assert answer.headers["content-type"] == "application/dicom+json"
    assert "set-cookie" not in answer.headers


@pytest.mark.usefixtures("_archived")
def test_a_large_answer_arrives_whole(server):
    assert server.ask("GET", "/proxy/dicom/wado/studies/1.7").body == bytes(range(256)) * (4 * MIB // 256)


@pytest.mark.usefixtures("_archived")
def test_a_redirect_is_not_followed(server):
    assert server.ask("GET", "/proxy/dicom/wado/studies/1.8").status == 302


@pytest.mark.usefixtures("_archived")
def test_prefixes_and_logins_of_the_settings_are_used(server, monkeypatch):
    monkeypatch.setattr(settings, "MONAI_LABEL_WADO_PREFIX", "rs")
    monkeypatch.setattr(settings, "MONAI_LABEL_DICOMWEB_USERNAME", "orthanc")
    monkeypatch.setattr(settings, "MONAI_LABEL_DICOMWEB_PASSWORD", "secret")
    answer = server.ask("GET", "/proxy/dicom/qido/studies/1.2/series/1.3/metadata")
    assert answer.json["path"] == "/dicom-web/rs/studies/1.2/series/1.3/metadata"
    assert answer.json["headers"]["Authorization"] == "Basic b3J0aGFuYzpzZWNyZXQ="


@pytest.mark.usefixtures("_archived")
def test_a_study_can_be_stored_where_that_is_switched_on(server):
    answer = server.ask("POST", "/proxy/dicom/wado/studies", b"dicom", content_type="multipart/related; type=x")
    assert (answer.json["path"], answer.json["body"]) == ("/dicom-web/studies", "dicom")
    assert answer.json["headers"]["content-type"] == "multipart/related; type=x"


@pytest.mark.usefixtures("_archived")
def test_an_archive_that_hangs_blocks_nothing_else_and_ends_in_502(server, monkeypatch):
    monkeypatch.setattr(settings, "MONAI_LABEL_DICOMWEB_PROXY_TIMEOUT", 2.0)
    answers = []
    hanging = [
        threading.Thread(target=lambda: answers.append(server.ask("GET", "/proxy/dicom/wado/studies/1.9")))
        for _ in range(2)
    ]
    for thread in hanging:
        thread.start()
    assert server.ask("GET", "/docs").seconds < 1
    for thread in hanging:
        thread.join()
    assert [(answer.status, answer.detail) for answer in answers] == [(502, "the image archive does not answer")] * 2


def test_a_folder_of_studies_has_no_archive(server):
    answer = server.ask("GET", "/proxy/dicom/wado/studies")
    assert (answer.status, answer.detail) == (404, "there is no image archive behind this server")
