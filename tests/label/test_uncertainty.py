"""Active learning: what the model is unsure of comes first, from scores that are kept with the images."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from fastapi import HTTPException
from lib import uncertainty
from lib.local_store import SegVolLocalStore
from lib.uncertainty import NAME, LeastCertain, Uncertainty, dice, draw_boxes, draw_clicks, spread_of
from monailabel.interfaces.exception import MONAILabelError, MONAILabelException

NAMES = ("liver", "spleen", "left kidney", "right kidney")
NOISE_HU = 800


@pytest.fixture(scope="module")
def images(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clear phantom, and the same under heavy noise."""
    folder = tmp_path_factory.mktemp("clear and noisy")
    shutil.copy(phantom, folder / "a_clear.nii.gz")
    image = nib.load(phantom)
    noise = np.random.default_rng(0).normal(0, NOISE_HU, image.shape)
    noisy = (np.asarray(image.dataobj) + noise).astype(np.int16)
    nib.save(nib.Nifti1Image(noisy, image.affine), folder / "b_noisy.nii.gz")
    return folder


@pytest.fixture
def store_of(images: Path, tmp_path: Path) -> Callable[[], SegVolLocalStore]:
    """A new store, as another process would open it, over a copy of the images."""
    shutil.copytree(images, tmp_path / "studies")
    return lambda: SegVolLocalStore(str(tmp_path / "studies"), extensions=["*.nii.gz"], auto_reload=False)


def ask(store: Any) -> Any:
    return LeastCertain()({"strategy": NAME}, store)


def keep(store: Any, **scores: Any) -> None:
    for image, score in scores.items():
        store.update_image_info(image, {NAME: score})


def test_the_noisy_image_is_proposed_before_the_clear_one(engine, store_of):
    store = store_of()
    assert ask(store) == {"id": "a_clear"}
    scores = Uncertainty(engine, NAMES)({}, store)
    assert 0 <= scores["a_clear"] < scores["b_noisy"] <= 1
    assert ask(store) == {"id": "b_noisy", "score": scores["b_noisy"]}


def test_the_scores_are_kept_with_the_images_and_found_by_another_process(engine, store_of):
    served, scoring = store_of(), store_of()
    scores = Uncertainty(engine, NAMES)({"limit": "1"}, scoring)
    assert scores.keys() == {"a_clear"}
    assert ask(served)["score"] == scores["a_clear"]
    kept = store_of().get_image_info("a_clear")[NAME]
    assert kept["weights"] == engine.weights()["sha256"] and set(kept["structures"]) <= set(NAMES)


def test_an_image_is_scored_once_with_the_same_weights_and_encoded_once(engine, store_of, monkeypatch):
    store, network = store_of(), engine.bundle.part("network")
    encoded: list[int] = []
    encode = network.encode
    monkeypatch.setattr(network, "encode", lambda window: encoded.append(1) or encode(window))
    assert len(Uncertainty(engine, NAMES)({}, store)) == 2
    assert len(encoded) == 2
    assert Uncertainty(engine, NAMES)({}, store) == {}
    keep(store, a_clear={"score": 0.1, "weights": "older", "content": engine.identity(store_path(store))})
    assert Uncertainty(engine, NAMES)({}, store).keys() == {"a_clear"}


def store_path(store: Any) -> Path:
    return Path(store.get_image_uri("a_clear"))


def test_the_score_of_an_image_is_always_the_same(engine, phantom):
    first = spread_of(engine.zoom_out(phantom), NAMES)
    engine.memory.clear()
    assert spread_of(engine.zoom_out(phantom), NAMES) == first and first


def test_an_image_in_which_nothing_is_found_is_the_least_certain(engine, store_of, monkeypatch):
    monkeypatch.setattr(uncertainty, "spread_of", lambda view, names: {})
    assert set(Uncertainty(engine, NAMES)({}, store_of()).values()) == {1.0}


def test_an_image_that_cannot_be_read_is_passed_over_without_its_name_in_the_log(engine, store_of, caplog):
    store = store_of()
    Path(store.get_image_uri("b_noisy")).write_bytes(b"no image")
    assert Uncertainty(engine, NAMES)({}, store).keys() == {"a_clear"}
    assert "an image cannot be scored" in caplog.text and "b_noisy" not in caplog.messages[-1]


