"""The base network equals the official one; the small one has the same seams."""

import copy
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from monai.networks.nets.vista3d import Attention
from scripts.mask_decoder import SdpaAttention
from scripts.network import SegVol, build_segvol
from scripts.text_encoder import ClipText
from scripts.vocabulary import Vocabulary
from transformers import CLIPTextConfig, CLIPTextModel

BOXES = torch.tensor([[8, 60, 50, 24, 180, 200], [2, 10, 100, 29, 90, 250]]).float()
POINTS = torch.tensor([[[16, 128, 128], [2, 10, 10], [0, 0, 0]], [[5, 200, 30], [9, 100, 180], [30, 2, 250]]]).float()
LABELS = torch.tensor([[1, 0, -1], [1, 1, 0]])
KINDS = {  # prompt kind -> texts
    "text": ["liver", "left kidney"],
    "box": None,
    "point": None,
    "box+text": ["spleen", "liver tumor"],
    "point+text": ["left kidney", "aorta"],
    "box+point": None,
    "box+point+text": ["pancreas", "right lung"],
}


@pytest.fixture(scope="module")
def text(shared: Path, formula_base: SegVol, bundle: Path) -> ClipText:
    vocabulary = Vocabulary.load(bundle / "configs" / "vocabulary.json")
    return ClipText(formula_base.text_encoder, shared / "reference" / "clip_tokenizer", vocabulary)


@pytest.fixture(scope="module")
def embedding(formula: ModuleType, formula_base: SegVol) -> torch.Tensor:
    volumes = [torch.from_numpy(formula.volume((32, 256, 256), seed))[None] for seed in (7, 8)]
    with torch.no_grad():
        return formula_base.encode(torch.stack(volumes))


@pytest.fixture(scope="module")
def reference(shared: Path) -> dict[str, np.ndarray]:
    return dict(np.load(shared / "reference" / "forward.npz"))


@pytest.mark.slow
def test_the_image_embedding_equals_the_official_one(embedding, reference):
    tokens = embedding.flatten(2).transpose(1, 2)[:, ::64, ::16]
    np.testing.assert_allclose(tokens.numpy(), reference["embedding"], atol=1e-3)


@pytest.mark.slow
def test_the_text_embedding_equals_the_official_one(formula_base, text, reference):
    with torch.no_grad():
        aligned = formula_base.text_align(text(["liver", "left kidney", "aorta"]))[:, ::8]
    np.testing.assert_allclose(aligned.numpy(), reference["text_embedding"], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_every_prompt_kind_gives_the_official_logits(kind, formula_base, embedding, text, reference):
    names = KINDS[kind]
    with torch.no_grad():
        logits = formula_base.decode(
            embedding,
            points=POINTS if "point" in kind else None,
            point_labels=LABELS if "point" in kind else None,
            boxes=BOXES if "box" in kind else None,
            text=text(names) if names else None,
        )
    np.testing.assert_allclose(logits[:, 0, ::4, ::16, ::16].numpy(), reference[kind], atol=1e-3)


# ---------------------------------------------------------------- the same seams, on the small network


@pytest.fixture(scope="module")
def small() -> SegVol:
    torch.manual_seed(0)
    return build_segvol("small").eval()


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.rand(2, 1, 32, 64, 64, generator=torch.Generator().manual_seed(0))


def prompts(n: int, *kinds: str) -> dict[str, torch.Tensor]:
    """Prompts of the given kinds for the small window, different ones for each of ``n`` targets."""
    rng = torch.Generator().manual_seed(n)
    size = torch.tensor([32.0, 64, 64])
    corners = torch.rand(n, 2, 3, generator=rng) * (size - 1)
    made = {
        "points": torch.rand(n, 3, 3, generator=rng) * (size - 1),
        "point_labels": torch.tensor([[1, 0, -1]]).expand(n, -1),
        "boxes": torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1),
        "text": torch.eye(n, 256),
    }
    names = {"point": ("points", "point_labels"), "box": ("boxes",), "text": ("text",)}
    return {name: made[name] for kind in kinds for name in names[kind]}


def part(given: dict[str, torch.Tensor], rows: slice) -> dict[str, torch.Tensor]:
    return {name: value[rows] for name, value in given.items()}


@torch.no_grad()
def test_forward_takes_an_image_alone_and_looks_at_it(small, image):
    logits = small(image)
    assert logits.shape == (2, 1, 32, 64, 64) and logits.dtype == torch.float32
    assert logits.std() > 0 and not torch.allclose(logits[0], logits[1], atol=1e-4)


@torch.no_grad()
def test_forward_is_encode_and_decode(small, image):
    given = prompts(2, "point", "box", "text")
    torch.testing.assert_close(small(image, **given), small.decode(small.encode(image), **given))


