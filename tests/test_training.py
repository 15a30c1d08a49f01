"""The loss is the published one, one embedding serves every prompt, metrics read what they should."""

from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.handlers import MeanDice
from monai.losses import DiceCELoss
from scripts.network import build_segvol
from scripts.text_encoder import ClipText, TextTable
from scripts.training.datasets import PromptedViews, collate_views
from scripts.training.forward import COMBINATIONS, EncodeOnceDecodeMany, PrepareBatch
from scripts.training.losses import PromptLoss
from scripts.training.metrics import masks_of
from scripts.training.prepared import PreparedCase
from scripts.vocabulary import Vocabulary
from torch import nn

ROI = (8, 12, 10)
CPU = torch.device("cpu")


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
    image, target, args, kwargs = PrepareBatch(table, 256)(given, CPU, non_blocking=True)
    assert image is given["image"] and target["masks"] is given["masks"] and args == ()
    assert kwargs["combinations"] == COMBINATIONS
    assert set(kwargs["prompts"]) == {"points", "point_labels", "boxes", "text"}
    assert kwargs["prompts"]["text"].argmax(dim=1).tolist() == [1, 0, 2, 0]


def test_text_counts_for_known_names_and_places_for_present_masks(table: TextTable):
    _, target, _, kwargs = PrepareBatch(table, 256)(batch(), CPU)
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
        PrepareBatch(clip, 256)(batch(), CPU)


def test_a_step_may_decode_some_combinations_drawn_with_the_batch(table: TextTable):
    prepare = PrepareBatch(table, 256, per_step=2)
    drawn = [prepare(batch(draw=draw), CPU) for draw in (*range(60), 7)]
    chosen = [kwargs["combinations"] for *_, kwargs in drawn]
    assert chosen[7] == chosen[-1] and {len(set(each)) for each in chosen} == {2}
    assert {name for each in chosen for name in each} == set(COMBINATIONS)
    assert all(target["weights"].shape == (2, 4) for _, target, *_ in drawn)


def test_pseudo_prompts_go_beside_the_true_ones(table: TextTable):
    masks = torch.zeros(2, 1, *ROI, dtype=torch.bool)
    pseudo = {
        "pseudo_point_masks": masks,
        "pseudo_box_masks": ~masks,
        "pseudo_points": torch.zeros(2, 3, 3),
        "pseudo_point_labels": torch.ones(2, 3),
        "pseudo_boxes": torch.zeros(2, 6),
    }
    image, target, _, kwargs = PrepareBatch(table, 256)(batch(**pseudo), CPU)
    assert torch.equal(target["pseudo_masks"], torch.cat([masks, ~masks]))
    network = Counting()
    output = EncodeOnceDecodeMany(network)(image, **kwargs)
    assert network.encoded == 1 and network.decoded[6:] == [["point_labels", "points"], ["boxes"]]
    assert len(output["pseudo_logits"]) == 8 and output["logits"].shape == (6, 4, 1, *ROI)


def test_a_structure_without_a_name_has_no_text(table: TextTable):
    given = batch(names=["spleen", None, None, "unheard of"])
    _, target, _, kwargs = PrepareBatch(table, 256)(given, CPU)
    assert kwargs["prompts"]["text"].sum(dim=1).tolist() == [1, 0, 0, 0]
    assert target["weights"][COMBINATIONS.index("text")].tolist() == [1, 0, 0, 0]
    assert target["weights"][COMBINATIONS.index("box")].tolist() == [1, 0, 1, 1]
    *_, kwargs = PrepareBatch(table, 256)(batch(names=[None] * 4), CPU)
    assert kwargs["prompts"]["text"].shape == (4, 256) and not kwargs["prompts"]["text"].any()


