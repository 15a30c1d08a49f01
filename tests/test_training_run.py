"""train.json end to end, for a few steps on small phantoms."""

from pathlib import Path

import pytest
import torch
from commands import run_here
from scripts.checkpoints import load_checkpoint
from scripts.network import build_segvol
from scripts.phantom import make_phantom, save_phantom
from scripts.phantom.files import add_to_datalist

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
    assert list((tmp_path / "out" / "train").glob("events.out.tfevents.*"))
    state = torch.load(tmp_path / "out" / "train" / "checkpoint_epoch=1.pt", weights_only=True)
    assert state["trainer"]["iteration"] == 2
    assert state["best"]["best_metric_epoch"] == 1
    fresh = dict(build_segvol("small").named_parameters())
    assert state["model"].keys() >= fresh.keys()
    with pytest.raises(SystemExit, match="of 1 epochs of 2 iterations, this is one of 2 of 2; keep epochs"):
        run_here(monkeypatch, "train", dataset_dir=phantoms, epochs=2, resume="latest", **QUICK)


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
    ],
)
def test_a_mistake_gets_one_line(options, told, phantoms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=told):
        run_here(monkeypatch, "train", **{"dataset_dir": phantoms, **QUICK, **options})
