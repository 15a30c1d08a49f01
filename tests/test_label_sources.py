"""Images and labels are read from every kind of source onto one grid, exactly; what cannot be is told in one line."""

import itertools
import re
from pathlib import Path
from typing import Any

import itk
import nibabel as nib
import numpy as np
import pytest
from miniature import (
    Grid,
    grid,
    intensities,
    masks,
    scene,
    world,
    write,
    write_dicom,
    write_pictures,
)
from miniature_sets import normalised
from monai.data import MetaTensor
from PIL import Image
from scipy import sparse
from scripts.data.layouts import find_cases, generic_set
from scripts.data.sources import read_image, read_label
from scripts.data.sources.grids import onto_grid
from scripts.data.sources.painting import majority, paint
from scripts.vocabulary import Vocabulary

ORIENTATIONS = [
    "".join(signs[axis] for axis in axes)
    for axes in itertools.permutations(range(3))
    for signs in itertools.product("RL", "AP", "SI")
]


def image_on(where: Grid) -> MetaTensor:
    return MetaTensor(intensities(where.world())[None].astype(np.float32), affine=where.affine)


def sentence_of(source: dict[str, Any], image: MetaTensor) -> str:
    with pytest.raises(ValueError) as caught:
        read_label(source, image)
    sentence = str(caught.value)
    assert sentence.startswith("label") and "\n" not in sentence and not re.search(r"0x[0-9a-f]{6}", sentence)
    return sentence


def saved(path: Path, voxels: np.ndarray, where: Grid) -> dict[str, Any]:
    """A label map on disk, as a source."""
    write(path, voxels, where.affine)
    return {"kind": "map", "path": str(path)}


# ---------------------------------------------------------------- grids


@pytest.mark.parametrize("tilt", [0, 23])
def test_a_label_stored_in_any_order_of_axes_comes_onto_the_image_exactly(tilt: float):
    image, objects = grid("LPS", tilt), scene("left kidney", "liver")
    expected = masks(objects, image.world())["left kidney"]
    assert len(ORIENTATIONS) == 48 and expected.any()
    for axcodes in ORIENTATIONS:
        stored = grid(axcodes, tilt)
        label = masks(objects, stored.world())["left kidney"]
        np.testing.assert_array_equal(onto_grid(label, stored.affine, image.shape, image.affine), expected, axcodes)


def moved(where: Grid, **change: Any) -> Grid:
    """The grid with another origin (mm), spacing (factor), turn (degrees) or shape."""
    affine = where.affine.copy()
    affine[:3, 3] += change.get("origin", 0)
    affine[:3, :3] *= change.get("spacing", 1)
    if "turn" in change:
        affine = grid("RAS", change["turn"]).affine
    return Grid(change.get("shape", where.shape), affine)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"origin": [2.0, 0, 0]}, "origin off by 2 mm (2, 0, 0 in RAS)"),
        ({"origin": [0, 0, -9.0]}, "origin off by 9 mm (0, 0, -9 in RAS)"),
        ({"spacing": [1, 1, 1.5]}, "spacing 2, 2.5, 4.5 instead of 2, 2.5, 3 mm"),
        ({"spacing": [1, 1.02, 1]}, "spacing 2, 2.55, 3 instead of 2, 2.5, 3 mm"),
        ({"turn": 5}, "turned by 5 degrees"),
        ({"shape": (16, 14, 11)}, "shape 16x14x11 instead of 16x14x12"),
        ({"shape": (14, 16, 12)}, "shape 14x16x12 instead of 16x14x12"),
    ],
)
def test_a_grid_that_differs_is_told_how(change: dict[str, Any], told: str, tmp_path: Path):
    where = moved(grid(), **change)
    source = saved(tmp_path / "a.nii.gz", np.ones(where.shape, np.uint8), where)
    said = sentence_of(source, image_on(grid()))
    assert said.startswith("label grid differs from the image's: ") and told in said and str(tmp_path) in said


def test_the_difference_is_told_in_the_axes_of_the_image(tmp_path: Path):
    where = moved(grid("PIR"), origin=[0, 4.0, 0])
    said = sentence_of(saved(tmp_path / "a.nii.gz", np.ones(where.shape, np.uint8), where), image_on(grid("LPS")))
    assert "shape" not in said and "spacing" not in said and "origin off by 4 mm" in said