@torch.no_grad()
@pytest.mark.parametrize("kinds", [("point",), ("box",), ("text",), ("point", "text"), ("point", "box", "text")])
def test_many_prompts_on_one_embedding_equal_one_at_a_time(kinds, small, image):
    embedding, given = small.encode(image[:1]), prompts(5, *kinds)
    together = small.decode(embedding, **given)
    alone = [small.decode(embedding, **part(given, slice(i, i + 1))) for i in range(5)]
    assert together.shape == (5, 1, 32, 64, 64)
    torch.testing.assert_close(together, torch.cat(alone), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(together[0], together[1], atol=1e-4)  # and each prompt matters


@torch.no_grad()
def test_the_prompts_of_each_image_come_one_after_another(small, image):
    embedding, given = small.encode(image), prompts(4, "point", "text")
    together = small.decode(embedding, **given)
    first = small.decode(embedding[:1], **part(given, slice(0, 2)))
    second = small.decode(embedding[1:], **part(given, slice(2, 4)))
    torch.testing.assert_close(together, torch.cat([first, second]), atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_an_ignored_point_may_lie_anywhere(small, image):
    embedding, given = small.encode(image[:1]), prompts(1, "point", "box")
    moved = given | {"points": given["points"] + torch.tensor([[[0.0], [0], [7]]])}
    torch.testing.assert_close(small.decode(embedding, **given), small.decode(embedding, **moved))


@torch.no_grad()
def test_training_mode_changes_no_number(small, image):
    given = prompts(2, "point", "box", "text")
    expected = small(image, **given)
    try:
        torch.testing.assert_close(small.train()(image, **given), expected)
    finally:
        small.eval()


@torch.no_grad()
def test_attention_equals_the_one_of_monai():
    torch.manual_seed(0)
    ours, theirs = SdpaAttention(32, 4, 2), Attention(32, 4, 2)
    theirs.load_state_dict(ours.state_dict())
    q, k, v = torch.rand(2, 5, 32), torch.rand(2, 7, 32), torch.rand(2, 7, 32)
    torch.testing.assert_close(ours(q, k, v), theirs(q, k, v))


def test_the_decoder_holds_no_other_attention(small):
    kinds = {type(module) for module in small.mask_decoder.modules() if isinstance(module, Attention)}
    assert kinds == {SdpaAttention}


def test_unread_parameters_take_no_gradient_and_every_other_does(image):
    network = build_segvol("small")
    network(image[:1], **prompts(1, "point", "text")).mean().backward()
    network(image[:1], **prompts(1, "box")).mean().backward()
    for name, parameter in network.named_parameters():
        unread = "iou_prediction_head" in name or "output_hypernetworks_mlps" in name and "mlps.0." not in name
        assert parameter.requires_grad != unread, name
        assert (parameter.grad is None) == unread, name
    moved = [name for name, p in network.named_parameters() if p.grad is not None and not p.grad.any()]
    assert moved == []


def test_sizes_other_than_the_two_are_refused():
    with pytest.raises(ValueError, match="^size is 'large'; allowed are 'base' and 'small'$"):
        build_segvol("large")


@torch.no_grad()
def test_the_small_network_scripts_with_optional_prompts(small, image):
    scripted, given = torch.jit.script(small), prompts(2, "point", "box", "text")
    for chosen in ({}, given, {"text": given["text"]}, {"boxes": given["boxes"]}):
        torch.testing.assert_close(scripted(image, **chosen), small(image, **chosen), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_scripted_network_is_saved_without_its_tower(small, image, tmp_path: Path):
    network = copy.deepcopy(small)
    network.text_encoder = CLIPTextModel(CLIPTextConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1)).eval()
    torch.jit.script(network).save(tmp_path / "model.ts")
    loaded, given = torch.jit.load(tmp_path / "model.ts"), prompts(2, "point")
    torch.testing.assert_close(loaded(image, **given), small(image, **given), atol=1e-4, rtol=1e-4)
    assert loaded.state_dict().keys() == small.state_dict().keys()


@pytest.mark.slow
@torch.no_grad()
def test_the_base_network_scripts_without_its_tower(formula_base, formula, embedding, text):
    scripted, volume = torch.jit.script(formula_base), torch.from_numpy(formula.volume((32, 256, 256), 7))[None, None]
    given = {"points": POINTS[:1], "point_labels": LABELS[:1], "boxes": BOXES[:1], "text": text(["liver"])}
    for chosen in ({}, given):
        expected = formula_base.decode(embedding[:1], **chosen)
        torch.testing.assert_close(scripted(volume, **chosen), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_the_base_network_has_every_published_parameter_that_is_read(formula_base, official_state):
    unread = sum(v.numel() for name, v in official_state("").items() if "mask_downscaling" in name)
    held = sum(value.numel() for value in formula_base.state_dict().values())
    assert held == 180_891_216 - unread
