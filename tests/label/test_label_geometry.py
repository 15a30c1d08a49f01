"""A click lands where it was made, and the mask comes back on the voxels it belongs to, however the image is stored."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from dicom_files import AXIAL, CORONAL, oblique, write_series
from grids import LPS, affine_of, dice, positions, read_with_itk, stored_as
from lib.bundle import MODES, Bundle
from lib.engine import Engine
from lib.history import History
from lib.infers import SegVolInfer
from lib.memory import Memory
from lib.requests import ModelSpec
from scipy import ndimage

pytestmark = pytest.mark.usefixtures("scratch")

CENTRE, RADIUS = np.array([-25.0, 12.0, 310.0]), 38.0  # mm RAS of the sphere that is meant
OTHER, OTHER_RADIUS = CENTRE + [80, -62, -38], 22.0  # another one that looks the same
CLICK = CENTRE + RADIUS * np.array([0.5, -0.35, 0.4])  # off the middle, so that a flip would miss it
MIDDLE = CENTRE + [30, -20, -10]  # of the image

GRIDS = {  # axes, shape, spacing, rotation
    "RAS": ("RAS", (64, 60, 48), (3.0, 3.0, 3.0), 0),
    "LPS": ("LPS", (64, 60, 48), (3.0, 3.0, 3.0), 0),
    "PIR": ("PIR", (64, 60, 48), (3.0, 3.0, 3.0), 0),
    "coronal": ("RSA", (64, 60, 48), (3.0, 3.0, 3.0), 0),
    "oblique": ("RAS", (72, 68, 56), (3.0, 3.0, 3.0), 20),
    "oblique and flipped": ("ILP", (72, 68, 56), (3.0, 3.0, 3.0), -15),
    "anisotropic": ("LPS", (128, 118, 24), (1.5, 1.6, 6.0), 0),
}
SERIES = {  # orientation, spacing of columns, rows and slices, (slices, rows, columns)
    "axial": (AXIAL, (2.5, 3.0, 5.0), (30, 64, 80)),
    "coronal": (CORONAL, (2.5, 3.0, 4.0), (48, 52, 80)),
    "oblique": (oblique(), (2.5, 3.0, 5.0), (36, 72, 84)),
}
OHIF = {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False, "restore_label_idx": False}
SLICER = {"label": "Segment_1", "background": [], "text_prompt": "", "box": "", "mode": list(MODES), "device": "cpu"}
STYLES = {
    "slicer": lambda voxel: {**SLICER, "foreground": [voxel], "result_extension": ".nrrd", "client_id": "user-xyz"},
    "ohif": lambda voxel: {"foreground": [voxel], "background": [], **OHIF},
}


class Clicked(torch.nn.Module):
    """A network that draws the bright piece that a click lies in, and in a window without one what its box holds."""

    window_size = (32, 64, 64)

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        return image

    def decode(self, embedding, points=None, point_labels=None, boxes=None, text=None):
        bright = embedding[0, 0].numpy() > 0.5
        if points is None:
            low, high = boxes[0, :3].floor().int() - 2, boxes[0, 3:].ceil().int() + 3
            part = tuple(slice(max(int(a), 0), int(b)) for a, b in zip(low, high, strict=True))
            drawn = np.zeros_like(bright)
            drawn[part] = bright[part]
        else:
            pieces, _ = ndimage.label(bright)
            hit = {int(pieces[tuple(voxel)]) for voxel in points[0].round().int().tolist()} - {0}
            drawn = np.isin(pieces, sorted(hit))
        return torch.from_numpy(np.where(drawn, 1.0, -1.0).astype(np.float32))[None, None]


def spheres(shape: tuple[int, ...], affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A CT of two equal looking spheres in a body, and the mask of the one that is meant."""
    where = positions(shape, affine)
    distance = np.linalg.norm(where - CENTRE, axis=-1)
    meant, other = distance <= RADIUS, np.linalg.norm(where - OTHER, axis=-1) <= OTHER_RADIUS
    assert other.any() and not (meant & other).any()
    return np.where(meant | other, 200, np.where(distance <= 1.3 * RADIUS, 60, -900)).astype(np.int16), meant


