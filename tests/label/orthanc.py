"""A real Orthanc for a test: on this machine only, in a folder of its own, gone afterwards."""

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
_START_S = 60


def missing() -> str:
    """What a test with Orthanc lacks on this machine; empty if nothing."""
    if shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin") is None:
        return "Orthanc is not installed (Debian: orthanc)"
    return "" if _PLUGIN.is_file() else "Orthanc's DICOMweb plugin is not installed (Debian: orthanc-dicomweb)"


def free_port() -> int:
    """A port of the loopback interface that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Orthanc:
    """A running archive.

    Attributes:
        url: of its own REST API.
        dicom_web: of its DICOMweb API.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.dicom_web = f"{url}/dicom-web"

    def upload(self, folder: Path) -> None:
        """Store every file of a folder."""
        for path in sorted(folder.iterdir()):
            requests.post(f"{self.url}/instances", data=path.read_bytes(), timeout=60).raise_for_status()

    def segmentations(self) -> list[bytes]:
        """The files of all DICOM SEG objects."""
        query = {"Level": "Instance", "Query": {"Modality": "SEG"}}
        found = requests.post(f"{self.url}/tools/find", json=query, timeout=60).json()
        return [requests.get(f"{self.url}/instances/{key}/file", timeout=60).content for key in found]


@contextmanager
def running_orthanc(folder: Path) -> Iterator[Orthanc]:
    """Start Orthanc with its files in ``folder``, and stop it at the end."""
    port = free_port()
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "orthanc.json"
    settings.write_text(json.dumps(_settings(folder, port)))
    with (folder / "orthanc.log").open("wb") as log:
        process = subprocess.Popen(
            [shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin") or "", str(settings)],
            stdout=log,
            stderr=log,
        )
    try:
        archive = Orthanc(f"http://127.0.0.1:{port}")
        wait_for(f"{archive.dicom_web}/studies", process, _START_S)
        yield archive
    finally:
        process.terminate()
        process.wait(30)


def wait_for(url: str, process: "subprocess.Popen[bytes]", seconds: float) -> None:
    """Return once ``url`` answers; a process that ends before, or takes too long, is a RuntimeError."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{url}: the server ended with {process.returncode}")
        try:
            if requests.get(url, timeout=10).ok:
                return
        except requests.RequestException:
            pass
        time.sleep(0.5)
    raise RuntimeError(f"{url} did not answer within {seconds:g} s")


def _settings(folder: Path, port: int) -> dict[str, object]:
    return {
        "Name": "test",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomServerEnabled": False,
        "Plugins": [str(_PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
