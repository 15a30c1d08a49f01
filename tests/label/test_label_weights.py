"""The app's own weights: one switch, written whole; older ones stay; one training at a time; a kill leaves nothing."""

import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lib import weights
from lib.bundle import Bundle
from lib.engine import Engine
from lib.memory import Memory
from lib.weights import Busy, WeightsFolder

ROOT = Path(__file__).resolve().parents[2]
SMALL = ROOT / "bundle" / "models" / "small.pt"
LIVER = {"targets": [{"text": "liver"}]}


@pytest.fixture
def own(tmp_path: Path) -> WeightsFolder:
    return WeightsFolder(tmp_path / "models", "small", SMALL)


def candidate(own: WeightsFolder, content: bytes = b"weights") -> Path:
    own.folder.mkdir(exist_ok=True)
    path = own.folder / "candidate.pt"
    path.write_bytes(content)
    return path


def other_weights(own: WeightsFolder, gain: float = 0.5) -> Path:
    """The small weights, their mask decoder weakened, as a candidate."""
    content = torch.load(SMALL, weights_only=True)
    content["model"] = {
        name: value * gain if name.startswith("mask_decoder.") and value.is_floating_point() else value
        for name, value in content["model"].items()
    }
    own.folder.mkdir(exist_ok=True)
    torch.save(content, own.folder / "candidate.pt")
    return own.folder / "candidate.pt"


def files(own: WeightsFolder) -> set[str]:
    return {path.name for path in own.folder.iterdir() if path.name != f".{own.name}.lock"}


def test_there_are_none_at_first_and_nothing_is_made(own):
    assert (own.current(), own.stamp(), own.last(), own.is_training()) == (None, None, {}, False)
    own.sweep()
    assert not own.folder.exists()


def test_weights_that_are_taken_over_count_with_their_provenance(own):
    path = own.take_over(candidate(own), {"size": "small"})
    assert path.name.startswith(f"{own.name}-") and path.read_bytes() == b"weights"
    found = own.current()
    assert found.path == path and found.provenance["size"] == "small"
    assert found.provenance["sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert json.loads(path.with_suffix(".json").read_text()) == found.provenance
    assert files(own) == {path.name, path.with_suffix(".json").name, f"{own.name}.json"}


def test_older_weights_stay_and_can_be_brought_back(own):
    first = own.take_over(candidate(own, b"first"), {})
    stamp = own.stamp()
    second = own.take_over(candidate(own, b"second"), {})
    assert first != second and own.current().path == second and own.stamp() != stamp
    shutil.copy(first.with_suffix(".json"), own.folder / f"{own.name}.json")
    assert own.current().path.read_bytes() == b"first"


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"weights": 3}', '{"weights": "gone.pt"}', '{"weights": "../small.pt"}']
)
def test_a_switch_that_names_no_file_of_the_folder_counts_for_nothing(own, text):
    candidate(own)
    (own.folder.parent / "small.pt").write_bytes(b"outside")
    (own.folder / f"{own.name}.json").write_text(text)
    assert own.current() is None


def test_one_training_at_a_time_over_all_processes(own):
    with own.training() as folder:
        assert folder.is_dir() and own.is_training()
        with pytest.raises(Busy, match="^another training runs on these weights"), own_again(own).training():
            pass
        own_again(own).sweep()
        assert folder.is_dir()
    assert not folder.exists() and not own.is_training()


def own_again(own: WeightsFolder) -> WeightsFolder:
    return WeightsFolder(own.folder, "small", SMALL)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "BUSY_S", 0.1)


def test_trainings_of_other_weights_do_not_touch_each_other(own, tmp_path):
    mine = started_from(tmp_path / "mine.pt", own.folder)
    with own.training() as first, mine.training() as second:
        assert first.is_dir() and second.is_dir()
    assert not first.exists() and not second.exists()


