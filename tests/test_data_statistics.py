"""What a case is like: volumes and places in millimetres from any storage, intensities, and the middle of the body."""

import io
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image
from scripts.data.quality.statistics import SAMPLE, describe, plane_counts, sample_step
from scripts.data.reporting.thumbnails import LARGEST, WIDTH, colors_of, write_thumbnail
from scripts.vocabulary import Vocabulary

AFFINE = np.array([[2.0, 0, 0, -40], [0, 2.0, 0, -30], [0, 0, 3.0, 100], [0, 0, 0, 1]])
LABELS = {"1": "liver", "2": "left kidney", "3": None}
STORAGES = ("RAS", "LPS", "PIR", "ASL")


def scan() -> tuple[np.ndarray, np.ndarray]:
    """A body in air with a liver on the patient's right (large i), in RAS: image and label (40, 30, 20)."""
    image = np.full((40, 30, 20), -1000, np.float32)
    image[5:35, 5:25] = 0
    label = np.zeros(image.shape, np.int16)
    label[22:32, 10:20, 5:15] = 1
    label[8:12, 8:12, 2:6] = 2
    image[label == 1] = 60
    return image, label


def restored(volume: np.ndarray, codes: str) -> tuple[np.ndarray, np.ndarray]:
    wanted = nib.orientations.axcodes2ornt(tuple(codes))
    transform = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), wanted)
    back = nib.orientations.inv_ornt_aff(transform, volume.shape)
    return nib.apply_orientation(volume, transform), AFFINE @ back


def described(codes: str = "RAS", labels: dict[str, str | None] = LABELS) -> dict:
    image, label = scan()
    turned, affine = restored(image, codes)
    tensor = MetaTensor(torch.from_numpy(np.ascontiguousarray(turned))[None], affine=affine)
    return describe(tensor, restored(label, codes)[0], labels)


def test_volumes_and_places_are_in_millimetres() -> None:
    found = described()
    assert (found["shape"], found["spacing_mm"], found["axcodes"]) == ([40, 30, 20], [2.0, 2.0, 3.0], "RAS")
    assert found["field_of_view_mm"] == [80.0, 60.0, 60.0]
    liver = found["structures"]["liver"]
    assert (liver["value"], liver["voxels"], liver["ml"], liver["intensity"]) == (1, 1000, 12.0, 60.0)
    assert liver["centroid_ras"] == [13.0, -1.0, 128.5]
    assert liver["extent_ras"] == [[3.0, -11.0, 113.5], [23.0, 9.0, 143.5]]
    assert list(found["structures"]) == ["liver", "left kidney"]


@pytest.mark.parametrize("codes", STORAGES)
def test_the_patient_does_not_depend_on_the_storage(codes: str) -> None:
    one, other = described(), described(codes)
    assert other["axcodes"] == codes
    assert other["structures"] == one["structures"]
    assert other["body_centroid_ras"] == one["body_centroid_ras"] == [-1.0, -1.0, 128.5]


def test_a_structure_at_the_border_is_cut_and_one_inside_is_not() -> None:
    image, label = scan()
    label[8:12, 8:12, 0:3] = 2
    found = describe(MetaTensor(torch.from_numpy(image)[None], affine=AFFINE), label, LABELS)
    assert [found["structures"][name]["cut"] for name in ("liver", "left kidney")] == [False, True]


def test_values_without_a_name_are_kept_and_values_of_one_name_are_one_structure() -> None:
    image, label = scan()
    label[30:32] = 7
    found = describe(MetaTensor(torch.from_numpy(image)[None], affine=AFFINE), label, {"1": "kidney", "2": "kidney"})
    assert list(found["structures"]) == ["kidney", "label 7"]
    assert found["structures"]["kidney"]["voxels"] == 800 + 64
    assert found["structures"]["label 7"]["value"] == 7


def test_intensities_are_extremes_of_all_voxels_and_percentiles() -> None:
    image, _ = scan()
    image[0, 0, 0], image[39, 29, 19] = -2000, 3000
    found = describe(MetaTensor(torch.from_numpy(image)[None], affine=AFFINE), None, {})
    assert found["intensity"] == {"min": -2000.0, "p01": -1000.0, "median": 0.0, "p99": 60.0, "max": 3000.0}
    assert found["structures"] == {}


