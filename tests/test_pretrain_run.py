"""pretrain.json end to end, for a few steps on small phantoms."""

import json
from pathlib import Path

import pytest
import torch
from commands import run_here
from scripts.phantom import make_phantom, save_phantom
from scripts.phantom.files import add_to_datalist

QUICK = {
    "size": "small",
    "views_per_epoch": 4,
    "batch_size": 2,
    "validate_every": 1,
    "validation_views": 2,
    "warmup_epochs": 1,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    for seed, split in ((1, "train"), (2, "validation")):
        image, _ = save_phantom(make_phantom(seed, shape=(48, 48, 24)), folder / f"phantom_{seed:04d}")
        add_to_datalist(folder, [image.parent], split)
    content = json.loads((folder / "datalist.json").read_text())
    unlabelled = {"cases": [{key: case[key] for key in ("image", "split")} for case in content["cases"]]}
    (folder / "unlabelled.json").write_text(json.dumps(unlabelled))
    return folder


@pytest.mark.slow
def test_pre_training_leaves_weights_that_training_starts_from_with_one_key(phantoms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_here(monkeypatch, "pretrain", datalist=phantoms / "unlabelled.json", epochs=1, tensorboard=True, **QUICK)
    out = tmp_path / "out" / "pretrain"
    names = {"checkpoint_epoch=1.pt", "model.pt", "reconstruction.png", "reconstruction_epoch_0001.png", "summary.json"}
    assert names <= {path.name for path in out.iterdir()} and list(out.glob("events.out.tfevents.*"))
    summary = json.loads((out / "summary.json").read_text())
    (validation,) = summary["validations"]
    of_means = [validation[f"l1_of_{source}_mean"] for source in ("view", "data")]
    assert validation["l1"] > 0 and validation["l1_of_mean"] == min(of_means)
    assert summary["settings"]["mask_unit"] == [16, 16, 16] and summary["settings"]["held_out"] is True

    still = {"targets_per_view": 1, "learning_rate": 0.0, "weight_decay": 0.0, "pseudo_masks": 0}
    for file in ("model.pt", "checkpoint_epoch=1.pt"):
        options = {**QUICK, **still, "dataset_dir": phantoms, "checkpoint": out / file, "output_dir": "warm"}
        run_here(monkeypatch, "train", epochs=1, **options)
        trained = torch.load(tmp_path / "warm" / "model.pt", weights_only=True)["model"]
        given = torch.load(out / file, weights_only=True)["model"]
        encoder = [name for name in given if name.startswith("image_encoder.")]
        assert encoder and all(torch.equal(trained[name], given[name]) for name in encoder)


@pytest.mark.slow
def test_a_resumed_pre_training_ends_with_the_same_weights(phantoms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {**QUICK, "dataset_dir": phantoms, "epochs": 2, "states_kept": 2, "mask_unit": [8, 16, 16]}
    run_here(monkeypatch, "pretrain", output_dir="whole", **options)
    run_here(monkeypatch, "pretrain", output_dir="later", resume="whole/checkpoint_epoch=1.pt", **options)
    whole, later = (torch.load(f"{name}/checkpoint_epoch=2.pt", weights_only=True) for name in ("whole", "later"))
    assert whole["model"].keys() == later["model"].keys()
    assert all(torch.equal(later["model"][name], value) for name, value in whole["model"].items())
    assert later["report"] == whole["report"] and len(whole["report"]["validations"]) == 2


@pytest.mark.slow
def test_it_runs_with_every_option_and_goes_on_from_its_encoder(phantoms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {**QUICK, "bfloat16": "True", "checkpoint_activations": "true", "accumulate": 2, "cache_dir": "kept"}
    run_here(monkeypatch, "pretrain", datalist=phantoms, epochs=1, **options)
    summary = json.loads(Path("out/pretrain/summary.json").read_text())
    assert summary["settings"]["held_out"] is False  # a folder has no splits
    still = {**options, "learning_rate": 0.0, "checkpoint": "out/pretrain/model.pt", "output_dir": "more"}
    run_here(monkeypatch, "pretrain", dataset_dir=phantoms, epochs=1, **still)
    first, later = (torch.load(f"{name}/model.pt", weights_only=True)["model"] for name in ("out/pretrain", "more"))
    assert all(torch.equal(later[name], value) for name, value in first.items() if name.startswith("image_encoder."))


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"dataset_dir": "nowhere"}, "datalist: nowhere"),
        ({"size": "huge"}, "size is 'huge'"),
        ({"mask_ration": 0.5}, "--mask_ratio"),
        ({"mask_ratio": 1.5}, "mask_ratio is 1.5"),
        ({"mask_unit": [5, 8, 8]}, r"mask_unit is \[5, 8, 8\]"),
        ({"window_share": 0.9}, "whole_share 0.4 and window_share 0.9"),
        ({"checkpoint": "nowhere.pt"}, "checkpoint: nowhere.pt does not exist"),
        ({"resume": "nowhere.pt"}, "resume is 'nowhere.pt'"),
        ({"train_split": "none"}, "holds no case of split 'none'"),
    ],
)
def test_a_mistake_gets_one_line(options, told, phantoms, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=told) as caught:
        run_here(monkeypatch, "pretrain", **{"dataset_dir": phantoms, "epochs": 1, **QUICK, **options})
    assert "\n" not in str(caught.value)
