"""The ablations of ``benchmarks``: what is trained and tested, what is done twice, and what the tables say."""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from scripts.phantom import make_phantom, save_phantom
from scripts.phantom.files import add_to_datalist

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.append(str(BENCHMARKS))

import ablations  # noqa: E402
import warm_start  # noqa: E402
from ablation_plan import Job, Settings, Source, datalists, plan, variants  # noqa: E402
from ablation_tables import Answers, figures, markdown, summarised  # noqa: E402


@pytest.fixture
def real(tmp_path: Path) -> Path:
    """A datalist of two kinds of cases, a CT and an MR to test with, none to validate with."""
    cases = [case(f"STS_{n}/ct.nii.gz", "train") for n in (1, 2, 3)]
    cases += [case("ts/abdomen.nii.gz", "train"), case("STS_9/ct.nii.gz", "test", modality="CT")]
    cases += [case("STS_9/mr.nii.gz", "test", modality="MR")]
    return write_json(tmp_path / "STS_data" / "real.json", {"cases": cases})


@pytest.fixture
def generated(tmp_path: Path) -> Path:
    splits = ("train", "validation", "validation", "validation", "test")
    cases = [case(f"phantom_{n}/ct.nii.gz", split) for n, split in enumerate(splits)]
    return write_json(tmp_path / "phantoms" / "datalist.json", {"cases": cases})


def case(image: str, split: str, **more: Any) -> dict[str, Any]:
    return {"image": image, "label": f"{image}.label", "labels": {"1": "liver"}, "split": split, **more}


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def settings_of(folder: Path, *sources: str, test: Sequence[str] = (), **more: Any) -> Settings:
    train, tests = (tuple(map(Source.parse, values)) for values in (sources, test or sources[-1:]))
    return Settings(folder.resolve(), train, tests, **more)


@pytest.fixture
def settings(tmp_path: Path, real: Path, generated: Path) -> Settings:
    sources = f"sarcoma={real}::STS_", f"organs={real}::ts/", f"phantoms={generated}"
    return settings_of(tmp_path / "out", *sources, test=(f"real={real}", f"phantoms={generated}"), seeds=2)


def test_a_source_is_a_part_of_a_datalist_by_the_path_of_its_images(real: Path) -> None:
    assert len(Source.parse(f"a={real}").cases("train")) == 4
    source = Source.parse(f"a={real}::STS_")  # which the folder of the datalist holds too
    assert [Path(found["image"]).parent.name for found in source.cases("train")] == ["STS_1", "STS_2", "STS_3"]
    assert all(Path(found["label"]).is_absolute() for found in source.cases("test"))
    with pytest.raises(ValueError, match="^'real.json' is not of the form NAME=PATH or NAME=PATH::TEXT$"):
        Source.parse("real.json")


def test_sources_are_added_one_by_one_and_only_cts_are_tested(settings: Settings) -> None:
    lists = datalists(settings)
    found = {name: [Path(c["image"]).parent.name for c in cases] for name, cases in lists.items()}
    sarcoma = ["STS_1", "STS_2", "STS_3", "STS_3"]  # the last one is also what is validated with
    assert found["1_sources"] == sarcoma
    assert found["2_sources"] == [*sarcoma, "ts", "ts"]
    assert found["all"] == [*sarcoma, "ts", "ts", "phantom_0", "phantom_1", "phantom_2"]
    assert (found["test_real"], found["test_phantoms"]) == (["STS_9"], ["phantom_4"])
    assert [c["split"] for c in lists["1_sources"]] == ["train"] * 3 + ["validation"]


def test_a_source_may_be_cut_short(settings: Settings) -> None:
    few = Settings(settings.output_dir, settings.train_datalist, settings.test_datalist, at_most=1)
    assert [c["split"] for c in datalists(few)["1_sources"]] == ["train", "validation"]


