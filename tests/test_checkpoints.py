"""Every published file becomes the weights of this network, and nothing else does."""

import os
import pickle
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from scripts.checkpoints import (
    load_checkpoint,
    load_clip_tower,
    load_for_run,
    load_for_training,
    load_image_encoder,
    save_checkpoint,
)
from scripts.network import SegVol, build_segvol
from scripts.text_encoder import build_text_encoder
from scripts.vocabulary import Vocabulary
from transformers import CLIPTextConfig, CLIPTextModel

State = dict[str, torch.Tensor]

LAYOUTS = ("SegVol_v1.pth", "pytorch_model.bin", "model.safetensors", "epoch_270.pth")
NAMINGS = ("old transformers", "new transformers")
TOWER = CLIPTextConfig(
    vocab_size=20, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, eos_token_id=19
)


def write(path: Path, state: State) -> Path:
    """Write official names without prefix (``image_encoder...``) in the layout that the file's name stands for."""
    if path.name == "model.safetensors":
        save_file({"model." + name: value.contiguous() for name, value in state.items()}, path)
    elif path.name == "pytorch_model.bin":
        torch.save({"model." + name: value for name, value in state.items()}, path)
    elif path.name == "SegVol_v1.pth":
        adam = {"state": {0: {"step": torch.tensor(3.0), "exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 1e-4}]}
        model = {"module." + name: value for name, value in state.items()}
        torch.save({"model": model, "optimizer": adam, "epoch": 500}, path)
    elif path.name == "epoch_270.pth":
        model = {"model." + name: value for name, value in state.items()}
        torch.save({"epoch": 270, "model_state_dict": model, "optimizer_state_dict": {"state": {}}}, path)
    else:  # ViT_pretrain.ckpt
        encoder = {k.replace("image_encoder.", "model.encoder."): v for k, v in state.items() if k.startswith("image_")}
        head = {"model.decoder.weight": torch.zeros(1024, 768), "model.decoder.bias": torch.zeros(1024)}
        torch.save({"state_dict": encoder | head, "epoch": 1}, path)
    return path


def as_written_by(naming: str, state: State) -> State:
    """Official names as the transformers of the day write them."""
    if naming == "old transformers":
        return state
    return {
        name.replace("clip_text_model.text_model.", "clip_text_model."): value
        for name, value in state.items()
        if not name.endswith("position_ids")
    }


def our_name(official: str) -> str:
    name = official.replace("text_encoder.dim_align.", "text_align.")
    name = name.replace("text_encoder.clip_text_model.text_model.", "text_encoder.")
    return name.replace(".mlp.lin1.", ".mlp.linear1.").replace(".mlp.lin2.", ".mlp.linear2.")


def assert_holds(network: torch.nn.Module, official: State) -> None:
    expected = {our_name(k): v for k, v in official.items() if "mask_downscaling" not in k and "position_ids" not in k}
    own = network.state_dict()
    assert own.keys() == expected.keys()
    assert not [name for name, value in own.items() if not torch.equal(value, expected[name])]


def wipe(network: SegVol) -> SegVol:
    with torch.no_grad():
        for value in network.state_dict().values():
            value.fill_(torch.nan)
    return network


# ---------------------------------------------------------------- the 181M network, with the official names and shapes


@pytest.fixture(scope="module")
def base() -> SegVol:
    return build_segvol("base")


@pytest.mark.slow
@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_published_model_loads(layout: str, naming: str, base: SegVol, official_state, tmp_path: Path):
    path = write(tmp_path / layout, as_written_by(naming, official_state()))
    info = load_checkpoint(wipe(base), path)
    path.unlink()
    assert_holds(base, official_state())
    assert info.text_names is None and len(info.sha256) == 64


@pytest.mark.slow
def test_the_published_vit_fills_the_image_encoder_alone(base: SegVol, official_state, tmp_path: Path):
    path = write(tmp_path / "ViT_pretrain.ckpt", official_state())
    with pytest.raises(ValueError, match="is not a whole model"):
        load_checkpoint(base, path)
    skipped = load_image_encoder(wipe(base), path)
    path.unlink()
    assert skipped == ["model.decoder.weight", "model.decoder.bias"]
    encoder = {k: v for k, v in official_state().items() if k.startswith("image_encoder.")}
    assert_holds(base.image_encoder, {k.removeprefix("image_encoder."): v for k, v in encoder.items()})
    assert base.text_align.weight.isnan().all()


@pytest.mark.slow
def test_a_published_file_is_converted_into_ours(base: SegVol, official_state, bundle: Path, tmp_path: Path):
    source, made = write(tmp_path / "SegVol_v1.pth", official_state()), tmp_path / "made" / "model.pt"
    done = convert(bundle, source, made)
    source.unlink()
    assert done.returncode == 0, done.stderr
    load_checkpoint(wipe(base), made)
    made.unlink()
    assert_holds(base, official_state())


# ---------------------------------------------------------------- the same logic on the small network with a tiny tower


@pytest.fixture
def network() -> SegVol:
    small = build_segvol("small")
    small.text_encoder = CLIPTextModel(TOWER)
    return small


@pytest.fixture
def official(network: SegVol) -> State:
    """A network's weights under the official names, with what the official files hold besides."""
    state: State = {}
    for name, value in network.state_dict().items():
        if name.startswith("text_encoder."):
            name = name.replace("text_encoder.", "text_encoder.clip_text_model.text_model.", 1)
        elif name.startswith("mask_decoder."):
            name = name.replace(".mlp.linear", ".mlp.lin")
        state[name.replace("text_align.", "text_encoder.dim_align.")] = value.clone()
    state["text_encoder.clip_text_model.text_model.embeddings.position_ids"] = torch.arange(77)[None]
    state["prompt_encoder.mask_downscaling.0.weight"] = torch.zeros(4, 1, 2, 2)
    return state


@pytest.mark.parametrize("naming", NAMINGS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_loads(layout: str, naming: str, network: SegVol, official: State, tmp_path: Path):
    load_checkpoint(wipe(network), write(tmp_path / layout, as_written_by(naming, official)))
    assert_holds(network, official)


def test_the_unread_norm_of_a_new_monai_is_left_out(network: SegVol, official: State, tmp_path: Path):
    junk = {"image_encoder.blocks.0.norm_cross_attn.weight": torch.ones(128)}
    load_checkpoint(wipe(network), write(tmp_path / "pytorch_model.bin", official | junk))
    assert_holds(network, official)
    assert load_image_encoder(network, write(tmp_path / "ViT_pretrain.ckpt", official | junk))[0].startswith("model.de")


def test_an_image_encoder_comes_out_of_a_whole_model_too(network: SegVol, official: State, tmp_path: Path):
    path = write(tmp_path / "SegVol_v1.pth", official)
    skipped = load_image_encoder(wipe(network), path)
    assert torch.equal(network.state_dict()["image_encoder.norm.weight"], official["image_encoder.norm.weight"])
    assert len(skipped) == sum(not name.startswith("image_encoder.") for name in official)


def test_a_file_of_our_own_comes_back_with_its_names(network: SegVol, tmp_path: Path):
    path = tmp_path / "new" / "folder" / "model.pt"
    saved = {name: value.clone() for name, value in network.state_dict().items()}
    save_checkpoint(network, path, ("liver", "left kidney"))
    info = load_checkpoint(wipe(network), path)
    assert info.path == str(path) and info.text_names == ("liver", "left kidney")
    assert all(torch.equal(value, saved[name]) for name, value in network.state_dict().items())


def test_equal_weights_make_equal_files(network: SegVol, tmp_path: Path):
    for folder in ("a", "b"):
        save_checkpoint(network, tmp_path / folder / "model.pt")
    assert (tmp_path / "a" / "model.pt").read_bytes() == (tmp_path / "b" / "model.pt").read_bytes()


def test_a_saved_file_can_be_read_by_whom_the_umask_allows(network: SegVol, tmp_path: Path):
    save_checkpoint(network, tmp_path / "model.pt")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "model.pt").stat().st_mode & 0o777 == 0o666 & ~mask


def test_saving_is_whole_or_not_at_all(network: SegVol, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "model.pt"
    save_checkpoint(network, path)
    before = path.read_bytes()

    def half(content: dict, file: Path) -> None:
        Path(file).write_bytes(before[:100])
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match="no space left"):
        save_checkpoint(network, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]


# ---------------------------------------------------------------- what is refused, in one line, the network unchanged


@pytest.fixture
def refused(network: SegVol) -> Callable[..., str]:
    """Load a file that must be refused: gives the sentence."""

    def load(path: Path | str, function: Callable = load_checkpoint) -> str:
        before = {name: value.clone() for name, value in network.state_dict().items()}
        with pytest.raises(ValueError) as caught:
            function(network, path)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
        sentence = str(caught.value)
        assert sentence.startswith("checkpoint: ") and str(path) in sentence and "\n" not in sentence
        assert "weights_only` set" not in sentence  # torch's advice to load it unsafely
        return sentence

    return load


def test_missing_unexpected_and_misshapen_keys_are_named_together(refused, official: State, tmp_path: Path):
    del official["image_encoder.norm.bias"]
    official["image_encoder.extra\nline"] = torch.zeros(1)
    official["text_encoder.dim_align.bias"] = torch.zeros(3)
    sentence = refused(write(tmp_path / "pytorch_model.bin", official))
    assert "1 missing: image_encoder.norm.bias" in sentence
    assert "1 unexpected: image_encoder.extra line" in sentence
    assert "1 of another shape: text_align.bias (3,) instead of (128,)" in sentence


@pytest.mark.parametrize("size", ["base", "small"])
def test_another_size_is_refused_by_its_shapes(size: str, refused, tmp_path: Path):
    small = build_segvol("small").state_dict()  # without the tower of the network under test
    wrong = {name: torch.zeros(1).expand(2, *value.shape) for name, value in small.items()} if size == "base" else small
    torch.save({"model": wrong}, tmp_path / "model.pt")
    sentence = refused(tmp_path / "model.pt")
    assert "missing: text_encoder.embeddings" in sentence
    assert (" of another shape: " in sentence) == (size == "base")


def test_a_file_without_the_decoder_is_no_whole_model(refused, official: State, tmp_path: Path):
    path = write(tmp_path / "ViT_pretrain.ckpt", official)
    assert "is not a whole model" in refused(path)


def test_a_vit_that_lacks_a_layer_or_has_one_too_many_is_refused(refused, official: State, tmp_path: Path):
    del official["image_encoder.blocks.2.norm1.weight"]
    official["image_encoder.blocks.9.norm1.weight"] = torch.zeros(128)
    sentence = refused(write(tmp_path / "ViT_pretrain.ckpt", official), load_image_encoder)
    assert "1 missing: blocks.2.norm1.weight" in sentence
    assert "1 unexpected: blocks.9.norm1.weight" in sentence


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
@pytest.mark.parametrize("content", ["half", "start", "empty", "text", "html", "git lfs", "git lfs later", "zeros"])
def test_a_file_that_is_no_checkpoint_is_refused(name: str, content: str, refused, official: State, tmp_path: Path):
    layout = "model.safetensors" if name.endswith("safetensors") else "pytorch_model.bin"
    whole = write(tmp_path / layout, official).read_bytes()
    (tmp_path / name).write_bytes(
        {
            "half": whole[: len(whole) // 2],
            "start": whole[:60],
            "empty": b"",
            "text": b"these are my weights\n" * 40,
            "html": b"<!DOCTYPE html><html><body>404</body></html>",
            "git lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0b\nsize 724\n",
            "git lfs later": b"\n\nversion https://git-lfs.github.com/spec/v1\n",
            "zeros": bytes(5000),
        }[content]
    )
    assert "cannot be loaded safely" in refused(tmp_path / name)


class Touch:
    """Pickled, it is code that makes a file where it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.system, (f"touch '{self.path}'",)


@pytest.mark.parametrize("writer", ["torch", "old torch", "pickle 2", "pickle 4"])
def test_code_in_a_file_is_named_and_does_not_run(writer: str, refused, tmp_path: Path):
    path, evil = tmp_path / "model.pt", Touch(tmp_path / "touched")
    content = {"model": {"image_encoder.norm.weight": evil}}
    if writer.startswith("pickle"):
        path.write_bytes(pickle.dumps(content, protocol=int(writer[-1])))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=writer == "torch")
    sentence = refused(path)
    assert not (tmp_path / "touched").exists()
    if writer != "pickle 4":  # whose opcodes torch does not even read
        assert "asks for the global posix.system" in sentence
    os.system(f"touch '{evil.path}'")
    assert (tmp_path / "touched").exists()  # the code would have worked


def test_a_pickled_network_is_named_and_refused(refused, network: SegVol, tmp_path: Path):
    torch.save(network, tmp_path / "model.pt")
    assert "asks for the global scripts.network.SegVol" in refused(tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({}, "holds no weights"),
        ({"model": {}}, "holds no weights"),
        ([torch.zeros(1)], "holds no weights"),
        (torch.zeros(3), "holds no weights"),
        ({"model": {"image_encoder.norm.weight": "x"}}, "not tensors: image_encoder.norm.weight"),
        ({1: torch.zeros(1)}, "not tensors: 1"),
        ({"epoch": 3, "weights": {"a": torch.zeros(1)}}, "not tensors: epoch, weights"),
        ({"model": {"mask_decoder.x": torch.zeros(1)}, "text_table": {"names": 5}}, "without a list of names"),
        ({"model": {"mask_decoder.x": torch.zeros(1)}, "text_table": ["liver"]}, "without a list of names"),
        ({"model": {"mask_decoder.x": torch.zeros(1)}, "text_table": {"names": [1]}}, "without a list of names"),
    ],
)
def test_a_file_of_other_content_is_refused(content: object, says: str, refused, tmp_path: Path):
    torch.save(content, tmp_path / "model.pt")
    assert says in refused(tmp_path / "model.pt")


def test_a_place_without_a_file_is_told_apart_from_a_bad_file(refused, tmp_path: Path):
    assert "large_files.yml" in refused(tmp_path / "model.pt")
    assert "is a folder" in refused(tmp_path)
    assert "does not exist" in refused(tmp_path / ("x" * 300))


def test_a_run_ends_with_the_sentence_alone(network: SegVol, tmp_path: Path):
    with pytest.raises(SystemExit, match="^checkpoint: .* is a folder; it takes a file$"):
        load_for_run(network, tmp_path)
    with pytest.raises(SystemExit, match="^checkpoint is .*it takes one path$"):
        load_for_run(network, " ")
    with pytest.raises(SystemExit, match="does not exist"):
        load_for_run(network, 20240101)


# ---------------------------------------------------------------- the command line


def convert(bundle: Path, *words: object) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "scripts.convert_checkpoint", *map(str, words)]
    return subprocess.run(command, cwd=bundle, capture_output=True, text=True)


def test_a_small_model_is_converted_with_its_names(bundle: Path, tmp_path: Path):
    small = build_segvol("small")
    save_checkpoint(small, tmp_path / "source.pt", ("liver", "spleen"))
    done = convert(bundle, tmp_path / "source.pt", tmp_path / "new" / "made.pt", "--size", "small")
    assert done.returncode == 0, done.stderr
    assert "saved" in done.stderr and done.stdout == ""
    other = build_segvol("small")
    assert load_checkpoint(other, tmp_path / "new" / "made.pt").text_names == ("liver", "spleen")
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in small.state_dict().items())


@pytest.mark.parametrize("case", ["bad source", "bad target", "bad size"])
def test_a_conversion_that_fails_says_why_in_one_line(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source, made = tmp_path / "source.pt", tmp_path / "made.pt"
    save_checkpoint(build_segvol("small"), source)
    if case == "bad source":
        source.write_text("no weights")
    elif case == "bad target":
        made = source / "made.pt"
    size = "tiny" if case == "bad size" else "small"
    monkeypatch.setattr(sys, "argv", ["convert_checkpoint", str(source), str(made), "--size", size])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("scripts.convert_checkpoint", run_name="__main__")
    sentence = str(caught.value.code)
    assert {"bad source": "cannot be loaded", "bad target": str(source), "bad size": "'tiny'"}[case] in sentence
    assert "\n" not in sentence
    assert [file.name for file in tmp_path.iterdir()] == ["source.pt"]


# ---------------------------------------------------------------- what a training starts from


def tower_of(network: SegVol) -> State:
    return {name: value.clone() for name, value in network.text_encoder.state_dict().items()}


@pytest.mark.parametrize("naming", NAMINGS)
def test_the_clip_tower_comes_out_of_a_released_file_alone(naming: str, network, official: State, tmp_path: Path):
    expected, path = tower_of(network), write(tmp_path / "SegVol_v1.pth", as_written_by(naming, official))
    load_clip_tower(wipe(network), path)
    assert all(torch.equal(value, expected[name]) for name, value in tower_of(network).items())
    assert network.text_align.weight.isnan().all()


def test_the_clip_tower_comes_out_of_a_local_folder(network: SegVol, tmp_path: Path):
    expected = tower_of(network)
    network.text_encoder.save_pretrained(tmp_path / "clip")
    load_for_training(wipe(network), clip=tmp_path / "clip")
    assert all(torch.equal(value, expected[name]) for name, value in tower_of(network).items())


def test_a_training_by_text_without_a_clip_tower_is_refused(network: SegVol, official: State, tmp_path: Path):
    vit = write(tmp_path / "ViT_pretrain.ckpt", official)
    for start in (None, vit):
        with pytest.raises(SystemExit, match="^clip is missing: .* a hub name such as openai/clip-vit-base-patch32$"):
            load_for_training(network, start)
        load_for_training(network, start, needs_text=False)
    load_for_training(network, vit, clip=write(tmp_path / "SegVol_v1.pth", official))
    load_for_training(network, tmp_path / "SegVol_v1.pth")
    load_for_training(build_segvol("small"))


@pytest.mark.parametrize("source", ["nowhere", "empty", "other", "vit", "weights of another"])
def test_what_holds_no_clip_tower_of_this_kind_is_one_line(source, network, official: State, tmp_path: Path):
    path = tmp_path / source
    if source in ("empty", "other"):
        path.mkdir()
    if source == "other":
        CLIPTextModel(CLIPTextConfig(**{**TOWER.to_diff_dict(), "hidden_size": 16})).save_pretrained(path)
    elif source == "vit":
        path = write(tmp_path / "ViT_pretrain.ckpt", official)
    elif source == "weights of another":
        CLIPTextModel(TOWER).save_pretrained(path)
        save_file({"else": torch.zeros(1)}, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SystemExit, match=f"^clip: {re.escape(str(path))} (does not exist|holds no CLIP|does not fit)"):
        load_for_training(wipe(network), clip=path)
    assert network.text_align.weight.isnan().all()


def test_the_small_network_has_no_clip_tower():
    with pytest.raises(SystemExit, match="^clip: this network has no CLIP tower; --size base has one$"):
        load_for_training(build_segvol("small"), clip="openai/clip-vit-base-patch32")


def test_a_training_goes_on_with_the_row_order_of_its_start(bundle: Path, tmp_path: Path):
    start, names = build_segvol("small"), ("spleen", "liver")
    save_checkpoint(start, tmp_path / "model.pt", names)
    network = build_segvol("small")
    table = build_text_encoder(network, Vocabulary.load(bundle / "configs" / "vocabulary.json"))
    load_for_training(network, tmp_path / "model.pt", text_encoder=table)
    assert table.names == list(names)
    assert torch.equal(network.text_align.weight, start.text_align.weight)
