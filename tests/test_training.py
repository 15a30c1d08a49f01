"""Views and prompts are drawn as promised, the loss is the published one, one embedding serves every prompt."""

import json
import logging
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.engines import IterationEvents
from monai.handlers import MeanDice
from monai.losses import DiceCELoss
from monai.transforms import Compose
from scripts.network import build_segvol
from scripts.text_encoder import ClipText, TextTable
from scripts.training.datasets import PromptedViews, collate_views, prepare_cases, read_datalist
from scripts.training.forward import COMBINATIONS, EncodeOnceDecodeMany, PrepareBatch
from scripts.training.handlers import ClipGradients
from scripts.training.losses import PromptLoss
from scripts.training.metrics import masks_of
from scripts.training.sampling import sample_box, sample_points
from scripts.transforms import LoadVolumed
from scripts.vocabulary import Vocabulary
from torch import nn

ROI = (8, 12, 10)
CPU = torch.device("cpu")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def cube(shape: tuple[int, ...] = (12, 20, 16)) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[3:8, 5:15, 4:9] = True
    return mask


# ---------------------------------------------------------------- points and boxes from a mask


def test_points_lie_where_their_labels_say():
    mask, seen = cube(), set()
    for seed in range(200):
        points, labels = sample_points(mask, rng(seed), 4, 3)
        assert points.shape == (8, 3) and points.dtype == np.float32
        assert labels.shape == (8,) and labels.dtype == np.int64
        inside = mask[tuple(points.astype(int).T)]
        assert inside[labels == 1].all() and not inside[labels == 0].any() and not points[labels == -1].any()
        seen.add((int((labels == 1).sum()), int((labels == 0).sum())))
    assert (1, 0) in seen  # one click alone
    assert {positive for positive, _ in seen} == {1, 2, 3, 4, 5} and {negative for _, negative in seen} == {0, 1, 2, 3}


def test_an_empty_mask_has_no_points_and_no_box():
    points, labels = sample_points(np.zeros((4, 5, 6), bool), rng(), 2, 2)
    assert not points.any() and (labels == -1).all() and len(labels) == 5
    assert sample_box(np.zeros((4, 5, 6), bool), rng(), 0.1).tolist() == [0] * 6


def test_a_full_mask_has_no_negative_points():
    for seed in range(20):
        points, labels = sample_points(np.ones((4, 5, 6), bool), rng(seed), 2, 5)
        assert 0 not in labels and len(points) == 8


def test_without_jitter_a_box_is_the_bounding_box():
    for seed in range(5):
        assert sample_box(cube(), rng(seed), 0).tolist() == [3, 5, 4, 7, 14, 8]


def test_a_jittered_box_moves_by_its_share_and_stays_in_the_volume():
    boxes = np.array([sample_box(cube(), rng(seed), 0.3) for seed in range(300)])
    exact, reach = np.array([3, 5, 4, 7, 14, 8]), 0.3 * np.array([5, 10, 5] * 2)
    assert boxes.dtype == np.float32 and np.array_equal(boxes, np.rint(boxes))
    assert (np.abs(boxes - exact) <= np.rint(reach)).all()
    assert (np.abs(boxes - exact).max(axis=0) >= 1).all() and len(np.unique(boxes, axis=0)) > 100
    wild = np.array([sample_box(cube(), rng(seed), 5) for seed in range(200)])
    assert (wild[:, :3] >= 0).all() and (wild[:, 3:] < (12, 20, 16)).all() and (wild[:, :3] <= wild[:, 3:]).all()


# ---------------------------------------------------------------- views


def case(**more: Any) -> dict[str, Any]:
    """A volume whose intensity says where a voxel is labelled: 0.5 and 1 in the structures, little noise elsewhere."""
    label = torch.zeros(1, 16, 24, 20, dtype=torch.float32)
    label[0, 2:8, 3:12, 4:10] = 1
    label[0, 9:14, 13:22, 11:18] = 2
    image = label / 2 + 0.1 * torch.rand(label.shape, generator=torch.Generator().manual_seed(0)) * (label == 0)
    return {"image": image.half(), "label": label, "labels": {"1": "liver", "2": "spleen", "9": "aorta"}} | more


