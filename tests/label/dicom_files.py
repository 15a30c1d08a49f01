"""DICOM series made in a test: small, without a patient, in any orientation and file order."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

AXIAL = (1, 0, 0, 0, 1, 0)
CORONAL = (1, 0, 0, 0, 0, -1)
SAGITTAL = (0, 1, 0, 0, 0, -1)


def oblique() -> tuple[float, ...]:
    """Row and column directions turned by 20 degrees about x and 10 about z."""
    tilt, turn = np.deg2rad(20), np.deg2rad(10)
    about_x = np.asarray([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    about_z = np.asarray([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    return tuple((about_z @ about_x)[:, :2].T.ravel())


def write_series(
    folder: Path,
    voxels: NDArray[np.int16],
    orientation: Sequence[float] = AXIAL,
    spacing: tuple[float, float, float] = (0.75, 1.25, 3.0),
    origin: tuple[float, float, float] = (-31.0, 17.0, -205.5),
    backwards: bool = False,
    thickness: float = 3.0,
) -> list[Dataset]:
    """Write ``voxels`` (slice, row, column) as one CT series; spacing is that of columns, rows and slices in mm.

    With ``backwards``, file names and instance numbers run against the normal of the slices.
    """
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(orientation[:3], orientation[3:])
    uids = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")}
    made = []
    for index, plane in enumerate(voxels):
        number = len(voxels) - index if backwards else index + 1
        slice_ = _slice(plane, uids, number)
        slice_.ImageOrientationPatient = [f"{value:.12f}"[:16] for value in orientation]
        slice_.ImagePositionPatient = [f"{value:.9f}"[:16] for value in origin + normal * spacing[2] * index]
        slice_.PixelSpacing = [spacing[1], spacing[0]]
        slice_.SliceThickness = thickness
        slice_.save_as(folder / f"{number:03d}.dcm", write_like_original=False)
        made.append(slice_)
    return made


def copy_series(source: Path, folder: Path) -> dict[str, str]:
    """Copy a real series, with new UIDs where it was made anonymous by emptying them; returns its UIDs."""
    folder.mkdir(parents=True)
    names = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
    uids = {name: generate_uid() for name in names}
    for number, path in enumerate(sorted(source.iterdir())):
        slice_ = dcmread(path)
        slice_.SOPClassUID = slice_.file_meta.MediaStorageSOPClassUID
        slice_.SOPInstanceUID = slice_.file_meta.MediaStorageSOPInstanceUID
        for name in names:
            if not slice_.get(name):
                setattr(slice_, name, uids[name])
        slice_.PatientID = slice_.PatientID or "test"
        slice_.save_as(folder / f"{number:04d}.dcm")
    return {name: str(slice_.get(name)) for name in names}


def _slice(plane: NDArray[np.int16], uids: dict[str, str], number: int) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    made.Modality, made.SeriesNumber, made.InstanceNumber = "CT", 3, number
    made.PatientID, made.PatientName = "test", "Nobody"
    for name, uid in uids.items():
        setattr(made, name, uid)
    made.Rows, made.Columns = plane.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 16, 15, 1
    made.RescaleIntercept, made.RescaleSlope = 0, 1
    made.PixelData = np.ascontiguousarray(plane, np.int16).tobytes()
    return made
