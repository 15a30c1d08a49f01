"""A label map as DICOM SEG: on the voxels it was drawn on, with the right codes, whole or not at all."""

import json
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pydicom_seg
import pytest
import SimpleITK as sitk
from dicom_files import AXIAL, CORONAL, SAGITTAL, copy_series, oblique, write_series
from lib.dicom_seg import Algorithm, Segment, Written, write_segmentation
from lib.dicom_series import read_series
from lib.label_map import labels_on_series
from monailabel.datastore.utils.convert import dicom_to_nifti
from numpy.typing import NDArray

ALGORITHM = Algorithm("SegVol small", "0.1.0", "ab" * 32)
LIVER = Segment(5, "liver", ("10200004", "Liver"), (221, 130, 101))
KIDNEY = Segment(7, "left kidney", ("64033007", "Kidney"), (215, 95, 60), "left")
TUMOR = Segment(9, "liver tumor", ("108369006", "Neoplasm"), (40, 225, 60))
SHAPE = (6, 10, 14)  # slices, rows, columns


@pytest.fixture
def mask() -> NDArray[np.uint8]:
    """Two boxes, (slice, row, column), that no flip or swap of the axes maps on themselves."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 2:5, 3:9] = LIVER.value
    labels[4, 7:9, 10:12] = KIDNEY.value
    return labels


def as_server_sees_it(series: Path) -> sitk.Image:
    """The NIfTI that MONAI Label makes of a series."""
    path = Path(dicom_to_nifti(str(series)))
    try:
        return sitk.ReadImage(str(path))
    finally:
        path.unlink()


def marked(voxels: NDArray[np.uint8]) -> NDArray[np.int16]:
    """An image whose values say which label belongs there, so that no geometry has to be trusted."""
    return voxels.astype(np.int16) * 100 - 50


def label_file(folder: Path, series: Path, suffix: str = ".nii.gz") -> Path:
    """The labels of a marked series, drawn on the server's own image."""
    image = as_server_sees_it(series)
    labels = sitk.GetImageFromArray(((sitk.GetArrayFromImage(image) + 50) // 100).astype(np.uint8))
    labels.CopyInformation(image)
    path = folder / f"labels{suffix}"
    sitk.WriteImage(labels, str(path))
    return path


def write(folder: Path, labels: Path, segments: tuple[Segment, ...] = (LIVER, KIDNEY)) -> Written:
    return write_segmentation(folder / "series", labels, segments, ALGORITHM, folder / "seg.dcm")


def by_slice(folder: Path) -> dict[str, pydicom.Dataset]:
    return {file.SOPInstanceUID: file for file in map(pydicom.dcmread, (folder / "series").iterdir())}


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, SAGITTAL, oblique()], ids=["axial", "cor", "sag", "oblique"])
@pytest.mark.parametrize("backwards", [False, True], ids=["forwards", "backwards"])
def test_each_slice_carries_its_own_mask(tmp_path, mask, orientation, backwards):
    write_series(tmp_path / "series", marked(mask), orientation, backwards=backwards)
    written = write(tmp_path, label_file(tmp_path, tmp_path / "series"))

    slices = by_slice(tmp_path)
    planes = hd.seg.segread(written.path).get_pixels_by_source_instance(list(slices), combine_segments=True)

    expected = [(file.pixel_array + 50) // 100 for file in slices.values()]
    numbers = {0: 0, LIVER.value: 1, KIDNEY.value: 2}
    assert np.array_equal(planes, np.vectorize(numbers.get)(expected))


@pytest.mark.parametrize("orientation", [AXIAL, CORONAL, SAGITTAL, oblique()], ids=["axial", "cor", "sag", "oblique"])
def test_another_library_finds_the_mask_in_the_same_place(tmp_path, mask, orientation):
    write_series(tmp_path / "series", marked(mask), orientation, backwards=True, thickness=5.0)
    written = write(tmp_path, label_file(tmp_path, tmp_path / "series"))

    read = pydicom_seg.MultiClassReader().read(pydicom.dcmread(written.path)).image
    image = as_server_sees_it(tmp_path / "series")
    shown = sitk.Resample(read, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)

    labels = np.asarray([0, LIVER.value, KIDNEY.value])[sitk.GetArrayFromImage(shown)]
    assert np.array_equal(labels * 100 - 50, sitk.GetArrayFromImage(image))


@pytest.mark.parametrize("axes", ["LPS", "RAS", "PIR", "ASL"])
def test_label_maps_in_any_axis_order_are_laid_on_the_series(tmp_path, mask, axes):
    write_series(tmp_path / "series", marked(mask), oblique())
    stored = nib.load(label_file(tmp_path, tmp_path / "series"))
    turn = nib.orientations.ornt_transform(nib.io_orientation(stored.affine), nib.orientations.axcodes2ornt(axes))
    turned = tmp_path / "turned.nii.gz"
    nib.save(stored.as_reoriented(turn), turned)

    assert np.array_equal(labels_on_series(turned, read_series(tmp_path / "series")), mask)


def test_nrrd_and_nifti_give_the_same_labels(tmp_path, mask):
    write_series(tmp_path / "series", marked(mask), SAGITTAL)
    series = read_series(tmp_path / "series")
    for suffix in (".nrrd", ".nii", ".seg.nrrd"):
        assert np.array_equal(labels_on_series(label_file(tmp_path, tmp_path / "series", suffix), series), mask)


def test_one_slice_is_a_series_too(tmp_path, mask):
    write_series(tmp_path / "series", marked(mask[1:2]), CORONAL)
    written = write(tmp_path, label_file(tmp_path, tmp_path / "series"))

    frame = pydicom.dcmread(written.path).pixel_array
    assert np.array_equal(frame.squeeze(), mask[1] == LIVER.value)


def test_a_tilted_gantry_keeps_the_slices(tmp_path, mask):
    made = write_series(tmp_path / "series", marked(mask))
    for index, slice_ in enumerate(made):
        slice_.ImagePositionPatient[1] += 0.8 * index
        slice_.save_as(tmp_path / "series" / f"{index + 1:03d}.dcm")
    labels = label_file(tmp_path, tmp_path / "series")

    assert np.array_equal(labels_on_series(labels, read_series(tmp_path / "series")), mask)


def test_codes_say_which_organ_and_which_side(tmp_path, mask):
    mask[0, 0, 0] = TUMOR.value
    mask[0, 0, 1] = 11
    write_series(tmp_path / "series", marked(mask))
    segments = (LIVER, KIDNEY, TUMOR, Segment(11, "dark spot", None, (1, 2, 3)))
    written = write(tmp_path, label_file(tmp_path, tmp_path / "series"), segments)

    items = pydicom.dcmread(written.path).SegmentSequence
    coded = [
        (item.SegmentedPropertyCategoryCodeSequence[0].CodeValue, item.SegmentedPropertyTypeCodeSequence[0].CodeValue)
        for item in items
    ]
    assert coded == [
        ("123037004", "10200004"),
        ("123037004", "64033007"),
        ("49755003", "108369006"),
        ("85756007", "85756007"),
    ]
    assert {item.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator for item in items} == {"SCT"}
    sides = [
        item.SegmentedPropertyTypeCodeSequence[0].get("SegmentedPropertyTypeModifierCodeSequence") for item in items
    ]
    assert sides[1][0].CodeValue == "7771000" and sides[0] is None
    assert [item.SegmentLabel for item in items] == ["liver", "left kidney", "liver tumor", "dark spot"]


def test_the_model_and_its_weights_are_named(tmp_path, mask):
    write_series(tmp_path / "series", marked(mask))
    dataset = pydicom.dcmread(write(tmp_path, label_file(tmp_path, tmp_path / "series")).path)

    assert (dataset.SegmentationType, dataset.Modality) == ("BINARY", "SEG")
    assert dataset.SeriesDescription == "SegVol small: liver, left kidney"
    for item in dataset.SegmentSequence:
        assert item.SegmentAlgorithmType == "SEMIAUTOMATIC"
        named = item.SegmentationAlgorithmIdentificationSequence[0]
        assert (named.AlgorithmName, named.AlgorithmVersion) == ("SegVol small", "0.1.0")
        assert named.AlgorithmParameters == f"weights_sha256={'ab' * 32}"


def test_the_patient_is_in_the_file_and_in_no_warning(tmp_path, mask, recwarn):
    write_series(tmp_path / "series", marked(mask))
    dataset = pydicom.dcmread(write(tmp_path, label_file(tmp_path, tmp_path / "series")).path)

    assert (dataset.PatientName, dataset.PatientID) == ("Nobody", "test")
    assert not [warning for warning in recwarn if "Nobody" in str(warning.message)]


def test_colour_is_cielab(tmp_path, mask):
    mask[mask > 0] = 1
    write_series(tmp_path / "series", marked(mask))
    white = (Segment(1, "white", None, (255, 255, 255)),)
    dataset = pydicom.dcmread(write(tmp_path, label_file(tmp_path, tmp_path / "series"), white).path)

    lightness, a, b = dataset.SegmentSequence[0].RecommendedDisplayCIELabValue
    assert lightness == 65535
    assert abs(a - 0x8080) <= 1 and abs(b - 0x8080) <= 1


def test_red_is_the_red_of_the_icc_profile(tmp_path, mask):
    mask[mask > 0] = 1
    write_series(tmp_path / "series", marked(mask))
    red = (Segment(1, "red", None, (255, 0, 0)),)
    dataset = pydicom.dcmread(write(tmp_path, label_file(tmp_path, tmp_path / "series"), red).path)

    lightness, a, b = np.asarray(dataset.SegmentSequence[0].RecommendedDisplayCIELabValue) / 65535
    assert np.allclose([lightness * 100, a * 255 - 128, b * 255 - 128], [54.29, 80.81, 69.89], atol=0.05)


def test_a_target_without_a_voxel_is_left_out_and_named(tmp_path, mask):
    mask[mask == LIVER.value] = 0
    write_series(tmp_path / "series", marked(mask))
    written = write(tmp_path, label_file(tmp_path, tmp_path / "series"))

    assert written.left_out == ("liver",) and written.segments == (KIDNEY,)
    assert [item.SegmentLabel for item in pydicom.dcmread(written.path).SegmentSequence] == ["left kidney"]


def test_an_empty_mask_is_one_sentence_and_no_file(tmp_path, mask):
    write_series(tmp_path / "series", marked(mask * 0))
    with pytest.raises(ValueError, match="the mask is empty; there is nothing to save"):
        write(tmp_path, label_file(tmp_path, tmp_path / "series"))
    assert not list(tmp_path.glob("*.dcm"))


def test_a_value_without_a_segment_is_refused(tmp_path, mask):
    write_series(tmp_path / "series", marked(mask))
    with pytest.raises(ValueError, match=r"also holds the values \[7\]"):
        write(tmp_path, label_file(tmp_path, tmp_path / "series"), (LIVER,))


@pytest.mark.parametrize("values", [(5, 5), (0, 5)])
def test_values_of_segments_must_differ_and_start_at_one(tmp_path, mask, values):
    write_series(tmp_path / "series", marked(mask))
    segments = tuple(Segment(value, "liver", None, (1, 2, 3)) for value in values)
    with pytest.raises(ValueError, match="segments: their values must differ and be at least 1"):
        write(tmp_path, label_file(tmp_path, tmp_path / "series"), segments)


@pytest.mark.parametrize(
    "change",
    [
        lambda image: image[1:],
        lambda image: sitk.Expand(image, [1, 1, 2]),
        lambda image: sitk.PermuteAxes(image, [1, 0, 2]),
    ],
    ids=["cropped", "finer", "swapped_is_the_same_grid"],
)
def test_only_the_voxels_of_the_series_are_accepted(tmp_path, mask, change, request):
    write_series(tmp_path / "series", marked(mask))
    labels = label_file(tmp_path, tmp_path / "series")
    sitk.WriteImage(change(sitk.ReadImage(str(labels))), str(labels))
    series = read_series(tmp_path / "series")
    if "swapped" in request.node.name:
        assert np.array_equal(labels_on_series(labels, series), mask)
    else:
        with pytest.raises(ValueError, match="lies on another grid than the series"):
            labels_on_series(labels, series)


@pytest.mark.parametrize("shift", [(0.4, 0, 0), (0, 0, 1.5), (0, 0, 3.0)])
def test_a_shifted_grid_is_refused(tmp_path, mask, shift):
    write_series(tmp_path / "series", marked(mask))
    labels = label_file(tmp_path, tmp_path / "series")
    image = sitk.ReadImage(str(labels))
    image.SetOrigin(tuple(np.add(image.GetOrigin(), shift)))
    sitk.WriteImage(image, str(labels))

    with pytest.raises(ValueError, match="lies on another grid than the series"):
        labels_on_series(labels, read_series(tmp_path / "series"))


def test_files_that_are_no_label_map_are_refused(tmp_path, mask):
    write_series(tmp_path / "series", marked(mask))
    series = read_series(tmp_path / "series")
    labels = label_file(tmp_path, tmp_path / "series")
    image = nib.load(labels)
    fractions, junk = tmp_path / "fractions.nii.gz", tmp_path / "junk.nrrd"
    nib.save(nib.Nifti1Image(image.get_fdata(dtype=np.float32) / 2, image.affine), fractions)
    junk.write_bytes(b"NRRD0004\ntype: no")

    with pytest.raises(ValueError, match="values that are no labels"):
        labels_on_series(fractions, series)
    with pytest.raises(ValueError, match="cannot be read"):
        labels_on_series(junk, series)


def test_series_without_one_grid_are_refused(tmp_path, mask):
    write_series(tmp_path / "gap", marked(mask))
    (tmp_path / "gap" / "003.dcm").unlink()
    with pytest.raises(ValueError, match="3 to 6 mm apart; one is missing"):
        read_series(tmp_path / "gap")

    write_series(tmp_path / "twice", marked(mask))
    made = pydicom.dcmread(tmp_path / "twice" / "003.dcm")
    made.SOPInstanceUID = pydicom.uid.generate_uid()
    made.save_as(tmp_path / "twice" / "again.dcm")
    with pytest.raises(ValueError, match="two slices lie in the same place"):
        read_series(tmp_path / "twice")

    write_series(tmp_path / "two", marked(mask))
    write_series(tmp_path / "other", marked(mask))
    (tmp_path / "other" / "001.dcm").rename(tmp_path / "two" / "other.dcm")
    with pytest.raises(ValueError, match="differ in SeriesInstanceUID"):
        read_series(tmp_path / "two")

    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "a").write_text("no")
    with pytest.raises(ValueError, match="not DICOM"):
        read_series(tmp_path / "junk")


