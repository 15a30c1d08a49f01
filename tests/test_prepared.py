"""Cases are read from the store where it is what the run needs, and prepared anew where it is not."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import run_here
from monai.bundle import ConfigParser
from scripts.data.storage.store import open_case, write_case
from scripts.data.storage.stored_grid import StoredGrid
from scripts.text_encoder import TextTable
from scripts.training.datasets import PromptedViews
from scripts.training.prepared import PreparedCase, prepare_cases
from scripts.training.simmim import Masking, UnlabelledViews
from scripts.vocabulary import Vocabulary
from torch.utils.data import DataLoader

CONFIGS = Path(__file__).parents[1] / "bundle" / "configs"
SHAPE, ROI = (20, 40, 33), (8, 12, 10)
AXES = {"axcodes": "SAR"}
PSEUDO = {"pseudo_rule": "adaptive", "pseudo_neighbours": "six", "pseudo_shape": (32, 256, 256)}
LABELS = {"1": "left kidney", "2": None, "3": "liver", "9": "aorta"}


def tensors() -> dict[str, torch.Tensor]:
    """What the transforms make: a volume in which each voxel is another, four structures, 5 without an entry."""
    label = torch.zeros(1, *SHAPE)
    label[0, 2:8, 3:22, 4:10], label[0, 9:14, 13:39, 11:18], label[0, 15, 15, 15] = 1, 2, 3
    label[0, 16:19, 30:, 20:30] = 5
    generator = torch.Generator().manual_seed(0)
    regions = torch.randint(0, 6, (1, *SHAPE), generator=generator, dtype=torch.int16)
    return {"image": torch.rand(1, *SHAPE, generator=generator).half(), "label": label, "pseudo_mask": regions}


def stored(folder: Path, settings: dict[str, Any], *keys: str) -> str:
    grids = {key: grid[0].numpy() for key, grid in tensors().items() if not keys or key in keys}
    write_case(folder, grids, settings)
    return str(folder)


def case(**more: Any) -> dict[str, Any]:
    return {"image": "ct.nii", "label": "seg.nii", "labels": LABELS} | more


def never(_: dict[str, Any]) -> dict[str, Any]:
    raise ValueError("prepared anew")


def anew(given: dict[str, Any]) -> dict[str, Any]:
    return {**given, **{key: grid for key, grid in tensors().items() if key in (*given, "pseudo_mask")}}


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key] for key in a)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("scripts.")]


# ---------------------------------------------------------------- the same views


@pytest.fixture
def pair(tmp_path: Path) -> tuple[PreparedCase, PreparedCase]:
    """A case in memory and the same on disk."""
    folder = stored(tmp_path / "case", {})
    return PreparedCase.of_tensors({**case(), **tensors()}), PreparedCase.of_store(case(), open_case(folder))


@pytest.mark.parametrize("shares", [{}, {"whole": 1, "window": 0}, {"whole": 0, "window": 0}, {"fit": 0.2}])
def test_views_of_a_stored_case_are_those_of_one_in_memory(shares: dict[str, float], pair: tuple):
    table = TextTable(["liver", "left kidney", "right kidney"], 8, Vocabulary([]))
    options = {"pseudo_masks": 4, "flip": 0.3, "minimum_voxels": 1, "table": table, **shares}
    memory, disk = (PromptedViews([each], ROI, 40, **options) for each in pair)
    assert all(same(memory[i], disk[i]) for i in range(40))
    memory, disk = (UnlabelledViews([each], Masking(ROI, (4, 4, 5)), 10, flip=0.5) for each in pair)
    assert all(same(memory[i], disk[i]) for i in range(10)) and memory.mean() == disk.mean()


def test_workers_read_a_stored_case_as_one_process_does(pair: tuple):
    data = PromptedViews([pair[1]], ROI, 6)
    alone = [data[i] for i in range(6)]
    assert all(same(a, b) for a, b in zip(alone, DataLoader(data, batch_size=None, num_workers=2), strict=True))


def test_a_stored_case_waits_on_disk(pair: tuple):
    assert all(isinstance(getattr(pair[1], key), StoredGrid) for key in ("image", "label", "pseudo_mask"))
    assert len(pickle.dumps(pair[1])) < 4000


def test_names_come_from_the_datalist_and_not_from_the_store(tmp_path: Path):
    folder = stored(tmp_path / "case", AXES)
    entry = case(prepared=folder, labels={"5": "spleen", "77": "heart"}, complete=True)
    (found,) = prepare_cases([entry], never, settings=AXES)
    assert found.names == {5: "spleen", 77: "heart"} and found.complete
    assert found.places.values.tolist() == [5] and found.extent(np.random.default_rng(0)).tolist()[0] == [16, 30, 20]
    with pytest.raises(ValueError, match="none of its 1 cases"):
        prepare_cases([case(prepared=folder, labels={"0": "air"})], never, settings=AXES)


def test_an_image_alone_takes_nothing_but_the_image_of_a_labelled_store(tmp_path: Path):
    folder = stored(tmp_path / "case", AXES | PSEUDO)
    (found,) = prepare_cases([{"image": "ct.nii", "prepared": folder}], never, settings=AXES)
    assert found.names == {} and not len(found.places) and isinstance(found.label, torch.Tensor)
    assert not found.label.any() and found.label.shape == SHAPE
    assert found.centre(np.random.default_rng(0)).tolist() == [10, 20, 16]
    assert found.mean() == pytest.approx(float(tensors()["image"].float().mean()), abs=1e-6)


# ---------------------------------------------------------------- which stores a run takes


def test_a_store_needs_what_the_run_needs_and_may_have_more(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    full = stored(tmp_path / "full", AXES | PSEUDO)
    for settings in (AXES, AXES | PSEUDO):
        (found,) = prepare_cases([case(prepared=full)], never, settings=settings)
        assert isinstance(found.image, StoredGrid)
    assert not told(caplog)


@pytest.mark.parametrize(
    ("prepared", "keys", "says"),
    [
        (PSEUDO | {"axcodes": "RAS"}, (), "was prepared with axcodes 'RAS', this run needs 'SAR'"),
        (AXES | PSEUDO | {"pseudo_shape": (32, 128, 128)}, (), "pseudo_shape [32, 128, 128], this run needs [32, 256"),
        (AXES, (), "was prepared with pseudo_rule None, this run needs 'adaptive'"),
        (AXES | PSEUDO, ("image", "label"), "has no pseudo_mask"),
        (AXES | PSEUDO, ("image", "pseudo_mask"), "has no label"),
    ],
)
def test_a_store_of_another_kind_is_told_once_and_prepared_anew(
    prepared: dict[str, Any], keys: tuple[str, ...], says: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    folders = [stored(tmp_path / name, prepared, *keys) for name in "ab"]
    cases = prepare_cases([case(prepared=folder) for folder in folders], anew, settings=AXES | PSEUDO)
    assert len(cases) == 2 and all(torch.equal(each.image, tensors()["image"][0]) for each in cases)
    (warning,) = told(caplog)
    assert warning.startswith(f"prepared: {folders[0]} ") and says in warning and "\n" not in warning


def test_a_damaged_store_is_told_and_prepared_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    folder = Path(stored(tmp_path / "case", AXES))
    (folder / "label.b2nd").unlink()
    (found,) = prepare_cases([case(prepared=str(folder))], anew, settings=AXES)
    assert isinstance(found.image, torch.Tensor)
    assert told(caplog) == [f"prepared: {folder} lacks label.b2nd; ct.nii is prepared anew"]


def test_without_settings_no_store_is_opened(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    (found,) = prepare_cases([case(prepared=stored(tmp_path / "case", AXES))], anew)
    assert isinstance(found.image, torch.Tensor) and not told(caplog)


def settings_of(name: str, key: str, **overrides: Any) -> dict[str, Any]:
    parser = ConfigParser()
    parser.read_config(CONFIGS / f"{name}.json")
    parser.update(overrides)
    return parser.get_parsed_content(key)


@pytest.mark.parametrize("size", ["base", "small"])
def test_the_trainings_ask_for_what_a_preparation_makes(size: str):
    prepared = settings_of("prepare", "train_settings", size=size)
    assert settings_of("train", "train_settings", size=size) == prepared
    without = settings_of("prepare", "train_settings", size=size, pseudo_masks=False)
    assert settings_of("train", "train_settings", size=size, pseudo_masks=0) == without
    for name in ("train", "pretrain"):
        assert settings_of(name, "orientation_settings") == without == AXES


@pytest.mark.slow
def test_both_trainings_run_from_the_store_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    small = {"pseudo_shape": (32, 128, 128)}
    entries = [
        case(prepared=stored(tmp_path / split, AXES | PSEUDO | small), split=split) for split in ("train", "validation")
    ]
    (tmp_path / "datalist.json").write_text(json.dumps({"cases": entries}))
    options = {"datalist": "datalist.json", "size": "small", "epochs": 1, "views_per_epoch": 4, "batch_size": 2}
    options |= {"validate_every": 1, "validation_views": 2, "warmup_epochs": 1, "device": "cpu", "workers": 1}
    run_here(monkeypatch, "pretrain", output_dir="first", **options)
    run_here(monkeypatch, "train", output_dir="second", targets_per_view=1, **options)
    assert (tmp_path / "first" / "model.pt").is_file() and (tmp_path / "second" / "model.pt").is_file()
