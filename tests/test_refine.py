"""New clicks mend a mask where they are and nowhere else."""

import numpy as np
import pytest
import torch
from scripts.inferer import MISSED, ZoomOutZoomInInferer
from scripts.prompts import Prompt

ROI = (8, 16, 16)
SHAPE = (8, 16, 48)


class Bright:
    """A network that draws what is brighter than 0.5, and counts its encodings."""

    def __init__(self) -> None:
        self.encoded: list[torch.Tensor] = []
        self.boxes: list[list[float]] = []

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        self.encoded.append(image)
        return image

    def decode(self, embedding: torch.Tensor, **prompts: torch.Tensor | None) -> torch.Tensor:
        self.boxes.append(prompts["boxes"][0].tolist())
        return embedding - 0.5


@pytest.fixture
def image() -> torch.Tensor:
    """Two organs in one window and a third far away."""
    image = torch.zeros(1, 1, *SHAPE)
    image[..., 2:6, 2:6, 2:6] = image[..., 2:6, 2:6, 10:14] = image[..., 2:6, 2:6, 40:44] = 1
    return image


def refine(image, mask, points, labels, fresh, starts=((0, 0, 0),)):
    network, report = Bright(), {}
    prompt = Prompt("organ", points=np.array(points, float), point_labels=np.array(labels))
    last = {"mask": mask, "fresh": np.array(fresh), "starts": list(starts)}
    logits = ZoomOutZoomInInferer(ROI)(image, network, [prompt], [None], report=report, refine=[last])
    return (logits[0, 0] > 0).numpy(), network, report


def test_a_positive_click_adds_the_piece_it_lies_in_and_keeps_the_rest(image):
    mask = np.zeros(SHAPE, bool)
    mask[2:6, 2:6, 2:5] = True  # the first organ, less a slice that the network would add
    mended, network, report = refine(image, mask, [[3, 3, 3], [4, 4, 11]], [1, 1], [False, True])
    expected = mask.copy()
    expected[2:6, 2:6, 10:14] = True
    assert np.array_equal(mended, expected)
    assert len(network.encoded) == 1 and report["encoder_runs"] == 1
    assert network.boxes == [[2, 2, 2, 5, 5, 11]]  # the last mask and the positive clicks


def test_a_negative_click_takes_away_the_piece_it_lies_in(image):
    mask = image[0, 0].numpy() > 0.5
    mask[0:2, 10:12, 0:4] = mask[0, 14, 14] = True  # two leaks
    mended, *_ = refine(image, mask, [[3, 3, 3], [1, 11, 2]], [1, 0], [False, True])
    expected = mask.copy()
    expected[0:2, 10:12, 0:4] = False
    assert np.array_equal(mended, expected)


def test_a_click_has_its_label_whatever_the_network_says(image):
    mask = image[0, 0].numpy() > 0.5
    mended, *_ = refine(image, mask, [[4, 4, 4], [7, 15, 0]], [0, 1], [True, True])
    expected = mask.copy()
    expected[4, 4, 4], expected[7, 15, 0] = False, True
    assert np.array_equal(mended, expected)


def test_a_click_outside_the_former_windows_gets_one_of_its_own(image):
    mask = np.zeros(SHAPE, bool)
    mask[2:6, 2:6, 2:6] = True
    mended, network, report = refine(image, mask, [[3, 3, 3], [4, 4, 41]], [1, 1], [False, True])
    expected = mask.copy()
    expected[2:6, 2:6, 40:44] = True
    assert np.array_equal(mended, expected)
    assert all(start[2] <= 41 < start[2] + 16 for start in report["targets"][0]["starts"])


def test_no_new_click_and_a_negative_one_in_the_void_change_nothing(image):
    mask = np.zeros(SHAPE, bool)
    mask[2:6, 2:6, 2:6] = True
    for points, labels, fresh in ([[[3, 3, 3]], [1], [False]], [[[3, 3, 3], [4, 12, 40]], [1, 0], [False, True]]):
        mended, network, _ = refine(image, mask, points, labels, fresh)
        assert np.array_equal(mended, mask) and not network.encoded


class BlindUpClose(Bright):
    """Draws what is bright, but in a window at full resolution nothing."""

    def decode(self, embedding: torch.Tensor, **prompts: torch.Tensor | None) -> torch.Tensor:
        return embedding - (0.5 if embedding is self.encoded[0] else 2)


def zoomed_blindly(image: torch.Tensor, mode: str = "zoom", **prompt) -> tuple[torch.Tensor, str | None]:
    report: dict = {}
    asked = [Prompt("organ", **prompt)]
    logits = ZoomOutZoomInInferer(ROI, mode)(image, BlindUpClose(), asked, [None], report=report)
    return logits[0, 0] > 0, report["targets"][0]["message"]


def test_a_clicked_piece_comes_back_where_the_windows_lose_it(image):
    kept, message = zoomed_blindly(image, points=[[3, 3, 41]], point_labels=[1])
    piece = image[0, 0] > 0.5
    piece[..., :20] = False
    assert kept.any() and kept[3, 3, 41] and message is None
    assert not kept[..., :20].any()  # the other organs were not clicked, and stay as the windows left them
    assert (kept & piece).sum() / (kept | piece).sum() > 0.5  # as sharp as the zoom-out view


def test_what_nobody_clicked_does_not_come_back(image):
    box = np.array([[2, 2, 40], [5, 5, 43]], float)
    for prompt in ({"box": box}, {"box": box, "points": [[0, 15, 0]], "point_labels": [1]}):
        assert not zoomed_blindly(image, **prompt)[0].any()


def test_the_released_zoom_brings_nothing_back(image):
    kept, message = zoomed_blindly(image, mode="published", points=[[3, 3, 41]], point_labels=[1])
    assert not kept.any() and message == MISSED.format(1, 1)
