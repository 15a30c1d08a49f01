"""Volumes come in from every format, normalised as published, with the prompts at their place; mistakes in one line."""

import gzip
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import itk
import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, CropForegroundd, Orientationd
from scripts.prompts import parse_document
from scripts.transforms import (
    ITK_FILES,
    CheckLabelGridd,
    LoadVolumed,
    NormalizeForegroundd,
    PromptsToModelFramed,
    check_volume,
    load_volume,
    normalise_foreground,
)
from torch.nn import functional as F

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
AFFINE = np.array([[-0.8, 0, 0, 30], [0, -1.5, 0, 60], [0, 0, 3, -100], [0, 0, 0, 1]])  # stored LPS


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def nifti(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE) -> Path:
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def itk_file(path: Path, array: np.ndarray, affine: np.ndarray = AFFINE, vector: bool = False) -> Path:
    """Write (i, j, k) voxels with an axis-parallel RAS affine: NRRD, MHA, or MHD with a file of voxels beside it."""
    image = itk.image_from_array(np.ascontiguousarray(array.T if not vector else array), is_vector=vector)
    if array.ndim == 3:
        lps = LPS_TO_RAS @ affine
        spacing = np.linalg.norm(lps[:3, :3], axis=0)
        image.SetSpacing(spacing.tolist())
        image.SetOrigin(lps[:3, 3].tolist())
        image.SetDirection(itk.matrix_from_array(lps[:3, :3] / spacing))
    itk.imwrite(image, str(path), True)
    return path


def preprocessing(*more: Callable) -> Compose:
    return Compose(
        [
            LoadVolumed("image"),
            Orientationd("image", axcodes="SAR", labels=None),
            NormalizeForegroundd("image"),
            CropForegroundd("image", source_key="image", allow_smaller=True),
            *more,
        ]
    )


# ---------------------------------------------------------------- the published preprocessing


def test_preprocessing_equals_the_published_one(shared: Path):
    reference = np.load(shared / "reference" / "preprocess.npz")
    image = preprocessing()({"image": shared / "reference" / "preprocess_input.nii.gz"})["image"]
    assert image.shape == (1, *reference["shape"]) and image.dtype == torch.float32
    np.testing.assert_allclose(image[0, ::3, ::3, ::3], reference["image"], atol=1e-5)
    np.testing.assert_allclose(image.mean(), reference["mean"], atol=1e-5)
    zoom_out = F.interpolate(image.as_tensor()[None], (32, 256, 256), mode="nearest-exact")
    np.testing.assert_allclose(zoom_out[0, 0, ::4, ::16, ::16], reference["zoom_out"], atol=1e-5)


def test_normalising_follows_the_formula():
    volume = torch.from_numpy(noise(1, 9, 10, 11)) * 300 + 20
    array = volume.double().numpy()
    foreground = array[array > array.mean()]
    low, high = np.percentile(foreground, [0.05, 99.95])
    expected = (np.clip(array, low, high) - foreground.mean()) / foreground.std()
    expected = (expected - expected.min()) / (expected.max() - expected.min())
    result = normalise_foreground(volume)
    assert result.dtype == torch.float32 and (result.min(), result.max()) == (0, 1)
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_normalising_does_not_depend_on_the_unit_or_touch_its_input():
    volume = torch.from_numpy(noise(1, 9, 10, 11))
    kept = volume.clone()
    torch.testing.assert_close(normalise_foreground(volume), normalise_foreground(volume * 1000 + 5), atol=1e-4, rtol=0)
    assert torch.equal(volume, kept)


def test_normalising_keeps_the_geometry():
    volume = MetaTensor(torch.from_numpy(noise(1, 5, 6, 7)), affine=torch.from_numpy(AFFINE))
    result = NormalizeForegroundd("image")({"image": volume})["image"]
    assert isinstance(result, MetaTensor)
    torch.testing.assert_close(result.affine, volume.affine)
    plain = NormalizeForegroundd("image")({"image": volume.as_tensor()})["image"]
    assert torch.equal(plain, result.as_tensor()) and not isinstance(plain, MetaTensor)


def test_a_mask_in_the_place_of_the_image_is_refused(tmp_path: Path):
    path = nifti(tmp_path / "mask.nii.gz", (noise(6, 7, 8) > 1).astype(np.uint8))
    with pytest.raises(RuntimeError) as caught:
        preprocessing()({"image": path})
    assert str(path) in str(caught.value.__cause__) and "like a mask" in str(caught.value.__cause__)


