"""What a user can mend comes from the engine as one line, and nothing else does."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from lib.engine import UserMistake
from scripts import transforms

LIVER = {"targets": [{"text": "liver"}]}


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({"targets": [{"points": [[72, 0, 0]]}]}, r"\(72, 0, 0\) lies outside the image; allowed are i 0 to 71"),
        ({"targets": [{"box": [100, 100, 100, 110, 110, 110]}]}, "box of .* lies outside the image"),
        ({"targets": [{"text": "livre"}]}, "livre.*liver"),
        ({"targets": [{"text": "$__import__('os').mkdir('run')"}]}, r"\$__import__"),
        ({"targets": [{"text": "@bundle_root"}]}, "@bundle_root"),
        ({"targets": []}, "targets: expected a list of at least one target"),
        ({"targets": [{}]}, "no prompt"),
        ({}, "targets"),
    ],
)
def test_a_prompt_that_cannot_be_used_is_one_line(engine, phantom, document, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserMistake, match=says) as caught:
        engine.segment(phantom, document)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def broken_image(kind: str, path: Path) -> Path:
    if kind == "flat":
        nib.save(nib.Nifti1Image(np.arange(100, dtype=np.int16).reshape(10, 10), np.eye(4)), path)
    elif kind == "constant":
        nib.save(nib.Nifti1Image(np.zeros((8, 8, 8), np.int16), np.eye(4)), path)
    elif kind == "damaged":
        path.write_bytes(b"no image")
    elif kind == "empty folder":
        path = path.with_name("series")
        path.mkdir()
    return path


@pytest.mark.parametrize("kind", ["missing", "flat", "constant", "damaged", "empty folder"])
@pytest.mark.parametrize("call", ["segment", "restore", "zoom_out"])
def test_an_image_that_cannot_be_used_is_one_line_and_not_kept(engine, tmp_path, kind, call):
    path = broken_image(kind, tmp_path / "ct.nii.gz")
    rest = {"segment": [LIVER], "restore": [np.zeros((1, 1, 1), np.uint8)], "zoom_out": []}[call]
    for _ in range(2):
        with pytest.raises(UserMistake, match="^image: ") as caught:
            getattr(engine, call)(path, *rest)
        assert "\n" not in str(caught.value)
    assert len(engine.memory) == 0


def test_an_error_of_ours_is_no_mistake_of_the_user(engine, phantom, monkeypatch):
    def broken(path: Path) -> Any:
        raise RuntimeError("ours")

    monkeypatch.setattr(transforms, "load_volume", broken)
    with pytest.raises(RuntimeError, match="^ours$"):
        engine.segment(phantom, LIVER)
