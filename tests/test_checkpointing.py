"""States are written whole or not at all, signals save and leave, and what goes on ends with the same numbers."""

import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import IgniteMetricHandler, ValidationHandler
from monai.metrics import MSEMetric
from scripts.training import state_files
from scripts.training.checkpointing import BestSaver, StateSaver, load_state
from scripts.training.handlers import EarlyStop, ScheduleSteps
from scripts.training.sampler import ViewSampler
from scripts.training.state_files import states_in, sweep, write_whole
from torch import nn
from torch.utils.data import DataLoader, Dataset

EPOCHS, VIEWS = 3, 8


class Views(Dataset):
    """Numbers drawn from (epoch, index) alone."""

    epoch = 0

    def attach(self, engine):
        engine.add_event_handler(Events.EPOCH_STARTED, lambda e: setattr(self, "epoch", e.state.epoch))

    def __getitem__(self, index):
        x = torch.rand(3, generator=torch.Generator().manual_seed(1000 * self.epoch + index))
        return x, x.sum(dim=0, keepdim=True)

    def __len__(self):
        return VIEWS


def build(folder, epochs=EPOCHS, width=3, accumulate=1, early_stop=0, smaller_is_better=True, **options):
    """A whole training run of a linear layer: 4 iterations an epoch, each epoch validated."""
    torch.manual_seed(0)
    network = nn.Linear(width, 1)
    optimizer = torch.optim.AdamW(network.parameters(), lr=0.05)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 3, 0.7)
    views, sampler = Views(), ViewSampler(VIEWS, 2, accumulate)
    best = BestSaver(folder, {"model": network})
    validated = []
    evaluator = SupervisedEvaluator(
        device="cpu",
        val_data_loader=DataLoader(Views(), batch_size=2),
        network=network,
        prepare_batch=lambda batch, *_, **__: batch,
        key_val_metric={
            "error": IgniteMetricHandler(MSEMetric(), output_transform=lambda out: (out["pred"], out["label"]))
        },
        metric_cmp_fn=(lambda value, best: value < best) if smaller_is_better else (lambda value, best: value > best),
        decollate=False,
        val_handlers=[best],
    )
    evaluator.add_event_handler(
        Events.COMPLETED,
        lambda e: validated.append((e.state.epoch, e.state.metrics["error"], e.state.best_metric_epoch)),
    )
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=epochs,
        train_data_loader=DataLoader(views, batch_size=2, sampler=sampler),
        network=network,
        optimizer=optimizer,
        loss_function=nn.MSELoss(),
        prepare_batch=lambda batch, *_, **__: batch,
        decollate=False,
        optim_set_to_none=True,
        accumulation_steps=accumulate,
        train_handlers=[views, sampler, ScheduleSteps(schedule), ValidationHandler(1, evaluator)],
    )
    stop = EarlyStop(early_stop, trainer)
    stop.attach(evaluator)
    state = {
        "model": network,
        "optimizer": optimizer,
        "lr_scheduler": schedule,
        "best": best,
        "early_stop": stop,
        "trainer": trainer,
    }
    saver = StateSaver(folder, state, trainer, evaluator, **options)
    return SimpleNamespace(
        network=network, trainer=trainer, evaluator=evaluator, state=state, saver=saver, validated=validated, stop=stop
    )


def signal_at(engine, event, times, number=signal.SIGTERM):
    """Send this process a signal at the n-th such event of the engine."""
    left = [times]

    def count(_):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), number)

    engine.add_event_handler(event, count)


def names_in(folder):
    return sorted(path.name for path in Path(folder).iterdir())


def weights(folder, name):
    return torch.load(folder / name, weights_only=True)["model"]


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("unbroken")
    run = build(folder)
    run.saver.run()
    run.saver.leave()
    run.folder = folder
    return run


def test_a_run_leaves_its_last_state_and_its_best_weights(unbroken):
    assert names_in(unbroken.folder) == ["checkpoint_epoch=3.pt", "model.pt"]
    errors = [error for _, error, _ in unbroken.validated]
    assert len(errors) == 3 and min(errors) == errors[-1] < errors[0]
    assert torch.equal(weights(unbroken.folder, "model.pt")["weight"], unbroken.network.weight)


