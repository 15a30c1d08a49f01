"""Label maps in files: the same voxels and the same place for every reader."""

import gzip

import nibabel as nib
import numpy as np
import pytest
from grids import affine_of, read_with_itk, stored_as
from lib.fields import BadRequest
from lib.results import label_map, label_names, write_result

pytestmark = pytest.mark.usefixtures("scratch")

GRIDS = {  # axes, shape, spacing, rotation
    "RAS": ("RAS", (6, 5, 4), (2.0, 2.0, 2.0), 0),
    "LPS": ("LPS", (6, 5, 4), (2.0, 2.0, 2.0), 0),
    "PIR": ("PIR", (6, 5, 4), (2.0, 2.0, 2.0), 0),
    "oblique": ("RAS", (6, 5, 4), (2.0, 2.0, 2.0), 25),
    "oblique and flipped": ("LAS", (6, 5, 4), (0.7, 0.9, 3.0), -17),
    "anisotropic": ("RAS", (8, 7, 3), (0.7, 0.9, 5.0), 0),
    "one slice": ("RAS", (7, 5, 1), (1.5, 1.5, 5.0), 0),
}


def stored(grid: str) -> nib.Nifti1Image:
    """A label map in which every voxel differs, on a grid."""
    codes, shape, spacing, degrees = GRIDS[grid]
    voxels = np.arange(1, np.prod(shape) + 1, dtype=np.uint8).reshape(shape)
    return stored_as(nib.Nifti1Image(voxels, affine_of(shape, spacing, (10, -20, 300), degrees)), codes)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("extension", [".nrrd", ".nii", ".nii.gz"])
def test_itk_reads_the_same_voxels_in_the_same_place(grid, extension):
    image = stored(grid)
    path = write_result(np.asarray(image.dataobj), image.affine, {"result_extension": extension})
    voxels, affine = read_with_itk(path)
    assert path.name.endswith(extension) and voxels.dtype == np.uint8
    assert np.array_equal(voxels, image.dataobj)
    np.testing.assert_allclose(affine, image.affine, atol=1e-4)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("extension", [".nii", ".nii.gz"])
def test_nibabel_reads_the_same_voxels_in_the_same_place(grid, extension):
    image = stored(grid)
    path = write_result(np.asarray(image.dataobj), image.affine, {"result_extension": extension})
    read = nib.load(path)
    assert read.get_data_dtype() == np.uint8
    assert np.array_equal(read.dataobj, image.dataobj)
    np.testing.assert_allclose(read.affine, image.affine, atol=1e-5)


def body(path) -> tuple[str, bytes]:
    """Header and content of an NRRD."""
    header, content = path.read_bytes().split(b"\n\n", 1)
    return header.decode(), content


@pytest.mark.parametrize("params", [{}, {"result_compress": False, "result_extension": ".nrrd"}])
def test_an_odd_number_of_voxels_is_raw_byte_for_byte_in_stored_order(params):
    voxels = np.arange(7 * 5 * 3, dtype=np.uint8).reshape(7, 5, 3)
    header, content = body(write_result(voxels, np.eye(4), params))
    assert "encoding: raw" in header and "sizes: 7 5 3" in header and "type: unsigned char" in header
    assert content == voxels.tobytes(order="F")


@pytest.mark.parametrize("flag", [True, "true", 1])
def test_a_client_that_asks_for_it_gets_it_compressed(flag):
    voxels = np.zeros((8, 8, 8), np.uint8)
    header, content = body(write_result(voxels, np.eye(4), {"result_compress": flag}))
    assert "encoding: gzip" in header
    assert gzip.decompress(content) == voxels.tobytes()


def test_the_word_false_does_not_compress():
    header, _ = body(write_result(np.zeros((2, 2, 2), np.uint8), np.eye(4), {"result_compress": "false"}))
    assert "encoding: raw" in header


@pytest.mark.parametrize("extension", ["nrrd", ".mha", ".nii.gz ", "../x.nrrd", 3, [".nrrd"]])
def test_another_extension_is_refused_in_one_line_and_leaves_no_file(extension, scratch):
    with pytest.raises(BadRequest, match="result_extension is .*; allowed are .nrrd, .nii.gz, .nii") as caught:
        write_result(np.zeros((2, 2, 2), np.uint8), np.eye(4), {"result_extension": extension})
    assert "\n" not in str(caught.value)
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("extension", [None, ""])
def test_no_extension_means_nrrd(extension):
    assert write_result(np.zeros((2, 2, 2), np.uint8), np.eye(4), {"result_extension": extension}).suffix == ".nrrd"


def test_targets_get_their_values():
    label = np.array([[[0, 1], [2, 3]]], np.uint8)
    mapped = label_map(label, (7, 255, 2))
    assert mapped.dtype == np.uint8
    assert mapped.tolist() == [[[0, 7], [255, 2]]]


def test_the_names_are_those_present_by_ascending_value():
    label = np.array([[[0, 9], [2, 9]]], np.uint8)
    told = label_names(label, ("liver", "spleen", "aorta"), (9, 4, 2))
    assert list(told.items()) == [("aorta", 2), ("liver", 9)]


def test_an_empty_label_map_has_no_names():
    assert label_names(np.zeros((2, 2, 2), np.uint8), ("liver",), (1,)) == {}
