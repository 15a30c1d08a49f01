"""The main job, end to end, with the embedded weights on a small phantom."""

import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from commands import run_here, run_process
from scripts.phantom import make_phantom, save_phantom

NAMES = ("inference", "small")
BATCH = ("inference", "small", "batch_inference")
MISTAKES = (
    "missing file",
    "2D image",
    "4D image",
    "NaN",
    "inf",
    "constant",
    "unknown kind",
    "point outside",
    "labels",
    "no prompt",
    "several texts with a box",
    "500 words",
    "unknown name",
    "unknown key",
    "unknown mode",
    "unknown device",
    "coordinates",
    "truncated checkpoint",
    "foreign checkpoint",
    "missing checkpoint",
    "prompts no json",
    "prompts unknown field",
)


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom's CT."""
    image, _ = save_phantom(make_phantom(3001, shape=(64, 64, 32)), tmp_path_factory.mktemp("phantom"))
    return image


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of the test."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def summary_of(folder: Path, case: str = "ct") -> dict:
    return json.loads((folder / case / f"{case}_seg.json").read_text())


@pytest.mark.slow
def test_a_run_from_any_folder_with_relative_paths_writes_masks_summary_and_picture(scan, tmp_path):
    shutil.copy(scan, tmp_path / "ct.nii.gz")
    done = run_process(tmp_path, *NAMES, image="ct.nii.gz", text="['liver','left kidney']", output_dir="out")
    assert done.returncode == 0, done.stderr[-2000:]
    written = {path.name for path in (tmp_path / "out" / "ct").iterdir()}
    assert {"ct_seg.nii.gz", "ct_seg.json", "ct_preview.png", "ct_liver.nii.gz", "ct_left_kidney.nii.gz"} <= written
    image, label = nib.load(scan), nib.load(tmp_path / "out" / "ct" / "ct_seg.nii.gz")
    assert label.shape == image.shape
    np.testing.assert_allclose(label.affine, image.affine)
    summary = summary_of(tmp_path / "out")
    assert [(t["name"], t["value"]) for t in summary["targets"]] == [("liver", 1), ("left kidney", 2)]
    assert summary["encoder_runs"] >= 1
    assert len(summary["model"]["sha256"]) == 64


def test_points_and_box_describe_one_target_refined_by_a_text(scan, here, monkeypatch):
    options = {"image": scan, "points": "[[40,32,16]]", "box": "[50,45,24,30,20,8]", "text": "liver"}
    run_here(monkeypatch, *NAMES, **options)
    (target,) = summary_of(here / "out")["targets"]
    assert target["prompts"]["voxel"]["box"] == [30, 20, 8, 50, 45, 24]
    assert target["prompts"]["voxel"]["points"] == [[40, 32, 16]]


def test_world_prompts_mean_the_same_voxels(scan, here, monkeypatch):
    affine = nib.load(scan).affine
    corner, far = (nib.affines.apply_affine(affine, p) for p in ([30, 20, 8], [50, 45, 24]))
    lps = np.array([*corner, *far]) * [-1, -1, 1, -1, -1, 1]
    run_here(monkeypatch, *NAMES, image=scan, box="[30,20,8,50,45,24]", output_dir="voxel")
    run_here(
        monkeypatch, *NAMES, image=scan, box=[*corner.tolist(), *far.tolist()], coordinates="ras", output_dir="ras"
    )
    run_here(monkeypatch, *NAMES, image=scan, box=lps.tolist(), coordinates="lps", output_dir="lps")
    masks = [nib.load(here / name / "ct" / "ct_seg.nii.gz").get_fdata() for name in ("voxel", "ras", "lps")]
    assert (masks[0] == masks[1]).all()
    assert (masks[0] == masks[2]).all()


@pytest.mark.parametrize("mode", ["zoom", "fit", "published", "resize", "sliding_window"])
def test_every_mode_runs_and_names_itself(mode, scan, here, monkeypatch):
    run_here(monkeypatch, *NAMES, image=scan, text="liver", mode=mode)
    assert summary_of(here / "out")["mode"] == mode