# ---------------------------------------------------------------- formats


@pytest.mark.parametrize(
    "name",
    ["a.nii", "a.nii.gz", "A.NII.GZ", "a.nrrd", "A.NRRD", "a.mha", "a.mhd", "20240101.nii", "two words.nii"],
)
def test_a_volume_is_read_as_stored_with_its_ras_affine(name: str, tmp_path: Path):
    array = noise(5, 6, 7)
    if name.lower().endswith(ITK_FILES):
        itk_file(tmp_path / name.lower(), array).rename(tmp_path / name)
    else:
        nifti(tmp_path / name, array)
    volume = load_volume(str(tmp_path / name))
    assert volume.shape == (1, 5, 6, 7) and volume.dtype == torch.float32
    np.testing.assert_array_equal(volume[0], array)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-4)
    check_volume(volume, tmp_path / name)


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint8, np.float64])
def test_every_type_of_voxel_becomes_float32(dtype: type, tmp_path: Path):
    array = (noise(5, 6, 7) * 50).astype(dtype)
    volume = load_volume(nifti(tmp_path / "a.nii.gz", array))
    assert volume.dtype == torch.float32
    np.testing.assert_allclose(volume[0], array, rtol=1e-6)


def test_slope_and_intercept_are_applied(tmp_path: Path):
    image = nib.Nifti1Image(np.arange(60, dtype=np.int16).reshape(3, 4, 5), AFFINE)
    image.header.set_slope_inter(2, -1024)
    image.to_filename(tmp_path / "a.nii")
    assert load_volume(tmp_path / "a.nii")[0, 2, 3, 4] == nib.load(tmp_path / "a.nii").get_fdata()[2, 3, 4]


def test_a_fourth_axis_of_length_one_is_dropped(tmp_path: Path):
    array = noise(5, 6, 7)
    path = nifti(tmp_path / "a.nii.gz", array[..., None])
    case = preprocessing(PromptsToModelFramed(AnyText()))({"image": path, "document": points([1, 2, 3])})
    assert case["image"].shape == (1, 7, 6, 5)
    place = case["model_prompts"][0].points[0].astype(int)
    expected = normalise_foreground(torch.from_numpy(array))[1, 2, 3]
    torch.testing.assert_close(case["image"].as_tensor()[0][tuple(place)], expected)


def test_a_dicom_series_is_read_in_the_order_of_itk(shared: Path):
    assert_equals_itk(shared / "data" / "dcmqi" / "ct-3slice")


@pytest.mark.slow
def test_a_compressed_dicom_series_of_twenty_slices_is_read(shared: Path):
    assert_equals_itk(shared / "data" / "totalsegmentator" / "example_ct_dicom")


def assert_equals_itk(folder: Path) -> None:
    names = itk.GDCMSeriesFileNames.New(Directory=str(folder))
    image = itk.imread(list(names.GetFileNames(names.GetSeriesUIDs()[0])), itk.F)
    direction = itk.array_from_matrix(image.GetDirection())
    affine = np.eye(4)
    affine[:3, :3] = direction * np.asarray(image.GetSpacing())
    affine[:3, 3] = np.asarray(image.GetOrigin())
    volume = load_volume(folder)
    np.testing.assert_array_equal(volume[0], itk.array_from_image(image).T)
    np.testing.assert_allclose(volume.affine, LPS_TO_RAS @ affine, atol=1e-4)
    check_volume(volume, folder)


# ---------------------------------------------------------------- what is refused


def bad(folder: Path, kind: str) -> Path:
    """Make what cannot be segmented."""
    array = noise(5, 6, 7)
    if kind == "missing":
        return folder / "missing.nii.gz"
    if kind == "long name":
        return folder / ("n" * 300 + ".nii")
    if kind == "unknown suffix":
        (folder / "a.img").write_bytes(b"x")
        return folder / "a.img"
    if kind == "2D":
        return nifti(folder / "a.nii.gz", array[0])
    if kind == "2D nrrd":
        return itk_file(folder / "a.nrrd", array[0])
    if kind == "4D":
        return nifti(folder / "a.nii.gz", noise(5, 6, 7, 3))
    if kind == "4D nrrd":
        return itk_file(folder / "a.nrrd", noise(5, 6, 7, 3))
    if kind == "vectors":
        return itk_file(folder / "a.nrrd", noise(5, 6, 7, 3), vector=True)
    if kind == "colours":
        rgb = np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")])
        return nifti(folder / "a.nii.gz", rgb)
    if kind in ("NaN", "infinite"):
        array[1, 2, 3] = np.nan if kind == "NaN" else np.inf
        return nifti(folder / "a.nii.gz", array)
    if kind == "constant":
        return nifti(folder / "a.nii.gz", np.full((5, 6, 7), -1024, np.int16))
    if kind == "flat affine":
        return flattened(nifti(folder / "a.nii", array, np.eye(4)))
    if kind == "empty folder":
        (folder / "a").mkdir()
        return folder / "a"
    return damaged(folder, kind)


