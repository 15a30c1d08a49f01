"""The server's own folder for temporary files: used, swept, and gone afterwards."""

import os
import subprocess
import sys
import tempfile
import time

import pytest
from lib.serving.scratch import PREFIX, scratch_folder, sweep


@pytest.fixture(autouse=True)
def _root(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_temporary_files_lie_in_it_and_go_with_it(tmp_path):
    with scratch_folder() as folder:
        with tempfile.NamedTemporaryFile(delete=False) as file:
            file.write(b"image")
        assert list(folder.iterdir())
        assert file.name.startswith(str(folder))
        assert folder.stat().st_mode & 0o077 == 0
    assert tempfile.tempdir == str(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_server_left_behind_is_removed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for process in (dead.pid, os.getppid()):
        (tmp_path / f"{PREFIX}{process}-abc").mkdir()
        (tmp_path / f"{PREFIX}{process}-abc" / "image.nii").write_bytes(b"x")
    (tmp_path / "other").mkdir()
    with scratch_folder():
        names = {path.name for path in tmp_path.iterdir()}
    assert f"{PREFIX}{dead.pid}-abc" not in names
    assert {f"{PREFIX}{os.getppid()}-abc", "other"} <= names


def test_old_files_and_folders_are_swept_and_young_ones_stay(tmp_path):
    (tmp_path / "old_folder").mkdir()
    for name in ("old", "young", "old_folder/inside"):
        (tmp_path / name).write_bytes(b"x")
    for name in ("old", "old_folder"):
        os.utime(tmp_path / name, (0, time.time() - 100))
    sweep(tmp_path, 50)
    assert {path.name for path in tmp_path.iterdir()} == {"young"}


def test_it_is_swept_while_the_server_runs(tmp_path):
    with scratch_folder(keep=0.0, every=0.01) as folder:
        (folder / "forgotten").write_bytes(b"x")
        for _ in range(200):
            if not (folder / "forgotten").exists():
                break
            time.sleep(0.01)
        assert not (folder / "forgotten").exists()
