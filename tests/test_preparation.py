"""The preparation of one case, and what a preparation keeps, skips and removes."""

import json
import os
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from monai.transforms import Compose, CropForegroundd, Orientationd
from scripts.data.catalogue import DataSet
from scripts.data.outcome import Outcome
from scripts.data.patients.earlier import moved, prepared_sets, splits_of, with_splits
from scripts.data.preparation import prepare_case
from scripts.data.records import finished, forget, key_of, records_in, sweep_set, write_record
from scripts.data.selection import Selection
from scripts.data.set_files import write_sets
from scripts.data.settings import read_settings
from scripts.data.storage.store import open_case
from scripts.data.whole_files import remove, sweep, whole_file
from scripts.training.pseudo_masks import PseudoMasksd
from scripts.transforms import CheckLabelGridd, LoadVolumed, NormalizeForegroundd
from scripts.vocabulary import Vocabulary
from small_sets import add_case, tree_of, values_of

NAMES = {str(value): name for name, value in values_of("AMOS22").items()}
CASE = "AMOS22_amos_0001"
PSEUDO = {"pseudo_rule": "adaptive", "pseudo_neighbours": "six", "pseudo_shape": [16, 32, 32]}
RECIPE = {"axcodes": "SAR", **PSEUDO}
BOTH = ("image", "label")
MODEL_FRAME = [
    Orientationd(BOTH, axcodes="SAR", labels=None, allow_missing_keys=True),
    NormalizeForegroundd("image"),
    CropForegroundd(BOTH, source_key="image", allow_smaller=True, allow_missing_keys=True),
]
TRANSFORM = Compose([*MODEL_FRAME, PseudoMasksd("image", shape=(16, 32, 32))])
FILES = {
    f"cases/{CASE}.json",
    f"thumbnails/{CASE}.png",
    *(f"prepared/{CASE}/{name}" for name in ("image.b2nd", "label.b2nd", "pseudo_mask.b2nd", "index.json")),
    f"prepared/{CASE}/centres.npy",
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("amos")
    add_case(folder, "AMOS22", "amos_0001", 1)
    return folder


@pytest.fixture
def raw_case(source: Path) -> dict:
    return {
        "case": CASE,
        "data_set": "AMOS22",
        "patient": "AMOS22/amos_0001",
        "image": {"kind": "file", "path": str(source / "imagesTr" / "amos_0001.nii.gz")},
        "label": {"kind": "map", "path": str(source / "labelsTr" / "amos_0001.nii.gz")},
        "labels": NAMES,
        "complete": False,
        "split": None,
    }


def voxels_of(path: Path | str) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


# ---------------------------------------------------------------- one case


def test_a_case_is_stored_as_training_would_prepare_it(raw_case, tmp_path):
    record = prepare_case(raw_case, tmp_path, TRANSFORM, RECIPE)
    reading = [LoadVolumed("image"), LoadVolumed("label", check=False)]
    trained = Compose([*reading, MODEL_FRAME[0], CheckLabelGridd("label"), *MODEL_FRAME[1:], TRANSFORM.transforms[-1]])
    expected = trained({key: raw_case[key]["path"] for key in BOTH})
    stored = open_case(tmp_path / "prepared" / CASE)
    assert stored.settings == RECIPE
    for key in ("image", "label", "pseudo_mask"):
        grid = expected[key][0].numpy().astype(np.float16 if key == "image" else np.int16)
        np.testing.assert_array_equal(stored.grids[key].read(), grid)
    assert record["prepared"]["pseudo_masks"] == int(expected["pseudo_mask"].max()) > 0
    assert set(tree_of(tmp_path)) == FILES


def test_a_record_says_where_each_structure_lies(raw_case, tmp_path):
    record = prepare_case(raw_case, tmp_path, TRANSFORM, RECIPE)
    assert record == json.loads((tmp_path / "cases" / f"{CASE}.json").read_text())
    label = nib.load(raw_case["label"]["path"])
    for name in ("liver", "left kidney", "right kidney"):
        mask = np.asarray(label.dataobj) == values_of("AMOS22")[name]
        assert record["structures"][name]["voxels"] == mask.sum() > 0
        centre = nib.affines.apply_affine(label.affine, np.argwhere(mask).mean(axis=0))
        np.testing.assert_allclose(record["structures"][name]["centroid_ras"], centre, atol=0.01)
    assert record["structures"]["left kidney"]["centroid_ras"][0] < record["body_centroid_ras"][0]
    assert (record["image"], record["label"]) == tuple(raw_case[key]["path"] for key in BOTH)


def test_a_label_that_is_stored_the_other_way_round_lies_where_it_belongs(raw_case, tmp_path):
    label = nib.load(raw_case["label"]["path"])
    path = tmp_path / "turned.nii.gz"
    turned = nib.orientations.axcodes2ornt("LPI")
    nib.save(label.as_reoriented(turned), path)
    case = {**raw_case, "label": {"kind": "map", "path": str(path)}}
    record = prepare_case(case, tmp_path / "turned", TRANSFORM, RECIPE)
    straight = prepare_case(raw_case, tmp_path / "straight", TRANSFORM, RECIPE)
    assert record["structures"] == straight["structures"]
    assert record["label"] == str(path)
    stored = [tree_of(tmp_path / name / "prepared") for name in ("turned", "straight")]
    assert stored[0] == stored[1]


def test_files_for_each_structure_become_one_label_map_in_the_grid_of_the_image(raw_case, tmp_path):
    label = nib.load(raw_case["label"]["path"])
    files = []
    for value in (1, 6):
        path = tmp_path / "organs" / f"{NAMES[str(value)]}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        nib.save(nib.Nifti1Image((np.asarray(label.dataobj) == value).astype(np.uint8), label.affine), path)
        files.append({"path": str(path), "value": value})
    out = tmp_path / "out"
    record = prepare_case({**raw_case, "label": {"kind": "files", "files": files}}, out, TRANSFORM, RECIPE)
    assert record["label"] == f"labels/{CASE}.nii.gz"
    written = nib.load(out / record["label"])
    expected = np.where(np.isin(label.dataobj, (1, 6)), label.dataobj, 0)
    np.testing.assert_array_equal(np.asarray(written.dataobj), expected)
    np.testing.assert_allclose(written.affine, label.affine)
    assert written.get_data_dtype() == np.uint8


def test_an_array_of_the_processed_release_is_written_as_an_image_with_its_label(raw_case, source, tmp_path):
    from scipy import sparse

    image = voxels_of(raw_case["image"]["path"]).astype(np.float32).transpose(2, 1, 0)
    masks = np.stack([voxels_of(raw_case["label"]["path"]).transpose(2, 1, 0) == value for value in (1, 6)])
    np.save(tmp_path / "image.npy", image[None])
    mask_file = tmp_path / f"mask_({', '.join(map(str, masks.shape))}).npz"
    sparse.save_npz(mask_file, sparse.csr_matrix(masks.reshape(2, -1)))
    case = {
        **raw_case,
        "image": {"kind": "array", "path": str(tmp_path / "image.npy")},
        "label": {"kind": "sparse", "path": str(mask_file)},
        "labels": {"1": "spleen", "2": "liver"},
    }
    record = prepare_case(case, tmp_path / "out", TRANSFORM, RECIPE)
    assert (record["image"], record["label"]) == (f"images/{CASE}.nii.gz", f"labels/{CASE}.nii.gz")
    np.testing.assert_array_equal(voxels_of(tmp_path / "out" / record["image"]), image.transpose(2, 1, 0))
    written = voxels_of(tmp_path / "out" / record["label"])
    np.testing.assert_array_equal(written == 2, masks[1].transpose(2, 1, 0))


def test_an_image_without_a_label_is_prepared_without_label_and_pseudo_masks(raw_case, tmp_path):
    case = {**raw_case, "label": None, "labels": {}}
    record = prepare_case(case, tmp_path, Compose(MODEL_FRAME), {"axcodes": "SAR"})
    assert (record["label"], record["structures"]) == (None, {})
    assert record["prepared"]["pseudo_masks"] == 0
    assert set(open_case(tmp_path / "prepared" / CASE).grids) == {"image"}


def test_what_is_done_is_not_touched_and_a_change_of_its_files_or_recipe_does_it_anew(raw_case, source, tmp_path):
    first = prepare_case(raw_case, tmp_path, TRANSFORM, RECIPE)
    ages = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert prepare_case(raw_case, tmp_path, TRANSFORM, RECIPE) == first
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == ages
    before = tree_of(tmp_path)
    label = Path(raw_case["label"]["path"])
    os.utime(label, ns=(0, label.stat().st_mtime_ns + 10**9))
    again = prepare_case(raw_case, tmp_path, TRANSFORM, RECIPE)
    assert again["key"] != first["key"] and {**again, "key": first["key"]} == first
    changed = {path for path, content in tree_of(tmp_path).items() if content != before[path]}
    assert changed == {f"cases/{CASE}.json"}
    other = prepare_case(raw_case, tmp_path, Compose(MODEL_FRAME), {"axcodes": "SAR"})
    assert other["key"] != again["key"]
    assert f"prepared/{CASE}/pseudo_mask.b2nd" not in tree_of(tmp_path)


@pytest.mark.parametrize("lost", [f"cases/{CASE}.json", f"thumbnails/{CASE}.png", f"prepared/{CASE}/index.json"])
def test_a_case_whose_file_is_gone_is_not_done(lost, raw_case, tmp_path):
    key = prepare_case(raw_case, tmp_path, TRANSFORM, RECIPE)["key"]
    assert finished(tmp_path, CASE, key) is not None
    assert finished(tmp_path, CASE, "another") is None
    (tmp_path / lost).unlink()
    assert finished(tmp_path, CASE, key) is None


def test_a_case_that_fails_leaves_no_record_and_nothing_of_its_former_self(raw_case, tmp_path):
    prepare_case(raw_case, tmp_path, TRANSFORM, RECIPE)

    def fail(grids):
        raise MemoryError("no room")

    with pytest.raises(MemoryError):
        prepare_case(raw_case, tmp_path, fail, {"axcodes": "PIR"})
    assert not [path for path in tree_of(tmp_path) if path.startswith(("cases", "prepared"))]


def test_a_shifted_label_is_refused(raw_case, tmp_path):
    label = nib.load(raw_case["label"]["path"])
    shifted = label.affine.copy()
    shifted[0, 3] += 25
    path = tmp_path / "shifted.nii.gz"
    nib.save(nib.Nifti1Image(np.asarray(label.dataobj), shifted), path)
    with pytest.raises(ValueError, match="label grid differs from the image's"):
        prepare_case({**raw_case, "label": {"kind": "map", "path": str(path)}}, tmp_path / "out", TRANSFORM, RECIPE)
    assert not list((tmp_path / "out").rglob("*.json"))


# ---------------------------------------------------------------- keys and leftovers


def test_a_key_knows_every_file_of_a_folder(raw_case, tmp_path):
    (tmp_path / "series").mkdir()
    (tmp_path / "series" / "1.dcm").write_bytes(b"1")
    case = {**raw_case, "image": {"kind": "dicom", "path": str(tmp_path / "series")}}
    keys = {key_of(case, RECIPE)}
    (tmp_path / "series" / "2.dcm").write_bytes(b"2")
    keys.add(key_of(case, RECIPE))
    keys.add(key_of({**case, "labels": {"1": "liver"}}, RECIPE))
    keys.add(key_of(case, {}))
    assert len(keys) == 4 and key_of(case, RECIPE) in keys


def test_a_key_knows_the_voxels_beside_a_header(raw_case, tmp_path):
    for name, content in (("ct.mhd", b"header"), ("ct.raw", b"1"), ("other.raw", b"1")):
        (tmp_path / name).write_bytes(content)
    case = {**raw_case, "image": {"kind": "file", "path": str(tmp_path / "ct.mhd")}}
    first = key_of(case, RECIPE)
    (tmp_path / "other.raw").write_bytes(b"12")
    assert key_of(case, RECIPE) == first
    (tmp_path / "ct.raw").write_bytes(b"12")
    assert key_of(case, RECIPE) != first


def test_a_file_is_seen_whole_or_not_at_all(tmp_path):
    path = tmp_path / "there" / "x.txt"
    with pytest.raises(RuntimeError), whole_file(path) as part:
        part.write_text("half")
        raise RuntimeError
    assert not list(path.parent.iterdir())
    with whole_file(path) as part:
        part.write_text("whole")
        assert not path.exists() and part.name.startswith(".") and part.suffix == ".txt"
    assert [p.name for p in path.parent.iterdir()] == ["x.txt"]


def test_leftovers_of_killed_writers_are_swept_and_nothing_else(tmp_path):
    for folder in ("cases", "prepared"):
        (tmp_path / folder).mkdir()
    leftover = f".part-{'0' * 32}.case"
    (tmp_path / "cases" / f"{leftover}.json").write_text("{")
    (tmp_path / "prepared" / leftover).mkdir()
    (tmp_path / "prepared" / leftover / "image.b2nd").write_bytes(b"")
    kept = [tmp_path / "cases" / ".part-mine.json", tmp_path / "cases" / "a.json", tmp_path / ".git"]
    for path in kept:
        path.write_text("{}")
    sweep_set(tmp_path)
    assert sorted(path for path in tmp_path.rglob("*") if path.is_file()) == sorted(kept)
    assert not list((tmp_path / "prepared").iterdir())
    sweep(tmp_path / "nowhere")


def test_forgetting_a_case_leaves_the_others(tmp_path):
    for case in ("a", "b"):
        write_record(tmp_path, {"case": case})
        (tmp_path / "prepared" / case).mkdir(parents=True)
        (tmp_path / "prepared" / case / "index.json").write_text("{}")
    forget(tmp_path, "a")
    forget(tmp_path, "never there")
    assert set(tree_of(tmp_path)) == {"cases/b.json", "prepared/b/index.json"}
    assert not (tmp_path / "prepared" / "a").exists()
    remove(tmp_path / "nowhere")


def test_a_damaged_record_is_no_record(tmp_path):
    write_record(tmp_path, {"case": "a", "key": "k"})
    (tmp_path / "cases" / "b.json").write_text('{"case": "b", ')
    (tmp_path / "cases" / "c.json").write_text('{"case": "other"}')
    assert [record["case"] for record in records_in(tmp_path)] == ["a"]
    assert finished(tmp_path, "b", "k") is None


# ---------------------------------------------------------------- earlier sets


def prepared_set(folder: Path, **splits: list[str]) -> Path:
    lists = {key: [{"case": case} for case in cases] for key, cases in splits.items()}
    for cases in splits.values():
        for case in cases:
            write_record(folder, {"case": case})
    (folder / "datalist.json").write_text(json.dumps({"drawn": {"seed": 0}, **lists}))
    return folder


def test_sets_beside_are_found_as_a_set_a_datalist_or_a_folder_of_sets(tmp_path):
    sets = [prepared_set(tmp_path / top / name, test=["a"]) for top in ("one", "two") for name in ("A", "B")]
    assert prepared_sets(tmp_path / "one", [tmp_path / "two"]) == sets
    assert prepared_sets(tmp_path / "one", [sets[2], sets[3] / "datalist.json", sets[0]]) == sets
    assert prepared_sets(tmp_path / "nowhere", []) == []
    with pytest.raises(ValueError, match="^beside: .*empty is no set that prepare.json has prepared"):
        prepared_sets(tmp_path, [tmp_path / "empty"])


def test_an_earlier_set_gives_its_records_with_their_splits(tmp_path):
    folder = prepared_set(tmp_path / "A", training=["a", "b"], test=["c"])
    write_record(folder, {"case": "of another run"})
    assert {record["case"]: record["split"] for record in with_splits(folder)} == {
        "a": "train",
        "b": "train",
        "c": "test",
    }
    assert splits_of(folder, {"seed": 0}).keys() == {"a", "b", "c"}
    assert splits_of(folder, {"seed": 1}) == {}


def test_a_case_moves_to_the_list_of_its_new_split(tmp_path):
    path = prepared_set(tmp_path / "A", training=["a", "b"], test=["c"]) / "datalist.json"
    assert moved(path, {"a": "train", "elsewhere": "test"}) is None
    content = moved(path, {"b": "test"})
    assert content is not None
    assert {key: [entry["case"] for entry in content[key]] for key in ("training", "validation", "test")} == {
        "training": ["a"],
        "validation": [],
        "test": ["b", "c"],
    }


def test_images_without_a_label_in_a_labelled_set_have_a_datalist_of_their_own(raw_case, tmp_path, bundle):
    folder = tmp_path / "mine"
    data_set = DataSet("mine", (), 0, 0, "", "", "", "train", ({"kind": "generic"},), {})
    settings = read_settings("mine", "anywhere", output_dir=tmp_path)
    bare = {**raw_case, "case": "AMOS22_bare", "patient": "AMOS22/bare", "label": None, "labels": {}}
    selection = Selection(data_set, folder, [raw_case, bare], [])
    outcome = Outcome([selection])
    for case in (raw_case, bare):
        outcome.add(folder, case["case"], prepare_case(case, folder, Compose(MODEL_FRAME), {"axcodes": "SAR"}))
    write_sets(settings, [selection], outcome, Vocabulary.load(bundle / "configs" / "vocabulary.json"))
    assert outcome.counts() == {"prepared": 2, "done": 0, "left_out": 0}
    for name, case, labelled in (("datalist", CASE, True), ("unlabelled", "AMOS22_bare", False)):
        content = json.loads((folder / f"{name}.json").read_text())
        (entry,) = (entry for key in ("training", "validation", "test") for entry in content[key])
        assert (entry["case"], "label" in entry) == (case, labelled)
    assert splits_of(folder).keys() == {CASE, "AMOS22_bare"}


# ---------------------------------------------------------------- what the user chose


def test_one_set_or_several_are_named_with_their_folders():
    assert read_settings("AMOS22", "/data/amos").data_sets == {"AMOS22": Path("/data/amos")}
    several = read_settings(data_sets={"AMOS22": "/a", 27: "/b"}).data_sets
    assert several == {"AMOS22": Path("/a"), "27": Path("/b")}
    assert read_settings("A", "b", output_dir="out").output_dir == Path.cwd() / "out"


def test_a_missing_library_is_told_before_anything_else(monkeypatch):
    monkeypatch.setitem(sys.modules, "blosc2", None)
    with pytest.raises(SystemExit, match="^prepared cases need Blosc2, which the data extra installs"):
        read_settings("AMOS22", "/data/amos")


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "data_set is missing; it takes the name of a set"),
        ({"data_sets": {"AMOS22": None}}, "data_sets, AMOS22 is missing; it takes a folder"),
        ({"data_set": "A", "data_sets": {"A": "b"}}, "data_sets names the sets and their folders"),
        ({"data_sets": "AMOS22"}, "data_sets is 'AMOS22'; it takes {'AMOS22': '/data/amos22', ...}"),
        ({"data_set": "A", "data_dir": "b", "workers": -1}, "workers is -1; allowed is a whole number of at least 0"),
        ({"data_set": "A", "data_dir": "b", "workers": 1, "scheduler": "tcp://a:1"}, "workers is 1 and scheduler is"),
        ({"data_set": "A", "data_dir": "b", "test_share": 1}, "test_share is 1; allowed is a number of at least 0"),
        ({"data_set": "A", "data_dir": "b", "validation_share": 0.8}, "test_share is 0.2 and validation_share 0.8"),
        ({"data_set": "A", "data_dir": "b", "images_only": "no"}, "images_only is 'no'; allowed are true and false"),
        ({"data_set": "A", "data_dir": "b", "seed": 0.5}, "seed is 0.5"),
        ({"data_set": "A", "data_dir": "b", "output_dir": []}, r"output_dir is \[\]; it takes one path"),
    ],
)
def test_a_mistake_is_told_in_one_line(given, told):
    with pytest.raises(SystemExit, match=f"^{told}"):
        read_settings(**given)
