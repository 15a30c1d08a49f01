"""No patient crosses a split, shares are exact, and what is settled stays; datalists are read by MONAI and by us."""

import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from monai.data import load_decathlon_datalist
from scripts.data.patients.same_scans import same_scans
from scripts.data.patients.splits import assign, datalist, write_datalist
from scripts.training.datalist import read_datalist, read_images


def record(case: str, patient: str | None = None, scan: str | None = None, **more: Any) -> dict[str, Any]:
    """A case of the set its name begins with; ``scan`` stands for its voxels."""
    data_set = case.split("_")[0]
    exact = {"exact": scan or f"voxels of {case}", "slices": [], "thumbnail": []}
    return {"case": case, "data_set": data_set, "patient": patient, "fingerprint": exact, "split_of_set": None} | more


def shares(records: list[dict], **options: Any) -> tuple[int, int, int]:
    counts = Counter(assign(records, **options).values())
    return counts["train"], counts["validation"], counts["test"]


def random_sets(seed: int) -> list[dict[str, Any]]:
    """Three sets in which patients have several cases, and scans come again in other sets."""
    rng = np.random.default_rng(seed)
    return [
        record(f"{name}_{n}", f"{name}/{rng.integers(40)}", f"scan {rng.integers(150)}")
        for name in ("A", "B", "C")
        for n in range(rng.integers(5, 60))
    ]


@pytest.mark.parametrize(
    ("patients", "expected"),
    [(1, (1, 0, 0)), (2, (1, 0, 1)), (3, (1, 1, 1)), (10, (7, 1, 2)), (13, (9, 1, 3)), (100, (75, 5, 20))],
)
def test_shares_are_rounded_over_patients_with_one_for_test_from_two_on(patients: int, expected: tuple[int, int, int]):
    assert shares([record(f"A_{n}") for n in range(patients)]) == expected


def test_shares_count_patients_and_not_cases():
    records = [record(f"A_{n}_{scan}", f"A/{n}") for n in range(10) for scan in range(n + 1)]
    splits = assign(records)
    by_patient = {r["patient"]: splits[r["case"]] for r in records}
    assert Counter(by_patient.values()) == {"train": 7, "validation": 1, "test": 2}
    assert all(splits[r["case"]] == by_patient[r["patient"]] for r in records)


def test_other_shares_are_kept_and_something_is_left_to_train_on():
    records = [record(f"A_{n}") for n in range(20)]
    assert shares(records, test_share=0, validation_share=0) == (20, 0, 0)
    assert shares(records, test_share=0.5, validation_share=0.25) == (5, 5, 10)
    assert shares(records[:3], test_share=0.5, validation_share=0.49) == (1, 0, 2)
    assert shares(records[:2], test_share=0.99, validation_share=0) == (1, 0, 1)


@pytest.mark.parametrize("seed", range(8))
def test_no_patient_crosses_a_split_within_or_between_sets(seed: int):
    records = random_sets(seed)
    splits = assign(records, seed=seed)
    assert splits.keys() == {r["case"] for r in records}
    for group in same_scans(records):
        assert len({splits[case] for case in group.cases}) == 1
    for key in ("patient", "fingerprint"):
        seen: dict[str, set[str]] = {}
        for r in records:
            seen.setdefault(json.dumps(r[key]), set()).add(splits[r["case"]])
        assert all(len(found) == 1 for found in seen.values())


@pytest.mark.parametrize("seed", range(8))
def test_the_order_of_the_cases_changes_nothing_and_the_seed_does(seed: int):
    records = random_sets(seed)
    splits = assign(records, seed=seed)
    order = np.random.default_rng(seed).permutation(len(records))
    assert assign([records[n] for n in order], seed=seed) == splits
    assert assign(records, seed=seed + 100) != splits


def test_every_set_has_its_own_share_also_where_several_are_split_at_once():
    records = [record(f"{name}_{n}") for name in ("A", "B") for n in range(10)]
    splits = assign(records)
    for name in ("A", "B"):
        assert Counter(split for case, split in splits.items() if case[0] == name) == {
            "train": 7,
            "validation": 1,
            "test": 2,
        }
    assert assign(records[:10]) == {case: split for case, split in splits.items() if case[0] == "A"}


def test_patients_whom_an_earlier_set_placed_keep_their_place():
    first = [record(f"A_{n}", scan=f"scan {n}") for n in range(20)]
    placed = assign(first, seed=1)
    known = [{**r, "split": placed[r["case"]]} for r in first]
    second = [record(f"B_{n}", scan=f"scan {n + 10}") for n in range(20)]
    for seed in range(5):
        splits = assign(second, known, seed=seed)
        assert splits.keys() == {r["case"] for r in second}
        assert all(splits[f"B_{n}"] == placed[f"A_{n + 10}"] for n in range(10))
        assert Counter(splits.values())["test"] == max(4, sum(placed[f"A_{n}"] == "test" for n in range(10, 20)))


