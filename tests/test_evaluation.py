"""The evaluation: how answers are scored, what is asked, and the report, by its JSON on phantoms and on blocks."""

import csv
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from scripts.checkpoints import save_checkpoint
from scripts.evaluation.cases import absent_from, dice, name_cases, prompt_rng
from scripts.evaluation.plot import plot_dice
from scripts.evaluation.region_growing import MODE, RegionGrowingInferer
from scripts.evaluation.report import statistics
from scripts.evaluation.runner import Evaluation
from scripts.evaluation.settings import Settings, read_settings
from scripts.network import build_segvol
from scripts.phantom import make_phantom, save_phantom
from scripts.phantom.files import add_to_datalist
from scripts.prompts import prompt_from_mask
from scripts.text_encoder import TextTable
from scripts.vocabulary import Vocabulary

NAMES = ("liver", "spleen", "left kidney", "right kidney", "left lung", "right lung", "heart")
SHAPE = (20, 16, 12)


def cube(shape: tuple[int, ...], *corners: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(lo, hi) for lo, hi in corners)] = True
    return mask


@pytest.mark.parametrize(
    ("mask", "start", "expected"),
    [
        (cube((4, 4, 4), (1, 3), (1, 3), (1, 3)), (2, 2, 2), 1.0),
        (np.zeros((4, 4, 4), dtype=bool), (2, 2, 2), 0.0),
        (cube((2, 4, 4), (1, 2), (1, 3), (1, 3)), (2, 2, 2), 2 / 3),  # the crop cuts off the other half
        (cube((4, 4, 4), (0, 4), (0, 4), (0, 4)), (2, 2, 2), 2 * 8 / (64 + 8)),
    ],
)
def test_dice_counts_what_the_crop_cut_off_as_missed(mask: np.ndarray, start: tuple, expected: float) -> None:
    truth = cube((8, 8, 8), (3, 5), (3, 5), (3, 5))
    assert dice(mask, truth, start) == pytest.approx(expected)


def test_a_prompt_depends_on_seed_case_value_and_place_alone() -> None:
    draw = {
        key: tuple(prompt_rng(*key).integers(1 << 30, size=4))
        for key in [(0, "a", 1, "point"), (1, "a", 1, "point"), (0, "b", 1, "point"), (0, "a", 2, "point")]
        + [(0, "a", 1, "box"), (0, "a", 1, "text")]
    }
    assert len(set(draw.values())) == len(draw)
    assert tuple(prompt_rng(0, "a", 1, "point").integers(1 << 30, size=4)) == draw[(0, "a", 1, "point")]


def test_kinds_with_text_click_where_those_without_do() -> None:
    mask = cube((12, 12, 12), (2, 10), (2, 10), (2, 10))
    clicks = [prompt_from_mask(mask, "x", k, prompt_rng(0, "a", 1, k)).points for k in ("point", "point+text")]
    boxes = [prompt_from_mask(mask, "x", k, prompt_rng(0, "a", 1, k), jitter=0.3).box for k in ("box", "box+text")]
    np.testing.assert_array_equal(*clicks)
    np.testing.assert_array_equal(*boxes)


def test_absent_names_are_known_and_not_present() -> None:
    assert absent_from(["spleen", None, "liver", "colon", "spleen"], ["liver", None]) == ["colon", "spleen"]


def test_cases_are_named_by_id_or_by_folder_and_file() -> None:
    entries = [{"image": "x/p1/ct.nii.gz"}, {"image": "y/p1/ct.nii.gz"}, {"image": "y/p2/ct.nrrd", "id": "mine"}]
    assert [case["case"] for case in name_cases(entries)] == ["p1/ct", "p1/ct (2)", "mine"]


