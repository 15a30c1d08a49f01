"""The zoo's conventions: metadata, network in and out, export, and every config read as it stands."""

import json
from pathlib import Path

import pytest
import torch
from commands import BUNDLE
from monai.bundle import ConfigParser, ckpt_export, download_large_files, verify_metadata, verify_net_in_out
from monai.bundle.config_parser import ID_SEP_KEY

METADATA = str(BUNDLE / "configs" / "metadata.json")
INFERENCE = str(BUNDLE / "configs" / "inference.json")
SMALL = ("inference", "small")


def test_the_metadata_fits_the_schema_of_the_zoo(shared: Path):
    verify_metadata(meta_file=METADATA, filepath=str(shared / "schema" / "meta_schema_20240725.json"))


@pytest.mark.slow
def test_the_base_network_takes_and_gives_what_the_metadata_says():
    verify_net_in_out("network_def", meta_file=METADATA, config_file=INFERENCE, bundle_root=str(BUNDLE), device="cpu")


def test_the_small_network_takes_and_gives_its_own_window():
    shape = f"_meta_{ID_SEP_KEY}network_data_format{ID_SEP_KEY}inputs{ID_SEP_KEY}image{ID_SEP_KEY}spatial_shape"
    files = [str(BUNDLE / "configs" / f"{name}.json") for name in SMALL]
    verify_net_in_out(
        "network_def",
        meta_file=METADATA,
        config_file=files,
        device="cpu",
        bundle_root=str(BUNDLE),
        **{shape: [32, 64, 64]},
    )


def test_the_embedded_weights_export_with_optional_prompts_and_without_a_text_tower(tmp_path: Path):
    files = [str(BUNDLE / "configs" / f"{name}.json") for name in SMALL]
    ckpt_export(
        "network_def",
        filepath=str(tmp_path / "small.ts"),
        ckpt_file=str(BUNDLE / "models" / "small.pt"),
        meta_file=METADATA,
        config_file=files,
        key_in_ckpt="model",
        bundle_root=str(BUNDLE),
    )
    exported = torch.jit.load(str(tmp_path / "small.ts"))
    image = torch.rand(1, 1, 32, 64, 64)
    with torch.no_grad():
        alone = exported(image)
        point = exported(image, torch.tensor([[[16.0, 32.0, 32.0]]]), torch.tensor([[1]]))
        box = exported(image, boxes=torch.tensor([[4.0, 10, 10, 28, 50, 50]]))
        text = exported(image, text=torch.eye(1, 256))
    assert alone.shape == image.shape
    assert alone.std() > 0
    assert len({float(logits.sum()) for logits in (alone, point, box, text)}) == 4
    assert not [name for name, _ in exported.named_parameters() if "text_encoder" in name]


@pytest.mark.parametrize("name", sorted(path.stem for path in (BUNDLE / "configs").glob("*.json")))
def test_every_config_is_plain_json(name: str):
    assert json.loads((BUNDLE / "configs" / f"{name}.json").read_text())


def test_initialising_needs_neither_data_nor_weights(monkeypatch):
    for names in (("inference",), SMALL, ("inference", "small", "batch_inference")):
        parser = ConfigParser()
        parser.read_config([str(BUNDLE / "configs" / f"{name}.json") for name in names])
        parser.update({"bundle_root": str(BUNDLE)})
        for i in range(len(parser["initialize"])):
            parser.get_parsed_content(f"initialize{ID_SEP_KEY}{i}")


def test_the_large_files_are_named_and_stay_inside_the_bundle(tmp_path: Path, monkeypatch):
    fetched = []
    monkeypatch.setattr("monai.bundle.scripts.download_url", lambda **given: fetched.append(given))
    (tmp_path / "large_files.yml").write_text((BUNDLE / "large_files.yml").read_text())
    download_large_files(bundle_path=str(tmp_path))
    paths = {str(Path(given["filepath"]).relative_to(tmp_path)) for given in fetched}
    assert {"models/model.pt", "models/clip_tokenizer/tokenizer.json"} <= paths