def test_what_rounding_in_a_header_does_is_no_difference(tmp_path: Path):
    where = moved(grid(), origin=[0.02, -0.02, 0.02], spacing=1.0005)
    voxels = np.arange(np.prod(where.shape), dtype=np.int16).reshape(where.shape)
    label, _ = read_label(saved(tmp_path / "a.nii.gz", voxels, where), image_on(grid()))
    np.testing.assert_array_equal(label, voxels)


def test_only_a_segmentation_of_slicer_may_cover_a_part(tmp_path: Path):
    where, box = grid("LPS"), (slice(3, 9), slice(0, 5), slice(4, 12))
    whole = np.zeros(where.shape, np.uint8)
    whole[box] = np.random.default_rng(0).integers(0, 3, whole[box].shape)
    cut = moved(where, origin=where.affine[:3, :3] @ [3, 0, 4], shape=whole[box].shape)
    label, _ = read_label(saved(tmp_path / "a.seg.nrrd", whole[box], cut), image_on(where))
    np.testing.assert_array_equal(label, whole)
    assert "shape 6x5x8 instead of" in sentence_of(saved(tmp_path / "a.nrrd", whole[box], cut), image_on(where))
    outside = moved(cut, origin=where.affine[:3, :3] @ [12, 0, 0])
    assert "shape" in sentence_of(saved(tmp_path / "b.seg.nrrd", whole[box], outside), image_on(where))
    between = moved(cut, origin=where.affine[:3, :3] @ [0.4, 0, 0])
    assert "origin off" in sentence_of(saved(tmp_path / "c.seg.nrrd", whole[box], between), image_on(where))


