"""Training over HTTP: beside the server, one at a time, stopped with all its processes, and only by known settings."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from fake_server import Running, running_server
from lib.serving.gate import make_app
from lib.serving.limits import Limits
from monailabel.app import app as stock
from monailabel.utils.async_tasks.utils import background_tasks

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 300  # a second copy of the app imports torch, on a machine that may be busy


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("training")
    with pytest.MonkeyPatch.context() as patch, running_server(root, make_app(Limits(), stock)) as running:
        patch.setenv("PYTHONPATH", str(ROOT / "monailabel_app"))
        patch.setenv("MONAI_LABEL_APP_DIR", str(root / "app"))
        patch.setenv("MONAI_LABEL_STUDIES", str(root / "studies"))
        patch.setenv("MONAI_LABEL_SESSION_PATH", str(root / "sessions"))
        yield running


def started() -> int:
    return len(background_tasks.get("train", []))


def test_info_shows_the_trainer_with_its_settings(server):
    config = server.ask("GET", "/info/").json["trainers"]["task"]["config"]
    assert config["device"] == ["cpu"] and config["max_epochs"] >= 1


@pytest.mark.parametrize(
    ("path", "body", "sentence"),
    [
        ("/train/task", {"max_epochs": 0}, "max_epochs must be a whole number from 1 to 1000"),
        ("/train/task", {"val_split": 1}, "val_split must be a number above 0 and below 1"),
        ("/train/", {"epochs": 1}, "'epochs' is no setting of a training"),
        ("/train/task?run_sync=true", {}, "run_sync is not taken: training runs beside the server"),
    ],
)
def test_a_request_that_cannot_be_trained_by_starts_nothing(server, path, body, sentence):
    before = started()
    answer = server.json("POST", path, body)
    assert answer.status == 400 and answer.detail.startswith(sentence)
    assert started() == before


def test_nothing_to_stop_is_no_error(server):
    answer = server.ask("DELETE", "/train/")
    assert (answer.status, answer.json) == (200, None)


def test_a_training_runs_beside_the_server_and_a_stop_ends_all_its_processes(server):
    mark = server.root / "app" / "trains"
    assert server.json("POST", "/train/task", {"max_epochs": "2", "client_id": "me"}).json["status"] == "SUBMITTED"
    child = int(appears(mark))
    assert server.ask("GET", "/train/?check_if_running=true").json["status"] == "RUNNING"
    assert server.json("POST", "/train/task", {}).status == 429
    assert server.infer({"sleep": 0.1}).status == 200
    answer = server.ask("DELETE", "/train/")
    assert answer.json["status"] == "STOPPED" and "the training begins" in answer.json["details"]
    assert ended(child) and not mark.exists()
    assert server.ask("GET", "/train/?check_if_running=true").status == 404


@pytest.mark.parametrize("status", ["SUBMITTED", "RUNNING"])
@pytest.mark.parametrize("path", ["/train/", "/train/task", "/train/task?enqueue=true"])
def test_nothing_is_queued_behind_a_training(server, monkeypatch, path, status):
    monkeypatch.setitem(background_tasks, "train", [{"id": "other", "status": status}])
    answer = server.json("POST", path, {})
    assert (answer.status, answer.detail) == (429, "a training runs; wait for it, or stop it")
    assert started() == 1


def test_a_training_that_could_not_be_started_is_not_waited_for_after_a_stop(server, monkeypatch):
    monkeypatch.setitem(background_tasks, "train", [{"id": "other", "status": "SUBMITTED"}])
    server.ask("DELETE", "/train/")
    assert background_tasks["train"][0]["status"] == "STOPPED"


def appears(mark: Path) -> str:
    """What a file says, once it is there."""
    for _ in range(WAIT_S * 10):
        if mark.exists() and (text := mark.read_text()):
            return text
        time.sleep(0.1)
    raise AssertionError(f"{mark.name} did not appear; {background_tasks['train'][-1]}")


def ended(number: int) -> bool:
    """Whether a process ends within a minute; one that nobody has buried yet counts as ended."""
    for _ in range(600):
        try:
            os.kill(number, 0)
            if psutil.Process(number).status() == psutil.STATUS_ZOMBIE:
                return True
        except (ProcessLookupError, psutil.NoSuchProcess):
            return True
        time.sleep(0.1)
    return False
