"""The whole server over a fake app: no network, an infer task that sleeps, fails or writes what it is told to, and a
trainer whose processes sleep until they are stopped.
"""

import http.client
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from monailabel.app import app as stock
from monailabel.config import settings
from monailabel.interfaces.utils.app import clear_cache
from starlette.middleware.cors import CORSMiddleware

MAIN = """
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fastapi import HTTPException
from lib.train_settings import options, read_settings, refuse_unknown
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.train import TrainTask

ERRORS = {
    "http": HTTPException(400, "the box is empty"),
    "input": MONAILabelException(MONAILabelError.INVALID_INPUT, "points are missing"),
    "crash": RuntimeError("secret of /etc/passwd and DOE^JOHN"),
}


class Task(InferTask):
    def __init__(self):
        super().__init__("segmentation", ["liver"], 3, "fake")

    def is_valid(self):
        return True

    def __call__(self, request):
        time.sleep(request.get("sleep", 0))
        if request.get("fail"):
            raise ERRORS[request["fail"]]
        if request.get("size") is None:
            return None, {"image": request["image"]}
        path = Path(tempfile.NamedTemporaryFile(suffix=".nrrd").name)
        path.write_bytes(bytes(range(256)) * (request["size"] // 256))
        return str(path), {"image": request["image"]}


class Score(ScoringMethod):
    def __init__(self):
        super().__init__("fake")

    def __call__(self, request, datastore):
        return {}


class Train(TrainTask):
    def __init__(self, app_dir):
        super().__init__("fake")
        self.app_dir = app_dir

    def config(self):
        return options(["cpu"])

    def __call__(self, request, datastore):
        print("the training begins", flush=True)
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as child:
            Path(self.app_dir, "trains").write_text(str(child.pid))
            child.wait()


class App(MONAILabelApp):
    def __init__(self, app_dir, studies, conf):
        super().__init__(app_dir, studies, conf, "fake", "fake", "1")

    def init_infers(self):
        return {"task": Task()}

    def init_scoring_methods(self):
        return {"dice": Score()}

    def init_trainers(self):
        return {"task": Train(self.app_dir)}

    def check_training(self, model, params):
        refuse_unknown(params)
        read_settings(params, ["cpu"])

    def sweep_training(self):
        Path(self.app_dir, "trains").unlink(missing_ok=True)

    def on_init_complete(self):
        with Path(self.app_dir, "starts").open("a") as file:
            file.write("x")

    def dicom_segmentation(self, request):
        if request.get("fail"):
            raise HTTPException(400, "nothing to save")
        path = Path(tempfile.gettempdir(), "segmentation.dcm")
        path.write_bytes(b"DICM" + repr(sorted(request.items())).encode())
        return path
"""


@dataclass
class Answer:
    """What came back."""

    status: int
    body: bytes
    headers: dict[str, str]
    seconds: float

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def detail(self) -> str:
        return self.json["detail"]


@dataclass
class Running:
    """A server on a port of this machine.

    Args:
        port: where it listens.
        root: folder that holds everything it may read or write: app, studies, sessions, temp.
    """

    port: int
    root: Path

    def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        """One request, its path sent exactly as written."""
        begin = time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, named)
        response = connection.getresponse()
        answer = Answer(
            response.status, response.read(), {name.lower(): value for name, value in response.getheaders()}, 0
        )
        connection.close()
        answer.seconds = time.monotonic() - begin
        return answer

    def form(self, method: str, path: str, *parts: "Part", **headers: str) -> Answer:
        """One form, made by hand so that any name can be in it."""
        body, kind = multipart(parts)
        return self.ask(method, path, body, content_type=kind, **headers)

    def infer(self, params: dict[str, Any], query: str = "image=case_1", **headers: str) -> Answer:
        """One inference by the fake task."""
        return self.form("POST", f"/infer/task?{query}", ("params", None, json.dumps(params).encode()), **headers)

    def json(self, method: str, path: str, value: object, **headers: str) -> Answer:
        """One request with a JSON body."""
        return self.ask(method, path, json.dumps(value).encode(), content_type="application/json", **headers)

    def left_behind(self, suffix: str) -> list[str]:
        """Temporary files with a suffix that are still there a moment later."""
        for _ in range(100):
            if not (found := [str(path) for path in (self.root / "temp").rglob(f"*{suffix}") if path.is_file()]):
                break
            time.sleep(0.05)
        return found

    def files(self) -> dict[str, bytes]:
        """Every file around, by its path, but for locks."""
        paths = (path for path in self.root.rglob("*") if path.is_file() and path.name != ".lock")
        return {str(path.relative_to(self.root)): path.read_bytes() for path in paths}


Part = tuple[str, str | None, bytes]


def multipart(parts: tuple[Part, ...]) -> tuple[bytes, str]:
    """A multipart body and its content type: (field, file name or None, content) for every part."""
    lines = []
    for name, file, content in parts:
        disposition = f'form-data; name="{name}"' + (f'; filename="{file}"' if file is not None else "")
        lines += [b"--limit", b"Content-Disposition: " + disposition.encode(), b"", content]
    return b"\r\n".join([*lines, b"--limit--", b""]), "multipart/form-data; boundary=limit"


@contextmanager
def running_server(root: Path, app: CORSMiddleware) -> Iterator[Running]:
    """Start a server over a fake app and two images, and stop it."""
    for folder in ("app", "studies", "sessions", "temp"):
        (root / folder).mkdir()
    (root / "app" / "main.py").write_text(MAIN)
    for name in ("case_1.nii.gz", "case 2 ö.v1.nii.gz"):
        (root / "studies" / name).write_bytes(b"image of " + name.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(settings, "MONAI_LABEL_APP_DIR", str(root / "app"))
        patch.setattr(settings, "MONAI_LABEL_STUDIES", str(root / "studies"))
        patch.setattr(settings, "MONAI_LABEL_SESSION_PATH", str(root / "sessions"))
        patch.setattr(settings, "MONAI_LABEL_DATASTORE_AUTO_RELOAD", False)
        patch.setattr(tempfile, "tempdir", str(root / "temp"))
        patch.setenv("MONAI_LABEL_RELOAD_APP_LIB", "false")  # as server.py sets it
        patch.chdir(root)
        clear_cache()
        stock.middleware_stack = None
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="on"))
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            assert thread.is_alive(), "the server did not start"
            time.sleep(0.05)
        yield Running(server.servers[0].sockets[0].getsockname()[1], root)
        server.should_exit = True
        thread.join(30)
        clear_cache()
        shutil.rmtree(root / "temp", ignore_errors=True)
