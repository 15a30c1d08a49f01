"""Names become vectors: the published sentence and tokens, the table's rows, and what cannot be encoded."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from scripts.network import build_segvol
from scripts.text_encoder import ClipText, TextTable, build_text_encoder, load_tokenizer
from scripts.vocabulary import Structure, Vocabulary
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel


def structure(name: str, *synonyms: str, weights: tuple[str, ...] = ("base", "small")) -> Structure:
    return Structure(name, synonyms, None, None, (1, 2, 3), weights)


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary(
        [
            structure("liver", "hepar"),
            structure("left kidney"),
            structure("right kidney"),
            structure("aorta", weights=("base",)),
            structure("phantom ball", weights=("small",)),
        ]
    )


class Recorder(nn.Module):
    """A tower that keeps what it was asked; its vectors count the calls."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.asked: list[list[int]] = []

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SimpleNamespace:
        self.asked.append(input_ids[0].tolist())
        return SimpleNamespace(pooler_output=torch.full((1, 4), float(len(self.asked)), requires_grad=True) + 0)


@pytest.fixture(scope="module")
def tokenizer(shared: Path) -> Path:
    return shared / "reference" / "clip_tokenizer"


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def clip(recorder: Recorder, tokenizer: Path, vocabulary: Vocabulary) -> ClipText:
    return ClipText(recorder, tokenizer, vocabulary)


# ---------------------------------------------------------------- the CLIP tower


def test_every_reference_name_becomes_the_published_tokens(clip: ClipText, recorder: Recorder, shared: Path):
    expected = json.loads((shared / "reference" / "tokens.json").read_text())
    clip(list(expected))
    assert dict(zip(expected, recorder.asked, strict=True)) == expected


def test_vectors_come_in_the_order_of_the_names_and_are_computed_once(clip: ClipText, recorder: Recorder):
    assert clip(["liver", "aorta", "liver"])[:, 0].tolist() == [1, 2, 1]
    assert clip(["aorta", "spleen"])[:, 0].tolist() == [2, 3]
    assert len(recorder.asked) == 3


def test_vectors_hold_no_graph(clip: ClipText):
    assert not clip(["liver"]).requires_grad


def test_a_real_tower_gives_its_pooled_output(tokenizer: Path, vocabulary: Vocabulary):
    config = CLIPTextConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1)
    tower = CLIPTextModel(config).eval()
    vectors = ClipText(tower, tokenizer, vocabulary)(["liver", "left kidney"])
    tokens = load_tokenizer(tokenizer)("A computerized tomography of a left kidney.", return_tensors="pt")
    assert vectors.shape == (2, 16)
    torch.testing.assert_close(vectors[1], tower(**tokens).pooler_output[0])


def test_braces_are_letters_of_a_name(clip: ClipText, recorder: Recorder, tokenizer: Path):
    clip(["{0} {} {name}"])
    said = load_tokenizer(tokenizer).decode(recorder.asked[0], skip_special_tokens=True)
    assert "{" in said and "name" in said


def test_a_long_text_is_cut_to_what_the_tower_takes(clip: ClipText, recorder: Recorder):
    clip(["very " * 200 + "long"])
    assert len(recorder.asked[0]) == 77


def test_a_synonym_resolves_to_its_name_in_silence(clip: ClipText, caplog: pytest.LogCaptureFixture):
    assert clip.resolve("Hepar") == "liver"
    assert clip.resolve("kidney left") == "left kidney"
    assert not caplog.messages


def test_an_unknown_text_stays_as_it_is_with_a_warning(clip: ClipText, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        assert clip.resolve("left kidny stone") == "left kidny stone"
    assert "not among the names" in caplog.text and "left kidney" in caplog.text


def test_a_name_that_the_released_weights_never_saw_is_warned_of(clip: ClipText, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        assert clip.resolve("phantom ball") == "phantom ball"
    assert "not trained on phantom ball" in caplog.text


def test_without_a_tokenizer_a_text_is_refused_before_it_is_encoded(
    recorder: Recorder, vocabulary: Vocabulary, tmp_path: Path
):
    with pytest.raises(ValueError, match=f"^tokenizer: {tmp_path} holds no CLIP tokenizer"):
        ClipText(recorder, tmp_path, vocabulary).resolve("liver")


# ---------------------------------------------------------------- the table


def test_a_table_gives_the_row_of_each_name(vocabulary: Vocabulary):
    table = TextTable(["liver", "left kidney", "aorta"], 5, vocabulary)
    assert table(["aorta", "liver"]).tolist() == [[0, 0, 1, 0, 0], [1, 0, 0, 0, 0]]


def test_a_table_resolves_synonyms_and_its_own_names(vocabulary: Vocabulary):
    table = TextTable(["liver", "tumour of mine"], 8, vocabulary)
    assert table.resolve("hepar") == "liver"
    assert table.resolve("tumour of mine") == "tumour of mine"


@pytest.mark.parametrize("text", ["left kidny", "zzz", "right kidney", "", "$1/0", "@liver"])
def test_a_text_outside_the_table_is_refused_with_names_that_are_in_it(text: str, vocabulary: Vocabulary):
    table = TextTable(["liver", "left kidney"], 8, vocabulary)
    with pytest.raises(ValueError) as caught:
        table.resolve(text)
    sentence = str(caught.value)
    assert repr(text) in sentence and "know 2 names" in sentence
    assert {"liver", "left kidney"} & set(sentence.rpartition("nearest: ")[2].split(", "))
    assert text != "left kidny" or sentence.endswith("nearest: left kidney")


def test_a_table_with_more_names_than_rows_is_refused(vocabulary: Vocabulary):
    with pytest.raises(ValueError, match="3 names; the network has 2 rows"):
        TextTable(["a", "b", "c"], 2, vocabulary)


def test_a_table_takes_the_row_order_of_a_checkpoint(vocabulary: Vocabulary):
    table, other = TextTable(["liver", "aorta"], 4, vocabulary), TextTable(["aorta", "spleen", "liver"], 4, vocabulary)
    table.load_state_dict(other.state_dict())
    assert table.names == ["aorta", "spleen", "liver"]
    assert table(["liver"]).tolist() == [[0, 0, 1, 0]]


# ---------------------------------------------------------------- which one a network gets


def test_a_network_without_a_tower_gets_a_table(vocabulary: Vocabulary):
    network = build_segvol("small")
    table = build_text_encoder(network, vocabulary)
    assert isinstance(table, TextTable)
    assert table.names == ["liver", "left kidney", "right kidney", "phantom ball"]
    assert build_text_encoder(network, vocabulary, names=("spleen", "liver")).names == ["spleen", "liver"]
    assert network.text_align(table(["liver"])).shape == (1, 128)


def test_a_network_with_a_tower_gets_clip(vocabulary: Vocabulary, recorder: Recorder, tmp_path: Path):
    network = build_segvol("small")
    network.text_encoder = recorder
    encoder = build_text_encoder(network, vocabulary, tmp_path)
    assert isinstance(encoder, ClipText)
    assert encoder.tower is recorder and encoder.tokenizer_folder == tmp_path
