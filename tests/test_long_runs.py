"""Runs that are killed, stopped and gone on with, and runs of two processes: train.json and pretrain.json as given."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from commands import run_here, start_process
from scripts.phantom import make_phantom, save_phantom
from scripts.phantom.files import add_to_datalist

# 4 iterations an epoch, each of them in a fraction of a second
QUICK = {
    "size": "small",
    "seed": 3,
    "epochs": 3,
    "views_per_epoch": 8,
    "batch_size": 2,
    "validate_every": 1,
    "validation_views": 2,
    "warmup_epochs": 1,
    "device": "cpu",
}
TRAIN = {**QUICK, "targets_per_view": 1, "combinations_per_step": 2, "pseudo_masks": 0}
# as multi_gpu_train.json has it, after every process has told its weights
TELL_AND_LEAVE = [
    "$torch.save(@network.state_dict(), @output_dir + '/rank' + os.environ['RANK'] + '.pt')",
    "$torch.distributed.destroy_process_group()",
    "$@saver.leave()",
]
TWO = {"batch_size": 1, "processes": 2, "finalize": TELL_AND_LEAVE}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    for seed, split in ((1, "train"), (2, "validation")):
        image, _ = save_phantom(make_phantom(seed, shape=(48, 48, 24)), folder / f"phantom_{seed:04d}")
        add_to_datalist(folder, [image.parent], split)
    return folder


@pytest.fixture(scope="module")
def children(phantoms, tmp_path_factory):
    """Runs side by side, each in a folder of its own: name -> the folder, and what ends with the exit code."""
    threads = torch.get_num_threads()  # other numbers of threads may end in other last digits
    alone = (("train",), {**TRAIN, "threads": threads})
    orders = {
        "killed": (*alone, signal.SIGKILL),
        "stopped": (*alone, signal.SIGTERM),
        "two": (("train", "multi_gpu_train"), {**TRAIN, **TWO}, signal.SIGTERM),
        "two_pretrain": (("pretrain", "multi_gpu_train"), {**QUICK, **TWO, "epochs": 1}, None),
    }
    runs, started = {}, []
    with ThreadPoolExecutor() as pool:
        for name, (configs, given, number) in orders.items():
            folder = tmp_path_factory.mktemp(name)
            started.append(start_process(folder, *configs, dataset_dir=phantoms, output_dir="out", **given))
            runs[name] = folder, pool.submit(end, started[-1], folder / "out", number)
        yield runs
        for child in started:
            child.kill()


def end(child, folder, number):
    """Wait for a run; with ``number`` it gets this signal once the state of its first epoch is there."""
    while number and child.poll() is None:
        if (folder / "checkpoint_epoch=1.pt").exists():
            child.send_signal(number)
            break
        time.sleep(0.02)
    return child.wait(400)


@pytest.fixture(scope="module")
def unbroken(phantoms, tmp_path_factory):
    """The states that a run without interruption leaves."""
    folder = tmp_path_factory.mktemp("unbroken")
    with pytest.MonkeyPatch.context() as patch:
        run_here(patch, "train", dataset_dir=phantoms, output_dir=folder, **TRAIN)
    return folder


def log(folder):
    return (folder / "log.txt").read_text()


def content(folder, name):
    return torch.load(folder / name, weights_only=True)


def the_same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[key]) for key, value in one.items())


def assert_ends_as(unbroken, folder):
    assert {p.name for p in folder.glob("*.pt")} == {"checkpoint_epoch=3.pt", "model.pt"}
    for name in ("checkpoint_epoch=3.pt", "model.pt"):
        assert the_same(content(folder, name)["model"], content(unbroken, name)["model"])
    ours, theirs = (content(f, "checkpoint_epoch=3.pt") for f in (folder, unbroken))
    assert {**ours["best"], **ours["trainer"], **ours["lr_scheduler"]} == {
        **theirs["best"],
        **theirs["trainer"],
        **theirs["lr_scheduler"],
    }


def test_a_run_that_was_killed_goes_on_to_the_same_weights(children, unbroken, phantoms, monkeypatch):
    folder, ended = children["killed"]
    assert ended.result() == -signal.SIGKILL, log(folder)
    assert not (folder / "out" / "checkpoint_epoch=3.pt").exists()
    run_here(monkeypatch, "train", dataset_dir=phantoms, output_dir=folder / "out", resume="latest", **TRAIN)
    assert_ends_as(unbroken, folder / "out")


def test_a_run_that_was_asked_to_stop_goes_on_to_the_same_weights(children, unbroken, phantoms, monkeypatch):
    folder, ended = children["stopped"]
    assert ended.result() == 143, log(folder)
    (state,) = (folder / "out").glob("checkpoint_*.pt")
    assert f"SIGTERM: the state is in {Path('out') / state.name}; --resume latest" in log(folder)
    assert 4 <= content(state.parent, state.name)["trainer"]["iteration"] < 12
    run_here(monkeypatch, "train", dataset_dir=phantoms, output_dir=folder / "out", resume="latest", **TRAIN)
    assert_ends_as(unbroken, folder / "out")


def test_two_processes_stop_together_and_one_alone_goes_on(children, phantoms, monkeypatch):
    folder, ended = children["two"]
    assert ended.result() != 0, log(folder)
    (state,) = (folder / "out").glob("checkpoint_*.pt")
    stopped = content(state.parent, state.name)
    assert the_same(content(folder / "out", "rank0.pt"), content(folder / "out", "rank1.pt"))
    assert the_same(content(folder / "out", "rank0.pt"), stopped["model"])
    assert not any(name.startswith("module.") for name in stopped["model"])
    assert log(folder).count("SIGTERM: the state is in") == 1
    run_here(monkeypatch, "train", dataset_dir=phantoms, output_dir=folder / "out", resume="latest", **TRAIN)
    later = content(folder / "out", "checkpoint_epoch=3.pt")
    assert later["trainer"]["iteration"] == 12
    assert not the_same(later["model"], stopped["model"])


def test_two_processes_pre_train_as_one_with_their_batches_and_mlflow_sees_it(
    children, phantoms, tmp_path, monkeypatch
):
    folder, ended = children["two_pretrain"]
    assert ended.result() == 0, log(folder)
    assert the_same(content(folder / "out", "rank0.pt"), content(folder / "out", "rank1.pt"))
    one = {**QUICK, "epochs": 1, "tracking": "mlflow"}
    run_here(monkeypatch, "pretrain", dataset_dir=phantoms, output_dir=tmp_path, **one)
    alone, together = (content(f, "checkpoint_epoch=1.pt") for f in (tmp_path, folder / "out"))
    assert alone["best"]["best_metric"] == pytest.approx(together["best"]["best_metric"], rel=1e-3)
    assert tracked(tmp_path) >= {"train_loss", "l1"}


def test_accumulated_training_ends_early_and_mlflow_sees_it(phantoms, tmp_path, monkeypatch):
    still = {"learning_rate": 0.0, "weight_decay": 0.0, "early_stop": 1, "accumulate": 2, "tracking": "mlflow"}
    run_here(monkeypatch, "train", dataset_dir=phantoms, output_dir=tmp_path, **{**TRAIN, **still})
    state = content(tmp_path, "checkpoint_epoch=2.pt")
    assert state["trainer"]["iteration"] == 8
    assert state["lr_scheduler"]["last_epoch"] == 4
    assert state["early_stop"]["counter"] == 1
    assert tracked(tmp_path) >= {"train_loss", "dice", "dice_box"}


def tracked(folder):
    """Names of the metrics that MLflow has of a run."""
    mlflow = pytest.importorskip("mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlruns.db'}")
    (run,) = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert run.info.status == "FINISHED"
    return set(run.data.metrics)