# 12 iterations, 4 an epoch; each validation has 4 batches
@pytest.mark.parametrize(
    ("engine", "event", "times", "expected"),
    [
        ("trainer", Events.ITERATION_STARTED, 1, "checkpoint_iteration=1.pt"),
        ("trainer", Events.ITERATION_STARTED, 6, "checkpoint_iteration=6.pt"),
        ("trainer", Events.ITERATION_STARTED, 8, "checkpoint_iteration=8.pt"),  # the second validation is still to come
        ("evaluator", Events.ITERATION_STARTED, 7, "checkpoint_iteration=8.pt"),  # within it
        ("evaluator", Events.COMPLETED, 2, "checkpoint_iteration=9.pt"),  # after it
    ],
)
def test_a_signal_saves_and_leaves_and_the_run_goes_on_to_the_same_numbers(
    engine, event, times, expected, unbroken, tmp_path, caplog
):
    run = build(tmp_path)
    former = signal.getsignal(signal.SIGTERM)
    signal_at(getattr(run, engine), event, times)
    with caplog.at_level(logging.INFO, "scripts"):
        run.saver.run()
    assert [r.getMessage() for r in caplog.records if "SIGTERM" in r.getMessage()] == [
        f"SIGTERM: the state is in {tmp_path / expected}; --resume latest goes on from it"
    ]
    assert signal.getsignal(signal.SIGTERM) == former
    assert [name for name in names_in(tmp_path) if name.startswith("checkpoint")] == [expected]
    with pytest.raises(SystemExit) as left:
        run.saver.leave()
    assert left.value.code == 143

    later = build(tmp_path)
    assert load_state("latest", tmp_path, later.state) == tmp_path / expected
    later.saver.run()
    later.saver.leave()
    assert torch.equal(later.network.weight, unbroken.network.weight)
    assert run.validated + later.validated == unbroken.validated
    assert names_in(tmp_path) == names_in(unbroken.folder)


@pytest.mark.parametrize(
    ("engine", "event", "times"),
    [("trainer", Events.ITERATION_STARTED, 12), ("evaluator", Events.ITERATION_STARTED, 9)],
)
def test_a_signal_in_the_last_step_lets_the_run_end(engine, event, times, unbroken, tmp_path):
    run = build(tmp_path)
    signal_at(getattr(run, engine), event, times)
    run.saver.run()
    run.saver.leave()
    assert run.validated == unbroken.validated
    assert names_in(tmp_path) == names_in(unbroken.folder)


@pytest.fixture
def interruptible():
    """A background job of a shell ignores SIGINT, and so would the run."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.mark.usefixtures("interruptible")
def test_gradients_that_are_still_accumulating_are_not_lost(tmp_path):
    run = build(tmp_path / "broken", accumulate=2)
    signal_at(run.trainer, Events.ITERATION_STARTED, 5, signal.SIGINT)
    run.saver.run()
    with pytest.raises(SystemExit) as left:
        run.saver.leave()
    assert left.value.code == 130
    assert (tmp_path / "broken" / "checkpoint_iteration=6.pt").is_file()
    later, whole = build(tmp_path / "broken", accumulate=2), build(tmp_path / "whole", accumulate=2)
    load_state("latest", tmp_path / "broken", later.state)
    later.saver.run()
    whole.saver.run()
    assert torch.equal(later.network.weight, whole.network.weight)


def test_a_child_process_leaves_with_143(tmp_path):
    script = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1] / "bundle")]}
from pathlib import Path
from test_checkpointing import Events, build
run = build(Path({str(tmp_path)!r}))
run.trainer.add_event_handler(Events.ITERATION_STARTED(once=2), lambda: (print("there", flush=True), input()))
run.saver.run()
run.saver.leave()
"""
    child = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "there\n"
    child.send_signal(signal.SIGTERM)
    child.communicate("\n", timeout=120)
    assert child.returncode == 143
    assert (tmp_path / "checkpoint_iteration=2.pt").is_file()


def test_signals_that_the_caller_ignores_stay_ignored(tmp_path):
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run = build(tmp_path)
        signal_at(run.trainer, Events.ITERATION_STARTED, 2, signal.SIGINT)
        run.saver.run()
        run.saver.leave()
    finally:
        signal.signal(signal.SIGINT, former)
    assert "checkpoint_epoch=3.pt" in names_in(tmp_path)