def voxel_of(point: np.ndarray, affine: np.ndarray) -> list[int]:
    return [round(x) for x in nib.affines.apply_affine(np.linalg.inv(affine), point)]


@pytest.fixture(scope="module")
def segvol() -> Iterator[SegVolInfer]:
    """The task of the viewers' points, with the network that knows the spheres."""
    bundle = Bundle(Path(__file__).resolve().parents[2] / "bundle")
    known = {"network": Clicked(), "weights": SimpleNamespace(path="spheres.pt", sha256="0" * 64)}
    part = bundle.part
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle, "part", lambda name: known[name] if name in known else part(name))
        spec = ModelSpec("deepgrow", {}, (), MODES)
        yield SegVolInfer(Engine(bundle, Memory(1 << 28)), History(), spec, "segvol")


def drawn_by(segvol: SegVolInfer, path: Path, style: str, voxel: list[int], **more: Any) -> tuple[Any, Any]:
    """The mask and the affine that come back for one click."""
    file, _ = segvol({"image": str(path), **STYLES[style](voxel), **more})
    voxels, affine = read_with_itk(file)
    assert voxels.dtype == np.uint8 and set(np.unique(voxels)) <= {0, 1}
    return voxels > 0, affine


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("grid", GRIDS)
def test_a_click_in_a_nifti_draws_the_sphere_it_lies_in_on_the_files_own_grid(segvol, grid, style, tmp_path):
    codes, shape, spacing, degrees = GRIDS[grid]
    affine = affine_of(shape, spacing, MIDDLE, degrees)
    image = stored_as(nib.Nifti1Image(spheres(shape, affine)[0], affine), codes)
    nib.save(image, tmp_path / "ct.nii.gz")
    mask, affine = drawn_by(segvol, tmp_path / "ct.nii.gz", style, voxel_of(CLICK, image.affine))
    np.testing.assert_allclose(affine, nib.load(tmp_path / "ct.nii.gz").affine, atol=1e-4)
    assert dice(mask, spheres(image.shape, image.affine)[1]) >= 0.98


@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("name", SERIES)
def test_a_click_in_a_dicom_series_draws_the_sphere_whatever_the_order_of_its_files(segvol, name, backwards, tmp_path):
    orientation, spacing, (slices, rows, columns) = SERIES[name]
    axes = np.column_stack([orientation[:3], orientation[3:], np.cross(orientation[:3], orientation[3:])])
    affine, shape = np.eye(4), (columns, rows, slices)
    affine[:3, :3] = axes @ np.diag(spacing)
    affine[:3, 3] = (LPS[:3, :3] @ MIDDLE) - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    image, meant = spheres(shape, LPS @ affine)
    write_series(tmp_path / "series", image.T, orientation, spacing, tuple(affine[:3, 3]), backwards)
    mask, found = drawn_by(segvol, tmp_path / "series", "ohif", voxel_of(CLICK, LPS @ affine))
    np.testing.assert_allclose(found, LPS @ affine, atol=1e-3)
    assert dice(mask, meant) >= 0.98


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_draws_on_the_same_grid(segvol, mode, tmp_path):
    codes, shape, spacing, degrees = GRIDS["oblique and flipped"]
    affine = affine_of(shape, spacing, MIDDLE, degrees)
    image = stored_as(nib.Nifti1Image(spheres(shape, affine)[0], affine), codes)
    nib.save(image, tmp_path / "ct.nii.gz")
    voxel = voxel_of(CLICK, image.affine)
    mask, _ = drawn_by(segvol, tmp_path / "ct.nii.gz", "slicer", voxel, mode=mode)
    truth = spheres(image.shape, image.affine)[1]
    assert mask.shape == truth.shape
    assert dice(mask, truth) >= 0.9


def test_a_click_off_both_spheres_draws_neither(segvol, tmp_path):
    shape = (64, 60, 48)
    affine = affine_of(shape, (3.0, 3.0, 3.0), MIDDLE)
    nib.save(nib.Nifti1Image(spheres(shape, affine)[0], affine), tmp_path / "ct.nii.gz")
    mask, _ = drawn_by(segvol, tmp_path / "ct.nii.gz", "ohif", voxel_of(CENTRE + [50, 0, 20], affine))
    assert not mask.any()
