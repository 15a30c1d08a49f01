"""Fixtures that several test files share."""

import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from scripts.checkpoints import load_checkpoint
from scripts.network import SegVol, build_segvol

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def bundle() -> Path:
    """The bundle's folder."""
    return ROOT / "bundle"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The reference data beside the checkout; tests that need it skip where it is missing."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        if os.environ.get("CI"):
            pytest.fail("the reference data in ../shared is missing, and CI skips nothing")
        pytest.skip("needs the reference data in ../shared")
    return folder


@pytest.fixture(scope="session")
def formula(shared: Path) -> ModuleType:
    """The module of reference weights and inputs."""
    spec = importlib.util.spec_from_file_location("formula", shared / "reference" / "formula.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def official_state(shared: Path, formula: ModuleType) -> Callable[[str], dict[str, torch.Tensor]]:
    """The official 475 tensors under a given prefix, filled by the reference formula."""
    shapes = json.loads((shared / "reference" / "checkpoint_keys.json").read_text())
    bare = {name.removeprefix("module."): shape for name, shape in shapes.items()}
    tensors = {
        name: torch.arange(77).unsqueeze(0)
        if name.endswith("position_ids")
        else torch.from_numpy(formula.tensor(name, tuple(shape)))
        for name, shape in bare.items()
    }
    return lambda prefix="": {prefix + name: value for name, value in tensors.items()}


@pytest.fixture(scope="session")
def formula_base(
    tmp_path_factory: pytest.TempPathFactory, official_state: Callable[[str], dict[str, torch.Tensor]]
) -> SegVol:
    """The base network with the reference weights, loaded from a file of the official layout."""
    path = tmp_path_factory.mktemp("official") / "SegVol_v1.pth"
    torch.save({"model": official_state("module."), "epoch": 1}, path)
    network = build_segvol("base").eval()
    load_checkpoint(network, path)
    path.unlink()
    return network
