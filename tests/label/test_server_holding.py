"""The server answers while it works: threads, pools, streams, clients that leave, files that are gone afterwards."""

import gzip
import http.client
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import monailabel
import pytest
from fake_server import Running, multipart, running_server
from lib.serving.gate import make_app
from lib.serving.limits import MIB, Limits
from monailabel.app import app as stock

SMALL = Limits(upload=8 * MIB, unpacked=16 * MIB, infer_threads=2, server_threads=4, waiting=2)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_server(tmp_path_factory.mktemp("holding"), make_app(SMALL, stock)) as running:
        yield running


def _together(*calls):
    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result() for future in [pool.submit(call) for call in calls]]


def test_the_app_is_started_once(server):
    assert (server.root / "app" / "starts").read_text() == "x"


def test_info_and_datastore_answer_while_every_inference_thread_is_busy(server):
    busy = [threading.Thread(target=server.infer, args=({"sleep": 2},)) for _ in range(3)]
    for thread in busy:
        thread.start()
    time.sleep(0.3)
    answers = [server.ask("GET", path) for path in ("/info/", "/datastore/", "/datastore/?output=all")]
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert max(answer.seconds for answer in answers) < 1
    for thread in busy:
        thread.join()


def test_two_inferences_run_at_the_same_time(server):
    begin = time.monotonic()
    answers = _together(*[lambda: server.infer({"sleep": 1})] * 2)
    assert [answer.status for answer in answers] == [200, 200]
    assert time.monotonic() - begin < 1.8


def test_one_inference_too_many_is_told_to_come_back(server):
    answers = _together(*[lambda: server.infer({"sleep": 1})] * 6)
    statuses = sorted(answer.status for answer in answers)
    assert statuses == [200] * 4 + [503] * 2
    busy = next(answer for answer in answers if answer.status == 503)
    assert "busy" in busy.detail
    assert busy.headers["retry-after"] == "5"


def test_a_large_result_arrives_whole_and_is_removed(server):
    answer = server.infer({"size": 40 * MIB}, "image=case_1&output=image")
    assert answer.body == bytes(range(256)) * (40 * MIB // 256)
    assert int(answer.headers["content-length"]) == 40 * MIB
    assert server.left_behind(".nrrd") == []


def test_a_client_that_reads_slowly_holds_no_thread(server):
    readers = [_open_infer(server, {"size": 40 * MIB}) for _ in range(4)]
    begin = time.monotonic()
    assert server.infer({}).status == 200
    assert time.monotonic() - begin < 2
    for connection in readers:
        connection.close()


def test_a_client_that_leaves_costs_nothing_that_lasts(server):
    waiting = [_open_infer(server, {"sleep": 1, "size": MIB}, read=False) for _ in range(4)]
    time.sleep(0.3)
    for connection in waiting:
        connection.close()
    begin = time.monotonic()
    assert server.infer({}).status == 200
    assert time.monotonic() - begin < 1.6  # the two that waited were dropped
    assert server.left_behind(".nrrd") == []


def _open_infer(server: Running, params: dict, read: bool = True) -> http.client.HTTPConnection:
    body, kind = multipart((("params", None, json.dumps(params).encode()),))
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("POST", "/infer/task?image=case_1&output=image", body, {"content-type": kind})
    if read:
        connection.getresponse().read(100)
    return connection


def test_an_upload_arrives_whole_and_comes_back(server):
    content = bytes(range(256)) * 4 * 4096
    body = (("params", None, b"{}"), ("file", "new.nii", content))
    assert server.form("PUT", "/datastore/image?image=new", *body).json == {"image": "new"}
    answer = server.ask("GET", "/datastore/image?image=new")
    assert answer.body == content


def test_an_id_with_blanks_dots_and_umlauts_works(server):
    answer = server.ask("GET", "/datastore/image?image=case%202%20%C3%B6.v1")
    assert answer.body == "image of case 2 ö.v1.nii.gz".encode()


def test_labels_and_sessions_go_in_and_out(server):
    saved = server.form("PUT", "/datastore/label?image=case_1&tag=mine", ("label", "C:\\x\\mask.nii", b"mask"))
    assert saved.json["label"] == "case_1"
    assert server.ask("GET", "/datastore/label?label=case_1&tag=mine").body == b"mask"
    made = server.form("PUT", "/session/", ("client_id", None, b"me"), ("files", "/tmp/volume.nii", b"volume"))
    session = made.json["session_id"]
    assert server.infer({}, f"image=2: CT&session_id={session}".replace(" ", "%20")).status == 200
    assert server.ask("GET", f"/session/{session}?image=true").body == b"volume"
    assert server.ask("DELETE", f"/session/{session}").status == 200


def test_dicom_seg_is_answered_by_the_app_and_its_file_removed(server):
    answer = server.infer({"label_info": []}, "image=case_1&output=dicom_seg")
    assert answer.headers["content-type"] == "application/dicom"
    assert answer.body.startswith(b"DICM[('image', 'case_1'), ('label_info', []), ('model', 'task')]")
    assert server.left_behind(".dcm") == []
    assert server.infer({"fail": "yes"}, "image=case_1&output=dicom_seg").detail == "nothing to save"


def test_the_downloaded_dataset_leaves_no_archive_behind(server):
    server.form("PUT", "/datastore/label?image=case_1&tag=final", ("label", "mask.nii.gz", gzip.compress(b"mask")))
    answer = server.ask("GET", "/datastore/dataset")
    assert answer.status == 200
    assert answer.body.startswith(b"PK")
    assert server.left_behind("") == []


@pytest.mark.parametrize("path", ["/ohif/", "/ohif/monai-label?StudyInstanceUIDs=1.2", "/ohif/viewer/dicomjson"])
def test_ohif_pages_are_its_index(server, path):
    answer = server.ask("GET", path)
    assert answer.status == 200
    assert b"<!doctype html>" in answer.body[:20]


def test_every_file_of_ohif_is_served_as_it_is(server):
    root = Path(monailabel.__file__).parent / "endpoints" / "static" / "ohif"
    files = [path for path in root.rglob("*") if path.is_file() and path.stat().st_size < 4 * MIB]
    assert len(files) > 50
    wrong = [
        path.name
        for path in files
        if server.ask("GET", f"/ohif/{path.relative_to(root).as_posix()}").body != path.read_bytes()
    ]
    assert wrong == []