def test_a_test_part_of_the_set_wins_and_takes_its_whole_patient_along(caplog: pytest.LogCaptureFixture):
    records = [record(f"A_{n}", scan=f"scan {n}", split_of_set="train") for n in range(6)]
    records += [record("B_0", scan="scan 2", split_of_set="test"), record("B_1"), record("B_2", "B/2")]
    with caplog.at_level(logging.WARNING):
        splits = assign(records)
    assert splits["A_2"] == splits["B_0"] == "test"
    assert Counter(splits[f"A_{n}"] for n in range(6)) == {"train": 5, "test": 1}
    assert [r.getMessage() for r in caplog.records] == [
        "B_0 (test) and A_2 (train) show one patient; both are for test now"
    ]


def test_a_known_case_moves_where_its_patient_is_in_a_test_part_and_the_caller_is_told(
    caplog: pytest.LogCaptureFixture,
):
    known = [record(f"A_{n}", scan=f"scan {n}", split="train") for n in range(4)]
    known.append(record("A_4", scan="scan 4", split="test"))
    external = [record("Z_0", scan="scan 3"), record("Z_1", scan="scan 4"), record("Z_2")]
    with caplog.at_level(logging.WARNING):
        splits = assign(external, known, test_sets=["Z"])
    assert splits == {"Z_0": "test", "Z_1": "test", "Z_2": "test", "A_3": "test"}
    (warning,) = caplog.records
    assert "Z_0 (test) and A_3 (train)" in warning.getMessage()


def test_a_test_part_that_is_large_enough_is_not_added_to():
    records = [record(f"A_{n}", split_of_set="test" if n < 5 else None) for n in range(20)]
    splits = assign(records)
    assert {case for case, split in splits.items() if split == "test"} == {f"A_{n}" for n in range(5)}
    assert Counter(splits.values()) == {"train": 14, "validation": 1, "test": 5}


def test_bad_shares_and_splits_are_told_in_one_line():
    for shares_, told in (
        ((1.0, 0.0), "^test_share is 1.0; allowed"),
        ((0.6, 0.4), "^test_share and validation_share"),
    ):
        with pytest.raises(ValueError, match=told):
            assign([record("A_0")], (), *shares_)
    with pytest.raises(ValueError, match="^split of A_0 is 'tets'; allowed are test, train, validation$"):
        assign([record("A_0", split_of_set="tets")])
    with pytest.raises(ValueError, match="^records: A_0 comes twice"):
        assign([record("A_0"), record("A_0")])


def written(folder: Path) -> Path:
    records = [
        record("A_2", image=str(folder / "images" / "b.nii.gz"), label="labels/A_2.nii.gz", labels={"1": "liver"}),
        record("A_1", "A/1", image="/elsewhere/a.nii", label="/elsewhere/s.nii", labels={"1": None}, complete=True),
        record("A_0", image="images/c.nii.gz", label=None, labels={}),
    ]
    records[0]["prepared"] = {"shape": [1, 2, 3], "bytes": 6, "pseudo_masks": 0}
    splits = {"A_0": "train", "A_1": "test", "A_2": "train"}
    content = datalist(records, splits, {"name": "A", "licence": "CC0", "source": "https://a.example"}, folder)
    assert content == datalist(
        records[::-1], splits, {"name": "A", "licence": "CC0", "source": "https://a.example"}, folder
    )
    write_datalist(folder / "datalist.json", content)
    assert [path.name for path in folder.iterdir()] == ["datalist.json"]
    return folder / "datalist.json"


def test_a_datalist_has_relative_paths_below_its_folder_and_a_settled_order(tmp_path: Path):
    content = json.loads(written(tmp_path).read_text())
    assert list(content) == ["modality", "name", "licence", "source", "training", "validation", "test"]
    assert content["training"] == [
        {"case": "A_0", "image": "images/c.nii.gz", "patient": None, "data_set": "A", "complete": False},
        {
            "case": "A_2",
            "image": "images/b.nii.gz",
            "label": "labels/A_2.nii.gz",
            "labels": {"1": "liver"},
            "patient": None,
            "data_set": "A",
            "complete": False,
            "prepared": "prepared/A_2",
        },
    ]
    assert content["validation"] == [] and content["test"][0]["image"] == "/elsewhere/a.nii"


def test_monai_and_the_bundle_read_what_is_written(tmp_path: Path):
    path = written(tmp_path)
    theirs = load_decathlon_datalist(path, data_list_key="training")
    assert [case["image"] for case in theirs] == [str(tmp_path / "images" / f"{stem}.nii.gz") for stem in "cb"]
    assert theirs[1]["label"] == str(tmp_path / "labels" / "A_2.nii.gz") and theirs[1]["labels"] == {"1": "liver"}
    (ours,) = read_datalist(path, "train")
    assert {key: ours[key] for key in ("image", "label", "labels")} == {
        key: theirs[1][key] for key in ("image", "label", "labels")
    }
    assert ours["prepared"] == str(tmp_path / "prepared" / "A_2")
    (tested,) = read_datalist(path, "test")
    assert tested["image"] == "/elsewhere/a.nii" and tested["complete"] is True and tested["labels"] == {"1": None}
    assert [case["image"] for case in read_images(path, "train")] == [case["image"] for case in theirs]