@pytest.mark.parametrize(
    ("train", "test", "told"),
    [
        ("::nowhere", "", "train_datalist: a has no case of split 'train'"),
        ("", "::mr", "test_datalist: b has no CT of split 'test'"),
    ],
)
def test_a_source_without_cases_is_refused_in_one_line(
    tmp_path: Path, real: Path, train: str, test: str, told: str
) -> None:
    with pytest.raises(ValueError, match="^[^\n]*$") as caught:
        datalists(settings_of(tmp_path, f"a={real}{train}", test=(f"b={real}{test}",)))
    assert told in str(caught.value)


def test_the_run_with_everything_is_trained_once_a_seed_and_the_others_differ_in_one_thing(settings: Settings) -> None:
    trained = {job.name: dict(job.options) for job in plan(settings) if job.configs == ("train",)}
    assert len(trained) == 2 * 5
    full = trained["all/seed_1/train"]
    different = {
        name.split("/")[0]: {key: value for key, value in options.items() if full.get(key) != value}
        for name, options in trained.items()
        if "seed_1" in name
    }
    folder = settings.output_dir / "datalists"
    assert different == {
        "all": {},
        "no_pseudo_masks": {"pseudo_masks": 0},
        "crops_only": {"whole_share": 0, "window_share": 1, "fit_share": 0},
        "1_sources": {"datalist": folder / "1_sources.json"},
        "2_sources": {"datalist": folder / "2_sources.json"},
    }
    assert full["validate_every"] == full["epochs"] == 20  # the last weights are those that are judged


def test_crops_are_all_that_is_left_whatever_shares_the_other_runs_have(settings: Settings) -> None:
    chosen = {"whole_share": "0.3", "window_share": "0.3", "fit_share": "0.2"}
    asked = Settings(settings.output_dir, settings.train_datalist, settings.test_datalist, train_options=chosen)
    (options,) = (job.options for job in plan(asked) if job.name == "crops_only/seed_2/train")
    assert [options[share] for share in chosen] == [0, 1, 0]


def test_every_network_is_tested_by_zoom_and_the_one_with_everything_in_the_other_modes_too(settings: Settings) -> None:
    jobs = {job.name: job for job in plan(settings) if "evaluate" in job.configs}
    assert sum(name.endswith("_zoom") for name in jobs) == 2 * 5 * 2
    assert {name.split("/")[0] for name in jobs if name.endswith("_modes")} == {"all"}
    other = jobs["all/seed_0/real_modes"].options
    assert (other["modes"], other["kinds"]) == (["resize", "sliding_window", "fit"], ["text", "box"])
    weights = settings.output_dir / "crops_only" / "seed_1" / "train" / "model.pt"
    assert jobs["crops_only/seed_1/real_zoom"].options["checkpoint"] == weights
    assert weights in jobs["crops_only/seed_1/real_zoom"].inputs


def test_every_command_holds_keys_that_its_configs_have(settings: Settings, bundle: Path, tmp_path: Path) -> None:
    start = Settings(settings.output_dir, settings.train_datalist, settings.test_datalist, checkpoint=tmp_path / "a.pt")
    for job in plan(start):
        known = set().union(*(json.loads((bundle / "configs" / f"{name}.json").read_text()) for name in job.configs))
        assert set(job.options) | {"output_dir"} <= known
        assert job.command(tmp_path)[-2:] == ["--output_dir", str(tmp_path)]


class Stub(Job):
    """A job whose command is a line of Python."""

    def command(self, folder: Path) -> list[str]:
        return [sys.executable, "-c", self.options["line"].replace("OUT", repr(str(folder)))]


def count_up(tmp_path: Path) -> str:
    """A line that leaves a longer file at every run."""
    return f"open({str(tmp_path / 'runs')!r}, 'a').write('x'); open(OUT + '/result', 'w').write('y')"