def test_a_run_in_a_thread_leaves_the_signals_alone(tmp_path):
    run = build(tmp_path)
    former = signal.getsignal(signal.SIGTERM)
    seen = []
    run.trainer.add_event_handler(Events.ITERATION_STARTED, lambda: seen.append(signal.getsignal(signal.SIGTERM)))
    thread = threading.Thread(target=run.saver.run)
    thread.start()
    thread.join()
    assert set(seen) == {former} and len(seen) == 12


def test_a_failing_write_leaves_the_former_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "model.pt"
    write_whole({"a": 1}, path)

    def half(content, file):
        file.write(b"half of it")
        raise OSError("no space left on device")

    monkeypatch.setattr(state_files.torch, "save", half)
    with pytest.raises(OSError, match="no space left"):
        write_whole({"a": 2}, path)
    assert names_in(tmp_path) == ["model.pt"]
    monkeypatch.undo()
    assert torch.load(path, weights_only=True) == {"a": 1}


def test_others_may_read_a_state_where_they_may_read_any_new_file(tmp_path):
    former = os.umask(0o022)
    try:
        write_whole({}, tmp_path / "a.pt")
        os.umask(0o077)
        write_whole({}, tmp_path / "b.pt")
    finally:
        os.umask(former)
    assert [(tmp_path / name).stat().st_mode & 0o777 for name in ("a.pt", "b.pt")] == [0o644, 0o600]


def test_a_start_sweeps_what_a_killed_writer_left(tmp_path):
    leftover = tmp_path / f".checkpoint_epoch=1.pt.tmp-{'0123456789abcdef' * 2}"
    for path in (leftover, tmp_path / ".hidden", tmp_path / ".notes.tmp-mine"):
        path.write_bytes(b"")
    sweep(tmp_path)
    assert names_in(tmp_path) == [".hidden", ".notes.tmp-mine"]
    leftover.write_bytes(b"")
    build(tmp_path).saver.run()
    assert not leftover.exists()


def test_an_old_state_goes_once_the_new_one_is_there(tmp_path, monkeypatch):
    there = {}
    real = state_files.os.replace
    monkeypatch.setattr(
        state_files.os, "replace", lambda a, b: (there.update({Path(b).name: states_in(tmp_path, 4)}), real(a, b))
    )
    build(tmp_path, n_saved=2).saver.run()
    assert [p.name for p in there["checkpoint_epoch=3.pt"]] == ["checkpoint_epoch=2.pt", "checkpoint_epoch=1.pt"]
    assert names_in(tmp_path) == ["checkpoint_epoch=2.pt", "checkpoint_epoch=3.pt", "model.pt"]


def test_a_new_run_replaces_the_states_of_an_earlier_one(unbroken, tmp_path, caplog):
    (tmp_path / "checkpoint_iteration=11.pt").write_bytes(b"of an earlier run")
    run = build(tmp_path, n_saved=5)
    assert load_state(None, tmp_path, run.state) is None
    assert "states of an earlier run, which this one's replace: checkpoint_iteration=11.pt" in caplog.text
    signal_at(run.trainer, Events.ITERATION_STARTED, 6)
    run.saver.run()
    assert names_in(tmp_path) == ["checkpoint_epoch=1.pt", "checkpoint_iteration=6.pt", "model.pt"]


def test_states_are_saved_every_so_many_epochs_and_at_the_end(tmp_path):
    saved = []
    run = build(tmp_path, interval=2)
    run.trainer.add_event_handler(
        Events.EPOCH_COMPLETED, lambda: saved.append([p.name for p in states_in(tmp_path, 4)])
    )
    run.saver.run()
    assert saved == [[], ["checkpoint_epoch=2.pt"], ["checkpoint_epoch=2.pt"]]
    assert [p.name for p in states_in(tmp_path, 4)] == ["checkpoint_epoch=3.pt"]


def test_a_run_that_is_done_does_not_start_again(unbroken, caplog):
    run = build(unbroken.folder)
    load_state("latest", unbroken.folder, run.state)
    with caplog.at_level(logging.INFO, "scripts"):
        run.saver.run()
    assert "the training is done, after epoch 3; nothing is left to do" in caplog.text
    assert run.trainer.state.iteration == 12
    assert torch.equal(run.network.weight, unbroken.network.weight)


