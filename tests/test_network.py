"""The base network equals the official one; the small one has the same seams."""

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from scripts.network import SegVol, build_segvol
from scripts.text_encoder import ClipText
from scripts.vocabulary import Vocabulary

BOXES = torch.tensor([[8, 60, 50, 24, 180, 200], [2, 10, 100, 29, 90, 250]]).float()
POINTS = torch.tensor(
    [[[16, 128, 128], [2, 10, 10], [0, 0, 0]], [[5, 200, 30], [9, 100, 180], [30, 2, 250]]]
).float()
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
