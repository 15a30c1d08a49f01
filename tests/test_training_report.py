"""The summary of a training says how well each structure is found by each prompt."""

import json
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from scripts.training.report import Report
from scripts.vocabulary import Vocabulary

COMBINATIONS = ("text", "box")


@pytest.fixture
def vocabulary(bundle: Path) -> Vocabulary:
    return Vocabulary.load(bundle / "configs" / "vocabulary.json")


def validate(report: Report, epoch: int, batches: list[dict[str, object]]) -> None:
    """What MONAI's evaluator does with its handler."""
    engine = Engine(lambda _, batch: batch["output"])
    report.attach(engine)
    engine.state.max_epochs, engine.state.epoch = epoch, epoch - 1
    engine.run(batches, max_epochs=epoch, epoch_length=len(batches))


def batch(names: list[str | None], truth: list[int], drawn: list[list[int]], weights: list[list[float]]) -> dict:
    """Masks and answers of so many voxels each, in a row of eight."""
    row = torch.arange(8)
    masks = torch.stack([row < n for n in truth])[:, None, None, None]
    logits = torch.tensor([[[[[1.0 if v < n else -1.0 for v in range(8)]]] for n in kind] for kind in drawn])
    label = {"masks": masks, "weights": torch.tensor(weights)}
    return {"names": names, "output": {"label": label, "pred": {"logits": logits[:, :, None]}}}


def test_each_structure_is_scored_by_each_prompt(vocabulary, tmp_path):
    report = Report(tmp_path / "new", {"seed": 3}, COMBINATIONS, vocabulary)
    first = batch(["kidney_left", None, "spleen"], [4, 2, 0], [[4, 2, 8], [2, 2, 8]], [[1, 0, 1], [1, 1, 0]])
    second = batch(["left kidney"], [4], [[0], [6]], [[1], [1]])
    validate(report, 5, [first, second])
    validate(report, 10, [second])
    summary = json.loads((tmp_path / "new" / "summary.json").read_text())
    assert summary["settings"] == {"seed": 3}
    assert summary["validations"][0] == {
        "epoch": 5,
        "dice": pytest.approx((1 + 0 + 4 / 6 + 8 / 10 + 1) / 5),
        "structures": {
            "text": {"left kidney": {"dice": 0.5, "count": 2}},
            "box": {"(no name)": {"dice": 1.0, "count": 1}, "left kidney": {"dice": 0.7333, "count": 2}},
        },
    }
    assert summary["best"] == {"epoch": 5, "dice": summary["validations"][0]["dice"]}
    assert summary["validations"][1]["structures"]["text"] == {"left kidney": {"dice": 0.0, "count": 1}}


def test_a_resumed_run_keeps_the_validations_before_it(vocabulary, tmp_path):
    one = batch(["liver"], [4], [[4], [4]], [[1], [1]])
    former, later = (Report(tmp_path, {}, COMBINATIONS, vocabulary) for _ in range(2))
    validate(former, 1, [one])
    later.load_state_dict(former.state_dict())
    validate(later, 2, [one])
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [validation["epoch"] for validation in summary["validations"]] == [1, 2]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["summary.json"]


def test_a_validation_in_which_nothing_could_be_asked_has_no_score(vocabulary, tmp_path):
    report = Report(tmp_path, {}, COMBINATIONS, vocabulary)
    validate(report, 1, [batch([None], [0], [[4], [4]], [[0], [0]])])
    (only,) = json.loads((tmp_path / "summary.json").read_text())["validations"]
    assert only == {"epoch": 1, "dice": None, "structures": {"text": {}, "box": {}}}