def test_a_config_may_leave_out_combinations(table: TextTable):
    *_, kwargs = PrepareBatch(table, 256, combinations=["text", "box"])(batch(), CPU)
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
    image, _, _, kwargs = PrepareBatch(table, 256)(batch(), CPU)
    network = Counting()
    output = EncodeOnceDecodeMany(network)(image, **kwargs)
    assert output["logits"].shape == (6, 4, 1, *ROI) and set(output) == {"logits"}
    assert network.encoded == 1 and network.dtype == torch.float32
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
    model = EncodeOnceDecodeMany(network, bfloat16=True)
    output = model(torch.rand(2, 1, *ROI), {"text": torch.zeros(4, 7)}, ["text"])
    assert network.dtype == torch.bfloat16 and output["logits"].dtype == torch.float32


@pytest.mark.parametrize("bfloat16", [False, True])
def test_every_trained_parameter_of_the_network_gets_a_gradient(bfloat16: bool, table: TextTable):
    torch.manual_seed(0)
    network = build_segvol("small")
    label = torch.zeros(1, 40, 70, 80)
    label[0, 10:30, 10:40, 10:50] = 1
    volume = {"image": label / 2, "label": label, "labels": {"1": "liver"}, "pseudo_mask": 1 - label}
    data = PromptedViews([PreparedCase.of_tensors(volume)], network.window_size, 2, pseudo_masks=2)
    image, target, _, kwargs = PrepareBatch(table, 256)(collate_views([data[0], data[1]]), CPU)
    output = EncodeOnceDecodeMany(network, bfloat16)(image, **kwargs)
    assert output["logits"].shape == (6, 4, 1, 32, 64, 64) and output["pseudo_logits"].shape == (4, 1, 32, 64, 64)
    loss = PromptLoss()(output, target)
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
    torch.testing.assert_close(PromptLoss()({"logits": logits}, target), expected)


def test_prompts_of_no_weight_do_not_count():
    weights = torch.zeros(6, 4)
    weights[2, 3] = weights[5, 0] = 1
    logits, target = logits_and_target(weights=weights)
    published = DiceCELoss(sigmoid=True, smooth_nr=0, smooth_dr=1)
    masks = target["masks"].float()
    terms = [published(logits[i, k][None], masks[k][None]) for i, k in ((2, 3), (5, 0))]
    torch.testing.assert_close(PromptLoss()({"logits": logits}, target), sum(terms) / 2)


def test_a_batch_that_counts_nothing_has_no_loss_and_no_nan():
    logits, target = logits_and_target(weights=torch.zeros(6, 4))
    loss = PromptLoss()({"logits": logits.requires_grad_()}, target)
    loss.backward()
    assert loss == 0 and not logits.grad.any()


def test_a_perfect_answer_has_almost_no_loss_and_bfloat16_is_taken():
    _, target = logits_and_target()
    perfect = (target["masks"].float() * 2 - 1).expand(6, -1, -1, -1, -1, -1) * 30
    assert PromptLoss()({"logits": perfect}, target) < 0.02
    assert PromptLoss()({"logits": perfect.bfloat16()}, target).dtype == torch.float32


def test_pseudo_masks_weigh_a_tenth_and_empty_ones_nothing():
    logits, target = logits_and_target()
    pseudo_logits, masks = logits[0], target["masks"]
    masks[1] = False
    published = DiceCELoss(sigmoid=True, smooth_nr=0, smooth_dr=1)
    there = [0, 2, 3]
    expected = torch.stack([published(pseudo_logits[i][None], masks[i][None].float()) for i in there]).mean()
    truth = PromptLoss()({"logits": logits}, target)
    both = {"logits": logits, "pseudo_logits": pseudo_logits}
    pseudo = {**target, "pseudo_masks": masks}
    torch.testing.assert_close(PromptLoss()(both, pseudo), truth + 0.1 * expected)
    torch.testing.assert_close(PromptLoss(pseudo_weight=2)(both, pseudo), truth + 2 * expected)
    nothing = {**target, "pseudo_masks": torch.zeros_like(masks)}
    torch.testing.assert_close(PromptLoss()(both, nothing), truth)


