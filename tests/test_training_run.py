"""train.json end to end, for a few steps on small phantoms."""

import json
from pathlib import Path

import pytest
import torch
from commands import run_here
from scripts.checkpoints import load_checkpoint
from scripts.network import build_segvol
from scripts.phantom import make_phantom, save_phantom
from scripts.phantom.files import add_to_datalist
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

QUICK = {
    "size": "small",
    "views_per_epoch": 4,
    "batch_size": 2,
    "targets_per_view": 1,
    "validate_every": 1,
    "validation_views": 2,
    "warmup_epochs": 1,
    "balanced_epochs": 1,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    for seed, split in ((1, "train"), (2, "validation")):
        image, _ = save_phantom(make_phantom(seed, shape=(48, 48, 24)), folder / f"phantom_{seed:04d}")
        add_to_datalist(folder, [image.parent], split)
    return folder


@pytest.mark.slow
def test_training_writes_weights_that_inference_loads(phantoms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_here(monkeypatch, "train", dataset_dir=phantoms, epochs=1, tensorboard=True, **QUICK)
    network = build_segvol("small")
    info = load_checkpoint(network, tmp_path / "out" / "train" / "model.pt")
    assert "liver" in info.text_names
    events = EventAccumulator(str(tmp_path / "out" / "train")).Reload()
    assert {"loss", "dice", "dice_box"} <= set(events.Tags()["scalars"])
    summary = json.loads((tmp_path / "out" / "train" / "summary.json").read_text())
    assert summary["settings"]["seed"] == 0 and summary["best"]["epoch"] == 1
    asked = summary["validations"][0]["structures"]
    assert asked.keys() == {"point+text", "box+text", "text", "box", "point", "point+box"} and asked["box"]
    assert events.Scalars("dice")[0].value == pytest.approx(summary["best"]["dice"], abs=1e-4)
    state = torch.load(tmp_path / "out" / "train" / "checkpoint_epoch=1.pt", weights_only=True)
    assert state["trainer"]["iteration"] == 2
    assert state["best"]["best_metric_epoch"] == 1
    fresh = dict(build_segvol("small").named_parameters())
    assert state["model"].keys() >= fresh.keys()
    with pytest.raises(SystemExit, match="of 1 epochs of 2 iterations, this is one of 2 of 2; keep epochs"):
        run_here(monkeypatch, "train", dataset_dir=phantoms, epochs=2, resume="latest", **QUICK)
    with pytest.raises(SystemExit, match="of other settings: learning_rate was 0.0001 and is 0.1$"):
        run_here(monkeypatch, "train", dataset_dir=phantoms, epochs=1, resume="latest", learning_rate=0.1, **QUICK)


@pytest.mark.slow
def test_workers_draw_the_views_that_one_process_draws(phantoms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for workers in (0, 2):
        options = {"workers": workers, "output_dir": f"out/{workers}", "combinations": ["box"], **QUICK}
        run_here(monkeypatch, "train", dataset_dir=phantoms, epochs=2, **options)
    alone, helped = (torch.load(f"out/{n}/checkpoint_epoch=2.pt", weights_only=True)["model"] for n in (0, 2))
    assert all(torch.equal(value, helped[name]) for name, value in alone.items())


def test_the_base_network_is_not_trained_by_text_on_a_random_tower(phantoms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="^clip is missing"):
        run_here(monkeypatch, "train", dataset_dir=phantoms, **{**QUICK, "size": "base"})
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_the_encoder_alone_learns_from_dense_supervision(phantoms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    dense = {**QUICK, "combinations_per_step": 0, "dense_weight": 1.0, "validate_every": 2}
    run_here(monkeypatch, "train", dataset_dir=phantoms, epochs=2, **dense)
    saved = torch.load(tmp_path / "out" / "train" / "checkpoint_epoch=2.pt", weights_only=True)
    assert saved["dense_head"]["linear.weight"].shape[1] == 128
    assert saved["optimizer"]["state"]


@pytest.mark.slow
def test_training_starts_from_given_weights(phantoms, tmp_path, monkeypatch, bundle):
    monkeypatch.chdir(tmp_path)
    start = bundle / "models" / "small.pt"
    still = {**QUICK, "learning_rate": 0.0, "weight_decay": 0.0}
    run_here(monkeypatch, "train", dataset_dir=phantoms, epochs=1, checkpoint=start, **still)
    trained = torch.load(tmp_path / "out" / "train" / "model.pt", weights_only=True)["model"]
    given = torch.load(start, weights_only=True)["model"]
    assert all(torch.equal(trained[name], value) for name, value in given.items())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"dataset_dir": "nowhere"}, "datalist: nowhere"),
        ({"size": "huge"}, "size is 'huge'"),
        ({"epoch": 3}, "--epochs"),
        ({"early_stop": -1}, "early_stop is -1"),
        ({"accumulate": 0}, "accumulate is 0"),
        ({"batch_size": 8}, "4 views are too few"),
        ({"resume": "nowhere.pt"}, "resume is 'nowhere.pt'"),
        ({"bfloat16": "yes"}, "bfloat16 is 'yes'; allowed are true and false"),
        ({"combinations": ["box", "txt"]}, "combinations is 'txt'; allowed are point"),
        ({"combinations_per_step": -1}, "combinations_per_step is -1"),
        ({"clip": "openai/clip-vit-base-patch32"}, "clip: this network has no CLIP tower"),
    ],
)
def test_a_mistake_gets_one_line(options, told, phantoms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=told):
        run_here(monkeypatch, "train", **{"dataset_dir": phantoms, **QUICK, **options})