def test_names_that_dicom_cannot_hold_are_made_to_fit(tmp_path, mask):
    mask[mask > 0] = 1
    write_series(tmp_path / "series", marked(mask))
    name = "Läsion\\\nlinks " + "x" * 80
    written = write(tmp_path, label_file(tmp_path, tmp_path / "series"), (Segment(1, name, None, (0, 0, 0)),))

    label = pydicom.dcmread(written.path).SegmentSequence[0].SegmentLabel
    assert label.startswith("Läsion/ links xxx") and len(label) == 64


def test_a_failing_disk_leaves_no_file(tmp_path, mask, monkeypatch):
    write_series(tmp_path / "series", marked(mask))
    labels = label_file(tmp_path, tmp_path / "series")

    def full(self: pydicom.Dataset, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(hd.seg.Segmentation, "save_as", full)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OSError, match="no space left"):
        write(tmp_path, labels)
    assert sorted(tmp_path.iterdir()) == before


def test_every_code_of_the_vocabulary_has_the_right_category(bundle):
    """A tumour is a change of an organ, and an organ is none: the writer's list has all codes that are no anatomy."""
    from lib.dicom_seg import _MORPHOLOGY

    entries = json.loads((bundle / "configs" / "vocabulary.json").read_text())["structures"]
    changes = ("tumor", "cyst", "lesion", "nodule", "sarcoma", "stone")
    for entry in entries:
        if entry["snomed"]:
            changed = any(word in entry["name"] for word in changes)
            assert (entry["snomed"]["code"] in _MORPHOLOGY) == changed, entry["name"]


