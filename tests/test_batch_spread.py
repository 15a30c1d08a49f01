"""A batch over several processes: the same files as in one, whatever becomes of a case or a worker."""

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from commands import BUNDLE, run_here, start_process
from scripts.batch import Turns, over_workers
from scripts.batch.worker import _own_device
from scripts.cases import CaseStream
from scripts.phantom import make_phantom, save_phantom
from scripts.provenance import Finished, made_from
from test_cluster import elsewhere, free_port, wait_for_port, wait_for_workers, worker

BATCH = ("inference", "small", "batch_inference")
EVIL = "$__import__('pathlib').Path('evil').touch()"
CLOSING = "1 of 4 cases failed: broken: image: scans/broken.nii.gz cannot be read"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three phantoms and what is none in ``scans``, and in ``alone`` what one process makes of them."""
    folder = tmp_path_factory.mktemp("batch")
    (folder / "scans").mkdir()
    for number in range(3):
        image, _ = save_phantom(make_phantom(3001 + number, shape=(40, 40, 20)), folder / "made")
        shutil.move(image, folder / "scans" / f"p{number}.nii.gz")
    (folder / "scans" / "broken.nii.gz").write_bytes(b"no gzip")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        torch.set_num_threads(1)
        with pytest.raises(SystemExit, match=CLOSING):
            run_here(patch, *BATCH, image="scans", text="['liver','spleen']", output_dir="alone")
    torch.set_num_threads(threads)
    return folder


def content(folder: Path) -> dict[str, object]:
    """All files below ``folder``; JSON without its timings."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            name = str(path.relative_to(folder))
            found[name] = path.read_bytes()
            if path.suffix == ".json":
                found[name] = json.loads(path.read_bytes()) | {"seconds": None}
    return found


def wait_for(folder: Path, pattern: str, process: psutil.Popen) -> None:
    end = time.monotonic() + 300
    while not list(folder.glob(pattern)):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.02)


def workers_of(pid: int) -> Iterator[psutil.Process]:
    """The workers that a driver has started, in the order of their start."""
    children = psutil.Process(pid).children(recursive=True)
    return (child for child in children if any("spawn_main" in word for word in child.cmdline()))


@pytest.mark.slow
def test_two_processes_of_torchrun_share_the_cases_and_one_tells_of_all(folder):
    options = {"image": "scans", "text": "['liver','spleen']", "output_dir": "torchrun"}
    done = start_process(folder, *BATCH, processes=2, **options)
    assert done.wait(300) == 1
    told = (folder / "log.txt").read_text()
    assert told.count(CLOSING) == 1
    assert content(folder / "torchrun") == content(folder / "alone")


@pytest.mark.slow
def test_a_killed_worker_costs_no_case(folder):
    options = {"image": "scans", "text": "['liver','spleen']", "output_dir": "killed", "workers": 2}
    driver = start_process(folder, *BATCH, **options)
    wait_for(folder, "killed/*/*_seg.json", driver)
    next(workers_of(driver.pid)).kill()
    assert driver.wait(300) == 1
    told = (folder / "log.txt").read_text()
    assert CLOSING in told.splitlines()[-1] and "Traceback" not in told
    assert "case p0: wrote" in told and "4/4" in told
    made = {name: kept for name, kept in content(folder / "killed").items() if not name.startswith(".")}
    assert made == content(folder / "alone")


@pytest.mark.slow
def test_sigterm_ends_a_run_in_one_line_and_leaves_no_process_and_no_half_case(folder):
    options = {"image": "scans", "text": "['liver','spleen']", "output_dir": "stopped", "workers": 1}
    driver = start_process(folder, *BATCH, **options)
    wait_for(folder, "stopped/*/*_seg.json", driver)
    children = list(workers_of(driver.pid))
    driver.send_signal(signal.SIGTERM)
    assert driver.wait(60) == 1
    told = (folder / "log.txt").read_text()
    assert "of 4 cases done; --resume true goes on" in told and "Traceback" not in told
    assert not psutil.wait_procs(children, 10)[1]
    for case in (folder / "stopped").glob("[!.]*"):
        assert content(case) == content(folder / "alone" / case.name)


