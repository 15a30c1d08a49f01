"""The engine with the small network: nothing is done twice, nothing stale is served."""

import os
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from lib.engine import Engine, UserMistake
from lib.memory import Memory
from scripts import transforms

LIVER = {"targets": [{"text": "liver"}]}
CLICK = {"targets": [{"points": [[48, 30, 18]]}]}
TWO = {"targets": [{"text": "liver"}, {"text": "spleen"}]}


@pytest.fixture
def work(small_bundle: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter]:
    """How often a file is read, a volume normalised, a view encoded."""
    counts: Counter = Counter()

    def counted(name: str, call: Any) -> Any:
        def wrapper(*args: Any) -> Any:
            counts[name] += 1
            return call(*args)

        return wrapper

    small_bundle.part("weights")
    network = small_bundle.part("network")
    monkeypatch.setattr(transforms, "load_volume", counted("load", transforms.load_volume))
    monkeypatch.setattr(transforms, "normalise_foreground", counted("preprocess", transforms.normalise_foreground))
    monkeypatch.setattr(network, "encode", counted("encode", network.encode))
    yield counts


def test_a_label_lies_on_the_stored_grid(engine, phantom):
    drawn = engine.segment(phantom, TWO)
    image = nib.load(phantom)
    assert drawn.label.shape == image.shape and drawn.label.dtype == np.uint8
    assert set(np.unique(drawn.label)) == {0, 1, 2}
    np.testing.assert_allclose(drawn.affine, image.affine, atol=1e-6)


def test_the_second_request_loads_prepares_and_encodes_nothing(engine, phantom, work):
    first = engine.segment(phantom, LIVER)
    assert work["load"] == work["preprocess"] == 1 and work["encode"] > 1
    before = work.copy()
    again = engine.segment(phantom, LIVER)
    assert work == before
    assert first.latencies["volume_misses"] == 1 and again.latencies["volume_hits"] == 1
    assert again.latencies["embedding_misses"] == 0
    assert np.array_equal(first.label, again.label) and first.label.any()


def test_another_prompt_uses_the_same_volume_and_view(engine, phantom, work):
    engine.segment(phantom, LIVER, "resize")
    engine.segment(phantom, CLICK, "resize")
    assert work == {"load": 1, "preprocess": 1, "encode": 1}


def test_a_copy_under_another_path_is_the_same_image(engine, phantom, tmp_path, work):
    other = tmp_path / "other.nii.gz"
    other.write_bytes(phantom.read_bytes())
    engine.segment(phantom, LIVER)
    before = work.copy()
    engine.segment(other, LIVER)
    assert work == before


def test_without_room_every_request_does_all_the_work_and_answers_alike(small_bundle, engine, phantom, work):
    bare = Engine(small_bundle, Memory(0))
    first, second = bare.segment(phantom, LIVER), bare.segment(phantom, LIVER)
    assert work["load"] == 2
    assert np.array_equal(first.label, second.label)
    assert np.array_equal(first.label, engine.segment(phantom, LIVER).label)


def test_preparing_ahead_leaves_the_first_request_neither_loading_nor_the_coarse_view(engine, phantom, work):
    engine.zoom_out(phantom)
    before = work.copy()
    engine.segment(phantom, CLICK, "resize")
    assert work == before == {"load": 1, "preprocess": 1, "encode": 1}


@pytest.mark.parametrize("way", ["written", "moved"])
def test_a_replaced_image_is_never_served_stale(engine, small_bundle, phantom, draw_phantom, tmp_path, way):
    path = tmp_path / "ct.nii.gz"
    path.write_bytes(phantom.read_bytes())
    old = engine.segment(path, LIVER)
    other = draw_phantom(tmp_path / "other.nii.gz", 7)
    if way == "written":
        path.write_bytes(other.read_bytes())
    else:
        os.replace(other, path)
    new = engine.segment(path, LIVER)
    assert new.latencies["volume_misses"] == 1
    assert np.array_equal(new.label, Engine(small_bundle, Memory(0)).segment(path, LIVER).label)
    assert not np.array_equal(new.label, old.label)


def test_an_image_replaced_while_it_is_read_is_told_and_not_kept(engine, phantom, draw_phantom, tmp_path, monkeypatch):
    path, load = tmp_path / "ct.nii.gz", transforms.load_volume
    path.write_bytes(phantom.read_bytes())
    other = draw_phantom(tmp_path / "other.nii.gz", 7).read_bytes()

    def late(file: Path) -> Any:
        path.write_bytes(other)
        return load(file)

    monkeypatch.setattr(transforms, "load_volume", late)
    with pytest.raises(UserMistake, match=r"^image: ct\.nii\.gz was replaced while it was read; please ask again$"):
        engine.segment(path, LIVER)
    assert len(engine.memory) == 0