def test_the_same_command_gives_the_same_bytes(scan, here, monkeypatch):
    for name in ("one", "two"):
        run_here(monkeypatch, *NAMES, image=scan, text="['liver','spleen']", output_dir=name)
    one, two = (nib.load(here / n / "ct" / "ct_seg.nii.gz").get_fdata() for n in ("one", "two"))
    assert (one == two).all()


def test_many_targets_cost_one_encoding_of_each_view(scan, here, monkeypatch):
    names = ["liver", "spleen", "heart", "aorta", "stomach"]
    run_here(monkeypatch, *NAMES, image=scan, text=names, mode="resize")
    assert summary_of(here / "out")["encoder_runs"] == 1


def test_prompts_json_is_text_whatever_it_starts_with(scan, here, monkeypatch):
    evil = "$__import__('pathlib').Path('evil').touch()"
    box = [30, 20, 8, 50, 45, 24]
    targets = [{"name": name, "text": "liver", "box": box} for name in (evil, "@bundle_root", "%x")]
    targets += [{"name": "told", "text": evil, "box": box}]
    (here / "prompts.json").write_text(json.dumps({"targets": targets}))
    run_here(monkeypatch, *NAMES, image=scan, prompts="prompts.json")
    assert not (here / "evil").exists()
    told = summary_of(here / "out")
    assert [t["name"] for t in told["targets"]] == [evil, "@bundle_root", "%x", "told"]
    assert any("ignored" in message for message in told["messages"])


def test_a_batch_names_every_case_reports_the_bad_one_and_exits_1(scan, here, monkeypatch):
    for name in ("a/ct.nii.gz", "b/ct.nii.gz", "b/other.nii.gz"):
        (here / name).parent.mkdir(exist_ok=True)
        shutil.copy(scan, here / name)
    (here / "a" / "broken.nii.gz").write_bytes(b"no gzip")
    with pytest.raises(SystemExit, match="1 of 4 cases failed: broken"):
        run_here(monkeypatch, *BATCH, image="*/*.nii.gz", text="liver")
    assert {p.name for p in (here / "out").iterdir()} == {"a_ct", "b_ct", "other"}