def test_a_run_that_ended_early_is_done_unless_it_may_go_on(tmp_path):
    worse = {"early_stop": 1, "smaller_is_better": False}
    run = build(tmp_path, **worse)
    run.saver.run()
    assert run.trainer.state.epoch == 2
    again = build(tmp_path, **worse)
    load_state("latest", tmp_path, again.state)
    again.saver.run()
    assert again.trainer.state.epoch == 2 and not again.validated
    freed = build(tmp_path, smaller_is_better=False)
    load_state("latest", tmp_path, freed.state)
    freed.saver.run()
    assert [epoch for epoch, _, _ in freed.validated] == [3]


def test_a_resumed_run_keeps_better_weights(tmp_path):
    first = build(tmp_path, smaller_is_better=False)  # the first epoch stays the best
    signal_at(first.trainer, Events.ITERATION_STARTED, 5)
    first.saver.run()
    best = weights(tmp_path, "model.pt")["weight"]
    later = build(tmp_path, smaller_is_better=False)
    load_state("latest", tmp_path, later.state)
    later.saver.run()
    assert [epoch for epoch, _, _ in later.validated] == [2, 3]
    assert torch.equal(weights(tmp_path, "model.pt")["weight"], best)


def test_in_another_folder_the_best_weights_are_looked_for_anew(tmp_path):
    first = build(tmp_path / "first", smaller_is_better=False)
    signal_at(first.trainer, Events.ITERATION_STARTED, 5)
    first.saver.run()
    later = build(tmp_path / "second", smaller_is_better=False)
    load_state(tmp_path / "first" / "checkpoint_iteration=5.pt", tmp_path / "second", later.state)
    later.saver.run()
    assert later.validated[0][2] == 2
    assert (tmp_path / "second" / "model.pt").is_file()


def test_latest_passes_over_a_damaged_file(unbroken, tmp_path, caplog):
    build(tmp_path, n_saved=2).saver.run()
    (tmp_path / "checkpoint_epoch=3.pt").write_bytes(b"half of it")
    run = build(tmp_path)
    assert load_state("latest", tmp_path, run.state) == tmp_path / "checkpoint_epoch=2.pt"
    assert "checkpoint_epoch=3.pt is damaged" in caplog.text
    run.saver.run()
    assert torch.equal(run.network.weight, unbroken.network.weight)


def test_latest_starts_anew_where_nothing_is(tmp_path, caplog):
    run = build(tmp_path)
    assert load_state("latest", tmp_path / "not_yet", run.state) is None
    assert "not_yet holds no state; the training starts anew" in caplog.text


@pytest.mark.parametrize(
    ("resume", "options", "told"),
    [
        ("nowhere.pt", {}, "resume is 'nowhere.pt', which is no file; it takes a state of a training run, or latest"),
        (True, {}, "resume is True"),
        ("model.pt", {}, "no state of this training, it has no optimizer, lr_scheduler, best, early_stop, trainer"),
        ("damaged.pt", {}, "damaged.pt is damaged, or no state of a training run"),
        ("list.pt", {}, "list.pt is no state of a training run"),
        ("checkpoint_epoch=3.pt", {"width": 4}, "is of another --size, or of other settings: Error.* size mismatch"),
        (
            "checkpoint_epoch=3.pt",
            {"epochs": 5},
            "is of a run of 3 epochs of 4 iterations, this is one of 5 of 4; keep",
        ),
    ],
)
def test_what_cannot_be_gone_on_from_gets_one_line(resume, options, told, unbroken, tmp_path, monkeypatch):
    for name in names_in(unbroken.folder):
        (tmp_path / name).write_bytes((unbroken.folder / name).read_bytes())
    (tmp_path / "damaged.pt").write_bytes(b"half of it")
    torch.save([1], tmp_path / "list.pt")
    monkeypatch.chdir(tmp_path)
    run = build(tmp_path, **options)
    with pytest.raises(SystemExit, match=told) as refused:
        load_state(resume, tmp_path, run.state)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("option", "key"), [("interval", "save_every"), ("n_saved", "states_kept")])
def test_at_least_one_state_is_kept_and_saved_now_and_then(option, key, tmp_path):
    with pytest.raises(SystemExit, match=f"{key} is 0; it takes a whole number from 1"):
        build(tmp_path, **{option: 0})


def test_where_no_state_can_be_read_the_training_does_not_start_anew(tmp_path):
    (tmp_path / "checkpoint_epoch=1.pt").write_bytes(b"half of it")
    with pytest.raises(SystemExit, match="holds no state that can be read"):
        load_state("latest", tmp_path, build(tmp_path).state)
