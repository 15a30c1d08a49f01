"""prepare.json from the command line: two sets and a training on them, planted faults, interruptions, real volumes."""

import fcntl
import json
import os
import shutil
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from commands import BUNDLE, run_here, run_process, start_process
from monai.bundle import ConfigParser
from scripts.data.runner import _locked
from scripts.data.storage.store import open_case
from scripts.transforms import load_volume
from small_sets import add_case, amos, tree_of, values_of, word
from test_cluster import elsewhere, free_port, wait_for_port, worker

QUICK = {"size": "small", "pseudo_shape": [16, 32, 32]}
HERE = {**QUICK, "workers": 0}
TRAIN = {
    **QUICK,
    "views_per_epoch": 4,
    "batch_size": 2,
    "targets_per_view": 1,
    "combinations_per_step": 2,
    "pseudo_masks": 2,
    "epochs": 1,
    "validate_every": 1,
    "validation_views": 2,
    "warmup_epochs": 1,
    "device": "cpu",
}
CASES = range(1, 7)
GRIDS = {"image", "label", "pseudo_mask"}
SPLITS = ("training", "validation", "test")


def told(folder: Path, name: str = "faults.json") -> dict[str, set[str]]:
    """Kind -> cases of the faults of a set."""
    kinds: dict[str, set[str]] = {}
    for fault in json.loads((folder / name).read_text()):
        assert fault["sentence"].startswith(f"{fault['case']}: ") and "\n" not in fault["sentence"]
        kinds.setdefault(fault["kind"], set()).add(fault["case"])
    return kinds


def splits(folder: Path) -> dict[str, str]:
    content = json.loads((folder / "datalist.json").read_text())
    return {entry["case"]: key for key in SPLITS for entry in content[key]}


# ---------------------------------------------------------------- the config


def item(config: str, name: str) -> Callable:
    """An item of a config, built as the command builds it."""
    parser = ConfigParser()
    parser.read_config(BUNDLE / "configs" / f"{config}.json")
    for key, value in {"bundle_root": str(BUNDLE), **QUICK}.items():
        parser[key] = value
    return parser.get_parsed_content(name)


def test_the_store_holds_what_the_transforms_of_training_make(tmp_path):
    amos(tmp_path, (2,))
    files = {key: str(tmp_path / f"{key}sTr" / "amos_0002.nii.gz") for key in ("image", "label")}
    trained = item("train", "train_preprocessing")(files)
    prepared = item("prepare", "train_preprocessing")({key: load_volume(path) for key, path in files.items()})
    for key in GRIDS:
        np.testing.assert_array_equal(prepared[key].numpy(), trained[key].numpy())
    assert item("prepare", "train_settings") == item("train", "train_settings")
    assert item("prepare", "orientation_settings") == item("pretrain", "orientation_settings")


# ---------------------------------------------------------------- two commands


@pytest.mark.slow
def test_two_sets_that_share_a_patient_are_prepared_and_trained_on_from_the_store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sets = {"AMOS22": amos(tmp_path / "amos", CASES), "WORD": word(tmp_path / "word", {"word_0001": 3, "word_0002": 8})}
    run_here(monkeypatch, "prepare", data_sets={name: str(path) for name, path in sets.items()}, **HERE)
    out = tmp_path / "out" / "data"
    shared = {out / "AMOS22": "AMOS22_amos_0003", out / "WORD": "WORD_word_0001"}
    for folder, case in shared.items():
        assert told(folder)["duplicate"] == {case}
        page = (folder / "report.html").read_text()
        assert all(other in page for other in shared.values())
    assert len({splits(folder)[case] for folder, case in shared.items()}) == 1
    first = splits(out / "AMOS22")
    assert sorted(first) == [f"AMOS22_amos_{case:04d}" for case in CASES]
    assert {split: list(first.values()).count(split) for split in SPLITS} == {"training": 4, "validation": 1, "test": 1}

    for folder in sets.values():
        shutil.rmtree(folder)  # the store alone is left to read
    run_here(monkeypatch, "train", datalist=[str(folder / "datalist.json") for folder in shared], **TRAIN)
    state = torch.load(tmp_path / "out" / "train" / "checkpoint_epoch=1.pt", weights_only=True)
    assert state["trainer"]["iteration"] == 2