# ---------------------------------------------------------------- maps and masks


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.nrrd", "a.mha", "a.mhd"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_a_map_keeps_its_values_in_every_format(name: str, dtype: type, tmp_path: Path):
    where = grid("PIR")
    voxels = (np.arange(np.prod(where.shape)).reshape(where.shape) % 251).astype(dtype)
    label, overlaps = read_label(saved(tmp_path / name, voxels, where), image_on(where))
    np.testing.assert_array_equal(label, voxels)
    assert label.dtype == np.int16 and overlaps == {}


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (np.nan, "holds NaN or infinite voxels"),
        (np.inf, "holds NaN or infinite voxels"),
        (0.5, "holds 0.5; a label map holds whole numbers"),
        (-1, "holds -1; values of a label map are 0 to 32767"),
        (40000, "holds 40000; values of a label map are 0 to 32767"),
    ],
)
@pytest.mark.parametrize("kind", ["map", "files", "raters"])
def test_what_is_no_label_is_told(kind: str, value: float, says: str, tmp_path: Path):
    voxels = np.zeros(grid().shape, np.float32)
    voxels[3, 4, 5] = value
    path = saved(tmp_path / "a.nii.gz", voxels, grid())["path"]
    source = {
        "map": {"kind": "map", "path": path},
        "files": {"kind": "files", "files": [{"path": path, "value": 1}]},
        "raters": {"kind": "raters", "value_sets": [[{"path": path, "value": 1}]]},
    }[kind]
    said = sentence_of(source, image_on(grid()))
    assert says in said and path in said


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.nrrd", "a.mha", "a.npz", "b.npz"])
def test_a_file_that_was_cut_off_is_told(name: str, tmp_path: Path):
    path, where = tmp_path / name, grid()
    voxels = np.random.default_rng(0).integers(0, 9, where.shape).astype(np.uint8)
    if name.endswith("npz"):
        sparse.save_npz(path, sparse.csr_matrix(voxels.reshape(1, -1)), compressed=name == "a.npz")
    else:
        write(path, voxels, where.affine)
    source = {"kind": "sparse" if name.endswith("npz") else "map", "path": str(path)}
    read_label(source, image_on(where))
    path.write_bytes(path.read_bytes()[: -path.stat().st_size // 3])
    said = sentence_of(source, image_on(where))
    assert said.startswith(f"label: {path} cannot be read")
    path.unlink()
    assert str(path) in sentence_of(source, image_on(where))


def test_several_channels_are_no_map(tmp_path: Path):
    nib.save(nib.Nifti1Image(np.zeros((*grid().shape, 3), np.uint8), grid().affine), tmp_path / "a.nii.gz")
    said = sentence_of({"kind": "map", "path": str(tmp_path / "a.nii.gz")}, image_on(grid()))
    assert "must be one 3D map; it has the shape (16, 14, 12, 3)" in said
    assert "allowed are map, files, raters and sparse" in sentence_of({"kind": "scribbles"}, image_on(grid()))


def test_masks_are_painted_in_order_and_overlaps_are_counted(tmp_path: Path):
    voxels = {name: np.zeros(grid().shape, np.uint8) for name in ("liver", "cyst", "left")}
    voxels["liver"][2:8, 2:8, 2:8] = 255
    voxels["cyst"][7:9, 7:9, 7:9] = 1
    voxels["left"][7, 7, 7:10] = 3
    files = [{**saved(tmp_path / f"{n}.nii.gz", v, grid()), "value": i} for i, (n, v) in enumerate(voxels.items(), 1)]
    label, overlaps = read_label(
        {"kind": "files", "files": files}, image_on(grid()), {"1": "liver", "2": "cyst", "3": None}
    )
    assert overlaps == {"cyst over liver": 1, "structure 3 over cyst": 2}
    assert (label[2, 2, 2], label[7, 7, 7], label[8, 7, 7], label[7, 7, 9]) == (1, 3, 2, 3)
    turned, overlaps = read_label({"kind": "files", "files": files[::-1]}, image_on(grid()))
    assert overlaps == {"structure 1 over structure 2": 1, "structure 2 over structure 3": 2} and turned[7, 7, 7] == 1


def test_one_structure_in_several_files_is_no_overlap():
    mask = np.ones((2, 2, 2), bool)
    label, overlaps = paint([(5, mask), (5, mask)], mask.shape, {})
    assert overlaps == {} and (label == 5).all()


@pytest.mark.parametrize(("raters", "least"), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
def test_half_of_the_raters_are_enough(raters: int, least: int):
    votes = np.arange(raters + 1).reshape(-1, 1, 1)  # voxel n is marked by n raters
    drawn = majority(votes > rater for rater in range(raters))
    np.testing.assert_array_equal(drawn.ravel(), np.arange(raters + 1) >= least)


def test_raters_of_several_structures_agree_on_each(tmp_path: Path):
    sets, truth = [], masks(scene("left kidney", "pancreas"), grid("LAS").world())
    for value, (name, mask) in enumerate(truth.items(), start=3):
        extra = mask.copy()
        extra[:, :2] = True
        drawn = [mask, extra, mask]
        paths = [
            saved(tmp_path / f"{name}{n}.nii.gz", m.astype(np.uint8), grid("LAS"))["path"] for n, m in enumerate(drawn)
        ]
        sets.append([{"path": path, "value": value} for path in paths])
    label, overlaps = read_label({"kind": "raters", "value_sets": sets}, image_on(grid("LPS")))
    expected = masks(scene("left kidney", "pancreas"), grid("LPS").world())
    np.testing.assert_array_equal(label, 3 * expected["left kidney"] + 4 * expected["pancreas"])
    assert overlaps == {}


# ---------------------------------------------------------------- slices


def series(folder: Path, axcodes: str, name: str = "i{:04d}.dcm") -> tuple[MetaTensor, Grid]:
    where = grid(axcodes)
    write_dicom(folder, intensities(where.world()), where.affine, name.format)
    return read_image({"kind": "dicom", "path": str(folder)}), where


def slices_source(folder: Path, image: Path) -> dict[str, Any]:
    return {"kind": "files", "files": [{"path": str(folder), "value": 2, "slices_of": str(image)}]}


@pytest.mark.parametrize("axcodes", ["LPS", "LPI", "RAS", "LAI"])
@pytest.mark.parametrize(
    ("dicom", "picture"), [("i{:04d}.dcm", "g_{:03d}.png"), ("x{}.dcm", "{}.png"), ("x{}", "{}.tif")]
)
def test_pictures_follow_the_names_of_the_dicom_files(axcodes: str, dicom: str, picture: str, tmp_path: Path):
    image, where = series(tmp_path / "ct", axcodes, dicom)
    write_pictures(tmp_path / "masks", masks(scene("left kidney"), where.world())["left kidney"], picture.format)
    label, _ = read_label(slices_source(tmp_path / "masks", tmp_path / "ct"), image)
    expected = masks(scene("left kidney"), world(image.shape[1:], image.affine.numpy()))["left kidney"]
    assert expected.any()
    np.testing.assert_array_equal(label, 2 * expected)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16"])
def test_every_kind_of_picture_is_a_mask(mode: str, tmp_path: Path):
    image, where = series(tmp_path / "ct", "LPS")
    mask = masks(scene("liver"), where.world())["liver"]
    (tmp_path / "masks").mkdir()
    for k in range(where.shape[2]):
        grey = Image.fromarray(mask[:, :, k].T.astype(np.uint8) * 255)
        picture = Image.fromarray(mask[:, :, k].T.astype(np.uint16) * 900) if mode == "I;16" else grey.convert(mode)
        picture.save(tmp_path / "masks" / f"{k:03d}.png")
    label, _ = read_label(slices_source(tmp_path / "masks", tmp_path / "ct"), image)
    np.testing.assert_array_equal(label > 0, mask)


def test_pictures_that_are_not_those_of_the_series_are_told(tmp_path: Path):
    image, where = series(tmp_path / "ct", "LPS")
    mask = masks(scene("liver"), where.world())["liver"]
    source = slices_source(tmp_path / "masks", tmp_path / "ct")
    write_pictures(tmp_path / "masks", mask[1:], "{:03d}.png".format)
    assert "000.png has 15x14 pixels instead of 16x14" in sentence_of(source, image)
    write_pictures(tmp_path / "masks", mask, "{:03d}.png".format)
    path = tmp_path / "masks" / f"{mask.sum(axis=(0, 1)).argmax():03d}.png"
    path.write_bytes(path.read_bytes()[:50])
    assert sentence_of(source, image).startswith(f"label: {path} cannot be read")
    path.unlink()
    assert "holds 11 slices, not 12" in sentence_of(source, image)
    del source["files"][0]["slices_of"]
    assert "label grid differs" in sentence_of(source, image)


def test_dicom_masks_lie_where_their_headers_say_and_may_be_a_part(tmp_path: Path):
    image, where = series(tmp_path / "ct", "LPI")
    mask = masks(scene("left kidney"), where.world())["left kidney"]
    used = np.flatnonzero(mask.any(axis=(0, 1)))
    first, last = used[0], used[-1] + 1
    part = moved(where, origin=where.affine[:3, :3] @ [0, 0, first])
    write_dicom(tmp_path / "masks", mask[:, :, first:last] * 255, part.affine, "image_{}".format)
    label, _ = read_label(slices_source(tmp_path / "masks", tmp_path / "ct"), image)
    expected = masks(scene("left kidney"), world(image.shape[1:], image.affine.numpy()))["left kidney"]
    np.testing.assert_array_equal(label, 2 * expected)


def test_dicom_masks_that_are_elsewhere_are_told(tmp_path: Path):
    image, where = series(tmp_path / "ct", "LPI")
    mask = masks(scene("liver"), where.world())["liver"] * 255
    write_dicom(tmp_path / "masks", mask, moved(where, origin=[5.0, 0, 0]).affine, "image_{}".format)
    said = sentence_of(slices_source(tmp_path / "masks", tmp_path / "ct"), image)
    assert "origin off by 5 mm" in said and str(tmp_path / "masks") in said


def test_dicom_masks_without_a_place_follow_their_names(tmp_path: Path):
    image, where = series(tmp_path / "ct", "LPI", "image_{}")
    mask = masks(scene("left kidney"), where.world())["left kidney"]
    for k in range(where.shape[2]):  # every slice states the place of the first
        write_dicom(tmp_path / "masks", mask[:, :, k : k + 1] * 255, where.affine, lambda _, k=k: f"image_{k}")
    label, _ = read_label(slices_source(tmp_path / "masks", tmp_path / "ct"), image)
    expected = masks(scene("left kidney"), world(image.shape[1:], image.affine.numpy()))["left kidney"]
    np.testing.assert_array_equal(label, 2 * expected)


def test_a_folder_without_slices_is_told(tmp_path: Path):
    image, _ = series(tmp_path / "ct", "LPS")
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "readme.txt").write_text("no slice")
    assert "holds 0 DICOM series" in sentence_of(slices_source(tmp_path / "masks", tmp_path / "ct"), image)


# ---------------------------------------------------------------- sparse masks


def stack(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).random(shape) > 0.7


def test_sparse_masks_are_painted_in_the_order_of_their_channels(tmp_path: Path):
    mask = stack(3, 4, 5, 6)
    path = tmp_path / "mask_(3, 4, 5, 6).npz"
    for form in (sparse.csr_matrix, sparse.csc_matrix, sparse.coo_matrix):
        sparse.save_npz(path, form(mask.reshape(3, -1)))
        channels = [{"channel": c, "value": v} for c, v in ((2, 9), (0, 4), (1, 4))]
        label, overlaps = read_label(
            {"kind": "sparse", "path": str(path), "channels": channels}, MetaTensor(np.zeros((1, 6, 5, 4))), {"4": "a"}
        )
        np.testing.assert_array_equal(label.T, np.where(mask[0] | mask[1], 4, 9 * mask[2]))
        assert overlaps == {"a over structure 9": int(((mask[0] | mask[1]) & mask[2]).sum())}


@pytest.mark.parametrize("rows", [1, 3, 12])
def test_sparse_masks_may_be_folded_in_any_way(rows: int, tmp_path: Path):
    mask = stack(3, 4, 5, 6)
    mask[1:] &= ~mask[0]
    mask[2] &= ~mask[1]
    path = tmp_path / "mask_(3, 4, 5, 6).npz"
    sparse.save_npz(path, sparse.csr_matrix(mask.reshape(rows, -1)))
    label, _ = read_label({"kind": "sparse", "path": str(path)}, MetaTensor(np.zeros((1, 6, 5, 4))))
    np.testing.assert_array_equal(label.T, mask[0] + 2 * mask[1] + 3 * mask[2])


def test_without_a_shape_in_its_name_each_row_is_a_mask(tmp_path: Path):
    mask = stack(2, 4, 5, 6)
    sparse.save_npz(tmp_path / "mask.npz", sparse.csr_matrix(mask.reshape(2, -1)))
    source = {"kind": "sparse", "path": str(tmp_path / "mask.npz")}
    label, _ = read_label(source, MetaTensor(np.zeros((1, 6, 5, 4))))
    np.testing.assert_array_equal(label.T, np.where(mask[1], 2, mask[0]))
    assert "label grid differs" in sentence_of(source, MetaTensor(np.zeros((1, 6, 5, 3))))


@pytest.mark.parametrize("name", ["mask_(3, 4, 6, 5).npz", "mask_(2, 4, 5, 6).npz", "mask_(3, 4, 5, 7).npz"])
def test_sparse_masks_of_another_size_are_told(name: str, tmp_path: Path):
    sparse.save_npz(tmp_path / name, sparse.csr_matrix(stack(3, 4, 5, 6).reshape(3, -1)))
    source = {"kind": "sparse", "path": str(tmp_path / name)}
    said = sentence_of(source, MetaTensor(np.zeros((1, 6, 5, 4))))
    assert said.startswith("label grid differs from the image's: ") and "4x5x6" in said


def test_nothing_is_unpickled(tmp_path: Path):
    class Evil:
        def __reduce__(self) -> tuple:
            return (tmp_path.joinpath("was here").touch, ())

    evil = np.array([Evil()], dtype=object)
    matrix = sparse.csr_matrix(np.eye(2))
    np.savez(
        tmp_path / "mask.npz", format=b"csr", shape=(2, 2), data=evil, indices=matrix.indices, indptr=matrix.indptr
    )
    np.save(tmp_path / "image.npy", evil, allow_pickle=True)
    assert "cannot be read" in sentence_of({"kind": "sparse", "path": str(tmp_path / "mask.npz")}, image_on(grid()))
    with pytest.raises(ValueError, match=r"image.npy cannot be read"):
        read_image({"kind": "array", "path": str(tmp_path / "image.npy")})
    assert not (tmp_path / "was here").exists()


def test_sparse_masks_that_point_outside_are_told(tmp_path: Path):
    np.savez(
        tmp_path / "mask_(1, 2, 2, 2).npz",
        format=b"csr",
        shape=(1, 8),
        data=np.ones(1),
        indices=np.array([99]),
        indptr=np.array([0, 1]),
    )
    source = {"kind": "sparse", "path": str(tmp_path / "mask_(1, 2, 2, 2).npz")}
    assert "cannot be read" in sentence_of(source, MetaTensor(np.zeros((1, 2, 2, 2))))


# ---------------------------------------------------------------- images


def test_an_array_is_an_image_of_unit_spacing(tmp_path: Path):
    array = normalised(grid("SAR"))
    for shape in (array.shape, (1, *array.shape)):
        np.save(tmp_path / "image.npy", array.reshape(shape))
        image = read_image({"kind": "array", "path": str(tmp_path / "image.npy")})
        assert image.shape == (1, 16, 14, 12) and image.affine.equal(MetaTensor(np.eye(4)).as_tensor())
        np.testing.assert_array_equal(image[0].numpy().T, array)


@pytest.mark.parametrize(
    "array", [np.zeros((2, 3, 4, 5)), np.zeros((3, 4)), np.array(["a"]), np.full((3, 4, 5), np.nan)]
)
def test_an_array_that_is_no_image_is_told(array: np.ndarray, tmp_path: Path):
    path = tmp_path / "image.npy"
    np.save(path, array)
    with pytest.raises(ValueError, match=r"^image: .*image\.npy ") as caught:
        read_image({"kind": "array", "path": str(path)})
    assert "\n" not in str(caught.value)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"^image: .*image\.npy cannot be read"):
        read_image({"kind": "array", "path": str(path)})


def test_a_single_slice_is_a_volume(tmp_path: Path):
    where = grid()
    write(tmp_path / "image.nii.gz", intensities(where.world())[:, :, 5], where.affine)
    image = read_image({"kind": "file", "path": str(tmp_path / "image.nii.gz")})
    assert image.shape == (1, 16, 14, 1) and tuple(image.meta["spatial_shape"]) == (16, 14, 1)
    mask = masks(scene("liver"), where.world())["liver"][:, :, 5].astype(np.uint8)
    label, _ = read_label(saved(tmp_path / "label.nii.gz", mask, where), image)
    np.testing.assert_array_equal(label[..., 0], mask)


# ---------------------------------------------------------------- real volumes


REAL = {
    "ts_dicom": ("totalsegmentator/example_ct_dicom", "totalsegmentator/example_seg_dicom.nii.gz"),
    "vertebrae": ("tptbox/sample_ct/sub-ct_label-22_ct.nii.gz", "tptbox/sample_ct/sub-ct_seg-vert_label-22_msk.nii.gz"),
    "dcmqi": ("dcmqi/ct-3slice", "dcmqi/liver_spine_seg.nrrd"),
    "ts_ras": ("totalsegmentator/example_ct_sm.nii.gz", "totalsegmentator/example_seg.nii.gz"),
}


@pytest.mark.slow
def test_real_volumes_are_read_on_one_grid(shared: Path, bundle: Path, tmp_path: Path):
    names = {"1": "spleen", "5": "liver", "22": "vertebrae L3"}
    for case, (image, label) in REAL.items():
        for kind, file in (("images", image), ("labels", label)):
            ending = "" if (shared / "data" / file).is_dir() else "".join(Path(file).suffixes)
            link = tmp_path / kind / f"{case}{ending}"
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(shared / "data" / file)
    (tmp_path / "labels.json").write_text('{"1": "spleen", "5": "liver", "22": "vertebrae_L3"}')
    vocabulary = Vocabulary.load(bundle / "configs" / "vocabulary.json")
    cases = find_cases(generic_set("Real"), tmp_path, vocabulary).cases
    assert [case["case"] for case in cases] == sorted(f"Real_{case}" for case in REAL)
    for raw in cases:
        assert raw["labels"] == names
        image = read_image(raw["image"])
        label, _ = read_label(raw["label"], image, raw["labels"])
        stored, affine = as_stored(Path(raw["label"]["path"]))
        for value in np.unique(stored[stored > 0]):
            np.testing.assert_allclose(
                outline(label == value, image.affine.numpy()), outline(stored == value, affine), atol=0.01
            )
        assert set(np.unique(label)) == set(np.unique(stored))
        if raw["image"]["kind"] == "dicom":
            liver = image[0].numpy()[label == (5 if raw["case"] == "Real_ts_dicom" else 1)]
            assert 0 < liver.mean() < 200 and liver.std() < 60  # on the liver, where no turned label would lie


def as_stored(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """A label map read without the project's code."""
    if path.name.endswith("nrrd"):
        image = itk.imread(str(path))
        affine = np.eye(4)
        affine[:3, :3] = itk.array_from_matrix(image.GetDirection()) * np.asarray(image.GetSpacing())
        affine[:3, 3] = np.asarray(image.GetOrigin())
        return itk.array_from_image(image).T, np.diag([-1.0, -1, 1, 1]) @ affine
    stored = nib.load(path)
    return np.asarray(stored.dataobj), stored.affine


def outline(mask: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Number of voxels, and their middle, first and last corner in RAS mm."""
    points = np.argwhere(mask) @ affine[:3, :3].T + affine[:3, 3]
    return np.r_[len(points), points.mean(axis=0), points.min(axis=0), points.max(axis=0)]