def test_six_users_of_one_image_share_the_work_and_get_the_answer_of_one(engine, small_bundle, phantom, work):
    alone = Engine(small_bundle, Memory(1 << 30)).segment(phantom, TWO)
    single, together = work.copy(), threading.Barrier(6)
    work.clear()

    def ask(_: int) -> Any:
        together.wait()
        return engine.segment(phantom, TWO)

    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, range(6)))
    assert work == single and work["load"] == 1
    assert all(np.array_equal(answer.label, alone.label) for answer in answers)


def test_users_of_different_images_do_not_mix(engine, small_bundle, phantom, draw_phantom, tmp_path):
    paths = [phantom, draw_phantom(tmp_path / "b.nii.gz", 7), draw_phantom(tmp_path / "c.nii.gz", 8)]
    alone = [Engine(small_bundle, Memory(0)).segment(path, LIVER).label for path in paths]
    with ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(lambda n: engine.segment(paths[n % 3], LIVER).label, range(12)))
    assert all(np.array_equal(answer, alone[n % 3]) for n, answer in enumerate(answers))


def refine_at(engine: Engine, path: Path, label: int) -> tuple[Any, Any, tuple[int, ...]]:
    """Draw the liver, then mend it with one click on (1) or off (0) it."""
    first = engine.segment(path, LIVER)
    inside = np.argwhere(first.label == 1)
    voxel = tuple(int(x) for x in inside[len(inside) // 2])
    document = {"targets": [{"text": "liver", "points": [list(voxel)], "point_labels": [label]}]}
    last = [{"mask": first.model_label == 1, "fresh": np.array([True]), "starts": first.starts[0]}]
    return first, engine.segment(path, document, refine=lambda points: last), voxel


def test_mending_encodes_nothing_and_the_click_has_its_label(engine, phantom, work):
    engine.segment(phantom, LIVER)
    before = work.copy()
    first, mended, voxel = refine_at(engine, phantom, 0)
    assert work == before and mended.latencies["embedding_misses"] == 0
    assert first.label[voxel] == 1 and mended.label[voxel] == 0


def test_mending_gets_the_points_of_the_models_frame(engine, phantom):
    asked = []

    def refine(points: list[np.ndarray]) -> list[dict[str, Any]]:
        asked.extend(points)
        empty = np.zeros(first.model_label.shape, bool)
        return [{"mask": empty, "fresh": np.ones(len(points[0]), bool), "starts": []}]

    first = engine.segment(phantom, CLICK)
    engine.segment(phantom, CLICK, refine=refine)
    assert len(asked) == 1 and np.array_equal(asked[0], first.model_points[0])


def test_a_former_label_map_comes_back_on_the_stored_grid(engine, phantom):
    drawn = engine.segment(phantom, TWO)
    back = engine.restore(phantom, drawn.model_label)
    assert np.array_equal(back.label, drawn.label) and np.array_equal(back.affine, drawn.affine)


@pytest.fixture
def scarce(small_bundle: Any, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Encodings run out of memory as long as there is a True in the list."""
    small_bundle.part("weights")
    network, left = small_bundle.part("network"), []
    encode = network.encode

    def short(window: torch.Tensor) -> torch.Tensor:
        if left and left.pop():
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(window)

    monkeypatch.setattr(network, "encode", short)
    return left


def test_out_of_memory_once_clears_what_is_kept_and_draws_the_same(engine, phantom, scarce):
    expected = engine.segment(phantom, LIVER).label
    engine.memory.clear()
    engine.memory.get("other", lambda: "x", len)
    scarce.append(True)
    assert np.array_equal(engine.segment(phantom, LIVER).label, expected)
    assert not engine.memory.get("other", lambda: "x", len)[1]


def test_out_of_memory_twice_is_an_error_and_the_next_request_is_served(engine, phantom, scarce):
    scarce.extend([True, True])
    with pytest.raises(torch.OutOfMemoryError):
        engine.segment(phantom, LIVER)
    assert engine.segment(phantom, LIVER).label.any()


def test_the_weights_are_told_by_name_and_hash(engine):
    told = engine.weights()
    assert (told["name"], told["size"]) == ("small.pt", "small") and len(told["sha256"]) == 64
