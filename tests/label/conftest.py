"""Fixtures of the Label app's tests: the bundle with its small network, a generated CT, a fresh engine."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files of the app go during a test."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture(scope="session")
def small_bundle() -> Any:
    """The bundle's parts with the small network, loaded once."""
    from lib.bundle import Bundle

    return Bundle(ROOT / "bundle")


@pytest.fixture(scope="session")
def draw_phantom() -> Callable[[Path, int], Path]:
    """Write the generated CT of a seed, (72, 64, 40) voxels."""
    from scripts.phantom import make_phantom

    def draw(path: Path, seed: int) -> Path:
        made = make_phantom(seed, shape=(72, 64, 40))
        nib.save(nib.Nifti1Image(made.image, made.affine), path)
        return path

    return draw


@pytest.fixture(scope="session")
def phantom(tmp_path_factory: pytest.TempPathFactory, draw_phantom: Callable[[Path, int], Path]) -> Path:
    """A generated CT in which the small network finds a liver by name and an organ at voxel (48, 30, 18)."""
    return draw_phantom(tmp_path_factory.mktemp("images") / "phantom.nii.gz", 3002)


@pytest.fixture
def engine(small_bundle: Any) -> Any:
    """An engine that remembers nothing yet."""
    from lib.engine import Engine
    from lib.memory import Memory

    return Engine(small_bundle, Memory(1 << 30))


@pytest.fixture(scope="session")
def starting(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., AbstractContextManager[Any]]:
    """``with starting(studies, **conf) as app``: the app, with sessions and fine-tuned weights of its own."""

    @contextmanager
    def start(studies: Path, **conf: str) -> Iterator[Any]:
        from main import SegVolApp
        from monailabel.config import settings

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(settings, "MONAI_LABEL_DATASTORE_AUTO_RELOAD", False)
            patch.setattr(settings, "MONAI_LABEL_AUTO_UPDATE_SCORING", False)  # it calls a server
            patch.setattr(settings, "MONAI_LABEL_SESSION_PATH", str(tmp_path_factory.mktemp("sessions")))
            own = {"device": "cpu", "models": str(tmp_path_factory.mktemp("models"))}
            yield SegVolApp(str(ROOT / "monailabel_app"), str(studies), {**own, **conf})

    return start


@pytest.fixture(scope="module")
def app(
    starting: Callable[..., AbstractContextManager[Any]], phantom: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """The app over a folder that holds the phantom."""
    studies = tmp_path_factory.mktemp("studies")
    shutil.copy(phantom, studies / "phantom.nii.gz")
    with starting(studies) as running:
        yield running
