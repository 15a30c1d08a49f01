"""A label map as DICOM SEG: what was segmented, by which weights, on which voxels of the series.

The stock server codes every organ as spleen and names no weights. Here each segment carries its own SNOMED CT code,
its side, and the model that drew it, so that another program can tell what it reads.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import highdicom as hd
import numpy as np
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import generate_uid

from lib.dicom_series import Series, read_series
from lib.label_map import Labels, labels_on_series
from lib.whole_file import whole_file

# the codes of the vocabulary that name a change of an organ, not an organ
_MORPHOLOGY = {"108369006", "367643001", "52988006", "27925004", "2424003", "56381008"}
_SIDES = {"left": codes.SCT.Left, "right": codes.SCT.Right}
_MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
)
# highdicom warns with the name itself where it has one part only, and logs carry no names
_PERSONS = ("PatientName", "ReferringPhysicianName")
_LONG_STRING = 64


@dataclass(frozen=True)
class Segment:
    """One target of a label map.

    Attributes:
        value: its value in the label map, from 1.
        name: what the user calls it.
        code: SNOMED CT code and meaning of the structure, unsided; None for a name outside the vocabulary.
        color: red, green, blue, each 0 to 255.
        side: which one of a pair it is.
    """

    value: int
    name: str
    code: tuple[str, str] | None
    color: tuple[int, int, int]
    side: Literal["left", "right"] | None = None


@dataclass(frozen=True)
class Algorithm:
    """What drew the mask: the model's name and version, and the SHA-256 of its weights in hex digits."""

    name: str
    version: str
    weights_sha256: str


@dataclass(frozen=True)
class Written:
    """A finished DICOM SEG.

    Attributes:
        path: the file.
        segments: those in the file; the segment numbers are their places, from 1.
        left_out: names whose mask is empty.
    """

    path: Path
    segments: tuple[Segment, ...]
    left_out: tuple[str, ...]


def write_segmentation(
    series_dir: Path, label_map: Path, segments: Sequence[Segment], algorithm: Algorithm, output: Path
) -> Written:
    """Write a label map as a DICOM SEG of the series it was drawn on; the file is there whole or not at all.

    Args:
        series_dir: folder with the files of one series.
        label_map: NIfTI or NRRD on the voxels of the series, in any order and orientation of the axes.
        segments: one for each value of the label map; those whose mask is empty are left out.
        algorithm: what drew the mask.
        output: the file to write.

    Raises:
        ValueError: nothing was segmented, the label map has a value without a segment, or it does not fit the series.
    """
    series = read_series(series_dir)
    labels = labels_on_series(label_map, series)
    present, left_out = _split(labels, segments)
    dataset = _segmentation(series, labels, present, algorithm)
    with whole_file(output) as unfinished:
        dataset.save_as(unfinished)
    return Written(output, present, left_out)


def _split(labels: Labels, segments: Sequence[Segment]) -> tuple[tuple[Segment, ...], tuple[str, ...]]:
    """The segments that are in the labels, and the names of the others."""
    values = [segment.value for segment in segments]
    if len(set(values)) < len(values) or min(values, default=1) < 1:
        raise ValueError(f"segments: their values must differ and be at least 1, got {values}")
    found = {int(value) for plane in labels for value in np.unique(plane)} - {0}
    if not found:
        raise ValueError("label_map: the mask is empty; there is nothing to save")
    unnamed = sorted(found - set(values))
    if unnamed:
        raise ValueError(f"segments: the label map also holds the values {unnamed}; each must have a segment")
    return (
        tuple(segment for segment in segments if segment.value in found),
        tuple(segment.name for segment in segments if segment.value not in found),
    )


