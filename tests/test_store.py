"""The store gives back what was written, reads what is asked for, and is never there in part."""

import json
import pickle
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import blosc2
import numpy as np
import pytest
from scripts.data.storage.places import CENTRES, find_places
from scripts.data.storage.store import StoredCase, open_case, write_case
from scripts.data.whole_files import sweep
from torch.utils.data import DataLoader, Dataset

SHAPE = (9, 70, 37)
SETTINGS = {"axcodes": "SAR", "pseudo_rule": "adaptive", "pseudo_shape": (32, 256, 256)}


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def grids(seed: int = 0) -> dict[str, np.ndarray]:
    label = np.zeros(SHAPE, np.int16)
    label[1:4, 5:60, 3:9], label[6, 69, 36], label[2:8, 20:30, 10:20] = 3, 1, 7
    regions = rng(seed).integers(0, 500, SHAPE).astype(np.int32)
    return {"image": rng(seed).random(SHAPE, np.float32), "label": label, "pseudo_mask": regions}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_case(tmp_path / "case", grids(), SETTINGS)
    return tmp_path / "case"


# ---------------------------------------------------------------- what was written


def test_what_was_written_is_read_in_its_smallest_type(folder: Path):
    case, given = open_case(folder), grids()
    types = {"image": np.float16, "label": np.uint8, "pseudo_mask": np.int16}
    assert {name: grid.dtype for name, grid in case.grids.items()} == {n: np.dtype(t).name for n, t in types.items()}
    for name, grid in case.grids.items():
        assert grid.shape == SHAPE and grid.read().dtype == types[name]
        assert np.array_equal(grid.read(), given[name].astype(types[name]))
    assert case.mean == pytest.approx(given["image"].mean(), abs=1e-4)
    assert case.settings == SETTINGS | {"pseudo_shape": [32, 256, 256]}


def test_an_image_may_stand_alone_and_label_values_may_be_large(tmp_path: Path):
    image = grids()["image"]
    write_case(tmp_path / "new" / "alone", {"image": image}, {})
    case = open_case(tmp_path / "new" / "alone")
    assert list(case.grids) == ["image"] and not len(case.places) and case.settings == {}
    write_case(tmp_path / "large", {"image": image, "label": grids()["label"] * 1000.0}, {})
    label = open_case(tmp_path / "large").grids["label"]
    assert label.dtype == "int16" and label.read().max() == 7000


def test_any_places_are_read_also_twice_and_in_any_order(folder: Path):
    case, given = open_case(folder), grids()["image"].astype(np.float16)
    for seed in range(40):
        places = [rng((seed, n)).integers(0, n, rng((n, seed)).integers(1, 2 * n)) for n in SHAPE]
        assert np.array_equal(case.grids["image"].take(places), given[np.ix_(*places)])
    for first, last in ((0, 9), (3, 4), (2, 8)):
        places = [np.arange(first, last), np.arange(first, 40), np.arange(first, 37)]
        assert np.array_equal(case.grids["image"].take(places), given[np.ix_(*places)])
    assert case.grids["image"].take([np.arange(0), np.arange(3), np.arange(2)]).shape == (0, 3, 2)


def test_structures_are_found_where_they_lie(folder: Path):
    places, label = open_case(folder).places, grids()["label"]
    assert places.values.tolist() == [1, 3, 7]
    assert places.extents.tolist() == [
        [[6, 69, 36], [6, 69, 36]],
        [[1, 5, 3], [3, 59, 8]],
        [[2, 20, 10], [7, 29, 19]],
    ]
    assert (places.bounds[:, 1] - places.bounds[:, 0]).tolist() == [1, CENTRES, CENTRES]
    for value, (first, last) in zip(places.values, places.bounds, strict=True):
        voxels = {tuple(places.centres[row]) for row in range(first, last)}
        assert len(voxels) == last - first and all(label[voxel] == value for voxel in voxels)
    chosen = places.of([7, 2, 1])
    assert chosen.values.tolist() == [7, 1] and chosen.extents[1].tolist() == [[6, 69, 36]] * 2
    assert {int(label[tuple(chosen.centre(rng(seed)))]) for seed in range(20)} == {1, 7}