def test_a_training_that_is_killed_leaves_the_weights_and_what_is_left_is_swept(own):
    path = own.take_over(candidate(own), {})
    code = f"""
import sys, time
sys.path.insert(0, {str(ROOT / "monailabel_app")!r})
from pathlib import Path
from lib.weights import WeightsFolder
with WeightsFolder(Path({str(own.folder)!r}), "small", Path({str(SMALL)!r})).training() as folder:
    (folder / "model.pt").write_bytes(b"half")
    print("trains", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as trainer:
        assert trainer.stdout is not None
        assert trainer.stdout.readline() == "trains\n" and own.is_training()
        os.kill(trainer.pid, signal.SIGKILL)
        trainer.wait()
    assert own.current().path == path and path.read_bytes() == b"weights"
    own.sweep(30)
    assert files(own) == {path.name, path.with_suffix(".json").name, f"{own.name}.json"}
    with own.training():
        pass


def test_a_folder_that_may_not_be_written_is_looked_at_and_not_trained_in(own, monkeypatch):
    own.check_writable()
    path = own.take_over(candidate(own), {})
    with own.training():
        pass
    monkeypatch.setattr(weights.os, "access", lambda *_: False)
    own.sweep()
    assert own.current().path == path and not own.is_training()
    with pytest.raises(ValueError, match="^the server may not write its folder of weights, so it cannot train"):
        own.check_writable()


def started_from(start: Path, folder: Path, content: str = "other weights") -> WeightsFolder:
    start.parent.mkdir(exist_ok=True)
    start.write_text(content)
    return WeightsFolder(folder, "small", start)


def test_weights_of_different_starts_are_kept_apart_whatever_these_are_called(own, tmp_path):
    one, other = (started_from(tmp_path / name / "model.pt", own.folder, name) for name in "ab")
    path = one.take_over(candidate(one), {})
    assert path.name.startswith(f"small-{hashlib.sha256(b'a').hexdigest()[:8]}-")
    assert other.current() is None and other.stamp() is None and one.current().path == path


def test_weights_of_an_older_start_do_not_hide_a_newer_one_in_its_place(own, tmp_path):
    before = started_from(tmp_path / "small.pt", own.folder, "old")
    path = before.take_over(candidate(before), {})
    assert before.current().path == path
    assert started_from(tmp_path / "small.pt", own.folder, "new").current() is None


def test_a_start_that_comes_later_is_taken_note_of(own, tmp_path):
    early = WeightsFolder(own.folder, "small", tmp_path / "later.pt")
    assert (early.name, early.current()) == ("small", None)
    path = started_from(tmp_path / "later.pt", own.folder).take_over(candidate(own), {})
    assert early.current().path == path


@pytest.fixture
def served(own: WeightsFolder, phantom: Path) -> Engine:
    """An engine that has drawn with the bundle's weights."""
    engine = Engine(Bundle(ROOT / "bundle"), Memory(1 << 30), own=own)
    engine.segment(phantom, LIVER)
    return engine


def kept(engine: Engine, kind: str) -> int:
    return sum(key[0] == kind for key in engine.memory._values)


def test_a_running_engine_takes_new_weights_over_and_forgets_its_embeddings(served, own, phantom):
    before = served.segment(phantom, LIVER)
    assert before.latencies["embedding_misses"] == 0 and kept(served, "embedding")
    path = own.take_over(other_weights(own), {})
    assert served.weights_file == path
    assert served.weights()["name"] == path.name and kept(served, "embedding") == 0 and kept(served, "volume") == 1
    after = served.segment(phantom, LIVER)
    assert after.weights["sha256"] == own.current().provenance["sha256"] != before.weights["sha256"]
    assert not np.array_equal(before.label, after.label) and after.latencies["embedding_misses"] > 0


def test_a_request_in_flight_ends_with_the_weights_it_began_with(served, own, phantom, monkeypatch):
    expected = served.segment(phantom, LIVER)
    served.memory.clear()
    network, encode = served.bundle.part("network"), served.bundle.part("network").encode
    taken: list[Path] = []

    def encode_late(window: torch.Tensor) -> torch.Tensor:
        if not taken:
            taken.append(own.take_over(other_weights(own), {}))
            assert served.weights()["name"] == taken[0].name
        return encode(window)

    monkeypatch.setattr(network, "encode", encode_late)
    drawn = served.segment(phantom, LIVER)
    assert np.array_equal(drawn.label, expected.label) and drawn.weights == expected.weights
    assert served.segment(phantom, LIVER).weights["name"] == taken[0].name


def test_a_new_engine_starts_from_them(own, phantom):
    path = own.take_over(other_weights(own), {})
    assert Engine(Bundle(ROOT / "bundle"), Memory(0), own=own).weights()["name"] == path.name


def test_weights_that_do_not_fit_are_passed_over_with_a_warning(served, own, phantom, caplog):
    before = served.weights()
    torch.save({"model": {"mask_decoder.x": torch.zeros(1)}}, candidate(own))
    own.take_over(own.folder / "candidate.pt", {})
    with caplog.at_level(logging.WARNING):
        assert served.weights() == before and served.segment(phantom, LIVER).label.any()
    assert caplog.text.count("fine-tuned weights are passed over: checkpoint: ") == 1


def test_back_to_the_bundles_weights_where_the_switch_is_deleted(served, own):
    before = served.weights()
    own.take_over(other_weights(own), {})
    assert served.weights() != before
    (own.folder / f"{own.name}.json").unlink()
    assert served.weights() == before
