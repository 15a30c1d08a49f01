"""A MONAI Label server of our own for a benchmark: over generated phantoms, on this machine only, killed at the end."""

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import psutil
import requests

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bundle"))

from scripts.phantom import Phantom, make_phantom  # noqa: E402

SHAPES = ((72, 64, 40), (64, 72, 36), (80, 72, 32), (64, 64, 48))
FIRST_SEED = 3002
START_S = 600


class Server:
    """The server as `make label` starts it.

    Args:
        folder: for its images, labels, temporary files and log.
        conf: settings of the app, name and value.
    """

    def __init__(self, folder: Path, conf: Sequence[Sequence[str]]) -> None:
        self.studies = folder / "studies"
        self.scratch = folder / "tmp"
        self.studies.mkdir()
        self.scratch.mkdir()
        self.url = ""
        self._folder = folder
        self._conf = conf
        self._process: subprocess.Popen[bytes] | None = None

    def fill(self, count: int) -> dict[str, Phantom]:
        """Generate images of different shapes."""
        shapes = zip(range(FIRST_SEED, FIRST_SEED + count), itertools.cycle(SHAPES), strict=False)
        phantoms = {f"phantom_{seed}": make_phantom(seed, shape) for seed, shape in shapes}
        for image, phantom in phantoms.items():
            nib.save(nib.Nifti1Image(phantom.image, phantom.affine), self.studies / f"{image}.nii.gz")
        return phantoms

    def start(self) -> None:
        """Start it and wait until it answers."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        app = str(ROOT / "monailabel_app")
        self.url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "monailabel.main", "start_server", "--app", app]
        command += ["--studies", str(self.studies), "--uvicorn_app", "server:app"]
        command += ["--host", "127.0.0.1", "--port", str(port)]
        command += [part for setting in self._conf for part in ("--conf", *setting)]
        places = {"TMPDIR": str(self.scratch), "MONAI_LABEL_SESSION_PATH": str(self._folder / "sessions")}
        environment = {**os.environ, **places, "PYTHONPATH": app}
        with (self._folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(command, env=environment, cwd=self._folder, stdout=log, stderr=log)
        self._wait()

    def _wait(self) -> None:
        for _ in range(START_S * 2):
            time.sleep(0.5)
            if self._process.poll() is not None:
                raise SystemExit((self._folder / "server.log").read_text()[-2000:])
            try:
                return requests.get(f"{self.url}/info/", timeout=30).raise_for_status()
            except requests.RequestException:
                continue
        raise SystemExit(f"the server did not answer within {START_S} s")

    def kill(self) -> None:
        """SIGKILL, in the middle of whatever it does."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()

    def mebibytes(self) -> float:
        """Resident memory."""
        return psutil.Process(self._process.pid).memory_info().rss / 2**20