def test_a_later_set_moves_no_case_of_an_earlier_one(tmp_path, monkeypatch):
    from monai.data import load_decathlon_datalist

    monkeypatch.chdir(tmp_path)
    run_here(monkeypatch, "prepare", data_set="AMOS22", data_dir=amos(tmp_path / "amos", (1, 2, 3)), **HERE)
    before = tree_of(tmp_path / "out" / "data" / "AMOS22")
    tested = next(case for case, split in splits(tmp_path / "out/data/AMOS22").items() if split == "test")
    shared = {"word_0001": int(tested[-4:]), "word_0002": 8, "word_0003": 9, "word_0004": 7}
    word(tmp_path / "word", shared)
    elsewhere = {"output_dir": "elsewhere", "beside": "out/data/AMOS22", "seed": 5}
    run_here(monkeypatch, "prepare", data_set="WORD", data_dir=tmp_path / "word", **elsewhere, **HERE)
    assert tree_of(tmp_path / "out" / "data" / "AMOS22") == before
    assert splits(tmp_path / "elsewhere" / "WORD")["WORD_word_0001"] == "test"
    entries = load_decathlon_datalist("elsewhere/WORD/datalist.json", True, "test")
    assert {Path(entry["image"]).name for entry in entries} >= {"word_0001.nii.gz"}
    again = splits(tmp_path / "elsewhere" / "WORD")
    run_here(monkeypatch, "prepare", data_set="WORD", data_dir=tmp_path / "word", **elsewhere, **HERE)
    assert splits(tmp_path / "elsewhere" / "WORD") == again


@pytest.mark.slow
def test_images_without_labels_are_prepared_for_pre_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    amos(tmp_path / "amos", (1, 2, 3))
    (tmp_path / "plain").mkdir()
    (tmp_path / "amos" / "imagesTr").rename(tmp_path / "plain" / "images")
    run_here(monkeypatch, "prepare", data_set="mine", data_dir="plain", **HERE)
    shutil.rmtree(tmp_path / "plain")
    still = {key: TRAIN[key] for key in ("size", "views_per_epoch", "batch_size", "epochs", "validate_every", "device")}
    still |= {"validation_views": 2, "warmup_epochs": 1}
    run_here(monkeypatch, "pretrain", datalist="out/data/mine/datalist.json", val_split=None, **still)
    assert (tmp_path / "out" / "pretrain" / "model.pt").exists()


# ---------------------------------------------------------------- planted faults


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def shift(path: Path) -> None:
    volume = nib.load(path)
    affine = volume.affine.copy()
    affine[2, 3] += 40
    nib.save(nib.Nifti1Image(np.asarray(volume.dataobj), affine), path)


