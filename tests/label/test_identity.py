"""An image is known by its content, and a new content is noticed."""

import os
import shutil
import time
from pathlib import Path

import pytest
from lib import identity
from lib.identity import Identities

LONG_AGO = time.time() - 1000


def settle(path: Path) -> None:
    """Let a file look as if nobody had touched it for long."""
    os.utime(path, (LONG_AGO, LONG_AGO))


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Which paths were read."""
    read, content_hash = [], identity._content_hash

    def counting(path: Path) -> str:
        read.append(path)
        return content_hash(path)

    monkeypatch.setattr(identity, "_content_hash", counting)
    return read


def test_the_same_content_under_two_paths_has_one_identity(tmp_path):
    one, other = tmp_path / "a.nii", tmp_path / "b.nii"
    one.write_bytes(b"content")
    other.write_bytes(b"content")
    known = Identities()
    assert known.of(one) == known.of(other)
    other.write_bytes(b"CONTENT")
    assert known.of(one) != known.of(other)


def test_a_settled_file_is_read_once(tmp_path, hashed, monkeypatch):
    monkeypatch.setattr(identity, "_TICK_NS", 0)
    path, known = tmp_path / "a.nii", Identities()
    path.write_bytes(b"content")
    time.sleep(0.01)
    assert len({known.of(path) for _ in range(3)}) == 1
    assert hashed == [path]


def test_a_file_that_has_just_changed_is_read_again(tmp_path, hashed):
    path, known = tmp_path / "a.nii", Identities()
    path.write_bytes(b"content")
    known.of(path)
    known.of(path)
    assert hashed == [path, path]


def test_a_file_written_anew_in_the_same_tick_with_equal_size_is_noticed(tmp_path, monkeypatch):
    path, known, now = tmp_path / "a.nii", Identities(), time.time_ns()
    monkeypatch.setattr(identity, "_stamp", lambda path: ((path.name, 1, 3, now, now),))
    path.write_bytes(b"one")
    before = known.of(path)
    path.write_bytes(b"two")
    assert known.of(path) != before


@pytest.mark.parametrize("way", ["written", "moved"])
def test_a_settled_file_replaced_by_another_of_equal_size_and_time_is_noticed(tmp_path, monkeypatch, way):
    monkeypatch.setattr(identity, "_TICK_NS", 0)
    path, other, known = tmp_path / "a.nii", tmp_path / "other", Identities()
    path.write_bytes(b"one")
    settle(path)
    time.sleep(0.02)
    before = known.of(path)
    if way == "written":
        path.write_bytes(b"two")
    else:
        other.write_bytes(b"two")
        os.replace(other, path)
    settle(path)
    assert known.of(path) != before


def test_a_folder_is_known_by_the_names_and_contents_of_its_files(tmp_path):
    first = tmp_path / "first"
    first.mkdir()
    (first / "1.dcm").write_bytes(b"one")
    (first / "2.dcm").write_bytes(b"two")
    copy = shutil.copytree(first, tmp_path / "copy")
    known = Identities()
    assert known.of(first) == known.of(copy)
    (copy / "2.dcm").write_bytes(b"TWO")
    changed = known.of(copy)
    (copy / "3.dcm").write_bytes(b"")
    assert len({known.of(first), changed, known.of(copy)}) == 3
    (copy / "3.dcm").rename(copy / "4.dcm")
    assert known.of(copy) not in (known.of(first), changed)


def test_a_missing_file_is_told_in_one_sentence_without_its_folder(tmp_path):
    with pytest.raises(ValueError, match=r"^image: gone\.nii cannot be read \(No such file or directory\)$"):
        Identities().of(tmp_path / "gone.nii")


def test_a_name_that_is_too_long_is_told_in_one_line(tmp_path):
    with pytest.raises(ValueError, match="cannot be read") as caught:
        Identities().of(tmp_path / ("x" * 300))
    assert "\n" not in str(caught.value)


def test_only_so_many_images_are_remembered(tmp_path, hashed, monkeypatch):
    monkeypatch.setattr(identity, "_KEPT", 2)
    monkeypatch.setattr(identity, "_TICK_NS", 0)
    known, paths = Identities(), [tmp_path / name for name in "abc"]
    for path in paths:
        path.write_text(path.name)
    time.sleep(0.01)
    for path in [*paths, paths[2], paths[0]]:
        known.of(path)
    assert hashed == [*paths, paths[0]]