@pytest.mark.slow
def test_a_scheduler_elsewhere_does_the_same_and_text_stays_text(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    boxed = {"name": EVIL, "text": "liver", "box": [8, 8, 4, 30, 30, 16]}
    odd = folder / "scans" / "@image.nii.gz"
    shutil.copy(folder / "scans" / "p0.nii.gz", odd)
    rows = [{"image": f"scans/{name}", "prompts": {"targets": [boxed]}} for name in ("@image.nii.gz", "p1.nii.gz")]
    rows.append({"image": EVIL, "prompts": {"targets": [boxed]}})
    (folder / "cases.json").write_text(json.dumps(rows))
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    with elsewhere(tmp_path, "scheduler", "--host", "127.0.0.1", "--port", str(port)):
        wait_for_port(port)
        with worker(tmp_path, address):
            wait_for_workers(address, 1)
            with pytest.raises(SystemExit, match="1 of 3 cases failed: .*does not exist"):
                run_here(monkeypatch, *BATCH, cases="cases.json", scheduler=address, output_dir="remote")
    odd_again = {"cases": "cases.json", "output_dir": "here"}
    with pytest.raises(SystemExit, match="1 of 3 cases failed: .*does not exist"):
        run_here(monkeypatch, *BATCH, **odd_again)
    odd.unlink()
    assert content(folder / "remote") == content(folder / "here")
    assert not list(folder.rglob("evil")) and not list(tmp_path.rglob("evil"))


@pytest.mark.slow
def test_a_run_that_is_resumed_leaves_finished_cases_alone(folder, tmp_path, monkeypatch):
    shutil.copytree(folder / "scans", tmp_path / "scans")
    (tmp_path / "scans" / "broken.nii.gz").unlink()
    monkeypatch.chdir(tmp_path)
    options = {"image": "scans", "text": "liver", "resume": "True"}
    run_here(monkeypatch, *BATCH, **options)
    first = times(tmp_path)
    (tmp_path / "out" / "p1" / "p1_liver.nii.gz").unlink()
    os.utime(tmp_path / "scans" / "p2.nii.gz", ns=(1, 1))
    run_here(monkeypatch, *BATCH, **options)
    second = times(tmp_path)
    assert [case for case in first if first[case] == second[case]] == ["p0"]
    with pytest.raises(SystemExit) as ended:  # nothing is left, so nothing is started but the workers
        run_here(monkeypatch, *BATCH, **options, workers=1)
    assert not ended.value.code and times(tmp_path) == second


def times(folder: Path) -> dict[str, int]:
    return {path.parent.name: path.stat().st_mtime_ns for path in sorted((folder / "out").glob("*/*_seg.json"))}


@pytest.fixture
def case(folder: Path, tmp_path: Path) -> dict:
    """A case that ``Finished`` with the same settings finds finished in ``tmp_path``/alone."""
    shutil.copytree(folder / "alone", tmp_path / "alone")
    document = {"coordinates": "voxel", "targets": [{"text": "liver"}, {"text": "spleen"}]}
    return {"case": "p0", "image": folder / "scans" / "p0.nii.gz", "document": document}


def finished(folder: Path, **changed: object) -> Finished:
    settings = {"resume": "true", "output_dir": folder / "alone", "mode": "zoom", "size": "small"}
    return Finished(**{**settings, "checkpoint": BUNDLE / "models" / "small.pt", **changed})


def test_finished_is_what_was_made_from_the_same(case, tmp_path):
    assert finished(tmp_path)(case)
    (tmp_path / "other.pt").write_bytes(b"other weights")
    others = ({"resume": False}, {"mode": "fit"}, {"size": "base"}, {"output_dir": tmp_path / "none"})
    others += ({"checkpoint": tmp_path / "other.pt"}, {"checkpoint": tmp_path / "none.pt"})
    assert [changed for changed in others if finished(tmp_path, **changed)(case)] == []
    assert not finished(tmp_path)({**case, "document": {"targets": [{"text": "liver"}]}})
    assert not finished(tmp_path)({**case, "image": tmp_path / "none.nii.gz"})
    assert not finished(tmp_path)({**case, "fault": "cases: entry 1"})


@pytest.mark.parametrize("broken", ["{", "[]", "{}", '{"made_from": null, "model": 3}', "[" * 100_000])
def test_a_summary_that_cannot_be_read_is_not_finished(broken, case, tmp_path):
    (tmp_path / "alone" / "p0" / "p0_seg.json").write_text(broken)
    assert not finished(tmp_path)(case)


def test_a_file_that_is_missing_makes_a_case_unfinished(case, tmp_path):
    (tmp_path / "alone" / "p0" / "p0_spleen.nii.gz").unlink()
    assert not finished(tmp_path)(case)


def test_a_folder_of_slices_has_a_state_of_its_files(tmp_path):
    for name in ("a.dcm", "b.dcm"):
        (tmp_path / name).write_bytes(b"slice")
    first = made_from({"image": tmp_path, "document": None})
    assert first == made_from({"image": str(tmp_path), "document": None})
    os.utime(tmp_path / "b.dcm", ns=(5, 5))
    assert made_from({"image": tmp_path, "document": None})["state"] not in (None, first["state"])


def test_one_process_takes_all_cases_but_the_finished_ones(capsys):
    cases = [{"case": name} for name in "abcd"]
    turns = Turns(cases, lambda case: case["case"] == "b")
    assert [case["case"] for case in turns] == ["a", "c", "d"]
    assert len(turns) == 4 and "4/4" in capsys.readouterr().err
    stream = CaseStream(turns, dict)
    stream.failures = {"c": "too bad"}
    with pytest.raises(SystemExit, match="^1 of 4 cases failed: c: too bad$"):
        turns.finish(stream)


def test_local_workers_take_the_gpus_in_turn_where_the_user_named_none():
    assert [_own_device({}, number, 2)["device"] for number in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert _own_device({"device": "cuda:3"}, 0, 2)["device"] == "cuda:3"
    assert _own_device({}, 0, 0) == _own_device({}, "tcp://host:1", 2) == {}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"workers": 0}, "workers is 0"),
        ({"workers": 2, "scheduler": "tcp://127.0.0.1:1"}, "not both"),
        ({"scheduler": "nonsense"}, "scheduler: nonsense is not reached"),
        pytest.param(
            {"workers": 1, "checkpoint": "none.pt"}, "checkpoint: .*none.pt does not exist", marks=pytest.mark.slow
        ),
        ({"resume": "perhaps"}, "resume is 'perhaps'; allowed are true and false"),
    ],
)
def test_a_mistake_is_told_in_one_line(given, told, folder, monkeypatch):
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit, match=told) as ended:
        run_here(monkeypatch, *BATCH, image="scans/p0.nii.gz", text="liver", output_dir="mistake", **given)
    assert "\n" not in str(ended.value) and not (folder / "mistake").exists()


def test_workers_need_a_command_line_and_no_torchrun(monkeypatch):
    cases = [{"case": "a", "image": "a.nii"}]
    monkeypatch.setattr(sys, "argv", ["python"])
    with pytest.raises(SystemExit, match="from the command line"):
        over_workers(cases, lambda _: False, None, 1, BUNDLE, {})
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit, match="either torchrun or scheduler and workers"):
        over_workers(cases, lambda _: False, None, 1, BUNDLE, {})