def flattened(path: Path) -> Path:
    """Overwrite the first row of the affine in a NIfTI header, and say that it is the one to read."""
    raw = bytearray(path.read_bytes())
    raw[252:256] = np.array([0, 1], "<i2").tobytes()
    raw[280:296] = bytes(16)
    path.write_bytes(raw)
    return path


def damaged(folder: Path, kind: str) -> Path:
    """Files that begin like a volume, or claim to be one."""
    whole = nifti(folder / "whole.nii.gz", noise(20, 30, 40)).read_bytes()
    plain = bytearray(gzip.decompress(whole))
    if kind in ("short nrrd", "short mha"):
        ending = kind.removeprefix("short ")
        path = itk_file(folder / f"whole.{ending}", noise(5, 6, 7))
        content = path.read_bytes()[:-200]
        path.unlink()
        (folder / f"a.{ending}").write_bytes(content)
        return folder / f"a.{ending}"
    if kind in ("short mhd", "mhd alone"):
        path = itk_file(folder / "a.mhd", noise(5, 6, 7))
        voxels = path.with_suffix(".zraw")
        voxels.write_bytes(voxels.read_bytes()[:-200])
        if kind == "mhd alone":
            voxels.unlink()
        return path
    if kind == "negative size":
        plain[42:44] = b"\xff\xff"
    if kind == "huge size":
        plain[42:50] = b"\xff\x7f" * 4
    if kind == "no header nrrd":
        (folder / "a.nrrd").write_bytes(b"NRRD0004\nnothing")
        return folder / "a.nrrd"
    content = {
        "half gz": whole[: len(whole) // 2],
        "start of gz": whole[:400],
        "no gz": b"no gzip at all" * 50,
        "empty": b"",
        "short": bytes(plain[:-100]),
        "png": b"\x89PNG\r\n\x1a\n" + bytes(500),
    }.get(kind, bytes(plain))
    path = folder / ("a.nii" if kind in ("short", "negative size", "huge size") else "a.nii.gz")
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("kind", "says"),
    {
        "missing": "does not exist",
        "long name": "does not exist",
        "unknown suffix": "is of no known kind; allowed are .nii, .nii.gz, .nrrd, .mha, .mhd or a DICOM series folder",
        "2D": "must be one 3D volume; it has 2 dimensions (6, 7)",
        "2D nrrd": "must be one 3D volume; it has 2 dimensions (6, 7)",
        "4D": "must be one 3D volume; it has 4 dimensions (5, 6, 7, 3)",
        "4D nrrd": "must be one 3D volume; it has 4 dimensions (5, 6, 7, 3)",
        "vectors": "must be one 3D volume; it has 4 dimensions",
        "colours": "cannot be read",
        "NaN": "holds NaN or infinite voxels",
        "infinite": "holds NaN or infinite voxels",
        "constant": "is constant (-1024)",
        "flat affine": "does not say where its voxels lie",
        "empty folder": "holds 0 DICOM series",
        "half gz": "cannot be read",
        "start of gz": "cannot be read",
        "no gz": "cannot be read",
        "empty": "cannot be read",
        "short": "cannot be read",
        "png": "cannot be read",
        "negative size": "cannot be read",
        "huge size": "cannot be read",
        "short nrrd": "cannot be read",
        "no header nrrd": "cannot be read",
        "short mha": "cannot be read",
        "short mhd": "cannot be read",
        "mhd alone": "cannot be read",
    }.items(),
)
def test_what_cannot_be_segmented_is_refused_in_one_line_with_its_path(kind: str, says: str, tmp_path: Path):
    path = bad(tmp_path, kind)
    with pytest.raises(ValueError) as caught:
        LoadVolumed("image")({"image": path})
    sentence = str(caught.value)
    assert sentence.startswith("image: ") and str(path) in sentence and says in sentence
    assert "\n" not in sentence and "/ITK/" not in sentence