def views(**more: Any) -> PromptedViews:
    return PromptedViews([case()], ROI, **{"length": 40, "seed": 3} | more)


def same(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return all(torch.equal(a[key], b[key]) if isinstance(a[key], torch.Tensor) else a[key] == b[key] for key in a)


def test_a_view_has_its_shapes_and_types():
    data = views(targets=3, max_extra=2, max_negative=4)
    view = data[0]
    assert len(data) == 40
    assert view["image"].shape == (1, *ROI) and view["image"].dtype == torch.float32
    assert view["masks"].shape == (3, 1, *ROI) and view["masks"].dtype == torch.bool
    assert view["points"].shape == (3, 7, 3) and view["point_labels"].shape == (3, 7)
    assert view["boxes"].shape == (3, 6) and len(view["names"]) == 3 and isinstance(view["draw"], int)
    assert view["image"].min() >= 0 and view["image"].max() <= 1


def test_a_view_is_drawn_from_seed_epoch_and_index_alone():
    data, other = views(), views()
    order = [data[i] for i in (0, 5, 7)], [other[i] for i in (7, 5, 0)][::-1]
    assert all(same(a, b) for a, b in zip(*order, strict=True))
    assert not same(data[0], data[1]) and not same(data[0], views(seed=4)[0])


def test_an_epoch_changes_the_views_and_comes_back():
    data = views()
    first = data[2]
    data.epoch = 1
    assert not same(first, data[2])
    data.epoch = 0
    assert same(first, data[2])


def test_as_a_handler_the_views_follow_the_epochs():
    data, seen = views(), []
    engine = Engine(lambda *_: seen.append(data.epoch))
    data.attach(engine)
    engine.run([0], max_epochs=3)
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("shares", [(1, 0), (0, 1), (0, 0), (0.4, 0.4)])
def test_masks_points_and_boxes_of_a_view_belong_together(shares: tuple[float, float]):
    data = views(whole=shares[0], window=shares[1], jitter=0, intensity=0, absent=0.2)
    values = {"liver": 0.5, "spleen": 1.0}
    for view in (data[i] for i in range(40)):
        for k, name in enumerate(view["names"]):
            mask, labels = view["masks"][k, 0], view["point_labels"][k]
            if name in values:  # the image and its label went the same way
                torch.testing.assert_close(mask, (view["image"][0] - values[name]).abs() < 0.01)
            if not mask.any():
                assert (labels == -1).all() and not view["boxes"][k].any()
                continue
            places = mask.nonzero()
            assert view["boxes"][k].tolist() == [*places.amin(dim=0).tolist(), *places.amax(dim=0).tolist()]
            inside = mask[tuple(view["points"][k].long().T)]
            assert inside[labels == 1].all() and (labels == 1).any() and not inside[labels == 0].any()


def test_a_whole_view_is_the_resized_volume_and_a_window_a_piece_of_it():
    volume = case()["image"][0].float()
    whole = torch.nn.functional.interpolate(volume[None, None], ROI, mode="nearest-exact")[0]
    data = views(whole=1, window=0, intensity=0)
    assert all(torch.equal(data[i]["image"], whole) for i in range(5))
    pieces = volume.unfold(0, ROI[0], 1).unfold(1, ROI[1], 1).unfold(2, ROI[2], 1)
    data = views(whole=0, window=1, intensity=0)
    for i in range(10):
        assert (pieces == data[i]["image"][0]).flatten(3).all(dim=3).any()


def test_a_volume_smaller_than_the_window_is_padded_in_the_middle():
    image = torch.ones(1, 4, 30, 5)
    data = PromptedViews([case(image=image, label=image)], (8, 12, 10), 5, whole=0, window=1, intensity=0)
    for i in range(5):
        assert data[i]["image"][0, 2:6, :, 2:7].all() and data[i]["image"].sum() == 4 * 12 * 5
        assert torch.equal(data[i]["masks"][0, 0], data[i]["image"][0] > 0)


def test_structures_that_are_not_in_the_view_are_asked_for_in_their_share():
    for absent, low, high in ((0, 0, 0), (0.5, 0.35, 0.65), (1, 1, 1)):
        data = views(whole=1, window=0, absent=absent)
        assert low <= np.mean([not mask.any() for i in range(100) for mask in data[i]["masks"]]) <= high
    named = {name for i in range(40) for name in views(whole=1, window=0, absent=1)[i]["names"]}
    assert named == {"aorta"}


def test_too_few_voxels_do_not_count_as_present():
    label = torch.zeros(1, 16, 24, 20)
    label[0, 5, 5, 5] = 1
    data = PromptedViews([case(label=label)], ROI, 20, whole=0, window=1, absent=0, minimum_voxels=2)
    asked = [(name, mask) for i in range(20) for name, mask in zip(data[i]["names"], data[i]["masks"], strict=True)]
    assert any(name == "liver" for name, _ in asked)  # where the view does not hold that voxel
    assert not any(mask.any() for name, mask in asked if name == "liver")


def test_intensities_change_in_half_of_the_views_and_stay_in_range():
    plain, changed = views(intensity=0), views(intensity=0.2)
    differs = [not torch.equal(plain[i]["image"], changed[i]["image"]) for i in range(40)]
    assert 8 < sum(differs) < 32
    for i in range(40):
        assert torch.equal(plain[i]["masks"], changed[i]["masks"])
        assert changed[i]["image"].min() >= 0 and changed[i]["image"].max() <= 1


def test_all_cases_are_drawn():
    data = PromptedViews([case(labels={"1": name}) for name in ("a", "b", "c")], ROI, 50)
    assert {name for i in range(50) for name in data[i]["names"]} == {"a", "b", "c"}


def test_label_values_above_255_survive():
    label = case()["label"] * 300
    data = PromptedViews([case(label=label, labels={"300": "a", "600": "b"})], ROI, 10, whole=1, window=0, absent=0)
    assert all(mask.any() for i in range(10) for mask in data[i]["masks"])


def test_collated_views_line_up_their_prompts():
    data = views(targets=2)
    batch = collate_views([data[0], data[1], data[2]])
    assert batch["image"].shape == (3, 1, *ROI) and batch["masks"].shape == (6, 1, *ROI)
    assert batch["points"].shape[:1] == batch["point_labels"].shape[:1] == batch["boxes"].shape[:1] == (6,)
    assert batch["names"] == [*data[0]["names"], *data[1]["names"], *data[2]["names"]]
    assert torch.equal(batch["boxes"][2:4], data[1]["boxes"]) and batch["draw"] == data[0]["draw"]


# ---------------------------------------------------------------- datalists


def datalist(path: Path, *splits: str | None) -> Path:
    cases = [{"image": f"{i}/ct.nii", "label": f"{i}/seg.nii", "labels": {"1": "a"}} for i in range(len(splits))]
    for entry, split in zip(cases, splits, strict=True):
        entry |= {"split": split} if split else {}
    path.write_text(json.dumps({"cases": cases}))
    return path


def test_a_datalist_is_read_by_split_with_paths_beside_it(tmp_path: Path):
    path = datalist(tmp_path / "datalist.json", "train", "test", None, "train")
    cases = read_datalist(path, "train")
    assert [c["image"] for c in cases] == [str(tmp_path / "0" / "ct.nii"), str(tmp_path / "3" / "ct.nii")]
    assert cases[1]["label"] == str(tmp_path / "3" / "seg.nii") and cases[0]["labels"] == {"1": "a"}
    assert len(read_datalist(str(path))) == 4
    (tmp_path / "more").mkdir()
    other = datalist(tmp_path / "more" / "list.json", "train")
    assert len(read_datalist([path, other], "train")) == 3


def test_a_datalist_that_is_none_is_told_in_one_line(tmp_path: Path):
    path = tmp_path / "datalist.json"
    for content, says in (
        (None, "does not exist"),
        ("[", "cannot be read as JSON"),
        ("[]", "is not of the form"),
        ('{"cases": {}}', "is not of the form"),
        ('{"cases": []}', "holds no case of split 'train'"),
        ('{"cases": ["a"]}', "case 1 of"),
        ('{"cases": [{"image": "a.nii", "label": "b.nii"}]}', "lacks image, label or labels"),
    ):
        if content is not None:
            path.write_text(content)
        with pytest.raises(ValueError) as caught:
            read_datalist(path, "train")
        sentence = str(caught.value)
        assert sentence.startswith("datalist: ") and str(path) in sentence and says in sentence and "\n" not in sentence


def test_a_bad_case_is_left_out_with_its_reason(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    array = rng().normal(size=(4, 5, 6)).astype(np.float32)
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "good.nii")
    good, missing = str(tmp_path / "good.nii"), str(tmp_path / "missing.nii")
    cases = [{"image": image, "label": good, "labels": {"1": "a"}} for image in (good, missing)]
    load = Compose([LoadVolumed(["image", "label"])])
    with caplog.at_level(logging.WARNING):
        (prepared,) = prepare_cases(cases, load)
    told = [record.getMessage() for record in caplog.records if record.name.startswith("scripts.")]
    assert told == [f"left out {missing}: image: {missing} does not exist"]
    assert prepared["image"].dtype == torch.float16 and type(prepared["label"]) is torch.Tensor
    assert prepared["image"].shape == prepared["label"].shape == (1, 4, 5, 6) and prepared["labels"] == {"1": "a"}
    with pytest.raises(ValueError, match="^datalist: none of its 1 cases can be used$"):
        prepare_cases(cases[1:], load)


# ---------------------------------------------------------------- from a batch to the engine's arguments


@pytest.fixture
def table() -> TextTable:
    return TextTable(["liver", "spleen", "aorta"], 256, Vocabulary([]))


def batch(**more: Any) -> dict[str, Any]:
    """Two images with two targets each; the second target is absent, the last has no row in the table."""
    masks = torch.ones(4, 1, *ROI, dtype=torch.bool)
    masks[1] = False
    prompts = {"points": torch.zeros(4, 3, 3), "point_labels": torch.ones(4, 3), "boxes": torch.zeros(4, 6)}
    names = ["spleen", "liver", "aorta", "unheard of"]
    return {"image": torch.rand(2, 1, *ROI), "masks": masks, "names": names, "draw": 5} | prompts | more


def test_a_prepared_batch_holds_what_the_engine_takes(table: TextTable):
    given = batch()
    image, target, args, kwargs = PrepareBatch(table)(given, CPU, non_blocking=True)
    assert image is given["image"] and target["masks"] is given["masks"] and args == ()
    assert kwargs["combinations"] == COMBINATIONS
    assert set(kwargs["prompts"]) == {"points", "point_labels", "boxes", "text"}
    assert kwargs["prompts"]["text"].argmax(dim=1).tolist() == [1, 0, 2, 0]


def test_text_counts_for_known_names_and_places_for_present_masks(table: TextTable):
    _, target, _, kwargs = PrepareBatch(table)(batch(), CPU)
    weights = dict(zip(kwargs["combinations"], target["weights"].tolist(), strict=True))
    assert weights == {
        "point+text": [1, 0, 1, 0],
        "box+text": [1, 0, 1, 0],
        "text": [1, 1, 1, 0],
        "box": [1, 0, 1, 1],
        "point": [1, 0, 1, 1],
        "point+box": [1, 0, 1, 1],
    }


def test_a_complaint_of_clip_is_not_taken_for_an_unknown_name(tmp_path: Path):
    clip = ClipText(nn.Linear(1, 1), tmp_path, Vocabulary([]))
    with pytest.raises(ValueError, match="holds no CLIP tokenizer"):
        PrepareBatch(clip)(batch(), CPU)


def test_a_step_may_decode_some_combinations_drawn_with_the_batch(table: TextTable):
    prepare = PrepareBatch(table, per_step=2)
    drawn = [prepare(batch(draw=draw), CPU) for draw in (*range(60), 7)]
    chosen = [kwargs["combinations"] for *_, kwargs in drawn]
    assert chosen[7] == chosen[-1] and {len(set(each)) for each in chosen} == {2}
    assert {name for each in chosen for name in each} == set(COMBINATIONS)
    assert all(target["weights"].shape == (2, 4) for _, target, *_ in drawn)


def test_a_config_may_leave_out_combinations(table: TextTable):
    *_, kwargs = PrepareBatch(table, combinations=["text", "box"])(batch(), CPU)
    assert kwargs["combinations"] == ("text", "box")


# ---------------------------------------------------------------- the forward call


class Counting(nn.Module):
    """Counts its encodings and keeps what it was asked to decode."""

    def __init__(self) -> None:
        super().__init__()
        self.encoded, self.decoded = 0, []
        self.layer = nn.Linear(10, 10)

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        self.encoded += 1
        return self.layer(image)

    def decode(self, embedding: torch.Tensor, **prompts: torch.Tensor) -> torch.Tensor:
        self.decoded.append(sorted(prompts))
        self.dtype = embedding.dtype
        return embedding.repeat_interleave(2, dim=0)


def test_one_embedding_serves_every_combination(table: TextTable):
    image, _, _, kwargs = PrepareBatch(table)(batch(), CPU)
    network = Counting()
    logits = EncodeOnceDecodeMany(network)(image, **kwargs)
    assert logits.shape == (6, 4, 1, *ROI) and network.encoded == 1 and network.dtype == torch.float32
    assert network.decoded == [
        ["point_labels", "points", "text"],
        ["boxes", "text"],
        ["text"],
        ["boxes"],
        ["point_labels", "points"],
        ["boxes", "point_labels", "points"],
    ]


def test_bfloat16_computes_in_it_and_answers_in_float32():
    network = Counting()
    logits = EncodeOnceDecodeMany(network, bfloat16=True)(torch.rand(2, 1, *ROI), {"text": torch.zeros(4, 7)}, ["text"])
    assert network.dtype == torch.bfloat16 and logits.dtype == torch.float32


@pytest.mark.parametrize("bfloat16", [False, True])
def test_every_trained_parameter_of_the_network_gets_a_gradient(bfloat16: bool, table: TextTable):
    torch.manual_seed(0)
    network = build_segvol("small")
    label = torch.zeros(1, 40, 70, 80)
    label[0, 10:30, 10:40, 10:50] = 1
    data = PromptedViews([case(image=label / 2, label=label, labels={"1": "liver"})], network.window_size, 2)
    image, target, _, kwargs = PrepareBatch(table)(collate_views([data[0], data[1]]), CPU)
    logits = EncodeOnceDecodeMany(network, bfloat16)(image, **kwargs)
    assert logits.shape == (6, 4, 1, 32, 64, 64)
    loss = PromptLoss()(logits, target)
    loss.backward()
    assert loss.isfinite()
    assert not [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert all(p.grad.isfinite().all() for p in network.parameters() if p.grad is not None)


# ---------------------------------------------------------------- loss


def logits_and_target(s: int = 6, n: int = 4, weights: torch.Tensor | None = None) -> tuple[torch.Tensor, dict]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(s, n, 1, *ROI, generator=generator)
    masks = torch.rand(n, 1, *ROI, generator=generator) < 0.2
    return logits, {"masks": masks, "weights": torch.ones(s, n) if weights is None else weights}


def test_the_loss_is_the_published_one_at_equal_weights():
    logits, target = logits_and_target()
    published = DiceCELoss(sigmoid=True, smooth_nr=0, smooth_dr=1)
    expected = torch.stack([published(each, target["masks"].float()) for each in logits]).mean()
    torch.testing.assert_close(PromptLoss()(logits, target), expected)


def test_prompts_of_no_weight_do_not_count():
    weights = torch.zeros(6, 4)
    weights[2, 3] = weights[5, 0] = 1
    logits, target = logits_and_target(weights=weights)
    published = DiceCELoss(sigmoid=True, smooth_nr=0, smooth_dr=1)
    masks = target["masks"].float()
    terms = [published(logits[i, k][None], masks[k][None]) for i, k in ((2, 3), (5, 0))]
    torch.testing.assert_close(PromptLoss()(logits, target), sum(terms) / 2)


def test_a_batch_that_counts_nothing_has_no_loss_and_no_nan():
    logits, target = logits_and_target(weights=torch.zeros(6, 4))
    loss = PromptLoss()(logits.requires_grad_(), target)
    loss.backward()
    assert loss == 0 and not logits.grad.any()


def test_a_perfect_answer_has_almost_no_loss_and_bfloat16_is_taken():
    _, target = logits_and_target()
    perfect = (target["masks"].float() * 2 - 1).expand(6, -1, -1, -1, -1, -1) * 30
    assert PromptLoss()(perfect, target) < 0.02
    assert PromptLoss()(perfect.bfloat16(), target).dtype == torch.float32


def test_the_balanced_loss_weighs_both_sides_alike_and_fades_out():
    logits = torch.zeros(1, 1, 1, 4, 4, 4)
    masks = torch.zeros(1, 1, 4, 4, 4, dtype=torch.bool)
    masks[0, 0, 0, 0, 0] = True
    logits[0, 0, 0, 0, 0, 0] = -5.0  # the one voxel is missed
    target = {"masks": masks, "weights": torch.ones(1, 1)}
    loss, published = PromptLoss(balanced_epochs=4), PromptLoss()(logits, target)
    terms = nn.functional.binary_cross_entropy_with_logits(logits[0, 0, 0], masks[0, 0].float(), reduction="none")
    difference = (terms[0, 0, 0] + terms[1:].mean()) / 2 - terms.mean()
    seen = []
    engine = Engine(lambda *_: seen.append(float(loss(logits, target) - published)))
    loss.attach(engine)
    engine.run([0], max_epochs=6)
    assert seen == pytest.approx([float(difference) * share for share in (1, 0.75, 0.5, 0.25, 0, 0)], abs=1e-6)


def test_a_balanced_loss_takes_masks_that_are_empty_or_full():
    logits, target = logits_and_target(1, 2)
    target["masks"][0], target["masks"][1] = False, True
    assert PromptLoss(balanced_epochs=2)(logits, target).isfinite()


# ---------------------------------------------------------------- metric and clipping


def test_a_metric_reads_one_combination_of_masks_that_are_there():
    masks = torch.zeros(3, 1, *ROI, dtype=torch.bool)
    masks[0, 0, :4], masks[2] = True, True  # the second is absent
    pred = torch.full((2, 3, 1, *ROI), -1.0)
    pred[0, 0, 0, :4] = 1  # text finds the first, box the third
    pred[1, 2] = 1
    output = {"pred": pred, "label": {"masks": masks, "weights": torch.ones(2, 3)}}
    combinations = ("text", "box")
    for combination, expected in (("text", [1, 0]), ("box", [0, 1]), (None, [1, 0, 0, 1])):
        found, true = masks_of(combination, combinations)(output)
        assert found.shape == true.shape == (len(expected), 1, *ROI) and found.dtype == torch.float32
        assert [float((a * b).sum() > 0) for a, b in zip(found, true, strict=True)] == expected


def test_a_metric_takes_a_batch_in_which_nothing_counts():
    output = {"pred": torch.zeros(1, 2, 1, *ROI), "label": logits_and_target(1, 2, torch.zeros(1, 2))[1]}
    full = {"pred": torch.ones(1, 2, 1, *ROI), "label": {"masks": torch.ones(2, 1, *ROI), "weights": torch.ones(1, 2)}}
    engine = Engine(lambda _, given: given)
    MeanDice(output_transform=masks_of(None, ("text",))).attach(engine, "dice")
    engine.run([output, full])
    assert engine.state.metrics["dice"] == 1
    engine.run([output])
    assert engine.state.metrics["dice"] == 0


def test_gradients_are_clipped_between_backward_and_step():
    parameter = nn.Parameter(torch.zeros(4))
    engine = Engine(lambda *_: None)
    engine.register_events(*IterationEvents)
    ClipGradients([parameter], 1.0).attach(engine)
    for size, expected in ((10.0, 0.5), (0.1, 0.1)):
        parameter.grad = torch.full((4,), size)
        engine.fire_event(IterationEvents.BACKWARD_COMPLETED)
        torch.testing.assert_close(parameter.grad, torch.full((4,), expected), atol=1e-4, rtol=1e-4)
