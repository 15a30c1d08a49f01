"""Dense supervision: what a head answers, what the labels of a view say, and how they are compared."""

import numpy as np
import pytest
import torch
from scripts.text_encoder import TextTable
from scripts.training.datasets import PromptedViews, collate_views
from scripts.training.dense import UNKNOWN, DenseHead, class_map, dense_loss
from scripts.training.forward import EncodeOnceDecodeMany, PrepareBatch
from scripts.training.losses import PromptLoss
from scripts.training.prepared import PreparedCase
from scripts.vocabulary import Vocabulary


def test_a_head_answers_each_token_in_its_own_place():
    head = DenseHead(3, (4, 8, 8), classes=2)
    embedding = torch.zeros(1, 3, 2, 2, 3)
    embedding[0, :, 1, 0, 2] = 1
    with torch.no_grad():
        head.linear.bias.zero_()
        logits = head(embedding)
    assert logits.shape == (1, 3, 4, 8, 12)
    assert logits[0, :, 2:, :4, 8:].all() and logits.count_nonzero() == logits[0, :, 2:, :4, 8:].numel()


def test_a_complete_case_has_background_and_another_has_not():
    label = torch.tensor([[[0, 0, 1, 1, 2, 2, 5, 5]]]).expand(2, 2, 8)
    names = {1: "liver", 2: "spleen", 5: "thing"}
    rows = {"spleen": 0, "liver": 3}
    complete = class_map(label, names, rows, complete=True)
    assert complete.shape == (1, 1, 4) and complete[0, 0].tolist() == [0, 4, 1, UNKNOWN]
    assert class_map(label, names, rows, complete=False)[0, 0].tolist() == [UNKNOWN, 4, 1, UNKNOWN]


def test_the_loss_is_small_for_the_truth_and_unknown_voxels_do_not_count():
    classes = torch.zeros(1, 2, 4, 4, dtype=torch.int64)
    classes[0, :, :2] = 1
    right = torch.nn.functional.one_hot(classes, 3).permute(0, 4, 1, 2, 3) * 20.0
    assert dense_loss(right, classes) < 0.1
    wrong = right.roll(1, dims=1)
    assert dense_loss(wrong, classes) > 5
    half = classes.clone()
    half[0, 1] = UNKNOWN
    mixed = right.clone()
    mixed[:, :, 1] = wrong[:, :, 1]
    assert dense_loss(mixed, half) < 0.2


def test_a_view_without_known_voxels_has_no_loss_and_no_nan():
    nothing = torch.full((1, 2, 2, 2), UNKNOWN)
    logits = torch.randn(1, 3, 2, 2, 2, requires_grad=True)
    loss = dense_loss(logits, nothing)
    loss.backward()
    assert loss == 0 and not logits.grad.any()


@pytest.fixture
def table() -> TextTable:
    return TextTable(["liver", "spleen"], 256, Vocabulary([]))


@pytest.mark.parametrize("per_step", [0, 2])
def test_encoder_and_head_learn_from_one_forward_call(table: TextTable, per_step: int):
    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Conv3d(1, 3, 4, stride=4)

        def encode(self, image: torch.Tensor) -> torch.Tensor:
            return self.layer(image)

        def decode(self, embedding: torch.Tensor, **_: torch.Tensor) -> torch.Tensor:
            return torch.nn.functional.interpolate(embedding[:, :1], scale_factor=4)

    label = np.zeros((1, 8, 8, 8), np.uint8)
    label[0, 2:6, 2:6, 2:6] = 1
    case = {"image": torch.rand(1, 8, 8, 8), "label": torch.from_numpy(label), "labels": {"1": "liver"}}
    views = PromptedViews([PreparedCase.of_tensors({**case, "complete": True})], (8, 8, 8), 2, targets=1, table=table)
    batch = collate_views([views[0], views[1]])
    image, target, _, kwargs = PrepareBatch(table, 256, per_step=per_step)(batch, torch.device("cpu"))
    network = Network()
    model = EncodeOnceDecodeMany(network, dense_head=DenseHead(3, (4, 4, 4), 2))
    output = model(image, **kwargs)
    assert output["logits"].shape == (per_step, 2, 1, 8, 8, 8) and output["classes"].shape == (2, 3, 4, 4, 4)
    PromptLoss(dense_weight=0.5)(output, target).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in model.parameters())