def test_one_value_has_no_standard_deviation() -> None:
    assert statistics([0.5]) == {"median": 0.5, "mean": 0.5, "standard_deviation": None, "n": 1}
    assert statistics([0.0, 1.0])["standard_deviation"] == pytest.approx(2**-0.5, abs=1e-4)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"datalist": None}, "datalist is missing"),
        ({"kinds": "clicks"}, "kinds is 'clicks'; allowed are text, point"),
        ({"kinds": []}, "kinds is []"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1.5}, "seed is 1.5"),
        ({"jitter": 1.0}, "jitter is 1.0"),
        ({"minimum_voxels": 0}, "minimum_voxels is 0"),
        ({"targets_per_call": True}, "targets_per_call is True"),
        ({"labels_complete": "perhaps"}, "labels_complete is 'perhaps'"),
        ({"output_dir": None}, "output_dir is missing"),
        ({"baseline": "both"}, "baseline is 'both'"),
        ({"baseline": True, "kinds": "text,point"}, "baseline is true, but kinds is text, point"),
    ],
)
def test_a_mistake_in_the_settings_is_one_line(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(SystemExit, match="^[^\n]*$") as caught:
        read_settings(**{"datalist": "cases.json", "output_dir": "out", **wrong})
    assert told in str(caught.value)


def test_the_command_line_may_write_lists_with_commas_and_flags_as_words() -> None:
    settings = read_settings("a.json", "out", kinds="point+text,text", modes=("zoom", "resize"), labels_complete="TRUE")
    assert settings.kinds == ("point+text", "text")
    assert settings.modes == ("zoom", "resize")
    assert settings.labels_complete is True


def test_the_plot_takes_a_single_value_and_equal_values(tmp_path: Path) -> None:
    scores = [("text", "zoom", 0.5), *[("box", "zoom", 1.0)] * 6, *[("box", "resize", i / 9) for i in range(9)]]
    plot_dice(scores, tmp_path / "dice.png")
    assert (tmp_path / "dice.png").stat().st_size > 5000


# An oracle on blocks: the network answers what is brighter than a threshold, so every number is known.


class Oracle:
    """In place of inferer and network: every target gets what is brighter than 0.5; the prompts are recorded."""

    def __init__(self) -> None:
        self.calls: list[list[Any]] = []

    def __call__(self, image: torch.Tensor, network: Any, prompts: Any, vectors: Any, report: dict) -> torch.Tensor:
        self.calls.append(list(prompts))
        report |= {"encoder_runs": 3, "decoder_runs": len(prompts)}
        report["targets"] = [{"windows": 2, "message": None} for _ in prompts]
        return (image > 0.5).float().expand(1, len(prompts), *image.shape[2:]) - 0.5


@pytest.fixture
def block_datalist(tmp_path: Path) -> Callable[..., Path]:
    """Cases with a bright liver, a dark spleen and a speck of heart inside a body in air, by name; LPS, 2 mm."""

    def write(*names: str, **more: Any) -> Path:
        cases = []
        for name in names:
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            image, label = blocks(np.random.default_rng(len(name)))
            affine = np.diag([-2.0, -2.0, 2.0, 1.0])
            nib.save(nib.Nifti1Image(image, affine), folder / "ct.nii.gz")
            nib.save(nib.Nifti1Image(label, affine), folder / "label.nii.gz")
            labels = {"1": "liver", "2": "spleen", "3": "heart", "4": "gizzard"}
            cases.append({"image": f"{name}/ct.nii.gz", "label": f"{name}/label.nii.gz", "labels": labels, **more})
        path = tmp_path / "datalist.json"
        path.write_text(json.dumps({"cases": cases}))
        return path

    return write


def blocks(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    image, label = np.zeros(SHAPE, dtype=np.int16), np.zeros(SHAPE, dtype=np.uint8)
    image[2:18, 2:14, 1:11] = rng.integers(100, 120, (16, 12, 10))
    image[4:8, 4:8, 4:8], label[4:8, 4:8, 4:8] = 1000, 1
    label[10:14, 6:10, 4:8] = 2
    label[15, 10, 5] = 3
    label[10:14, 10:14, 4:8] = 4
    return image, label


def evaluate(bundle: Path, datalist: Path, output: Path, oracle: Oracle | None = None, **more: Any) -> dict[str, Any]:
    """Run ``Evaluation`` with the oracle and the preprocessing of evaluate.json."""
    settings: Settings = read_settings(datalist, output, **more)
    parser = ConfigParser(ConfigParser.load_config_files(bundle / "configs" / "evaluate.json"))
    parser.update({"bundle_root": str(bundle), "datalist": str(datalist), "output_dir": str(output), **more})
    vocabulary = Vocabulary.load(bundle / "configs" / "vocabulary.json")
    cases, preprocessing = (parser.get_parsed_content(key) for key in ("cases", "preprocessing"))
    oracle = oracle or Oracle()
    inferers = {"zoom": oracle, "resize": oracle, "region_growing": RegionGrowingInferer()}
    return Evaluation(settings, cases, preprocessing, None, TextTable(NAMES, 16, vocabulary), inferers).run()


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_dice_time_and_volume_of_each_target_are_reported(
    bundle: Path, block_datalist: Callable[..., Path], tmp_path: Path
) -> None:
    oracle = Oracle()
    summary = evaluate(bundle, block_datalist("a", "b"), tmp_path / "out", oracle, kinds=["box", "point+text"])
    rows = rows_of(tmp_path / "out")
    assert {(r["target"], r["kind"]): (r["dice"], r["truth_voxels"]) for r in rows if r["case"] == "a/ct"} == {
        ("liver", "box"): ("1.0", "64"),
        ("spleen", "box"): ("0.0", "64"),
        ("gizzard", "box"): ("0.0", "64"),
        ("liver", "point+text"): ("1.0", "64"),
        ("spleen", "point+text"): ("0.0", "64"),
    }
    assert all(float(r["predicted_ml"]) == pytest.approx(64 * 8 / 1000) and r["windows"] == "2" for r in rows)
    assert [len(call) for call in oracle.calls] == [3, 2, 3, 2]  # one call for all targets of a case and kind
    assert summary["targets"] == {"evaluated": 6, "skipped": {"too small": 2, "text unknown": 2}}
    assert list(summary["unknown_texts"]) == ["gizzard"]
    assert summary["dice"]["zoom"]["point+text"] == {
        "median": 0.5,
        "mean": 0.5,
        "standard_deviation": 0.5774,
        "n": 4,
        "empty": 0,
    }
    assert summary["dice_per_target"]["liver"]["zoom"]["box"]["median"] == 1
    assert summary["cost_per_case"]["zoom"]["box"]["encoder_runs"]["median"] == 3


def test_clicks_and_boxes_reach_the_network_in_voxels_of_the_crop(
    bundle: Path, block_datalist: Callable[..., Path], tmp_path: Path
) -> None:
    oracle = Oracle()
    evaluate(bundle, block_datalist("a"), tmp_path / "out", oracle, kinds=["box", "point"])
    box, click = oracle.calls[0][0].box, oracle.calls[1][0].points[0]
    # (k, j, i) of the stored 4 to 7; LPS to RAS flips j and i; the body starts at voxel 1, 2, 2 of either end
    np.testing.assert_array_equal(box, [[3, 6, 10], [6, 9, 13]])
    assert ((click >= box[0]) & (click <= box[1])).all()


def test_adding_a_case_a_kind_or_a_mode_changes_no_other_prompt(
    bundle: Path, block_datalist: Callable[..., Path], tmp_path: Path
) -> None:
    alone, more = Oracle(), Oracle()
    evaluate(bundle, block_datalist("b"), tmp_path / "1", alone, kinds="point")
    evaluate(bundle, block_datalist("a", "b"), tmp_path / "2", more, kinds="box,point", modes="resize,zoom", jitter=0.2)
    clicks = [[prompt.points.tolist() for prompt in call] for call in more.calls]
    assert [prompt.points.tolist() for prompt in alone.calls[0]] in clicks[len(clicks) // 2 :]


def test_targets_are_asked_for_in_parts_that_bound_the_memory(
    bundle: Path, block_datalist: Callable[..., Path], tmp_path: Path
) -> None:
    oracle = Oracle()
    summary = evaluate(bundle, block_datalist("a"), tmp_path / "out", oracle, kinds="box", targets_per_call=2)
    assert [len(call) for call in oracle.calls] == [2, 1]
    assert summary["cost_per_case"]["zoom"]["box"]["encoder_runs"]["median"] == 6


def test_absent_names_are_asked_for_where_the_labels_are_complete(
    bundle: Path, block_datalist: Callable[..., Path], tmp_path: Path
) -> None:
    datalist = block_datalist("a", "b")
    content = json.loads(datalist.read_text())
    content["cases"][0]["complete"] = True
    content["cases"][1]["labels"]["5"] = "Kidney (L)"  # no voxel of it anywhere
    datalist.write_text(json.dumps(content))
    summary = evaluate(bundle, datalist, tmp_path / "out", kinds=["text", "box"])
    absent = [row for row in rows_of(tmp_path / "out") if row["present"] == "False"]
    assert [(r["case"], r["target"], r["dice"], r["predicted_voxels"]) for r in absent] == [
        ("a/ct", "left kidney", "", "64")
    ]
    assert summary["absent_names"]["zoom"] == {
        "prompts": 1,
        "drew_a_mask": 1,
        "share": 1.0,
        "millilitres_drawn": {"median": 0.512, "mean": 0.512, "standard_deviation": None, "n": 1},
        "names": {"left kidney": 1},
    }
    assert summary["dice"]["zoom"]["text"]["n"] == 4  # absent names enter no Dice
    assert "drew a mask" in (tmp_path / "out" / "summary.md").read_text()


def test_given_absent_names_leave_out_what_is_present_however_small(
    bundle: Path, block_datalist: Callable[..., Path], tmp_path: Path
) -> None:
    more = {"labels_complete": "true", "absent_names": ["heart", "liver", "right lung"]}
    summary = evaluate(bundle, block_datalist("a"), tmp_path / "out", kinds="text", **more)
    assert summary["absent_names"]["zoom"]["names"] == {"right lung": 1}


def test_a_bad_case_is_reported_and_the_others_go_on(
    bundle: Path, block_datalist: Callable[..., Path], tmp_path: Path
) -> None:
    datalist = block_datalist("good", "broken", "shifted", "unlabelled", modality="CT")
    (tmp_path / "broken" / "ct.nii.gz").write_text("no image")
    nib.save(nib.Nifti1Image(np.zeros((5, 5, 5), np.uint8), np.eye(4)), tmp_path / "shifted" / "label.nii.gz")
    content = json.loads(datalist.read_text())
    content["cases"][3]["labels"] = {"liver": 1}
    datalist.write_text(json.dumps(content))
    summary = evaluate(bundle, datalist, tmp_path / "out", kinds="point")
    failed = summary["cases"]["failed"]
    assert summary["cases"]["evaluated"] == 1
    assert "cannot be read" in failed["broken/ct"]
    assert "its grid (5, 5, 5) is not that of the image" in failed["shifted/ct"]
    assert "labels has the value 'liver'" in failed["unlabelled/ct"]
    assert summary["dice_per_modality"]["CT"]["zoom"]["point"]["n"] == 3


def test_a_run_without_results_ends_in_one_line_and_leaves_the_old_report(
    bundle: Path, block_datalist: Callable[..., Path], tmp_path: Path
) -> None:
    evaluate(bundle, block_datalist("a"), tmp_path / "out", kinds="point")
    before = (tmp_path / "out" / "summary.json").read_bytes()
    (tmp_path / "a" / "ct.nii.gz").write_text("no image")
    with pytest.raises(SystemExit, match=r"nothing could be evaluated; a/ct: image: [^\n]* cannot be read"):
        evaluate(bundle, tmp_path / "datalist.json", tmp_path / "out", kinds="point")
    assert (tmp_path / "out" / "summary.json").read_bytes() == before
    assert sorted(os.listdir(tmp_path / "out")) == ["dice.png", "results.csv", "summary.json", "summary.md"]


def test_a_target_outside_the_crop_counts_as_missed(
    bundle: Path, block_datalist: Callable[..., Path], tmp_path: Path
) -> None:
    datalist = block_datalist("a")
    label = nib.load(tmp_path / "a" / "label.nii.gz")
    outside = np.zeros(SHAPE, np.uint8)
    outside[19, :8, :8] = 1
    nib.save(nib.Nifti1Image(outside, label.affine), tmp_path / "a" / "label.nii.gz")
    summary = evaluate(bundle, datalist, tmp_path / "out", kinds="point")
    (row,) = rows_of(tmp_path / "out")
    assert (row["dice"], row["empty"], row["call_targets"]) == ("0.0", "True", "0")
    assert "outside the body" in row["message"]
    assert summary["dice"]["zoom"]["point"] == {
        "median": 0.0,
        "mean": 0.0,
        "standard_deviation": None,
        "n": 1,
        "empty": 1,
    }


def test_region_growing_answers_the_same_boxes_and_is_compared_with_every_mode(
    bundle: Path, block_datalist: Callable[..., Path], tmp_path: Path
) -> None:
    more = {"kinds": ["box", "point"], "modes": ["zoom", "resize"], "baseline": "true"}
    summary = evaluate(bundle, block_datalist("a", "b"), tmp_path / "out", **more)
    # the oracle takes the bright liver for everything; each block fills its box, which growing takes whole or in part
    grown = {(r["case"], r["target"]): float(r["dice"]) for r in rows_of(tmp_path / "out") if r["mode"] == MODE}
    assert len(grown) == 6 and grown["a/ct", "liver"] == 1 and grown["a/ct", "spleen"] > 0
    assert list(summary["dice"][MODE]) == ["box"]
    expected = {"gizzard": {"better": 0, "of": 2}, "liver": {"better": 0, "of": 2}, "spleen": {"better": 0, "of": 2}}
    for mode in ("zoom", "resize"):
        found = summary["better_than_region_growing"][mode]
        assert found == {"all": {"better": 0, "of": 6}, "targets": expected}
    assert "| spleen | 0 of 2 | 0 of 2 |" in (tmp_path / "out" / "summary.md").read_text()


def test_a_mode_that_draws_better_than_region_growing_is_counted(
    bundle: Path, block_datalist: Callable[..., Path], tmp_path: Path
) -> None:
    datalist = block_datalist("a")
    image = nib.load(tmp_path / "a" / "ct.nii.gz")
    voxels = np.array(image.dataobj)
    voxels[4:8, 4:8, 4:8] = [[[1000, 1000, 1000, 1500]]]  # growing takes three quarters of what is bright
    nib.save(nib.Nifti1Image(voxels, image.affine), tmp_path / "a" / "ct.nii.gz")
    summary = evaluate(bundle, datalist, tmp_path / "out", kinds="box", baseline=True)
    assert summary["better_than_region_growing"]["zoom"]["targets"]["liver"] == {"better": 1, "of": 1}


def test_without_the_baseline_nothing_is_said_of_it(
    bundle: Path, block_datalist: Callable[..., Path], tmp_path: Path
) -> None:
    summary = evaluate(bundle, block_datalist("a"), tmp_path / "out", kinds="box")
    assert summary["better_than_region_growing"] == {}
    assert "region growing" not in (tmp_path / "out" / "summary.md").read_text()


def test_a_structure_without_a_name_is_asked_for_by_place_alone(
    bundle: Path, block_datalist: Callable[..., Path], tmp_path: Path
) -> None:
    datalist = block_datalist("a")
    content = json.loads(datalist.read_text())
    content["cases"][0] |= {"labels": {"1": "liver", "2": None}, "complete": True}
    datalist.write_text(json.dumps(content))
    oracle = Oracle()
    summary = evaluate(bundle, datalist, tmp_path / "out", oracle, kinds=["text", "box", "point+text", "point"])
    asked = [(r["target"], r["kind"]) for r in rows_of(tmp_path / "out")]
    named = [("liver", kind) for kind in ("text", "box", "point+text", "point")]
    assert sorted(asked) == sorted([*named, ("label 2", "box"), ("label 2", "point")])
    assert {prompt.text for call in oracle.calls for prompt in call if prompt.name == "label 2"} == {None}
    assert summary["targets"]["skipped"] == {"without a name, not asked for by text": 1}
    assert summary["unknown_texts"] == {}


# The real JSON, with the untrained small network on phantoms.


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantoms")
    images = [save_phantom(make_phantom(seed, shape=(48, 48, 24)), folder / f"phantom_{seed}")[0] for seed in (1, 2)]
    add_to_datalist(folder, [image.parent for image in images], "test")
    return folder / "datalist.json"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "untrained.pt"
    save_checkpoint(build_segvol("small"), path, NAMES)
    return path


def run_json(bundle: Path, **overrides: Any) -> None:
    overrides = {"bundle_root": str(bundle), "device": "cpu", **overrides}
    configs = [str(bundle / "configs" / name) for name in ("evaluate.json", "small.json")]
    workflow = ConfigWorkflow(config_file=configs, workflow_type="infer", logging_file=False, **overrides)
    workflow.initialize()
    workflow.run()


@pytest.mark.parametrize("mode", ["zoom", "fit", "published", "resize", "sliding_window"])
def test_the_json_runs_every_mode_from_any_folder(
    bundle: Path, phantoms: Path, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    monkeypatch.chdir("/")
    out = tmp_path / "out"
    overrides = {"datalist": str(phantoms), "split": "test", "checkpoint": str(checkpoint), "output_dir": str(out)}
    run_json(bundle, modes=mode, labels_complete="true", **overrides)
    summary, rows = json.loads((out / "summary.json").read_text()), rows_of(out)
    assert summary["cases"] == {"evaluated": 2, "failed": {}}
    assert list(summary["dice"][mode]) == ["text", "point", "box", "point+text", "box+text"]
    assert summary["dice"][mode]["point"]["n"] == summary["targets"]["evaluated"] > 4
    assert len(summary["settings"]["sha256"]) == 64
    assert all(row["mode"] == mode and 0 <= float(row["dice"]) <= 1 for row in rows if row["present"] == "True")
    assert (out / "dice.png").read_bytes().startswith(b"\x89PNG")
    assert f"| {mode} | text |" in (out / "summary.md").read_text()


def test_the_json_answers_by_region_growing_where_it_is_asked_to(
    bundle: Path, phantoms: Path, checkpoint: Path, tmp_path: Path
) -> None:
    overrides = {"datalist": str(phantoms), "checkpoint": str(checkpoint), "kinds": "box", "modes": "resize"}
    run_json(bundle, output_dir=str(tmp_path), baseline=True, **overrides)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert list(summary["dice"]) == ["resize", MODE]
    assert summary["dice"][MODE]["box"]["mean"] > 0.4
    assert summary["cost_per_case"][MODE]["box"]["encoder_runs"]["median"] == 0
    assert summary["better_than_region_growing"]["resize"]["all"]["of"] == summary["targets"]["evaluated"]


def test_the_same_seed_gives_the_same_results(bundle: Path, phantoms: Path, checkpoint: Path, tmp_path: Path) -> None:
    overrides = {"datalist": str(phantoms), "checkpoint": str(checkpoint), "kinds": ["point", "box"], "jitter": 0.1}
    for name in ("1", "2"):
        run_json(bundle, output_dir=str(tmp_path / name), **overrides)
    first, second = (
        [{k: v for k, v in row.items() if k != "call_seconds"} for row in rows_of(tmp_path / name)] for name in "12"
    )
    assert first == second


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"datalist": None}, "datalist is missing"),
        ({"datalist": "missing.json"}, "missing.json does not exist"),
        ({"split": "validation"}, "holds no case of split 'validation'"),
        ({"modes": "fast"}, "modes is 'fast'"),
        ({"checkpoint": "missing.pt"}, "missing.pt does not exist"),
    ],
)
def test_a_mistake_ends_the_run_in_one_line(
    bundle: Path, phantoms: Path, checkpoint: Path, tmp_path: Path, wrong: dict[str, Any], told: str
) -> None:
    given = {"datalist": str(phantoms), "checkpoint": str(checkpoint), "output_dir": str(tmp_path / "out")}
    with pytest.raises(SystemExit, match="^[^\n]*$") as caught:
        run_json(bundle, **{**given, **wrong})
    assert told in str(caught.value)
    assert not (tmp_path / "out").exists()