def exchange(*names: str) -> Callable:
    one, other = (values_of("AMOS22")[name] for name in names)
    return lambda image, label: (image, np.select([label == one, label == other], [other, one], label).astype(np.uint8))


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared set with one fault in each of five cases, beside a set of files for each structure that overlap."""
    folder = tmp_path_factory.mktemp("faulty")
    changes = {3: exchange("left kidney", "right kidney"), 4: lambda image, label: (image, np.zeros_like(label))}
    amos(folder / "amos", CASES, changes)
    add_case(folder / "amos", "AMOS22", "amos_0400", 5)
    truncate(folder / "amos" / "imagesTr" / "amos_0001.nii.gz")
    shift(folder / "amos" / "labelsTr" / "amos_0002.nii.gz")
    overlapping(folder / "total")
    sets = {"AMOS22": str(folder / "amos"), "TotalSegmentator": str(folder / "total")}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_here(patch, "prepare", data_sets=sets, **HERE)
    return folder / "out" / "data"


def overlapping(folder: Path) -> None:
    """One case in the layout of TotalSegmentator, whose spleen covers a part of the liver."""
    add_case(folder, "AMOS22", "x", 9)
    case = folder / "s0001"
    (case / "segmentations").mkdir(parents=True)
    (folder / "imagesTr" / "x.nii.gz").rename(case / "ct.nii.gz")
    label = nib.load(folder / "labelsTr" / "x.nii.gz")
    voxels = np.asarray(label.dataobj)
    masks = {name: voxels == values_of("AMOS22")[name] for name in ("liver", "spleen")}
    inside = np.argwhere(masks["liver"])[:30]
    masks["spleen"][tuple(inside.T)] = True
    for name, mask in masks.items():
        nib.save(nib.Nifti1Image(mask.astype(np.uint8), label.affine), case / "segmentations" / f"{name}.nii.gz")
    shutil.rmtree(folder / "labelsTr")


@pytest.mark.parametrize(
    ("kind", "cases"),
    [
        ("unreadable", {"AMOS22_amos_0001"}),
        ("grid", {"AMOS22_amos_0002"}),
        ("side", {"AMOS22_amos_0003"}),
        ("empty", {"AMOS22_amos_0004"}),
        ("duplicate", {"AMOS22_amos_0005", "AMOS22_amos_0400"}),
    ],
)
def test_a_planted_fault_is_found_and_named(kind, cases, faulty):
    folder = faulty / "AMOS22"
    assert told(folder)[kind] == cases
    page = (folder / "report.html").read_text()
    assert all(case in page for case in cases)


def test_labels_on_one_voxel_are_found_and_counted(faulty):
    (fault,) = (
        f for f in json.loads((faulty / "TotalSegmentator" / "faults.json").read_text()) if f["kind"] == "overlap"
    )
    assert "liver" in fault["sentence"] and "spleen" in fault["sentence"] and "30 voxels" in fault["sentence"]
    assert "30 voxels" in (faulty / "TotalSegmentator" / "report.html").read_text()


def test_a_case_that_cannot_be_read_is_in_no_datalist_and_the_rest_is(faulty):
    listed = splits(faulty / "AMOS22")
    assert sorted(listed) == [f"AMOS22_amos_{case:04d}" for case in (3, 4, 5, 6, 400)]
    assert listed["AMOS22_amos_0005"] == listed["AMOS22_amos_0400"]
    assert {p.name for p in (faulty / "AMOS22" / "prepared").iterdir()} == set(listed)


# ---------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"data_set": "AMOS2", "data_dir": "."}, "data_set is 'AMOS2'.*nearest: AMOS22"),
        ({"data_set": "AMOS22", "data_dir": "nowhere"}, "data_dir: nowhere .*amos22.grand-challenge.org.*terms: CC BY"),
        ({"data_set": "AMOS22"}, "data_dir is missing; AMOS22 is to be had from .*; nothing is downloaded"),
        ({"data_set": "AMOS22", "data_dir": "."}, "data_dir: .* holds no image of AMOS22"),
        ({"data_set": "AMOS22", "data_dir": ".", "worker": 2}, "unknown key --worker; .* --workers"),
        ({"data_set": "AMOS22", "data_dir": ".", "beside": "nowhere"}, "beside: nowhere is no set"),
        ({"data_set": "AMOS22", "data_dir": ".", "pseudo_masks": 6}, "pseudo_masks is 6; allowed are true and false"),
        ({"data_set": "AMOS22", "data_dir": ".", "size": "huge"}, "size is 'huge'"),
        ({"data_set": "AMOS22", "data_dir": "x" * 5000}, "data_dir: x+ is no folder"),
        ({"data_set": "AMOS22", "data_dir": ".", "output_dir": "x" * 5000}, "output_dir: x+ cannot be written"),
    ],
)
def test_a_mistake_is_told_in_one_line_before_anything_is_written(options, sentence, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=sentence) as caught:
        run_here(monkeypatch, "prepare", **options)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def images(folder: Path, seeds: Mapping[str, int]) -> str:
    """A folder of images alone, in the generic layout: file -> number of its phantom."""
    for name, seed in seeds.items():
        add_case(folder, "AMOS22", name, seed)
    (folder / "imagesTr").rename(folder / "images")
    return str(folder)


def test_two_sets_with_cases_of_one_name_are_refused_before_anything_is_prepared(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sets = {"a": images(tmp_path / "1", {"b_c": 1}), "a_b": images(tmp_path / "2", {"c": 2})}
    with pytest.raises(SystemExit, match="^data_sets: a and a_b both have a case a_b_c; give one of them another"):
        run_here(monkeypatch, "prepare", data_sets=sets, **HERE)
    assert not (tmp_path / "out").exists()


def test_images_beside_that_only_share_their_names_are_told(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for seed, options in ((1, {}), (2, {"output_dir": "elsewhere", "beside": "out/data"})):
        folder = images(tmp_path / str(seed), {"p1": seed})
        run_here(monkeypatch, "prepare", data_set="mine", data_dir=folder, **options, **HERE)
    assert "mine: its patients are not looked for in 1 cases, for other images have the same" in capsys.readouterr().err


def test_labels_are_not_replaced_by_images_alone(unbroken, tmp_path, monkeypatch):
    shutil.copytree(unbroken / "out", tmp_path / "out")
    amos(tmp_path / "amos", (1,))
    monkeypatch.chdir(tmp_path)
    before = (tmp_path / "out" / "AMOS22" / "datalist.json").read_bytes()
    options = {**HERE, "output_dir": "out", "images_only": True}
    with pytest.raises(SystemExit, match="^images_only: .*AMOS22 has the set with its labels already; take another"):
        run_here(monkeypatch, "prepare", data_set="AMOS22", data_dir="amos", **options)
    assert (tmp_path / "out" / "AMOS22" / "datalist.json").read_bytes() == before


def test_a_set_without_a_case_for_validation_is_told(tmp_path, monkeypatch, capsys):
    amos(tmp_path / "amos", (1,))
    monkeypatch.chdir(tmp_path)
    run_here(monkeypatch, "prepare", data_set="AMOS22", data_dir="amos", **HERE)
    assert "AMOS22: none of its cases is for validation, of which train.json needs one" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_told_in_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    amos(tmp_path / "amos", (1,))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "AMOS22").write_text("no folder")
    with pytest.raises(SystemExit, match="^output_dir: .*AMOS22 cannot be written .File exists.$"):
        run_here(monkeypatch, "prepare", data_set="AMOS22", data_dir="amos", output_dir="out", **HERE)


def test_a_set_of_which_no_case_can_be_prepared_ends_the_run_with_one_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    amos(tmp_path / "amos", (1,))
    truncate(tmp_path / "amos" / "imagesTr" / "amos_0001.nii.gz")
    with pytest.raises(SystemExit, match="^none of 1 cases can be prepared: AMOS22_amos_0001: image: "):
        run_here(monkeypatch, "prepare", data_set="AMOS22", data_dir="amos", **HERE)
    assert told(tmp_path / "out" / "data" / "AMOS22") == {"unreadable": {"AMOS22_amos_0001"}}


# ---------------------------------------------------------------- interruptions


def test_a_set_that_is_being_prepared_is_left_to_the_one_who_does(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    amos(tmp_path / "amos", (1,))
    order = {"data_set": "AMOS22", "data_dir": "amos", "output_dir": "out", **HERE}
    (tmp_path / "out" / "AMOS22").mkdir(parents=True)
    other = os.open(tmp_path / "out" / "AMOS22", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(SystemExit, match="AMOS22 is being prepared by another process"):
        run_here(monkeypatch, "prepare", **order)
    assert not tree_of(tmp_path / "out")
    os.close(other)
    run_here(monkeypatch, "prepare", **order)
    assert records(tmp_path) == 1


def test_splits_are_drawn_by_one_run_at_a_time(tmp_path):
    with _locked(tmp_path, wait=True):
        other = threading.Thread(target=lambda: _locked(tmp_path, wait=True).__enter__(), daemon=True)
        other.start()
        other.join(0.3)
        assert other.is_alive()
    other.join(10)
    assert not other.is_alive()


def test_a_second_run_changes_nothing_and_needs_no_worker(unbroken, tmp_path, monkeypatch):
    shutil.copytree(unbroken / "out", tmp_path / "out")
    ages = {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "AMOS22" / "prepared").rglob("*")}
    monkeypatch.setattr("scripts.data.runner.open_cluster", None)
    order = {"data_set": "AMOS22", "data_dir": unbroken / "amos", "output_dir": tmp_path / "out", "workers": 2}
    run_here(monkeypatch, "prepare", **order, **QUICK)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out" / "AMOS22" / "prepared").rglob("*")} == ages
    assert tree_of(tmp_path / "out") == tree_of(unbroken / "out")


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set, and in out/ what one run in this process makes of it."""
    folder = tmp_path_factory.mktemp("unbroken")
    amos(folder / "amos", range(1, 13))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_here(patch, "prepare", data_set="AMOS22", data_dir=folder / "amos", output_dir="out", **HERE)
    return folder