def test_voxels_that_are_no_numbers_leave_valid_json() -> None:
    image, label = scan()
    image[22:25] = np.nan
    found = describe(MetaTensor(torch.from_numpy(image)[None], affine=AFFINE), label, LABELS)
    assert found["intensity"]["min"] is None and found["intensity"]["median"] == -1000.0
    json.dumps(found, allow_nan=False)


def test_the_middle_of_a_body_whose_sides_are_not_seen_is_unknown() -> None:
    image, label = scan()
    image[:, 5:25] = 0
    assert (
        describe(MetaTensor(torch.from_numpy(image)[None], affine=AFFINE), label, LABELS)["body_centroid_ras"] is None
    )


def test_lungs_and_couch_do_not_move_the_middle_of_the_body() -> None:
    image, _ = scan()
    image[20:32, 8:22] = -850  # one lung, open at both ends of the scan
    image[:, 27] = 100  # the couch
    found = describe(MetaTensor(torch.from_numpy(image)[None], affine=AFFINE), None, {})
    assert found["body_centroid_ras"] == [-1.0, -1.0, 128.5]


def test_planes_are_counted_alike_in_any_memory_layout() -> None:
    label = np.random.default_rng(0).integers(0, 5, (6, 7, 8)).astype(np.int16)
    for volume in (label, np.asfortranarray(label), label[::-1], label.transpose(2, 0, 1)):
        for axis, counts in enumerate(plane_counts(volume)):
            for value in range(1, 5):
                others = tuple(other for other in range(3) if other != axis)
                assert counts[value].tolist() == (volume == value).sum(axis=others).tolist()


def test_a_huge_volume_is_sampled_and_a_small_one_is_not() -> None:
    assert sample_step((100, 100, 100)) == (slice(0, None, 1),) * 3
    shape = (512, 512, 600)
    taken = np.prod([len(range(*part.indices(size))) for part, size in zip(sample_step(shape), shape, strict=True)])
    assert SAMPLE / 3 < taken <= SAMPLE * 1.1


def thumbnail(path: Path, codes: str = "RAS", label: bool = True) -> np.ndarray:
    image, mask = scan()
    turned, affine = restored(image, codes)
    tensor = MetaTensor(torch.from_numpy(np.ascontiguousarray(turned))[None], affine=affine)
    write_thumbnail(path, tensor, restored(mask, codes)[0] if label else None, {1: (255, 0, 0), 2: (0, 255, 0)})
    with Image.open(io.BytesIO(path.read_bytes())) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


@pytest.mark.parametrize("codes", STORAGES)
def test_the_liver_hangs_at_image_left_in_its_colour(tmp_path: Path, codes: str) -> None:
    pixels = thumbnail(tmp_path / "case.png", codes)
    red = pixels[..., 0] - pixels[..., 1:].max(axis=-1) > 40
    axial = red[:, : WIDTH // 3]
    middle = np.flatnonzero(pixels[:, : WIDTH // 3].any(axis=(0, 2)))
    assert axial.any()
    assert np.nonzero(axial)[1].mean() < middle.mean() - 10


def test_a_thumbnail_is_small_and_the_same_twice(tmp_path: Path) -> None:
    first, second = tmp_path / "a.png", tmp_path / "b.png"
    thumbnail(first)
    thumbnail(second)
    assert first.read_bytes() == second.read_bytes()
    assert thumbnail(tmp_path / "c.png", label=False).any()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png", "c.png"]


def test_a_thumbnail_of_noise_is_small_too(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).normal(0, 400, (150, 150, 150)).astype(np.float32)
    label = np.random.default_rng(1).integers(0, 120, noise.shape).astype(np.int16)
    write_thumbnail(tmp_path / "a.png", MetaTensor(torch.from_numpy(noise)[None], affine=AFFINE), label)
    assert 0 < (tmp_path / "a.png").stat().st_size < LARGEST


def test_structures_have_the_colours_of_the_vocabulary(bundle: Path) -> None:
    vocabulary = Vocabulary.load(bundle / "configs" / "vocabulary.json")
    assert colors_of({"1": "liver", "2": None}, vocabulary) == {1: vocabulary.color("liver")}
