"""SimMIM hides what it should, puts patches back where they were, and is compared with predicting a mean."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from ignite.engine import Engine
from matplotlib.image import imread
from monai.handlers import MeanAbsoluteError
from monai.transforms import Compose, ScaleIntensityd
from scripts.checkpoints import load_image_encoder
from scripts.fresh_weights import start_image_encoder
from scripts.network import SegVol
from scripts.training.prepared import PreparedCase, prepare_cases
from scripts.training.simmim import Masking, SimMIM, UnlabelledViews
from scripts.training.simmim.metrics import hidden_voxels, mean_of_data, mean_of_view, median_of_view
from scripts.training.simmim.model import ReconstructionLoss, prepare_masked, start_from
from scripts.training.simmim.picture import draw_reconstructions
from scripts.training.simmim.report import Report
from scripts.training.simmim.views import load_held_out
from scripts.transforms import LoadVolumed
from torch import nn

WINDOW, PATCH = (8, 12, 18), (2, 4, 3)
VOXELS = 2 * 4 * 3
CPU = torch.device("cpu")


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.fixture
def network() -> SegVol:
    """No two sizes alike, so that exchanged axes show."""
    torch.manual_seed(0)
    return SegVol(
        window_size=WINDOW,
        patch_size=PATCH,
        embed_dim=VOXELS,
        num_layers=2,
        num_heads=2,
        mlp_dim=16,
        decoder_depth=1,
        decoder_heads=2,
        decoder_mlp_dim=8,
        iou_hidden=8,
        text_dim=8,
        exchanged_axes=False,
        fourier_scale=1.0,
    )


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    masking = Masking(WINDOW, PATCH)
    images = torch.rand(2, 1, *WINDOW, generator=torch.Generator().manual_seed(1))
    return {"image": images, "mask": torch.stack([masking.draw(rng(seed)) for seed in (1, 2)])}


# ---------------------------------------------------------------- the network


def test_with_identity_weights_a_patch_comes_back_where_it_was_and_a_hidden_one_is_the_token(network, batch):
    simmim = SimMIM(network)
    vit = network.image_encoder
    vit.blocks, vit.norm = nn.ModuleList(), nn.Identity()
    linear = vit.patch_embedding.patch_embeddings[1]
    with torch.no_grad():
        for module in (linear, simmim.head):
            module.weight.copy_(torch.eye(VOXELS))
            module.bias.zero_()
        vit.patch_embedding.position_embeddings.zero_()
        simmim.mask_token.copy_(-1 - torch.arange(VOXELS))
        drawn = simmim(batch["image"], batch["mask"])
    token = -1 - torch.arange(VOXELS).reshape(PATCH).float()
    expected = torch.where(batch["mask"], token.repeat(4, 3, 6), batch["image"])
    assert torch.equal(drawn, expected) and batch["mask"].any() and not batch["mask"].all()


def test_what_is_hidden_is_not_seen_and_what_is_visible_is(network, batch):
    simmim, image, mask = SimMIM(network), batch["image"], batch["mask"]
    with torch.no_grad():
        drawn = simmim(image, mask)
        assert torch.equal(simmim(torch.where(mask, torch.rand_like(image), image), mask), drawn)
        assert not torch.equal(simmim(torch.where(mask, image, torch.rand_like(image)), mask), drawn)


def test_hidden_patches_know_their_place(network):
    simmim = SimMIM(network)
    with torch.no_grad():
        drawn = simmim(torch.rand(1, 1, *WINDOW), torch.ones(1, 1, *WINDOW, dtype=torch.bool))
    corners = torch.stack([drawn[0, 0, :2, :4, :3], drawn[0, 0, -2:, :4, :3], drawn[0, 0, :2, -4:, :3]])
    assert torch.pdist(corners.flatten(1)).min() > 0


def test_every_parameter_learns_from_the_one_forward_call(network, batch):
    simmim = SimMIM(network)
    image, target, _, kwargs = prepare_masked(batch, CPU)
    ReconstructionLoss()(simmim(image, **kwargs), target).backward()
    without = [name for name, p in simmim.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


def test_checkpointed_activations_change_no_number(network, batch):
    kept, again = SimMIM(network), SimMIM(network, checkpoint_activations=True)
    again.load_state_dict(kept.state_dict())
    names = [name for name, _ in kept.named_parameters()]
    results = []
    for simmim in (again, kept):
        loss = ReconstructionLoss()(simmim(**batch), batch)
        results.append([loss, *torch.autograd.grad(loss, list(simmim.parameters()))])
    assert [name for name, _ in again.named_parameters()] == names
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_bfloat16_is_near_and_answers_in_float32(network, batch):
    precise, rough = SimMIM(network), SimMIM(network, bfloat16=True)
    rough.load_state_dict(precise.state_dict())
    with torch.no_grad():
        a, b = precise(**batch), rough(**batch)
    assert b.dtype == torch.float32 and not torch.equal(a, b)
    assert torch.allclose(a, b, atol=0.03)


def test_the_loss_is_l1_over_hidden_voxels_divided_by_their_number():
    image, mask = torch.zeros(1, 1, 2, 2, 2), torch.zeros(1, 1, 2, 2, 2, dtype=torch.bool)
    mask[..., 0] = True
    drawn = torch.where(mask, 0.5, 100.0)
    drawn[0, 0, 0, 0, 0] = -1.5
    loss = ReconstructionLoss()(drawn, {"image": image, "mask": mask})
    assert loss.item() == pytest.approx((1.5 + 3 * 0.5) / 4)


def test_it_learns_stripes_to_well_below_their_mean(network):
    phases = torch.arange(18) + 9 * torch.arange(2).reshape(2, 1)
    image = (0.5 + 0.4 * torch.sin(phases / 3)).reshape(2, 1, 1, 1, 18).expand(2, 1, *WINDOW).contiguous()
    start_image_encoder(network.image_encoder, PATCH, network.grid_size)
    simmim, loss, masking = SimMIM(network), ReconstructionLoss(), Masking(WINDOW, PATCH)
    optimizer = torch.optim.AdamW(simmim.parameters(), lr=0.005)
    losses = []
    for step in range(120):
        mask = torch.stack([masking.draw(rng(2 * step + i)) for i in range(2)])
        optimizer.zero_grad()
        losses.append(loss(simmim(image, mask), {"image": image, "mask": mask}))
        losses[-1].backward()
        optimizer.step()
    of_mean = (image - image.mean(dim=(1, 2, 3, 4), keepdim=True)).abs().mean()
    assert torch.stack(losses[-10:]).mean() < 0.5 * of_mean


# ---------------------------------------------------------------- masks


@pytest.mark.parametrize(("unit", "ratio"), [(None, 0.6), ([2, 4, 3], 0.5), ((4, 12, 6), 0.3)])
def test_a_mask_hides_whole_units_and_always_as_many(unit, ratio):
    masking = Masking(WINDOW, PATCH, unit, ratio)
    d, h, w = masking.unit
    units = (8 // d) * (12 // h) * (18 // w)
    seen = set()
    for seed in range(20):
        mask = masking.draw(rng(seed))
        assert mask.shape == (1, *WINDOW) and mask.dtype == torch.bool
        shares = mask[0].float().reshape(8 // d, d, 12 // h, h, 18 // w, w).mean(dim=(1, 3, 5))
        assert ((shares == 0) | (shares == 1)).all()
        assert shares.sum() == round(ratio * units)
        seen.add(tuple(shares.flatten().tolist()))
    assert len(seen) > 3


@pytest.mark.parametrize(
    ("size", "unit", "hidden"),
    [(((32, 256, 256), (4, 16, 16)), (8, 32, 32), 154), (((32, 64, 64), (8, 8, 8)), (16, 16, 16), 19)],
)
def test_a_unit_is_two_patches_along_each_axis_where_nothing_else_is_said(size, unit, hidden):
    masking = Masking(*size)
    assert masking.unit == unit and masking.hidden == hidden
    assert Masking(WINDOW, PATCH).unit == (4, 4, 6)  # three patches do not come in pairs


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"unit": 8}, "mask_unit is 8"),
        ({"unit": [2, 4]}, r"mask_unit is \[2, 4\]"),
        ({"unit": [3, 4, 3]}, "each a multiple of the patch"),
        ({"unit": [2, 8, 3]}, "that divides the window"),
        ({"unit": [2, 4.0, 3]}, "mask_unit is"),
        ({"unit": [0, 4, 3]}, "mask_unit is"),
        ({"unit": "null"}, "mask_unit is 'null'"),
        ({"ratio": 0}, "mask_ratio is 0;"),
        ({"ratio": 1}, "mask_ratio is 1;"),
        ({"ratio": 60}, "mask_ratio is 60;"),
        ({"ratio": 0.001}, "hides some of the"),
        ({"ratio": "much"}, "mask_ratio is 'much'"),
        ({"ratio": float("nan")}, "mask_ratio is nan"),
        ({"ratio": True}, "mask_ratio is True"),
    ],
)
def test_what_cannot_be_hidden_is_told_in_one_line(options, told):
    with pytest.raises(SystemExit, match=told) as caught:
        Masking(WINDOW, PATCH, **options)
    assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- views


def case(value: float = 0.5) -> PreparedCase:
    image = torch.rand(1, 16, 24, 20, generator=torch.Generator().manual_seed(0)).half() * value
    return PreparedCase.of_tensors({"image": image})


def views(**more: Any) -> UnlabelledViews:
    return UnlabelledViews([case()], Masking(WINDOW, PATCH), **{"length": 9, "seed": 3} | more)


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[key], b[key]) for key in ("image", "mask"))


def test_a_view_is_drawn_from_seed_epoch_and_index_alone():
    data, other = views(), views()
    first = [data[i] for i in (0, 5, 7)]
    assert all(same(a, other[i]) for a, i in zip(first[::-1], (7, 5, 0), strict=True))
    assert not same(data[0], data[1]) and not same(data[0], views(seed=4)[0])
    data.epoch = 1
    assert not torch.equal(data[0]["mask"], first[0]["mask"])
    assert first[0]["image"].shape == (1, *WINDOW) and first[0]["image"].dtype == torch.float32
    assert len(data) == 9


def test_as_a_handler_the_views_follow_the_epochs():
    data, seen = views(), []
    engine = Engine(lambda *_: seen.append(data.epoch))
    data.attach(engine)
    engine.run([0], max_epochs=3)
    assert seen == [1, 2, 3]


def test_shares_that_are_none_are_told_in_one_line():
    with pytest.raises(SystemExit, match="whole_share 0.7 and window_share 0.5"):
        views(whole=0.7, window=0.5)


def test_the_mean_counts_every_image_the_same():
    zeros, ones = (
        PreparedCase.of_tensors({"image": torch.full((1, n, 4, 4), v).half()}) for n, v in ((4, 0.0), (40, 1.0))
    )
    assert UnlabelledViews([zeros, ones], Masking(WINDOW, PATCH), 1).mean() == pytest.approx(0.5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in "abc":
        array = rng(ord(name)).normal(size=(6, 7, 8)).astype(np.float32)
        nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / f"{name}.nii")
    return tmp_path


PLAIN = Compose([LoadVolumed(keys="image"), ScaleIntensityd(keys="image")])


def held_out(datalist: Path, val_split: str) -> tuple[list[PreparedCase], list[PreparedCase]]:
    trained = views()
    return load_held_out(datalist, "train", val_split, PLAIN, None, trained), trained.cases


def test_validation_takes_what_is_not_trained_on(folder, caplog):
    cases = [("a", "train"), ("b", "train"), ("b", "validation"), ("c", "validation")]
    datalist = folder / "datalist.json"
    datalist.write_text(json.dumps({"cases": [{"image": f"{name}.nii", "split": split} for name, split in cases]}))
    found, _ = held_out(datalist, "validation")
    (expected,) = prepare_cases([{"image": str(folder / "c.nii")}], PLAIN)
    assert len(found) == 1 and torch.equal(found[0].image, expected.image)
    assert "validation shows" not in caplog.text


@pytest.mark.parametrize("split", ["nothing", "train"])
def test_without_other_images_it_takes_those_of_training_and_says_so(folder, split, caplog):
    found, trained = held_out(folder, split)
    assert found is trained
    assert "validation shows images of training" in caplog.text


# ---------------------------------------------------------------- what is reported


def output_of(batch: dict[str, torch.Tensor], drawn: torch.Tensor) -> dict[str, Any]:
    return {"image": batch["image"], "label": batch, "pred": drawn}


def score(transform: Any, *outputs: dict[str, Any]) -> float:
    metric = MeanAbsoluteError(output_transform=transform, save_details=False)
    for output in outputs:
        metric.update(transform(output))
    return metric.compute()


def test_a_reconstruction_is_scored_where_it_was_hidden(batch):
    drawn = torch.where(batch["mask"], batch["image"] + 0.25, 7.0)
    assert score(hidden_voxels, output_of(batch, drawn)) == pytest.approx(0.25, abs=1e-6)


def test_predicting_a_constant_is_scored_on_the_same_voxels(batch):
    output, expected = output_of(batch, torch.zeros_like(batch["image"])), {"mean": [], "median": [], "data": []}
    for image, mask in zip(batch["image"].numpy(), batch["mask"].numpy(), strict=True):
        expected["mean"].append(np.abs(image[mask] - image[~mask].mean()).mean())
        expected["median"].append(np.abs(image[mask] - np.sort(image[~mask])[(~mask).sum() // 2 - 1]).mean())
        expected["data"].append(np.abs(image[mask] - 0.3).mean())
    for name, transform in (("mean", mean_of_view), ("median", median_of_view), ("data", mean_of_data(0.3))):
        assert score(transform, output) == pytest.approx(np.mean(expected[name]), abs=1e-6)


def validate(report: Report, epoch: int, batches: list[dict[str, torch.Tensor]], l1: float) -> None:
    """What MONAI's evaluator does with its handler."""
    engine = Engine(lambda _, batch: output_of(batch, batch["image"] / 2))
    report.attach(engine)
    engine.state.metrics = {"l1": l1, "l1_of_mean": 0.2}
    engine.state.max_epochs, engine.state.epoch = epoch, epoch - 1
    engine.run(batches, max_epochs=epoch, epoch_length=len(batches))