def wait_for_cases(process, folder: Path, more_than: int) -> None:
    end = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < end:
        if len(list((folder / "out" / "AMOS22" / "cases").glob("*.json"))) > more_than:
            return
        time.sleep(0.01)
    raise AssertionError((folder / "log.txt").read_text())


def records(folder: Path) -> int:
    return len(list((folder / "out" / "AMOS22" / "cases").glob("*.json")))


@pytest.mark.slow
def test_a_run_that_is_killed_twice_ends_with_the_bytes_of_an_unbroken_one(unbroken, tmp_path, monkeypatch):
    order = {"data_set": "AMOS22", "data_dir": unbroken / "amos", "output_dir": "out", **QUICK}
    for workers in (0, 2):
        process = start_process(tmp_path, "prepare", workers=workers, **order)
        wait_for_cases(process, tmp_path, records(tmp_path))
        process.kill()
        assert process.wait(60) == -signal.SIGKILL
    assert records(tmp_path) < 12 and not (tmp_path / "out" / "AMOS22" / "datalist.json").exists()
    time.sleep(2)  # the workers notice that they are alone, and leave
    monkeypatch.chdir(tmp_path)
    run_here(monkeypatch, "prepare", workers=0, **order)
    assert tree_of(tmp_path / "out") == tree_of(unbroken / "out")