def test_checkpointed_activations_give_the_same_gradients():
    gradients = []
    for checkpointed in (False, True):
        torch.manual_seed(0)
        network = build_segvol("small")
        model = EncodeOnceDecodeMany(network, checkpoint_activations=checkpointed)
        names = list(network.state_dict())
        image = torch.rand(1, 1, *network.window_size, generator=torch.Generator().manual_seed(1))
        model(image, {"boxes": torch.tensor([[2.0, 3, 4, 20, 30, 40]])}, ["box"])["logits"].square().mean().backward()
        gradients.append([p.grad for p in network.image_encoder.parameters()])
    assert names == list(build_segvol("small").state_dict())
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b)


def test_the_balanced_loss_weighs_both_sides_alike_and_fades_out():
    logits = torch.zeros(1, 1, 1, 4, 4, 4)
    masks = torch.zeros(1, 1, 4, 4, 4, dtype=torch.bool)
    masks[0, 0, 0, 0, 0] = True
    logits[0, 0, 0, 0, 0, 0] = -5.0  # the one voxel is missed
    target = {"masks": masks, "weights": torch.ones(1, 1)}
    loss, published = PromptLoss(balanced_epochs=4), PromptLoss()({"logits": logits}, target)
    terms = nn.functional.binary_cross_entropy_with_logits(logits[0, 0, 0], masks[0, 0].float(), reduction="none")
    difference = (terms[0, 0, 0] + terms[1:].mean()) / 2 - terms.mean()
    seen = []
    engine = Engine(lambda *_: seen.append(float(loss({"logits": logits}, target) - published)))
    loss.attach(engine)
    engine.run([0], max_epochs=6)
    assert seen == pytest.approx([float(difference) * share for share in (1, 0.75, 0.5, 0.25, 0, 0)], abs=1e-6)


def test_a_balanced_loss_takes_masks_that_are_empty_or_full():
    logits, target = logits_and_target(1, 2)
    target["masks"][0], target["masks"][1] = False, True
    assert PromptLoss(balanced_epochs=2)({"logits": logits}, target).isfinite()


# ---------------------------------------------------------------- metric and clipping


def test_a_metric_reads_one_combination_of_masks_that_are_there():
    masks = torch.zeros(3, 1, *ROI, dtype=torch.bool)
    masks[0, 0, :4], masks[2] = True, True  # the second is absent
    pred = torch.full((2, 3, 1, *ROI), -1.0)
    pred[0, 0, 0, :4] = 1  # text finds the first, box the third
    pred[1, 2] = 1
    output = {"pred": {"logits": pred}, "label": {"masks": masks, "weights": torch.ones(2, 3)}}
    combinations = ("text", "box")
    for combination, expected in (("text", [1, 0]), ("box", [0, 1]), (None, [1, 0, 0, 1])):
        found, true = masks_of(combination, combinations)(output)
        assert found.shape == true.shape == (len(expected), 1, *ROI) and found.dtype == torch.float32
        assert [float((a * b).sum() > 0) for a, b in zip(found, true, strict=True)] == expected


def test_a_metric_takes_a_batch_in_which_nothing_counts():
    output = {"pred": {"logits": torch.zeros(1, 2, 1, *ROI)}, "label": logits_and_target(1, 2, torch.zeros(1, 2))[1]}
    target = {"masks": torch.ones(2, 1, *ROI), "weights": torch.ones(1, 2)}
    full = {"pred": {"logits": torch.ones(1, 2, 1, *ROI)}, "label": target}
    engine = Engine(lambda _, given: given)
    MeanDice(output_transform=masks_of(None, ("text",))).attach(engine, "dice")
    engine.run([output, full])
    assert engine.state.metrics["dice"] == 1
    engine.run([output])
    assert engine.state.metrics["dice"] == 0