def test_case_lists_bring_their_own_prompts(scan, here, monkeypatch):
    rows = [
        {"image": str(scan), "text": "$evil", "box": "[30,20,8,50,45,24]"},
        {"image": str(scan), "text": "", "points": "[[40,32,16]]"},
        {"image": "$(touch evil).nii.gz", "text": "liver"},
    ]
    with (here / "cases.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["image", "text", "points", "point_labels", "box", "coordinates"])
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(SystemExit, match="1 of 3 cases failed.*does not exist"):
        run_here(monkeypatch, *BATCH, cases="cases.csv")
    assert len(list((here / "out").iterdir())) == 2


def nifti(path: Path, array: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(array, np.eye(4)), path)
    return path


def bad_inputs(scan: Path, folder: Path) -> dict[str, tuple[dict, str]]:
    """Options that must end in one clear line -> what that line says."""
    noise = np.random.default_rng(0).normal(size=(24, 24, 12)).astype(np.float32)
    with_nan = noise.copy()
    with_nan[3, 3, 3] = np.nan
    with_inf = noise.copy()
    with_inf[3, 3, 3] = np.inf
    (folder / "truncated.pt").write_bytes(b"PK\x03\x04broken")
    (folder / "text.json").write_text("{'not json'")
    (folder / "other.json").write_text(json.dumps({"targets": [{"txt": "liver"}]}))
    torch.save({"model": {"mask_decoder.x": torch.zeros(1)}}, folder / "foreign.pt")
    ok = {"image": scan, "text": "liver"}
    return {
        "missing file": ({**ok, "image": "no.nii.gz"}, "does not exist"),
        "2D image": ({**ok, "image": nifti(folder / "flat.nii.gz", noise[:, :, 0])}, "3D"),
        "4D image": ({**ok, "image": nifti(folder / "four.nii.gz", np.stack([noise] * 2, -1))}, "3D"),
        "NaN": ({**ok, "image": nifti(folder / "nan.nii.gz", with_nan)}, "NaN"),
        "inf": ({**ok, "image": nifti(folder / "inf.nii.gz", with_inf)}, "infinite"),
        "constant": ({**ok, "image": nifti(folder / "flat3.nii.gz", np.ones((9, 9, 9), np.float32))}, "constant"),
        "unknown kind": ({**ok, "image": folder / "text.json"}, "no known kind"),
        "point outside": ({"image": scan, "points": "[[500,1,1]]"}, "outside"),
        "labels": ({"image": scan, "points": "[[5,1,1]]", "point_labels": "[2]"}, "point_labels"),
        "no prompt": ({"image": scan}, "no prompt"),
        "several texts with a box": ({"image": scan, "text": "['a','b']", "box": "[1,1,1,2,2,2]"}, "prompts.json"),
        "500 words": ({"image": scan, "text": "word " * 500}, "text"),
        "unknown name": ({"image": scan, "text": "livver"}, "liver"),
        "unknown key": ({**ok, "imge": "x"}, "--image"),
        "unknown mode": ({**ok, "mode": "fast"}, "sliding_window"),
        "unknown device": ({**ok, "device": "abacus"}, "device"),
        "coordinates": ({**ok, "coordinates": "mni"}, "coordinates"),
        "truncated checkpoint": ({**ok, "checkpoint": folder / "truncated.pt"}, "checkpoint"),
        "foreign checkpoint": ({**ok, "checkpoint": folder / "foreign.pt"}, "does not fit"),
        "missing checkpoint": ({**ok, "checkpoint": "gone.pt"}, "small.json"),
        "prompts no json": ({"image": scan, "prompts": folder / "text.json"}, "JSON"),
        "prompts unknown field": ({"image": scan, "prompts": folder / "other.json"}, "text"),
    }


@pytest.mark.parametrize("kind", MISTAKES)
def test_a_mistake_gets_one_line_and_leaves_nothing_half_written(kind, scan, here, monkeypatch):
    options, told = bad_inputs(scan, here)[kind]
    with pytest.raises(SystemExit) as raised:
        run_here(monkeypatch, *NAMES, **options)
    assert told in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not list(here.glob("out/**/*.nii.gz"))
    assert not list(here.glob("out/.*"))


@pytest.mark.slow
def test_the_line_stands_last_on_stderr_without_a_traceback(tmp_path):
    done = run_process(tmp_path, *NAMES, image="no.nii.gz", text="liver")
    assert done.returncode == 1
    assert "does not exist" in done.stderr.strip().splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_pickled_checkpoint_with_code_in_it_is_refused_and_not_run(scan, tmp_path):
    class Evil:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "evil",))

    torch.save({"model": Evil()}, tmp_path / "evil.pt")
    done = run_process(tmp_path, *NAMES, image=scan, text="liver", checkpoint="evil.pt")
    assert done.returncode == 1
    assert "checkpoint" in done.stderr.strip().splitlines()[-1]
    assert not (tmp_path / "evil").exists()


@pytest.mark.slow
def test_a_released_file_runs_as_it_is_with_a_free_text(scan, here, monkeypatch, official_state, shared):
    torch.save({"model": official_state("module."), "optimizer": {}, "epoch": 270}, here / "SegVol_v1.pth")
    run_here(
        monkeypatch,
        "inference",
        image=scan,
        text="['left kidney','a very $trange {thing}']",
        checkpoint="SegVol_v1.pth",
        tokenizer=shared / "reference" / "clip_tokenizer",
        mode="resize",
    )
    (here / "SegVol_v1.pth").unlink()
    summary = summary_of(here / "out")
    assert summary["model"]["size"] == "base"
    assert summary["encoder_runs"] == 1
    assert [t["name"] for t in summary["targets"]] == ["left kidney", "a very $trange {thing}"]