def test_a_folder_with_two_series_is_refused(shared: Path, tmp_path: Path):
    for series in ("dcmqi/ct-3slice", "totalsegmentator/example_ct_dicom"):
        file = sorted((shared / "data" / series).iterdir())[0]
        shutil.copyfile(file, tmp_path / f"{series.replace('/', '_')}.dcm")
    with pytest.raises(ValueError, match=f"{tmp_path} holds 2 DICOM series; it must hold exactly one"):
        load_volume(tmp_path)


def test_a_folder_without_a_readable_slice_is_refused(shared: Path, tmp_path: Path):
    (tmp_path / "1.dcm").write_bytes((shared / "data" / "dcmqi" / "ct-3slice" / "01.dcm").read_bytes()[:500])
    (tmp_path / "readme.txt").write_text("no image")
    with pytest.raises(ValueError, match=f"{tmp_path} holds 0 DICOM series"):
        load_volume(tmp_path)


def test_an_empty_label_map_is_read_without_the_check(tmp_path: Path):
    path = nifti(tmp_path / "label.nii.gz", np.zeros((5, 6, 7), np.uint8))
    assert LoadVolumed("label", check=False)({"label": path})["label"].sum() == 0
    with pytest.raises(ValueError, match="is constant"):
        LoadVolumed("label")({"label": path})


def test_a_label_map_on_another_grid_is_refused():
    image = MetaTensor(torch.zeros(1, 4, 5, 6), affine=torch.from_numpy(AFFINE))
    check = CheckLabelGridd("label")
    assert check({"image": image, "label": image.clone()})["label"].shape == image.shape
    with pytest.raises(ValueError, match=r"^label: its grid \(4, 5, 7\) is not that of the image$"):
        check({"image": image, "label": MetaTensor(torch.zeros(1, 4, 5, 7), affine=image.affine)})
    moved = image.affine.clone()
    moved[0, 3] += 1
    with pytest.raises(ValueError, match="is not that of the image"):
        check({"image": image, "label": MetaTensor(torch.zeros(1, 4, 5, 6), affine=moved)})


# ---------------------------------------------------------------- prompts into the model frame


class AnyText:
    """Knows liver and spleen."""

    def resolve(self, text: str) -> str:
        if text.lower() not in ("liver", "spleen"):
            raise ValueError(f"text {text!r} is unknown")
        return text.lower()


def points(*places: list[float], **more: object) -> object:
    target = {"points": [list(p) for p in places], **more}
    return parse_document({"targets": [target]})


def oblique() -> np.ndarray:
    """A gantry turned by 20 and 10 degrees."""
    a, b = np.radians(20), np.radians(10)
    turn = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    tilt = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ tilt @ np.diag([0.8, 1.5, 3.0])
    affine[:3, 3] = [-30, 20, 100]
    return affine


def stored_as(axes: str, array: np.ndarray, affine: np.ndarray) -> nib.Nifti1Image:
    image = nib.Nifti1Image(array, affine)
    wanted = nib.orientations.axcodes2ornt(tuple(axes))
    return image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(affine), wanted))


@pytest.mark.parametrize("coordinates", ["voxel", "ras", "lps"])
@pytest.mark.parametrize("stored", ["RAS", "LPS", "PIR", "LAS", "oblique", "oblique PIR"])
def test_prompts_stay_on_what_they_point_at(stored: str, coordinates: str, tmp_path: Path):
    # a body in air, each of its voxels known by its value
    array = np.full((24, 20, 16), -1000, np.float32)
    array[3:20, 4:17, 2:14] = noise(17, 13, 12)
    affine = oblique() if stored.startswith("oblique") else nib.affines.from_matvec(np.diag([0.8, 1.5, 3]), [5, 6, 7])
    image = stored_as(stored[-3:] if stored != "oblique" else "RAS", array, affine)
    nib.save(image, tmp_path / "a.nii.gz")
    data = image.get_fdata(dtype=np.float32).copy()
    spot = np.argwhere(data == array[15, 9, 11])
    cuboid = np.isin(data, array[6:10, 5:12, 4:7])
    box = np.array([np.argwhere(cuboid).max(axis=0), np.argwhere(cuboid).min(axis=0)])  # any corner order
    matrix = {"voxel": np.eye(4), "ras": image.affine, "lps": LPS_TO_RAS @ image.affine}[coordinates]
    targets = [{"points": nib.affines.apply_affine(matrix, spot).tolist()}]
    if coordinates == "voxel" or not stored.startswith("oblique"):  # a world box on a rotated grid covers more
        targets.append({"box": nib.affines.apply_affine(matrix, box).ravel().tolist()})
    document = parse_document({"coordinates": coordinates, "targets": targets})

    case = preprocessing(PromptsToModelFramed(AnyText()))({"image": tmp_path / "a.nii.gz", "document": document})

    volume, expected = case["image"].as_tensor().numpy()[0], normalise_foreground(torch.from_numpy(data)).numpy()
    (point,) = case["model_prompts"][0].points
    assert np.array_equal(point, np.rint(point))
    np.testing.assert_allclose(volume[tuple(point.astype(int))], expected[tuple(spot[0])])
    np.testing.assert_allclose(case["prompts"][0].points, spot, atol=1e-3)
    assert case["names"] == [None] * len(targets) and case["messages"] == []
    if len(targets) == 2:
        low, high = case["model_prompts"][1].box.astype(int)
        covered = volume[tuple(slice(a, b + 1) for a, b in zip(low, high, strict=True))]
        np.testing.assert_allclose(np.sort(covered.ravel()), np.sort(expected[cuboid]))


