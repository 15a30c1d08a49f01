"""The trainer: a real fine-tune on three phantoms, and what becomes of weights that score better, worse or not."""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from fastapi import HTTPException
from lib import bundle_run, weights
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException

pytestmark = pytest.mark.usefixtures("scratch")

ROOT = Path(__file__).resolve().parents[2]
SMALL = ROOT / "bundle" / "models" / "small.pt"
SHAPE = (48, 48, 24)
FEW = {"model": "segvol", "max_epochs": 1, "views_per_epoch": 4}
LIVER = {"model": "segvol_text", "image": "one", "text_prompt": "liver"}
FOLLOWED = ("one", "two", "three")
USERS = (("Liver", 1), ("$import('os')", 2), ("DOE^JOHN", 3))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three phantoms and their labels, as files."""
    from scripts.phantom import make_phantom

    folder = tmp_path_factory.mktemp("labelled")
    for seed, name in enumerate(FOLLOWED, 3000):
        made = make_phantom(seed, shape=SHAPE)
        nib.save(nib.Nifti1Image(made.image, made.affine), folder / f"{name}.nii.gz")
        nib.save(nib.Nifti1Image(made.label, made.affine), folder / f"{name}_label.nii.gz")
    return folder


@pytest.fixture
def fresh(
    starting: Callable[..., AbstractContextManager[Any]], labelled: Path, tmp_path: Path
) -> Iterator[Callable[..., Any]]:
    """``fresh(names)``: an app over the three images, of which these have a finished label."""
    studies = tmp_path / "studies"
    studies.mkdir()
    for name in FOLLOWED:
        shutil.copy(labelled / f"{name}.nii.gz", studies)
    with starting(studies, models=str(tmp_path / "models")) as app:

        def save(*names: str) -> Any:
            for name in names:
                info = [
                    {"name": "Liver", "idx": 1},
                    {"name": "$import('os')", "idx": 2},
                    {"name": "DOE^JOHN", "idx": 3},
                ]
                app.datastore().save_label(name, str(labelled / f"{name}_label.nii.gz"), "final", {"label_info": info})
            return app

        yield save


class Pretended:
    """Stands in for the bundle's workflows: scores by file, and weights that differ from those it starts from.

    Args:
        scores: mean Dice by the last part of a checkpoint's path; what is trained is called ``model.pt``.
    """

    def __init__(self, **scores: float) -> None:
        self.scores = {name.replace("_pt", ".pt"): value for name, value in scores.items()}
        self.datalists: list[dict[str, Any]] = []
        self.said = "StatsHandler: Epoch[1] Metrics -- dice: 0.5"

    def __call__(self, command: list[str], folder: Path, relay: Callable[[str], None]) -> None:
        given = dict(zip(command[4::2], command[5::2], strict=True))
        output, checkpoint = Path(given["--output_dir"]), Path(given["--checkpoint"])
        output.mkdir()
        self.datalists.append(json.loads(Path(given["--datalist"]).read_text()))
        relay(self.said)
        if given["--config_file"].endswith("train.json"):
            self.train(checkpoint, output)
        else:
            name = checkpoint.name if checkpoint.name in self.scores else "old.pt"
            dice = {"zoom": {kind: {"mean": self.scores[name], "n": 3} for kind in ("text", "point", "box")}}
            (output / "summary.json").write_text(json.dumps({"dice": dice}))

    def train(self, checkpoint: Path, output: Path) -> None:
        content = torch.load(checkpoint, weights_only=True)
        changed = {
            name: value * 0.5 if name.startswith("mask_decoder.") and value.is_floating_point() else value
            for name, value in content["model"].items()
        }
        torch.save({**content, "model": changed}, output / "model.pt")


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Pretended]:
    def put(pretended: Pretended) -> Pretended:
        monkeypatch.setattr(bundle_run, "run", pretended)
        return pretended

    return put


def left(app: Any) -> set[str]:
    """What lies in the folder of the weights, but for the lock."""
    return {path.name for path in app.own.folder.iterdir() if path.name != f".{app.own.name}.lock"}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_real_fine_tune_trains_judges_and_keeps_the_better(fresh):
    app, before = fresh(*FOLLOWED), sha256(SMALL)
    outcome = app.train({**FEW, "learning_rate": 1e-5})
    scores = outcome["scores"]
    assert scores["before"].keys() == scores["after"].keys() == {"text", "point", "box", "mean"}
    assert all(0 < value < 1 for score in scores.values() for value in score.values())
    assert outcome["taken_over"] is (scores["after"]["mean"] > scores["before"]["mean"])
    assert (app.own.current() is not None) is outcome["taken_over"]
    assert outcome["epoch"] == outcome["total_epochs"] == 1
    assert app.info()["train_stats"]["segvol"] == {**outcome, "left_out": {}}
    assert not [name for name in left(app) if name.startswith(".training")]
    assert sha256(SMALL) == before
    assert app.infer(LIVER)["params"]["weights"]["name"] == outcome.get("weights", "small.pt")


def test_better_weights_are_taken_over_and_the_next_request_uses_them(fresh, pretend):
    app = fresh(*FOLLOWED)
    before = app.infer(LIVER)["params"]
    assert app.infer(LIVER)["params"]["latencies"]["embedding_misses"] == 0
    pretend(Pretended(old_pt=0.5, model_pt=0.6))
    outcome = app.train(FEW)
    assert outcome["taken_over"] and outcome["best_metric"] == 0.6
    after = app.infer(LIVER)["params"]
    assert after["weights"]["name"] == outcome["weights"] and after["latencies"]["embedding_misses"] > 0
    found = app.own.current()
    assert found.provenance["sha256"] == sha256(found.path) == after["weights"]["sha256"]
    assert found.provenance["started_from"] == before["weights"]
    assert found.provenance["scores"]["after"]["mean"] == 0.6
    assert found.provenance["settings"]["max_epochs"] == 1 and "train.json" in " ".join(found.provenance["command"])
    cases = found.provenance["cases"]
    assert (len(cases["train"]), len(cases["validation"])) == (2, 1) and cases["trained_on"] == cases["train"]
    assert app._infers["segvol"].get_path() == str(found.path)


@pytest.mark.parametrize("score", [0.5, 0.4])
def test_weights_that_do_not_score_better_leave_the_old_ones(fresh, pretend, score):
    app = fresh(*FOLLOWED)
    before = app.infer(LIVER)["params"]["weights"]
    pretend(Pretended(old_pt=0.5, model_pt=score))
    outcome = app.train(FEW)
    assert outcome["taken_over"] is False and outcome["best_metric"] == 0.5 and "weights" not in outcome
    assert left(app) == {f"{app.own.name}.last.json"}
    after = app.infer(LIVER)["params"]
    assert after["weights"] == before and after["latencies"]["embedding_misses"] == 0


def test_the_next_training_starts_from_them_and_is_judged_by_the_same_case(fresh, pretend):
    app = fresh(*FOLLOWED)
    pretended = pretend(Pretended(old_pt=0.5, model_pt=0.6))
    app.train(FEW)
    first = app.own.current()
    app.train(FEW)
    second = app.own.current()
    assert second.provenance["started_from"]["sha256"] == first.provenance["sha256"] == sha256(first.path)
    assert second.provenance["cases"] == first.provenance["cases"]
    assert first.path.is_file() and second.path != first.path
    assert pretended.datalists[0] == pretended.datalists[-1]


def test_the_datalist_has_the_vocabularys_names_and_none_of_a_users_words(fresh, pretend):
    pretended = pretend(Pretended(old_pt=0.5, model_pt=0.5))
    fresh(*FOLLOWED).train(FEW)
    for case in pretended.datalists[0]["cases"]:
        assert case["labels"]["1"] == "liver"
        assert {name for value, name in case["labels"].items() if value != "1"} == {None}
    text = json.dumps(pretended.datalists)
    assert not any(word in text for word in ("DOE", "import", "$", "three"))


@pytest.mark.parametrize("names", [(), ("one",)])
def test_too_few_labels_are_told_before_anything_is_started(fresh, pretend, names):
    app = fresh(*names)
    pretend(None)  # calling it would fail
    with pytest.raises(ValueError, match=f"^there are {len(names)} finished labels that can be used; training needs"):
        app.check_training("segvol", {})
    with pytest.raises(HTTPException) as caught:
        app.train(FEW)
    assert caught.value.status_code == 400 and caught.value.detail.startswith(f"there are {len(names)} finished labels")


def test_a_label_on_another_grid_is_left_out_and_counted(fresh, pretend, tmp_path):
    app = fresh("one", "two")
    nib.save(nib.Nifti1Image(np.ones((4, 4, 4), np.uint8), np.eye(4)), tmp_path / "label.nii.gz")
    app.datastore().save_label("three", str(tmp_path / "label.nii.gz"), "final", {})
    pretended = pretend(Pretended(old_pt=0.5, model_pt=0.5))
    assert app.train(FEW)["left_out"] == 1 and len(pretended.datalists[0]["cases"]) == 2
    assert "another grid" in app.info()["train_stats"]["segvol"]["left_out"]["three"]


def test_a_step_that_fails_leaves_the_weights_and_tells_why(fresh, pretend):
    class Failing(Pretended):
        def train(self, checkpoint: Path, output: Path) -> None:
            (output / "model.pt").write_bytes(b"half")
            raise bundle_run.RunFailed("out of memory")

    app = fresh(*FOLLOWED)
    pretend(Failing(old_pt=0.5, model_pt=0.9))
    with pytest.raises(bundle_run.RunFailed, match="out of memory"):
        app.train(FEW)
    assert left(app) == {f"{app.own.name}.last.json"} and app.own.current() is None
    assert app.info()["train_stats"]["segvol"]["failed"] == "out of memory"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (HTTPException(502, "the image archive does not answer"), "the image archive does not answer"),
        (MONAILabelException(MONAILabelError.INVALID_INPUT, "no volume"), "no volume"),
        (OSError(28, "No space left on device", "one.nii.gz"), "No space left on device"),
        (KeyError(), "KeyError"),
    ],
    ids=["archive", "store", "disk", "unforeseen"],
)
def test_a_training_whose_labels_cannot_be_had_tells_why(fresh, monkeypatch, error, told):
    def fail(folder: Path) -> None:
        raise error

    app = fresh(*FOLLOWED)
    monkeypatch.setattr(app.datastore(), "final_labels", fail)
    with pytest.raises(type(error)):
        app.train(FEW)
    assert app.info()["train_stats"]["segvol"]["failed"] == told


def test_weights_that_were_not_judged_alike_are_not_taken_over(fresh, pretend):
    class Unlike(Pretended):
        def __call__(self, command: list[str], folder: Path, relay: Callable[[str], None]) -> None:
            super().__call__(command, folder, relay)
            summary = folder / "after" / "summary.json"
            if summary.is_file():
                summary.write_text(summary.read_text().replace('"n": 3', '"n": 2'))

    app = fresh(*FOLLOWED)
    pretend(Unlike(old_pt=0.5, model_pt=0.9))
    with pytest.raises(bundle_run.RunFailed, match="not asked for the same structures"):
        app.train(FEW)
    assert app.own.current() is None


def test_a_second_training_is_refused_while_one_runs(fresh, monkeypatch):
    app = fresh(*FOLLOWED)
    monkeypatch.setattr(weights, "BUSY_S", 0.1)
    with app.own.training(), pytest.raises(HTTPException) as caught:
        app.train(FEW)
    assert caught.value.status_code == 409 and "another training runs" in caught.value.detail


def test_viewers_see_how_far_a_training_is(fresh, pretend):
    app = fresh(*FOLLOWED)
    assert app.info()["train_stats"]["segvol"]["total_time"] == "0:00:00"
    seen: list[dict[str, Any]] = []

    class Watched(Pretended):
        def train(self, checkpoint: Path, output: Path) -> None:
            super().train(checkpoint, output)
            seen.append(app.info()["train_stats"]["segvol"])

    pretend(Watched(old_pt=0.5, model_pt=0.5))
    app.train({**FEW, "max_epochs": 7})
    assert (seen[0]["epoch"], seen[0]["total_epochs"], "total_time" in seen[0]) == (1, 7, False)


@pytest.mark.parametrize(
    ("model", "params", "sentence"),
    [
        ("segvol", {"max_epochs": 0}, "max_epochs must be"),
        ("segvol", {"segvol": {"max_epochs": 1}}, "'segvol' is no setting"),
        (None, {"segvol": {"val_split": 2}}, "val_split must be"),
        (None, {"segvol": [1]}, "segvol must be an object"),
        (None, {"other": {}}, "'other' is no setting"),
        (None, {"segvol": {}, "epochs": 3}, "'epochs' is no setting"),
    ],
)
def test_a_request_that_cannot_be_trained_by_is_one_sentence(fresh, model, params, sentence):
    app = fresh(*FOLLOWED)
    with pytest.raises(ValueError, match=f"^{sentence}"):
        app.check_training(model, params)


def test_the_options_of_all_trainers_lie_under_their_names(fresh):
    fresh(*FOLLOWED).check_training(None, {"segvol": {"max_epochs": 3}, "client_id": "user"})


@pytest.mark.parametrize("sign", "$@%#")
def test_a_folder_of_weights_that_a_config_would_misread_is_refused(starting, tmp_path, sign):
    folder = str(tmp_path / f"a{sign}b")
    refused = pytest.raises(ValueError, match="^models is .*; the path must be free of")
    with refused as caught, starting(tmp_path, models=folder):
        pass
    assert "\n" not in str(caught.value)