def _segmentation(series: Series, labels: Labels, segments: Sequence[Segment], algorithm: Algorithm) -> Dataset:
    persons = {name: series.slices[0].get(name, "") for name in _PERSONS}
    for header in series.slices:
        _fit(header, float(np.linalg.norm(series.affine[:3, 2])))
    made = hd.seg.Segmentation(
        source_images=series.slices,
        pixel_array=_numbered(labels, segments),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_describe(n, segment, algorithm) for n, segment in enumerate(segments, 1)],
        series_instance_uid=generate_uid(),
        series_number=1000 + int(series.slices[0].get("SeriesNumber") or 0),
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="SegVol for MONAI",
        manufacturer_model_name=_text(algorithm.name),
        software_versions=_text(algorithm.version),
        device_serial_number=_text(algorithm.weights_sha256),
        content_label="SEGMENTATION",
        content_description=_text(", ".join(segment.name for segment in segments)),
        series_description=_text(f"{algorithm.name}: {', '.join(segment.name for segment in segments)}"),
    )
    for name, person in persons.items():
        setattr(made, name, person)
    return made


def _fit(header: Dataset, gap: float) -> None:
    """Give a slice every field that highdicom copies, and take the persons out.

    The distance of the slices is in mm; where it is missing, readers take the thickness for it, which is more where
    slices overlap.
    """
    header.SpacingBetweenSlices = round(gap, 6)
    header.SliceThickness = header.get("SliceThickness") or header.SpacingBetweenSlices
    for name in (*_MAY_BE_EMPTY, *_PERSONS):
        if name in _PERSONS or name not in header:
            setattr(header, name, "")


def _numbered(labels: Labels, segments: Sequence[Segment]) -> Labels:
    numbers = np.zeros(int(labels.max()) + 1, np.uint8 if len(segments) < 256 else np.uint16)
    for number, segment in enumerate(segments, 1):
        numbers[segment.value] = number
    return numbers[labels]


def _describe(number: int, segment: Segment, algorithm: Algorithm) -> hd.seg.SegmentDescription:
    category, kind = _codes(segment)
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=_text(segment.name),
        segmented_property_category=category,
        segmented_property_type=kind,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.SEMIAUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=_text(algorithm.name),
            family=codes.DCM.ArtificialIntelligence,
            version=_text(algorithm.version),
            parameters={"weights_sha256": algorithm.weights_sha256},
        ),
        tracking_uid=generate_uid(),
        tracking_id=_text(segment.name),
    )
    if segment.side:
        modifier = hd.sr.CodedConcept.from_code(_SIDES[segment.side])
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [modifier]
    description.RecommendedDisplayCIELabValue = _cielab(segment.color)
    return description


def _text(text: str) -> str:
    """A user's words as DICOM's long string: one line, no backslash, 64 characters."""
    return " ".join(text.replace("\\", "/").split())[:_LONG_STRING].strip() or "unnamed"


def _codes(segment: Segment) -> tuple[Code, Code]:
    """Category (CID 7150) and type; what is in no vocabulary is tissue, as 3D Slicer has it."""
    if segment.code is None:
        return codes.SCT.Tissue, codes.SCT.Tissue
    value, meaning = segment.code
    morphology = value in _MORPHOLOGY
    category = codes.cid7150.MorphologicallyAbnormalStructure if morphology else codes.cid7150.AnatomicalStructure
    return category, Code(value, "SCT", meaning)


def _cielab(color: tuple[int, int, int]) -> list[int]:
    """CIELab of an sRGB colour under the white of the ICC (D50), scaled to 16 bits (PS3.3 C.10.7.1.1)."""
    rgb = np.asarray(color, float) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    to_xyz = np.asarray(
        [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
    )
    ratio = to_xyz @ linear / to_xyz.sum(axis=1)
    x, y, z = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio * (29 / 6) ** 2 / 3 + 4 / 29)
    lightness, a, b = 116 * y - 16, 500 * (x - y), 200 * (y - z)
    scaled = (lightness / 100, (a + 128) / 255, (b + 128) / 255)
    return [round(float(np.clip(part, 0, 1)) * 0xFFFF) for part in scaled]