def test_the_places_on_disk_are_those_in_memory(folder: Path):
    stored, found = open_case(folder).places, find_places(grids()["label"])
    for seed in range(20):
        assert stored.centre(rng(seed)).tolist() == found.centre(rng(seed)).tolist()
        assert stored.extent(rng(seed)).tolist() == found.extent(rng(seed)).tolist()


# ---------------------------------------------------------------- whole or not at all, and the same bytes


def test_the_same_case_gives_the_same_bytes(folder: Path, tmp_path: Path):
    size = write_case(tmp_path / "again", grids(), dict(reversed(SETTINGS.items())))
    assert contents(folder) == contents(tmp_path / "again")
    assert size == sum(map(len, contents(folder).values()))


def test_a_case_is_replaced_whole_and_leaves_nothing_beside_it(folder: Path, tmp_path: Path):
    write_case(folder, {"image": grids(1)["image"]}, SETTINGS)
    assert set(contents(folder)) == {"image.b2nd", "index.json"}
    assert [path.name for path in tmp_path.iterdir()] == ["case"]


def test_a_writer_that_fails_leaves_the_former_case(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def broken(path: Path, _: Any) -> None:
        path.write_bytes(b"{")
        raise OSError("the disk is full")

    before = contents(folder)
    monkeypatch.setattr("scripts.data.storage.store.write_json", broken)
    with pytest.raises(OSError, match="full"):
        write_case(folder, grids(1), SETTINGS)
    assert contents(folder) == before and [path.name for path in tmp_path.iterdir()] == ["case"]


def test_what_a_killed_writer_leaves_is_hidden_and_swept(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("scripts.data.whole_files.os.replace", lambda *_: (_ for _ in ()).throw(OSError("killed")))
    monkeypatch.setattr("scripts.data.whole_files.shutil.rmtree", lambda *_, **__: None)
    with pytest.raises(OSError, match="killed"):
        write_case(tmp_path / "other", grids(), SETTINGS)
    monkeypatch.undo()
    (left,) = [path for path in tmp_path.iterdir() if path != folder]
    assert left.name.startswith(".part-") and left.name.endswith(".other")
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["case"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"image": None}, "grids are .*; allowed are image"),
        ({"names": np.zeros(SHAPE)}, "grids are .*names.*; allowed are image"),
        ({"label": np.zeros((9, 70, 36))}, "grids have the shapes .*; allowed is one"),
        ({"label": np.full(SHAPE, np.nan)}, "label has the values nan to nan"),
        ({"label": np.full(SHAPE, -1)}, "label has the values -1 to -1; allowed are whole numbers from 0 to 32767"),
        ({"pseudo_mask": np.full(SHAPE, 40000)}, "pseudo_mask has the values 40000 to 40000"),
        ({"label": np.full(SHAPE, 0.5)}, "label has values between whole numbers"),
    ],
)
def test_grids_that_cannot_be_kept_are_told_in_one_line(change: dict[str, Any], told: str, tmp_path: Path):
    given = {name: grid for name, grid in (grids() | change).items() if grid is not None}
    with pytest.raises(ValueError, match=told) as caught:
        write_case(tmp_path / "case", given, SETTINGS)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


# ---------------------------------------------------------------- damaged and foreign folders


def changed_index(folder: Path, **more: Any) -> None:
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(index | more))


