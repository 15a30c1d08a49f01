"""The inferer with a network that answers an exact question, and the released zoom-out-zoom-in as reference."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from scripts.inferer import BACKGROUND, MISSED, ZoomOutZoomInInferer
from scripts.network import SegVol
from scripts.plans import NOTHING_FOUND, OUTSIDE_BOX, OUTSIDE_VOLUME
from scripts.prompts import Prompt
from scripts.text_encoder import ClipText
from scripts.vocabulary import Vocabulary
from scripts.windows import nearest_map
from torch.nn import functional as F

ROI = (8, 16, 16)
TEXT = torch.tensor([0.5, 0.0])  # the fake network's text: the target is what is brighter than 0.5
MODES = ["zoom", "fit", "published", "resize", "sliding_window"]


class Threshold:
    """A network whose embedding is the window and whose mask is what is brighter than the text says."""

    def __init__(self) -> None:
        self.views: list[torch.Tensor] = []
        self.prompts: list[dict[str, torch.Tensor | None]] = []

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        assert image.shape == (1, 1, *ROI)
        self.views.append(image)
        return image

    def decode(self, embedding: torch.Tensor, **prompts: torch.Tensor | None) -> torch.Tensor:
        self.prompts.append(prompts)
        text = prompts["text"]
        return embedding - (0.5 if text is None else text[0, 0])

    def boxes(self) -> list[list[float]]:
        """The boxes of the zoom-in decodes."""
        return [p["boxes"][0].tolist() for p in self.prompts[1:]]


def volume(shape: tuple[int, int, int], *blocks: tuple[tuple[int, int], ...]) -> torch.Tensor:
    """Dark noise below 0.2 with bright blocks, each given by first and last voxel per axis."""
    image = torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 0.2
    for block in blocks:
        image[tuple(slice(lo, hi + 1) for lo, hi in block)] = 0.9
    return image[None, None]


def box(*corners: float) -> np.ndarray:
    return np.array(corners, dtype=float).reshape(2, 3)


def run(
    image: torch.Tensor, *prompts: Prompt, mode: str = "zoom", vectors: list[torch.Tensor | None] | None = None
) -> tuple[torch.Tensor, Threshold, dict]:
    network, report = Threshold(), {}
    vectors = [TEXT if p.text else None for p in prompts] if vectors is None else vectors
    logits = ZoomOutZoomInInferer(ROI, mode)(image, network, prompts, vectors, report=report)
    return logits, network, report


LIVER = Prompt("liver", text="liver")


@pytest.mark.parametrize("shape", [(20, 48, 40), (1, 60, 50), (3, 5, 7), (24, 9, 33), (8, 16, 16), (7, 60, 16)])
def test_zoom_draws_every_voxel_of_a_block_whatever_the_volume(shape):
    block = tuple((n // 3, n // 3 + n // 6) for n in shape)
    image = volume(shape, block)
    logits, _, report = run(image, LIVER)
    assert logits.shape == (1, 1, *shape)
    assert torch.equal(logits > 0, image > 0.5)
    (told,) = report["targets"]
    assert told["message"] is None and told["windows"] == len(told["starts"]) == report["decoder_runs"] - 1


@pytest.mark.parametrize("shape", [(20, 48, 40), (8, 16, 16), (30, 20, 18)])
def test_fit_draws_a_small_block_exactly_from_two_views(shape):
    block = tuple((n // 3, n // 3 + 3) for n in shape)
    image = volume(shape, block)
    boxed = replace(LIVER, box=np.array(block, dtype=float).T)
    logits, network, report = run(image, boxed, mode="fit")
    assert torch.equal(logits > 0, image > 0.5)
    assert report["encoder_runs"] == 2 and report["targets"][0] == {"windows": 1, "starts": [], "message": None}


def test_fit_sees_a_large_block_as_coarsely_as_it_must():
    image = volume((16, 64, 64), ((4, 11), (8, 55), (8, 55)))
    logits, _, report = run(image, LIVER, mode="fit")
    mask, truth = logits > 0, image > 0.5
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.9 and report["decoder_runs"] == 2


def test_targets_in_the_same_box_share_their_fitted_view():
    image = volume((20, 48, 40), ((6, 13), (10, 33), (12, 20)))
    targets = [replace(LIVER, name=str(i), box=box(4, 8, 8, 15, 35, 24)) for i in range(3)]
    assert run(image, *targets, mode="fit")[2]["encoder_runs"] == 2


@pytest.mark.parametrize("mode", ["zoom", "sliding_window"])
def test_a_padded_window_pastes_back_on_the_same_voxels(mode):
    image = volume((3, 5, 7), ((1, 1), (2, 3), (0, 2)))
    logits, network, _ = run(image, LIVER, mode=mode)
    assert torch.equal(logits, image - 0.5)
    assert torch.equal(network.views[-1][0, 0, 2:5, 5:10, 4:11], image[0, 0])
    assert network.views[-1].count_nonzero() == image.count_nonzero()


def test_the_way_back_from_the_zoom_out_view_undoes_it_except_as_published():
    image = volume((3, 5, 7), ((1, 1), (2, 3), (0, 2)))
    assert torch.equal(run(image, LIVER, mode="resize")[0], image - 0.5)
    assert run(image, LIVER, mode="published")[2]["targets"][0]["message"] == NOTHING_FOUND


def test_a_published_roi_shorter_than_the_window_pastes_back_on_the_same_voxels():
    image = volume((6, 30, 24), ((1, 4), (10, 15), (8, 13)))
    logits, network, _ = run(image, LIVER, mode="published")
    zoomed = network.views[1]
    assert zoomed[0, 0, 0].count_nonzero() == zoomed[0, 0, 7].count_nonzero() == 0
    assert torch.equal(logits > 0, image > 0.5)


@pytest.mark.parametrize("mode", MODES)
def test_a_mask_that_leaves_out_what_the_user_clicked_is_told(mode):
    image = volume((20, 48, 40), ((6, 13), (10, 33), (12, 20)))
    on, off = [10, 20, 16], [10, 5, 16]
    held = Prompt("held", points=[on, off], point_labels=[1, 0])
    missed = Prompt("missed", points=[on, off, off], point_labels=[1, 1, 0])
    told = run(image, held, missed, mode=mode)[2]["targets"]
    assert [each["message"] for each in told] == [None, MISSED.format(1, 2)]


@pytest.mark.parametrize("mode", MODES)
def test_ten_targets_cost_as_many_encodings_as_one(mode):
    image = volume((20, 48, 40), ((6, 13), (10, 33), (12, 20)))
    alone, _, one = run(image, LIVER, mode=mode)
    targets = [replace(LIVER, name=str(i)) for i in range(10)]
    logits, _, ten = run(image, *targets, mode=mode)
    assert ten["encoder_runs"] == one["encoder_runs"]
    assert ten["decoder_runs"] == 10 * one["decoder_runs"]
    assert torch.equal(logits, alone.expand(1, 10, -1, -1, -1))


def test_a_second_target_pays_only_for_windows_of_its_own():
    image = volume((8, 16, 64), ((2, 5), (4, 9), (2, 30)), ((2, 5), (4, 9), (34, 62)))
    left = Prompt("left", box=box(0, 0, 0, 7, 15, 31))
    both = Prompt("both", text="both")
    _, _, first = run(image, left)
    _, _, second = run(image, both)
    _, _, shared = run(image, left, both)
    assert first["encoder_runs"] == 1 + 3
    assert second["encoder_runs"] == 1 + 7
    assert shared["encoder_runs"] == 1 + 7
    assert [target["windows"] for target in shared["targets"]] == [3, 7]


@pytest.mark.parametrize("mode", ["zoom", "resize"])
def test_an_empty_zoom_out_view_is_a_result_with_a_message(mode):
    image = volume((20, 48, 40))
    logits, network, report = run(image, LIVER, mode=mode)
    assert not (logits > 0).any()
    assert torch.equal(logits[0], F.interpolate(network.views[0] - 0.5, (20, 48, 40), mode="nearest-exact")[0])
    assert report["targets"] == [{"windows": 0, "starts": [], "message": NOTHING_FOUND}]
    assert (report["encoder_runs"], report["decoder_runs"]) == (1, 1)


def test_windows_without_coarse_mask_are_skipped():
    image = volume((8, 16, 128), ((2, 5), (4, 9), (0, 7)), ((2, 5), (4, 9), (120, 127)))
    logits, network, report = run(image, LIVER)
    assert torch.equal(logits > 0, image > 0.5)
    assert report["targets"][0]["windows"] == 2
    assert all((view > 0.5).any() for view in network.views)


def test_where_no_window_lies_the_coarse_logits_stay():
    image = volume((20, 48, 40), ((6, 9), (10, 14), (12, 16)))
    logits, network, _ = run(image, LIVER)
    coarse = F.interpolate(network.views[0], (20, 48, 40), mode="nearest-exact") - 0.5
    fine = image - 0.5
    untouched = (logits == coarse) & (coarse != fine)
    assert untouched.any()
    assert torch.equal(logits, torch.where(untouched, coarse, fine))


def test_overlapping_windows_are_averaged():
    class Counting(Threshold):
        def decode(self, embedding, **prompts):
            super().decode(embedding, **prompts)
            return torch.full_like(embedding, float(len(self.prompts)))

    image = volume((8, 16, 48))
    logits = ZoomOutZoomInInferer(ROI)(image, Counting(), [LIVER], [TEXT])
    assert logits[0, 0, 0, 0].tolist() == [2] * 8 + [2.5] * 8 + [3.5] * 8 + [4.5] * 8 + [5.5] * 8 + [6] * 8


def test_points_reach_the_windows_that_hold_them_with_their_labels():
    image = volume((8, 16, 40), ((2, 5), (4, 9), (4, 34)))
    prompt = Prompt("bowel", points=[[3, 5, 6], [3, 5, 30], [1, 1, 37]], point_labels=[1, 0, 0])
    _, network, report = run(image, prompt)
    assert report["targets"][0]["windows"] == 3  # at 4, 12 and 20
    coarse, *windows = network.prompts
    assert coarse["point_labels"].tolist() == [[1, 0, 0]]
    assert coarse["boxes"] is None
    assert windows[0]["points"].tolist() == [[[3, 5, 2]]]
    assert windows[0]["point_labels"].tolist() == [[1]]
    assert windows[1]["points"] is None
    assert windows[1]["point_labels"] is None
    assert windows[2]["points"].tolist() == [[[3, 5, 10]]]
    assert windows[2]["point_labels"].tolist() == [[0]]


def test_points_of_both_kinds_reach_one_window_together():
    image = volume((8, 16, 40), ((2, 5), (4, 9), (16, 22)))
    prompt = Prompt("node", points=[[3, 5, 18], [3, 12, 20], [1, 1, 37]], point_labels=[1, 0, 0])
    _, network, report = run(image, prompt)
    assert report["targets"][0]["windows"] == 1  # at 12
    assert network.prompts[1]["points"].tolist() == [[[3, 5, 6], [3, 12, 8]]]
    assert network.prompts[1]["point_labels"].tolist() == [[1, 0]]


def test_without_a_users_box_a_window_gets_the_box_of_its_coarse_mask():
    _, network, _ = run(volume((8, 16, 40), ((2, 5), (4, 9), (4, 33))), LIVER)
    # windows at 4, 12 and 20; two and a half of the 40 voxels are one of the zoom-out grid, hence coarse 5 to 34
    assert network.boxes() == [[2, 4, 1, 5, 9, 15], [2, 4, 0, 5, 9, 15], [2, 4, 0, 5, 9, 14]]


def test_a_users_box_is_clipped_to_each_of_several_windows():
    image = volume((8, 16, 40), ((2, 5), (4, 9), (4, 34)))
    _, network, report = run(image, Prompt("bowel", box=box(1, 3, 6, 6.5, 12, 33.5)))
    (told,) = report["targets"]
    assert told["message"] is None and [start[2] for start in told["starts"]] == [4, 12, 20]
    assert network.boxes() == [[1, 3, 2, 6.5, 12, 15], [1, 3, 0, 6.5, 12, 15], [1, 3, 0, 6.5, 12, 13.5]]


def test_a_users_box_says_which_of_two_like_things_is_meant():
    image = volume((8, 16, 64), ((2, 5), (4, 9), (2, 12)), ((2, 5), (4, 9), (40, 60)))
    logits, _, report = run(image, Prompt("left", box=box(0, 0, 0, 7, 15, 15)))
    assert torch.equal((logits > 0)[..., :16], (image > 0.5)[..., :16])
    assert (logits[..., 16:] == BACKGROUND).all()
    (told,) = report["targets"]
    assert told["windows"] == 1 and told["message"] is None


def test_a_box_off_everything_that_was_found_keeps_what_was_found_and_says_so():
    image = volume((8, 16, 64), ((2, 5), (4, 9), (40, 60)))
    logits, _, report = run(image, Prompt("left", box=box(0, 0, 0, 7, 15, 15)))
    assert (logits > 0).any()
    assert report["targets"] == [{"windows": 0, "starts": [], "message": OUTSIDE_BOX}]


@pytest.mark.parametrize("mode", ["zoom", "published", "resize"])
def test_a_box_of_one_voxel_is_seen_in_the_zoom_out_view(mode):
    image = volume((32, 80, 80), ((10, 20), (30, 49), (30, 49)))
    _, network, _ = run(image, Prompt("tip", box=box(13, 33, 38, 13, 33, 38)), mode=mode)
    assert network.prompts[0]["boxes"].tolist() == [[3, 6, 7, 3, 6, 7]]


@pytest.mark.parametrize("mode", MODES)
def test_the_network_gets_float_tensors_of_one_prompt(mode):
    prompt = Prompt("liver", "liver", [[4, 20, 20], [4, 2, 2]], [1, 0], box(2, 16, 16, 9, 30, 30))
    _, network, _ = run(volume((12, 48, 48), ((3, 8), (18, 29), (18, 29))), prompt, mode=mode)
    for given in network.prompts:
        assert all(tensor is None or tensor.dtype == torch.float32 for tensor in given.values())
        assert given["text"].shape == (1, 2)
        assert given["points"] is None or given["points"].shape == (1, given["point_labels"].shape[1], 3)
        assert given["boxes"] is None or given["boxes"].shape == (1, 6)


def test_encode_is_asked_once_per_window_in_order_and_its_embedding_is_used():
    image = volume((8, 16, 40), ((2, 5), (4, 9), (4, 34)))
    network, starts = Threshold(), []

    def encode(window: torch.Tensor, start: tuple[int, int, int] | None) -> torch.Tensor:
        starts.append(start)
        return window

    inferer = ZoomOutZoomInInferer(ROI)
    logits = inferer(image, network, [LIVER, LIVER], [TEXT, TEXT], encode)
    assert starts == [None, (0, 0, 4), (0, 0, 12), (0, 0, 20)]
    assert not network.views
    assert torch.equal(logits, inferer(image, network, [LIVER, LIVER], [TEXT, TEXT]))


def test_a_published_window_that_hides_voxels_stays_out_of_the_callers_memory():
    image = volume((20, 48, 40), ((6, 10), (10, 16), (12, 18)))  # odd extents: the released ROI is a voxel short
    network, starts = Threshold(), []

    def encode(window: torch.Tensor, start: tuple[int, int, int] | None) -> torch.Tensor:
        starts.append(start)
        return window

    ZoomOutZoomInInferer(ROI, "published")(image, network, [LIVER], [TEXT], encode)
    assert starts == [None]
    assert len(network.views) == 1


def test_the_result_depends_neither_on_the_run_nor_on_the_order_of_targets():
    image = volume((20, 48, 40), ((6, 13), (10, 33), (12, 20)), ((2, 4), (2, 6), (30, 36)))
    prompts = [LIVER, Prompt("a", box=box(0, 0, 26, 8, 10, 39)), Prompt("b", points=[[8, 20, 15]], point_labels=[1])]
    forth, back = run(image, *prompts)[0], run(image, *reversed(prompts))[0]
    assert torch.equal(forth, run(image, *prompts)[0])
    assert torch.equal(forth, back.flip(1))


def test_resize_is_the_zoom_out_view_alone():
    image = volume((20, 48, 40), ((6, 13), (10, 33), (12, 20)))
    logits, network, report = run(image, LIVER, mode="resize")
    view = F.interpolate(image, ROI, mode="nearest-exact")
    assert torch.equal(network.views[0], view)
    assert torch.equal(logits, F.interpolate(view - 0.5, (20, 48, 40), mode="nearest-exact"))
    assert (report["encoder_runs"], report["decoder_runs"]) == (1, 1)
    assert report["targets"] == [{"windows": 0, "starts": [], "message": None}]


def test_a_sliding_window_takes_a_text_everywhere():
    image = volume((20, 48, 40), ((6, 13), (10, 33), (12, 20)))
    logits, network, report = run(image, replace(LIVER, box=box(0, 0, 0, 3, 3, 3)), mode="sliding_window")
    assert torch.equal(logits > 0, image > 0.5)
    assert report["encoder_runs"] == 4 * 5 * 4
    assert network.prompts[0]["boxes"].tolist() == [[0, 0, 0, 3, 3, 3]]
    assert network.prompts[-1]["boxes"] is None


@pytest.mark.parametrize(
    ("prompt", "windows"),
    [
        (Prompt("box", box=box(0, 0, 20, 7, 15, 30)), 3),
        (Prompt("point", points=[[2, 2, 0], [2, 2, 39]], point_labels=[1, 0]), 1),
    ],
)
def test_a_sliding_window_takes_other_prompts_only_where_they_lie(prompt, windows):
    image = volume((8, 16, 40), ((0, 7), (0, 15), (0, 39)))
    logits, network, report = run(image, prompt, mode="sliding_window")
    assert (report["targets"][0]["windows"], report["targets"][0]["message"]) == (windows, None)
    assert report["encoder_runs"] == len(network.views) == windows
    assert (logits == BACKGROUND).any()
    assert (logits > 0).any()


def test_a_sliding_window_says_when_a_prompt_lies_nowhere():
    logits, _, report = run(volume((8, 16, 40)), Prompt("box", box=box(0, 0, 90, 7, 15, 99)), mode="sliding_window")
    assert (logits == BACKGROUND).all()
    assert report["targets"] == [{"windows": 0, "starts": [], "message": OUTSIDE_VOLUME}]


def test_a_metatensor_gives_a_plain_float_tensor_and_no_gradient():
    image = volume((8, 16, 40), ((2, 5), (4, 9), (4, 34)))
    logits, network, _ = run(MetaTensor(image), LIVER)
    assert type(logits) is type(network.views[0]) is torch.Tensor
    assert logits.dtype == torch.float32
    assert torch.equal(logits, run(image.clone().requires_grad_(), LIVER)[0])


def test_the_report_keeps_what_others_wrote():
    report = {"seconds": {"load": 1.0}}
    ZoomOutZoomInInferer(ROI, "resize")(volume((8, 16, 16)), Threshold(), [LIVER], [TEXT], report=report)
    assert report["seconds"].keys() == {"load", "encode", "decode"}
    assert all(seconds > 0 for seconds in report["seconds"].values())


@pytest.mark.parametrize(
    ("image", "prompts", "vectors", "says"),
    [
        (torch.zeros(1, 2, 8, 8, 8), [LIVER], [TEXT], r"inputs has shape \(1, 2, 8, 8, 8\)"),
        (torch.zeros(8, 8, 8), [LIVER], [TEXT], r"inputs has shape \(8, 8, 8\)"),
        (torch.zeros(1, 1, 8, 0, 8), [LIVER], [TEXT], "at least one voxel"),
        (torch.zeros(1, 1, 8, 8, 8), [], [], "prompts is empty"),
        (torch.zeros(1, 1, 8, 8, 8), [LIVER], [TEXT, None], "1 prompts came with 2 text vectors"),
        (torch.zeros(1, 1, 8, 8, 8), [LIVER], [None], "target 'liver' has no prompt"),
    ],
)
def test_wrong_inputs_are_named_in_one_line(image, prompts, vectors, says):
    with pytest.raises(ValueError, match=says) as caught:
        ZoomOutZoomInInferer(ROI)(image, Threshold(), prompts, vectors)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            {"roi_size": ROI, "mode": "zoomed"},
            "'zoomed'; allowed are 'zoom', 'fit', 'published', 'resize', 'sliding_window'",
        ),
        ({"roi_size": (8, 16)}, "roi_size"),
        ({"roi_size": (8, 0, 16)}, "roi_size"),
        ({"roi_size": ROI, "overlap": 1.0}, "overlap is 1.0"),
    ],
)
def test_wrong_settings_are_named(arguments, says):
    with pytest.raises(ValueError, match=says):
        ZoomOutZoomInInferer(**arguments)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["single", "multi"])
def test_published_mode_equals_the_released_code(
    case, shared: Path, bundle: Path, formula: ModuleType, formula_base: SegVol
):
    reference = np.load(shared / "reference" / f"zoom_{case}.npz")
    shape = tuple(int(n) for n in reference["shape"])
    image = torch.from_numpy(formula.volume(shape, 7))[None, None]
    vocabulary = Vocabulary.load(bundle / "configs" / "vocabulary.json")
    text = ClipText(formula_base.text_encoder, shared / "reference" / "clip_tokenizer", vocabulary)
    roi_size, report = (32, 256, 256), {}
    # at full size, the voxels that the corners of the reference's zoom-out box are read from
    reads = [nearest_map(n, w, "nearest-exact") for n, w in zip(shape, roi_size, strict=True)]
    corners = reference["box"].reshape(2, 3)
    prompt = Prompt(
        case, str(reference["text"]), box=np.stack([[r[i] for r, i in zip(reads, c, strict=True)] for c in corners])
    )

    logits = ZoomOutZoomInInferer(roi_size, "published")(
        image, formula_base, [prompt], text([prompt.text]), report=report
    )

    assert report["encoder_runs"] == reference["forwards"]
    np.testing.assert_allclose(logits[0, 0, ::4, ::16, ::16].numpy(), reference["logits"], atol=1e-3)
    differing = np.unpackbits(np.packbits(logits[0, 0].numpy() > 0) ^ reference["mask"]).sum()
    assert differing == 0