@pytest.mark.parametrize("name", ["totalsegmentator/example_ct_dicom", "dcmqi/ct-3slice"])
@pytest.mark.slow
def test_labels_of_a_real_series_come_back(tmp_path, shared, name):
    cases = json.loads((shared / "data" / "MANIFEST.json").read_text())["cases"]
    case = next(case for case in cases if case["image"].rstrip("/") == name)
    names = {
        int(value): text for value, text in case["labels"].items() if text in ("liver", "spleen", "aorta", "spine")
    }
    copy_series(shared / "data" / case["image"], tmp_path / "series")
    labels = keep_values(shared / "data" / case["label"], list(names), tmp_path / "labels.nii.gz")
    written = write(tmp_path, labels, tuple(Segment(value, text, None, (9, 9, 9)) for value, text in names.items()))

    image = as_server_sees_it(tmp_path / "series")
    read = pydicom_seg.MultiClassReader().read(pydicom.dcmread(written.path)).image
    shown = sitk.Resample(read, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    expected = sitk.Resample(sitk.ReadImage(str(labels)), image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    values = np.asarray([0, *(segment.value for segment in written.segments)])
    assert len(written.segments) > 1
    assert np.array_equal(values[sitk.GetArrayFromImage(shown)], sitk.GetArrayFromImage(expected))


def keep_values(path: Path, values: list[int], kept: Path) -> Path:
    """A copy of a label map with these values only."""
    image = sitk.ReadImage(str(path))
    labels = sitk.GetArrayFromImage(image)
    less = sitk.GetImageFromArray(np.where(np.isin(labels, values), labels, 0).astype(np.uint8))
    less.CopyInformation(image)
    sitk.WriteImage(less, str(kept))
    return kept