def truncate(folder: Path) -> None:
    (folder / "image.b2nd").write_bytes((folder / "image.b2nd").read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (shutil.rmtree, "holds no index.json that can be read"),
        (lambda folder: (folder / "index.json").write_bytes(b"\x80\x04"), "holds no index.json that can be read"),
        (lambda folder: (folder / "index.json").write_text("[]"), "is of format None; this version reads 1"),
        (lambda folder: changed_index(folder, format=2), "is of format 2; this version reads 1"),
        (lambda folder: changed_index(folder, types={"image": "object"}), "index.json is damaged"),
        (lambda folder: changed_index(folder, types={"other": "int16"}), "index.json is damaged"),
        (lambda folder: changed_index(folder, types={}), "index.json is damaged"),
        (lambda folder: changed_index(folder, shape=None), "index.json is damaged"),
        (lambda folder: changed_index(folder, extents=[[1, 2]]), "index.json is damaged"),
        (lambda folder: changed_index(folder, centres=[1]), "index.json is damaged"),
        (lambda folder: changed_index(folder, files=3), "index.json is damaged"),
        (lambda folder: changed_index(folder, files={}), "index.json is damaged"),
        (truncate, r"image.b2nd has \d+ bytes of \d+; it is damaged"),
        (lambda folder: (folder / "label.b2nd").unlink(), "lacks label.b2nd"),
    ],
)
def test_a_folder_that_is_no_whole_case_is_told_in_one_line(damage: Callable[[Path], Any], told: str, folder: Path):
    damage(folder)
    with pytest.raises(ValueError, match=told) as caught:
        open_case(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def put(folder: Path, write: Callable[[str], Any]) -> StoredCase:
    """The case with another image file, of which the index knows the size."""
    path = folder / "image.b2nd"
    path.unlink()
    write(str(path))
    files = json.loads((folder / "index.json").read_text())["files"]
    changed_index(folder, files=files | {"image.b2nd": path.stat().st_size})
    return open_case(folder)


def test_a_file_that_is_another_grid_or_none_is_not_read(folder: Path):
    given = grids()["image"]
    writers: dict[str, Callable[[str], Any]] = {
        "is not the grid": lambda path: blosc2.asarray(given.astype(np.float32), urlpath=path),
        "is not the grid that": lambda path: blosc2.asarray(given.astype(np.float16)[1:], urlpath=path),
        "cannot be read": lambda path: Path(path).write_bytes(pickle.dumps({"a": 1})),
    }
    for told, write in writers.items():
        with pytest.raises(ValueError, match=told):
            put(folder, write).grids["image"].read()


def test_a_file_that_asks_for_code_to_be_run_is_not_read(folder: Path, tmp_path: Path):
    blosc2.asarray(grids()["image"].astype(np.float16), urlpath=str(tmp_path / "operand.b2nd"))
    operand = blosc2.open(str(tmp_path / "operand.b2nd"))
    case = put(folder, lambda path: (operand + operand).save(urlpath=path))
    with pytest.raises(ValueError, match="cannot be read"):
        case.grids["image"].read()


def test_only_the_planes_of_a_view_are_read_and_damage_is_told(tmp_path: Path):
    image = rng().random((12, 64, 64)).astype(np.float32)
    write_case(tmp_path / "case", {"image": image}, {})
    path = tmp_path / "case" / "image.b2nd"
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) * 3 // 4] = bytes(len(content) * 3 // 4 - len(content) // 2)
    path.write_bytes(content)
    grid, across = open_case(tmp_path / "case").grids["image"], np.arange(64)
    for planes in ([0, 1, 2, 3, 4], [10, 11]):
        assert np.array_equal(grid.take([np.array(planes), across, across]), image[planes].astype(np.float16))
    with pytest.raises(ValueError, match=r"prepared: planes 0 to 11 of .*image.b2nd are damaged"):
        grid.read()


# ---------------------------------------------------------------- many readers


class Planes(Dataset):
    """A plane of the image at a time."""

    def __init__(self, case: StoredCase) -> None:
        self.case = case

    def __len__(self) -> int:
        return SHAPE[0]

    def __getitem__(self, index: int) -> np.ndarray:
        return self.case.grids["image"].take([np.array([index]), np.arange(70), np.arange(37)])


def test_processes_and_threads_read_the_same(folder: Path):
    case, given = open_case(folder), grids()["image"].astype(np.float16)
    assert np.array_equal(case.grids["image"].read(), given)  # before the workers are forked
    batches = [batch.numpy() for batch in DataLoader(Planes(case), batch_size=None, num_workers=2)]
    assert np.array_equal(np.concatenate(batches), given)
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(a, given) for a in pool.map(lambda _: case.grids["image"].read(), range(16)))


def test_a_case_that_is_not_read_takes_a_few_kilobytes(tmp_path: Path):
    label = np.arange(120 * 4 * 4, dtype=np.int16).reshape(120, 4, 4) // 16  # 119 structures
    image = rng().random((120, 4, 4))
    write_case(tmp_path / "case", {"image": image, "label": label}, SETTINGS)
    case = open_case(tmp_path / "case")
    assert len(case.places) == 119 and len(pickle.dumps(case)) < 8000