@pytest.mark.parametrize(
    "error",
    [
        MONAILabelException(MONAILabelError.INVALID_INPUT, "series: b_noisy has slices 3 to 6 mm apart"),
        HTTPException(502, "the image archive sent 2 of 4 slices of b_noisy"),
        RuntimeError("b_noisy cannot be decompressed"),
    ],
    ids=["no_volume", "broken_off", "no_image"],
)
def test_an_image_that_cannot_be_fetched_is_passed_over_without_its_name_in_the_log(
    engine, store_of, caplog, monkeypatch, error
):
    store = store_of()
    path_of = store.get_image_uri

    def fetch(image: str) -> str:
        if image == "b_noisy":
            raise error
        return str(path_of(image))

    monkeypatch.setattr(store, "get_image_uri", fetch)
    assert Uncertainty(engine, NAMES)({}, store).keys() == {"a_clear"}
    assert "an image cannot be scored" in caplog.messages[-1] and "b_noisy" not in caplog.text


@pytest.mark.parametrize("limit", [0, -1, "few", 1.5, True, [1]])
def test_a_limit_that_is_none_is_one_sentence(engine, store_of, limit):
    with pytest.raises(HTTPException) as caught:
        Uncertainty(engine, NAMES)({"limit": limit}, store_of())
    assert caught.value.detail == "limit must be a whole number of at least 1"


@pytest.mark.parametrize(
    "kept", ["high", {"score": "0.9"}, {"score": 7}, {"score": True}, {"score": float("nan")}, {}, None, [1]]
)
def test_what_a_client_wrote_in_place_of_a_score_counts_for_nothing(store_of, kept):
    store = store_of()
    keep(store, a_clear=kept, b_noisy={"score": 0.2, "weights": "w"})
    assert ask(store) == {"id": "b_noisy", "score": 0.2}


def test_scores_of_few_images_by_other_weights_do_not_compete(store_of, tmp_path):
    shutil.copy(tmp_path / "studies" / "a_clear.nii.gz", tmp_path / "studies" / "c_other.nii.gz")
    store = store_of()
    scores = {"a_clear": (0.2, "new"), "b_noisy": (0.3, "new"), "c_other": (0.9, "old")}
    keep(store, **{image: {"score": score, "weights": weights} for image, (score, weights) in scores.items()})
    assert ask(store)["id"] == "b_noisy"


def test_equal_scores_go_by_name_and_labelled_images_are_not_proposed(store_of):
    store = store_of()
    keep(store, a_clear={"score": 0.5, "weights": "w"}, b_noisy={"score": 0.5, "weights": "w"})
    assert ask(store)["id"] == "a_clear"
    store.save_label("a_clear", store.get_image_uri("a_clear"), "final", {})
    assert ask(store)["id"] == "b_noisy"
    store.save_label("b_noisy", store.get_image_uri("b_noisy"), "final", {})
    assert ask(store) is None


def test_the_app_offers_the_strategy_beside_the_stock_ones(app):
    assert list(app.info()["strategies"]) == ["random", "first", NAME]
    assert NAME in app.info()["scoring"]
    for strategy in ("random", "first", NAME):
        assert app.next_sample({"strategy": strategy})["id"] == "phantom"


def ball(radius: float = 6) -> np.ndarray:
    return np.linalg.norm(np.indices((24, 24, 24)) - 12, axis=0) <= radius


def test_clicks_lie_deep_in_the_mask_and_differ():
    clicks = draw_clicks(ball(), 20, np.random.default_rng(0))
    assert (np.linalg.norm(clicks - 12, axis=1) < 5.5).all() and len(np.unique(clicks, axis=0)) > 5


def test_a_mask_of_one_voxel_is_clicked_and_boxed():
    mask = np.zeros((4, 4, 4), bool)
    mask[3, 0, 2] = True
    rng = np.random.default_rng(0)
    assert (draw_clicks(mask, 3, rng) == [3, 0, 2]).all() and (draw_boxes(mask, 3, rng) == [3, 0, 2]).all()


def test_boxes_move_by_a_part_of_their_length_within_the_view():
    boxes = draw_boxes(ball(11), 50, np.random.default_rng(0))
    assert boxes.shape == (50, 2, 3) and boxes.min() == 0 and boxes.max() == 23
    assert np.abs(boxes - [[1] * 3, [23] * 3]).max() <= np.ceil(0.15 * 23)


def test_two_empty_masks_agree_and_an_empty_one_with_another_does_not():
    assert dice(ball() & False, ball() & False) == 1 and dice(ball(), ball() & False) == 0 and dice(ball(), ball()) == 1