def test_a_validation_leaves_a_picture_and_a_summary(batch, tmp_path):
    report = Report(tmp_path / "new", {"size": "tiny"}, rows=3)
    validate(report, 2, [batch, batch], 0.1)
    validate(report, 4, [batch, batch], 0.15)
    files = {"reconstruction.png", "reconstruction_epoch_0002.png", "reconstruction_epoch_0004.png", "summary.json"}
    assert {path.name for path in (tmp_path / "new").iterdir()} == files
    latest = (tmp_path / "new" / "reconstruction.png").read_bytes()
    assert latest == (tmp_path / "new" / "reconstruction_epoch_0004.png").read_bytes()
    summary = json.loads((tmp_path / "new" / "summary.json").read_text())
    assert summary["settings"] == {"size": "tiny"} and summary["best"]["epoch"] == 2
    assert summary["validations"] == [
        {"epoch": 2, "l1": 0.1, "l1_of_mean": 0.2},
        {"epoch": 4, "l1": 0.15, "l1_of_mean": 0.2},
    ]


def test_a_resumed_run_keeps_the_validations_before_it(batch, tmp_path):
    former, later = Report(tmp_path, {}), Report(tmp_path, {})
    validate(former, 2, [batch], 0.1)
    later.load_state_dict(former.state_dict())
    validate(later, 3, [batch], 0.05)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [validation["epoch"] for validation in summary["validations"]] == [2, 3]