def test_what_is_done_is_not_done_again_unless_its_inputs_or_its_command_change(tmp_path: Path) -> None:
    datalist, folder = write_json(tmp_path / "list.json", {}), tmp_path / "job"
    job = Stub("job", (), {"line": count_up(tmp_path)}, (datalist,))
    assert ablations.run(job, folder).endswith(" s")
    assert ablations.run(job, folder) == "done before"
    write_json(datalist, {"cases": []})
    assert ablations.run(job, folder) != "done before"
    assert ablations.run(Stub("job", (), {"line": count_up(tmp_path) + "; 1"}, (datalist,)), folder) != "done before"
    assert (tmp_path / "runs").read_text() == "xxx"
    assert sorted(os.listdir(folder)) == ["done.json", "log.txt", "result"]


def test_a_curve_is_drawn_from_a_log_of_this_very_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Path] = []

    def pretend(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        folder = Path(command[command.index("--output_dir") + 1])
        begun.append(folder)
        (folder / "log.txt").write_text("Epoch[1] Metrics -- dice: 0.5000\n")
        return subprocess.CompletedProcess(command, 0)

    def trained(*words: str) -> set[str]:
        given = ["--datalist", str(datalist), "--checkpoint", str(checkpoint), "--output_dir", str(tmp_path / "out")]
        monkeypatch.setattr(sys, "argv", ["warm_start.py", *given, "--epochs", "1", *words])
        begun.clear()
        warm_start.main()
        return {folder.name for folder in begun}

    monkeypatch.setattr(ablations.subprocess, "run", pretend)
    monkeypatch.setenv("COLUMNS", "80")
    datalist, checkpoint = write_json(tmp_path / "list.json", {}), write_json(tmp_path / "model.pt", {})
    both = {"random_weights_0", "SimMIM_0"}
    assert trained() == both and trained() == set()
    assert trained("--views", "7") == both
    write_json(checkpoint, {"other": 1})
    assert trained("--views", "7") == {"SimMIM_0"}
    write_json(datalist, {"cases": []})
    assert trained("--views", "7") == both


def test_what_was_merely_begun_is_begun_anew(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    folder.mkdir()
    (folder / "half").write_text("")
    ablations.run(Stub("job", (), {"line": count_up(tmp_path)}, ()), folder)
    assert sorted(os.listdir(folder)) == ["done.json", "log.txt", "result"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("raise SystemExit('datalist is missing')", "failed: datalist is missing ("),
        ("import json; json.loads('{')", "failed: json.decoder.JSONDecodeError: Expecting property name"),
    ],
)
def test_a_job_that_fails_ends_the_run_in_one_line_and_counts_as_not_done(tmp_path: Path, line: str, told: str) -> None:
    with pytest.raises(SystemExit, match="^[^\n]*log.txt[^\n]*$") as caught:
        ablations.run(Stub("job", (), {"line": line}, ()), tmp_path / "job")
    assert str(caught.value).startswith(told)
    assert not (tmp_path / "job" / "done.json").exists()


# The tables, from results that are made up.


def answer(target: str, kind: str, dice: float, mode: str = "zoom", **more: Any) -> dict[str, Any]:
    row = {"case": "a", "value": target, "kind": kind, "mode": mode, "dice": dice, "present": True}
    return {**row, "empty": False, "predicted_ml": 1.0, "call_targets": 2, "call_seconds": 3.0, **more}


def write_answers(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    folder.mkdir(parents=True)
    with (folder / "results.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def found(settings: Settings) -> list[dict[str, Any]]:
    """Tables of two seeds; the better network is the one with everything, and seed 1 has no run of crops."""
    finished = []
    for seed in (0, 1):
        for variant in variants(settings):
            gain = 0.2 + 0.1 * seed if variant == "all" else 0.0
            rows = [answer("1", kind, 0.4 + gain) for kind in settings.kinds]
            rows += [answer("2", kind, 0.1) for kind in ("point", "box")]
            rows += [answer("1", "box", 0.7, "region_growing"), answer("2", "box", 0.5, "region_growing")]
            drawn = 0.0 if variant == "all" else 8.0
            absent = {"present": False, "predicted_ml": drawn, "empty": not drawn, "value": ""}
            rows += [answer("", "text", 0.0, **absent), answer("", "text", 0.0, **{**absent, "empty": True})]
            if (variant, seed) != ("crops_only", 1):
                finished.append(f"{variant}/seed_{seed}/real_zoom")
                write_answers(settings.output_dir / finished[-1], rows)
        finished.append(f"all/seed_{seed}/real_modes")
        modes = [
            answer("1", k, 0.3, m, call_seconds=9.0) for k in ("text", "box") for m in ("resize", "sliding_window")
        ]
        write_answers(settings.output_dir / finished[-1], modes)
    return figures(Answers(settings, finished))


def cells(found: Sequence[Mapping[str, Any]], title: str) -> dict[str, dict[str, Any]]:
    """Row -> column -> cell of the table whose title holds this."""
    (table,) = (table for table in found if title in table["title"])
    return {row["label"]: dict(zip(table["columns"], row["cells"], strict=True)) for row in table["rows"]}


def test_a_cell_is_mean_and_sample_standard_deviation_over_the_seeds() -> None:
    assert summarised([0.0, 1.0, None]) == {"seeds": [0.0, 1.0, None], "mean": 0.5, "standard_deviation": 0.7071}
    assert summarised([0.25]) == {"seeds": [0.25], "mean": 0.25, "standard_deviation": None}
    assert summarised([None])["mean"] is None


def test_the_table_of_modes_has_dice_and_the_share_of_a_target_in_the_time(found: list[dict[str, Any]]) -> None:
    modes = cells(found, "Table 3")
    assert list(modes) == ["resize", "sliding_window", "fit", "zoom"]
    assert modes["zoom"]["Dice, text (n = 1)"]["seeds"] == [0.6, 0.7]
    assert modes["zoom"]["s per target, text"]["mean"] == 1.5
    assert modes["sliding_window"]["s per target, box"]["mean"] == 4.5


def test_kinds_are_compared_on_targets_that_were_asked_for_in_all_of_them(found: list[dict[str, Any]]) -> None:
    kinds = cells(found, "Fig. 3b")
    shared, every = "Dice, targets that can be asked for in every kind (n = 1)", "Dice, all targets (n = 2)"
    assert kinds["box"][shared]["mean"] == 0.65 and kinds["box"][every]["mean"] == pytest.approx(0.375)
    assert kinds["text"][every]["mean"] is None
    assert kinds["region growing in the box"][shared]["mean"] == 0.7


def test_what_is_taken_away_is_compared_seed_by_seed(found: list[dict[str, Any]]) -> None:
    pseudo = cells(found, "pseudo masks")
    assert pseudo["with"]["text (n = 1)"]["mean"] == 0.65 and pseudo["without"]["text (n = 1)"]["mean"] == 0.4
    assert pseudo["difference"]["text (n = 1)"] == {"seeds": [0.2, 0.3], "mean": 0.25, "standard_deviation": 0.0707}
    assert cells(found, "crops")["difference"]["text (n = 1)"]["seeds"] == [0.2, None]
    assert list(cells(found, "sources")) == ["sarcoma", "sarcoma + organs", "sarcoma + organs + phantoms"]


def test_masks_for_absent_names_are_told_as_share_and_volume(found: list[dict[str, Any]]) -> None:
    absent = cells(found, "absent")
    share, volume = "share that got a mask (n = 2)", "ml per prompt, 0 where nothing is drawn"
    assert (absent["with"][share]["mean"], absent["without"][share]["mean"]) == (0.0, 0.5)
    assert (absent["with"][volume]["mean"], absent["without"][volume]["mean"]) == (0.0, 8.0)


def test_the_page_tells_what_is_missing(settings: Settings, found: list[dict[str, Any]]) -> None:
    about = {"date": "2026-01-02", "machine": "m", "size": "small", "seeds": [0, 1], "epochs": 1, "views_per_epoch": 2}
    page = markdown({**about, "start": "random weights", "cases": {"all": 3}}, found)
    assert "| with | 0.650 ± 0.071 |" in page
    assert "| crops only | 0.400 (1 of 2 seeds) |" in page
    assert "Test data: phantoms" not in page  # nothing of it is done yet


def test_tables_are_written_from_what_is_done(settings: Settings) -> None:
    ablations.write_tables(settings, [])
    written = json.loads((settings.output_dir / "ablations.json").read_text())
    assert written["figures"] == [] and written["about"]["cases"] == {
        "1_sources": 3,
        "2_sources": 4,
        "all": 5,
        "test_real": 1,
        "test_phantoms": 1,
    }
    assert sorted(os.listdir(settings.output_dir)) == ["ablations.json", "ablations.md"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--seeds", "0"], "argument --seeds: '0' is no whole number of at least 1"),
        (["--train_datalist", "real.json"], "argument --train_datalist: 'real.json' is not of the form NAME=PATH"),
        (["--test_datalist", "a=b", "a=c"], "argument --test_datalist: every NAME may occur once, got a, a"),
        (["--kinds", "point"], "argument --mode_kinds: each must be one of --kinds"),
        (["--checkpoint", "missing.pt"], "argument --checkpoint: missing.pt does not exist"),
        (["--train_options", "batch_size"], "argument --train_options: 'batch_size' is not of the form KEY=VALUE"),
    ],
)
def test_a_mistake_on_the_command_line_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    given = ["--output_dir", "out", "--train_datalist", "a=b", "--test_datalist", "a=b"]
    with pytest.raises(SystemExit):
        ablations.read_settings([*given, *words])
    assert told in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.slow
def test_a_tiny_plan_is_trained_tested_and_told_and_not_done_twice(tmp_path: Path) -> None:
    folder = tmp_path / "phantoms"
    for seed, split in ((1, "train"), (2, "validation"), (3, "test"), (4, "test")):
        image, _ = save_phantom(make_phantom(seed, shape=(48, 48, 24)), folder / f"phantom_{seed:04d}")
        add_to_datalist(folder, [image.parent], split)
    datalist = folder / "datalist.json"
    words = ["--output_dir", "out", "--seeds", "1", "--epochs", "1", "--views", "4", "--device", "cpu"]
    words += ["--train_datalist", f"phantoms={datalist}", "--test_datalist", f"new={datalist}"]
    words += ["--kinds", "text", "box", "--train_options", "batch_size=2", "targets_per_view=1"]
    first, second = (run_script(tmp_path, *words) for _ in range(2))
    assert first.count(" s\n") == 3 * 2 + 1 and "done before" not in first
    assert second.count("done before") == 3 * 2 + 1
    written = json.loads((tmp_path / "out" / "ablations.json").read_text())
    assert [figure["title"] for figure in written["figures"]] == [
        "Resize, sliding window, fit, zoom (paper, Table 3)",
        "Text, point, box and their mixes (paper, Fig. 3b)",
        "One, two and all sources (paper, Fig. 3a)",
        "With and without pseudo masks",
        "Views of many sizes against crops only",
        "Masks drawn for absent names",
    ]
    rows = [row for figure in written["figures"] for row in figure["rows"]]
    known = [cell for row in rows for cell in row["cells"] if cell["mean"] is not None]
    assert len(known) == 41  # every cell but the one of text among targets that need none
    assert "--pseudo_masks" in written["jobs"]["all/seed_0/train"]["command"]


def run_script(folder: Path, *words: str) -> str:
    command = [sys.executable, str(BENCHMARKS / "ablations.py"), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    return subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True, text=True).stdout