def test_the_model_frame_is_foot_to_head_back_to_front_left_to_right(tmp_path: Path):
    # SAR: the axes point to Superior, Anterior, Right of the patient
    array = noise(5, 6, 7)
    nib.save(stored_as("RAS", array, np.diag([1.0, 1, 1, 1])), tmp_path / "a.nii.gz")
    image = preprocessing()({"image": tmp_path / "a.nii.gz"})["image"]
    assert nib.aff2axcodes(image.affine.numpy()) == ("S", "A", "R")
    np.testing.assert_allclose(image[0], normalise_foreground(torch.from_numpy(array)).permute(2, 1, 0))


@pytest.fixture
def body(tmp_path: Path) -> Path:
    """A body with air around it, stored RAS."""
    array = np.full((20, 20, 20), -1000, np.float32)
    array[5:15, 5:15, 5:15] = 40 + 10 * noise(10, 10, 10)
    return nifti(tmp_path / "body.nii.gz", array, np.eye(4))


def placed(body: Path, *targets: dict) -> dict:
    document = parse_document({"targets": list(targets)})
    return preprocessing(PromptsToModelFramed(AnyText()))({"image": body, "document": document})


def test_texts_are_resolved_to_names(body: Path):
    case = placed(body, {"text": "Liver"}, {"points": [[8, 8, 8]]}, {"text": "spleen", "points": [[9, 9, 9]]})
    assert case["names"] == ["liver", None, "spleen"]
    assert case["messages"] == []


def test_an_unknown_text_gives_way_to_its_point_with_a_message(body: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        case = placed(body, {"text": "spline", "points": [[8, 8, 8]], "name": "mine"})
    assert case["names"] == [None]
    (message,) = case["messages"]
    assert "'mine': the text is ignored" in message and "'spline' is unknown" in message
    assert message in caplog.messages


def test_an_unknown_text_alone_is_refused(body: Path):
    with pytest.raises(RuntimeError) as caught:
        placed(body, {"text": "spline"})
    assert str(caught.value.__cause__) == "text 'spline' is unknown"


def test_a_point_in_air_is_dropped_with_a_message(body: Path):
    case = placed(body, {"points": [[0, 1, 2], [8, 8, 8]], "name": "mine"})
    assert len(case["model_prompts"][0].points) == 1 and len(case["prompts"][0].points) == 2
    assert "'mine': points[0] (0, 1, 2) lies in air" in case["messages"][0]


def test_a_prompt_wholly_in_air_and_one_outside_the_image_are_refused(body: Path):
    for target, says in (
        ({"points": [[0, 1, 2]]}, "lies in air outside the body"),
        ({"points": [[0, 1, 20]]}, "lies outside the image; allowed are i 0 to 19"),
        ({"box": [30, 30, 30, 40, 40, 40]}, "lies outside the image"),
    ):
        with pytest.raises(RuntimeError) as caught:
            placed(body, target)
        assert isinstance(caught.value.__cause__, ValueError) and says in str(caught.value.__cause__)


def test_a_series_with_a_missing_slice_is_refused(shared: Path, tmp_path: Path):
    for path in sorted((shared / "data" / "totalsegmentator" / "example_ct_dicom").iterdir())[:6]:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert load_volume(tmp_path).shape == (1, 512, 512, 6)
    sorted(tmp_path.iterdir())[3].unlink()
    with pytest.raises(ValueError, match="2 to 4 mm apart; one is missing"):
        load_volume(tmp_path)