def test_a_picture_that_fails_leaves_the_former_one(batch, tmp_path, monkeypatch):
    report = Report(tmp_path, {})
    validate(report, 1, [batch], 0.1)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.png")}

    def broken(path: Path, *_: Any) -> None:
        path.write_bytes(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr("scripts.training.simmim.report.draw_reconstructions", broken)
    with pytest.raises(OSError, match="full"):
        validate(report, 1, [batch], 0.1)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.png")} == before
    assert not list(tmp_path.glob(".*"))


def test_a_picture_shows_input_what_was_hidden_and_what_was_drawn_there(tmp_path):
    image, mask = torch.full((4, 8, 8), 0.5), torch.zeros(4, 8, 8, dtype=torch.bool)
    mask[:, :4, 4:] = True
    draw_reconstructions(tmp_path / "a.png", [(image, mask, torch.ones(4, 8, 8))], "a title")
    pixels = imread(tmp_path / "a.png")[..., :3]
    gray, blue, white = (
        (np.abs(pixels - colour).max(axis=2) < 0.01) for colour in (0.5, [0x2B / 255, 0x4A / 255, 0x78 / 255], 1.0)
    )
    height, width = gray.shape
    panels = [slice(i * width // 3, (i + 1) * width // 3) for i in range(3)]
    area = gray[:, panels[0]].sum()
    assert not blue[:, panels[0]].any() and not blue[:, panels[2]].any()
    for panel in panels[1:]:
        assert gray[:, panel].sum() == pytest.approx(0.75 * area, rel=0.05)
    assert blue[:, panels[1]].sum() == pytest.approx(0.25 * area, rel=0.05)
    rows, columns = np.nonzero(blue)
    middle = np.nonzero(gray[:, panels[0]].any(axis=1))[0].mean()
    assert rows.min() > middle - 2  # the low half of the second axis is the back, and is drawn below
    assert columns.max() < width / 2  # the high half of the third is the patient's right, at image left


# ---------------------------------------------------------------- its weights


def test_a_file_of_pre_training_gives_its_encoder_and_nothing_else(network, tmp_path):
    simmim = SimMIM(network)
    torch.save({"model": simmim.state_dict(), "optimizer": {}}, tmp_path / "model.pt")
    before = {name: value.detach().clone() for name, value in network.named_parameters()}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert load_image_encoder(network, tmp_path / "model.pt") == ["mask_token", "head.weight", "head.bias"]
    for name, value in network.named_parameters():
        assert torch.equal(value, before[name]) if name.startswith("image_encoder.") else not value.any()


def test_pre_training_goes_on_from_a_whole_model_and_refuses_what_has_no_encoder(network, tmp_path):
    torch.save({"model": network.state_dict()}, tmp_path / "whole.pt")
    norm = network.image_encoder.norm.weight
    with torch.no_grad():
        norm.zero_()
    start_from(network, tmp_path / "whole.pt")
    assert norm.all()
    torch.save({"model": {"mask_token": torch.zeros(1)}}, tmp_path / "none.pt")
    with pytest.raises(SystemExit, match="none.pt does not fit this network; .* missing") as caught:
        start_from(network, tmp_path / "none.pt")
    assert "\n" not in str(caught.value)