@pytest.mark.slow
def test_a_run_on_a_scheduler_survives_a_worker_and_leaves_at_a_signal(unbroken, tmp_path, monkeypatch):
    port = free_port()
    address = f"tcp://127.0.0.1:{port}"
    order = {"data_set": "AMOS22", "data_dir": unbroken / "amos", "output_dir": "out", "scheduler": address, **QUICK}
    with elsewhere(tmp_path, "scheduler", "--host", "127.0.0.1", "--port", str(port)):
        wait_for_port(port)
        with worker(tmp_path, address) as first, worker(tmp_path, address):
            stopped = start_process(tmp_path, "prepare", **order)
            wait_for_cases(stopped, tmp_path, 0)
            stopped.send_signal(signal.SIGTERM)
            assert stopped.wait(60) == 130
            assert "the same command goes on from there" in (tmp_path / "log.txt").read_text()
            ended = start_process(tmp_path, "prepare", **order)
            wait_for_cases(ended, tmp_path, records(tmp_path))
            os.kill(first.pid, signal.SIGKILL)
            assert ended.wait(300) == 0, (tmp_path / "log.txt").read_text()
    assert tree_of(tmp_path / "out") == tree_of(unbroken / "out")


# ---------------------------------------------------------------- real volumes, from any folder


def trees_of(manifest: list[dict], data: Path, folder: Path) -> dict[str, Path]:
    """Real volumes as trees of links, images/, labels/ and labels.json; those that agree on label values in one."""
    trees: dict[Path, dict[str, str]] = {}
    for case in manifest:
        fitting = (tree for tree, names in trees.items() if agree(names, case["labels"]))
        tree = next(fitting, folder / f"set_{len(trees)}")
        trees[tree] = trees.get(tree, {}) | case["labels"]
        for part in ("image", "label"):
            target = data / case[part].rstrip("/")
            suffix = ".nii.gz" if target.name.endswith(".nii.gz") else target.suffix
            link = tree / f"{part}s" / f"{case['id']}{suffix}"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(target)
    for tree, names in trees.items():
        (tree / "labels.json").write_text(json.dumps(names))
    return {tree.name: tree for tree in trees}


def agree(names: dict[str, str], others: dict[str, str]) -> bool:
    return all(names.get(value, name) == name for value, name in others.items())


@pytest.mark.slow
def test_real_volumes_go_through_the_command_that_is_given_at_the_root(shared, tmp_path):
    manifest = json.loads((shared / "data" / "MANIFEST.json").read_text())["cases"]
    sets = {name: str(path) for name, path in trees_of(manifest, shared / "data", tmp_path).items()}
    done = run_process(Path("/"), "prepare", data_sets=sets, output_dir=tmp_path / "out", **HERE)
    assert done.returncode == 0, done.stderr
    found = {p.stem.split("_", 2)[2]: json.loads(p.read_text()) for p in (tmp_path / "out").glob("set_*/cases/*.json")}
    assert found.keys() == {case["id"] for case in manifest}, done.stderr
    for case in manifest:
        record = found[case["id"]]
        assert (record["shape"], record["axcodes"]) == (case["size"], case["axcodes"])
        assert open_case(tmp_path / "out" / record["data_set"] / "prepared" / record["case"]).grids.keys() == GRIDS
        values, counts = np.unique(load_volume(shared / "data" / case["label"]).numpy(), return_counts=True)
        expected: Counter[str] = Counter()
        for value, count in zip(values, counts, strict=True):
            expected[record["labels"].get(f"{value:g}") or f"label {value:g}"] += int(count) if value else 0
        assert {name: structure["voxels"] for name, structure in record["structures"].items()} == +expected
