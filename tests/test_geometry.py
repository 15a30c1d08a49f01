"""The mask comes back on the voxels it belongs to, however the volume is stored."""

import nibabel as nib
import numpy as np
import pytest
import torch
from commands import run_here
from monai.bundle import ConfigParser
from nibabel.orientations import axcodes2ornt, io_orientation, ornt_transform
from scripts.inferer import ZoomOutZoomInInferer
from scripts.phantom import make_phantom

NAMES = ("inference", "small")
CENTRE, RADII = np.array([5.0, -12.0, 30.0]), np.array([42.0, 36.0, 30.0])  # mm RAS of an ellipsoid


def stored_as(image: nib.Nifti1Image, codes: str) -> nib.Nifti1Image:
    """The same volume with its axes permuted and flipped."""
    change = ornt_transform(io_orientation(image.affine), axcodes2ornt(tuple(codes)))
    return image.as_reoriented(change)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


@pytest.fixture(scope="module")
def ras() -> nib.Nifti1Image:
    phantom = make_phantom(3002, shape=(72, 64, 40))
    return nib.Nifti1Image(phantom.image, phantom.affine)


@pytest.mark.parametrize("codes", ["LPS", "PIR", "ASL"])
@pytest.mark.parametrize("coordinates", ["voxel", "ras"])
def test_a_volume_stored_along_other_axes_gets_the_same_mask_voxel_for_voxel(
    codes, coordinates, ras, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    point, box = np.array([48, 30, 18]), np.array([[34, 16, 8], [66, 50, 30]])
    other = stored_as(ras, codes)
    nib.save(ras, "ras.nii.gz")
    nib.save(other, "other.nii.gz")
    to_other = np.linalg.inv(other.affine) @ ras.affine
    for name, matrix, affine in (("ras", np.eye(4), ras.affine), ("other", to_other, other.affine)):
        voxels = nib.affines.apply_affine(matrix, np.vstack([point, box]))
        given = voxels if coordinates == "voxel" else nib.affines.apply_affine(affine, voxels)
        run_here(
            monkeypatch,
            *NAMES,
            image=f"{name}.nii.gz",
            points=[[float(x) for x in given[0]]],
            box=[float(x) for x in given[1:].ravel()],
            coordinates=coordinates,
        )
    masks = [nib.load(f"out/{name}/{name}_seg.nii.gz") for name in ("ras", "other")]
    back = stored_as(masks[1], "RAS")
    np.testing.assert_allclose(back.affine, masks[0].affine, atol=1e-6)
    one, two = (np.asarray(mask.dataobj) > 0 for mask in (masks[0], back))
    assert one.any()
    assert dice(one, two) >= 0.999


class WorldShape(torch.nn.Module):
    """A network that knows the ellipsoid: the image shows it, and inside the box it answers with what it sees."""

    window_size = (32, 64, 64)

    def encode(self, image: torch.Tensor) -> torch.Tensor:
        return image

    def decode(self, embedding, points=None, point_labels=None, boxes=None, text=None):
        logits = embedding * 2 - 1.2
        if boxes is not None:
            low, high = boxes[0, :3].floor().int() - 2, boxes[0, 3:].ceil().int() + 3
            inside = torch.zeros_like(logits)
            d, h, w = (slice(max(int(a), 0), int(b)) for a, b in zip(low, high, strict=True))
            inside[..., d, h, w] = 1
            logits = torch.where(inside > 0, logits, -1.0)
        return logits


def rotated(degrees: float) -> np.ndarray:
    a, b = np.deg2rad([degrees, degrees / 2])
    z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    return z @ x


GRIDS = {  # shape, spacing, rotation
    "RAS": ((96, 96, 80), (2.0, 2.0, 2.0), 0),
    "oblique": ((96, 96, 80), (2.0, 2.0, 2.0), 25),
    "anisotropic": ((180, 170, 30), (1.0, 1.1, 6.0), 0),
    "anisotropic and oblique": ((180, 170, 40), (1.0, 1.1, 5.0), -17),
    "one slice": ((120, 110, 1), (1.5, 1.5, 5.0), 0),
    "tiny": ((12, 10, 9), (11.0, 11.0, 11.0), 0),
}


def world_volume(shape, spacing, degrees) -> tuple[nib.Nifti1Image, np.ndarray]:
    """An image that shows the ellipsoid (200 on 0, in a body of 60), and its mask on that grid."""
    affine = np.eye(4)
    affine[:3, :3] = rotated(degrees) @ np.diag(spacing)
    affine[:3, 3] = CENTRE - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    grid = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    distance = np.linalg.norm((nib.affines.apply_affine(affine, grid) - CENTRE) / RADII, axis=-1)
    mask = distance <= 1
    image = np.where(mask, 200, np.where(distance <= 1.6, 60, -900)).astype(np.int16)
    return nib.Nifti1Image(image, affine), mask


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("mode", ["zoom", "fit", "sliding_window"])
def test_a_network_that_knows_the_shape_draws_it_on_every_grid(grid, mode, tmp_path, monkeypatch, bundle):
    image, mask = world_volume(*GRIDS[grid])
    nib.save(image, tmp_path / "ct.nii.gz")
    box = [*(CENTRE - RADII), *(CENTRE + RADII)]
    parser = ConfigParser()
    parser.read_config([str(bundle / "configs" / f"{name}.json") for name in NAMES])
    parser.update({"bundle_root": str(bundle), "image": str(tmp_path / "ct.nii.gz"), "box": box, "coordinates": "ras"})
    parser.update({"mode": mode, "device": "cpu", "output_dir": str(tmp_path / "out")})
    case = parser.get_parsed_content("preprocessing")(parser.get_parsed_content("case_list")[0])
    logits = ZoomOutZoomInInferer((32, 64, 64), mode)(case["image"][None], WorldShape(), case["model_prompts"], [None])
    resolved = parser.get_parsed_content("postprocessing").transforms[1:3]
    data = {**case, "pred": logits}
    for transform in resolved:
        data = transform(data)
    drawn = np.asarray(data["masks"])[0] > 0
    assert drawn.shape == mask.shape
    assert dice(drawn, mask) >= 0.98
