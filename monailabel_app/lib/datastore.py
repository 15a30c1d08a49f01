"""The image archive as MONAI Label's data store: series come in whole, masks go back as DICOM SEG with their codes.

Fetched series are kept in a folder, as the stock store keeps them. Environment variables of MONAI Label set it up, for
MR studies also MONAI_LABEL_DICOMWEB_SEARCH_FILTER='{"Modality": "MR"}'.
"""

import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from cachetools import TTLCache
from dicomweb_client import DICOMwebClient
from filelock import FileLock
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.utils.convert import dicom_to_nifti
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.exception import ImageNotFoundException, MONAILabelError, MONAILabelException

from lib.dicom_seg import Algorithm, Segment, Written, write_segmentation
from lib.dicom_series import read_series
from lib.label_map import label_values
from lib.local_store import FinalLabel, SegVolLocalStore, plain_name
from lib.pacs import Pacs, check_uid, describe
from lib.sentence import sentence

__all__ = ["SegVolDicomStore", "SegVolLocalStore"]

logger = logging.getLogger(__name__)

LabelInfo = Sequence[Mapping[str, Any]]
SegmentsFor = Callable[[LabelInfo, Sequence[int]], Sequence[Segment]]


class SegVolDicomStore(DICOMWebDatastore, SegVolLocalStore):
    """An image archive behind DICOMweb.

    Args:
        client: reaches the archive.
        search_filter: which series are images, {"Modality": "CT"} in MONAI Label's settings.
        segments_for: the segments of a saved label, from the client's label_info and the values in the label.
        algorithm: what draws the masks now.
        options: cache_path, fetch_by_frame and convert_to_nifti of the stock class.
    """

    def __init__(
        self,
        client: DICOMwebClient,
        search_filter: Mapping[str, Any],
        segments_for: SegmentsFor,
        algorithm: Callable[[], Algorithm],
        **options: Any,
    ) -> None:
        self._pacs = Pacs(client, options.get("fetch_by_frame", False))
        self._segments_for = segments_for
        self._algorithm = algorithm
        self._lists: TTLCache[str, list[str]] = TTLCache(8, settings.MONAI_LABEL_DICOMWEB_CACHE_EXPIRY)
        self._lists_lock = threading.RLock()
        super().__init__(client, dict(search_filter), **options)

    def list_images(self) -> list[str]:
        """Series of the archive that pass the filter; asked anew after a label was saved or a new series opened."""
        return self._listed("images", lambda: DICOMWebDatastore.list_images.__wrapped__(self))

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Series that a DICOM SEG of the archive refers to."""
        return self._listed("labeled", self._ask_labeled)

    def forget_lists(self) -> None:
        """Ask the archive anew which series it has."""
        with self._lists_lock:
            self._lists.clear()

    def get_image_uri(self, image_id: str) -> str:
        """The image file of a series, fetched and converted on first use.

        Raises:
            ImageNotFoundException: the archive has no such series.
            MONAILabelException: the id is no UID, or the series is no volume.
        """
        folder = self._image_folder(image_id)
        with self._one_at_a_time(image_id):
            self._fetch(image_id, folder)
            if not self._convert_to_nifti:
                return str(folder)
            image = folder.with_name(f"{image_id}.nii.gz")
            if not image.exists() or image_id not in self._datastore.objects:
                self._convert(image_id, folder)
            return str(image)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Refused: a file that the archive does not have could never be saved to.

        Raises:
            MONAILabelException: always.
        """
        raise MONAILabelException(MONAILabelError.INVALID_INPUT, "images are read from the archive; send them there")

    def remove_image(self, image_id: str) -> None:
        """Forget a series that was fetched, with its files; the archive keeps it."""
        folder = self._image_folder(image_id)
        with self._one_at_a_time(image_id):
            super().remove_image(image_id)
            shutil.rmtree(folder, ignore_errors=True)

    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        """The label file of an image; a final one that only the archive has is fetched and converted."""
        if label_tag != DefaultLabelTag.FINAL or not image_id:
            return str(SegVolLocalStore.get_label_uri(self, label_id, label_tag))
        folder = Path(self._datastore.label_path(label_tag)).resolve() / check_uid(label_id)
        with self._one_at_a_time(label_id):
            self._fetch(label_id, folder)
            if not self._convert_to_nifti:
                return str(folder)
            if not SegVolLocalStore.get_label_uri(self, check_uid(image_id), label_tag):
                with _converted(folder, is_seg=True) as label:
                    info = describe(self._pacs.find(label_id), label_id)
                    SegVolLocalStore.save_label(self, image_id, str(label), label_tag, info)
        return str(SegVolLocalStore.get_label_uri(self, image_id, label_tag))

    def final_labels(self, folder: Path) -> list[FinalLabel]:
        """Finished labels of the archive, fetched and converted first; one that cannot be is left out."""
        self._download_labeled_data()
        return super().final_labels(folder)

    def _download_labeled_data(self) -> None:
        """Take in what the archive has now; the stock method ends at the first series or SEG that fails."""
        known = self._kept_labels()  # before the archive is asked: what is saved meanwhile stays
        found = self._pacs.segmentations()
        for gone in filter(self._is_gone, known.keys() - {seg for seg, _ in found}):
            Path(SegVolLocalStore.get_label_uri(self, known[gone], DefaultLabelTag.FINAL)).unlink(missing_ok=True)
        self.refresh()
        for label_id, image_id in self._of_listed(found):
            try:
                self.get_image_uri(image_id)
                self.get_label_uri(label_id, DefaultLabelTag.FINAL, image_id)
            except Exception as error:  # what other programs wrote fails in many ways
                said = sentence(error).replace(image_id, "its image").replace(label_id, "it")
                logger.warning("a segmentation of the archive is left out: %s", said)

    def _is_gone(self, label_id: str) -> bool:
        """Asked for by its id: an archive may cut a list short."""
        try:
            self._pacs.find(label_id)
        except ImageNotFoundException:
            return True
        return False

    def _ask_labeled(self) -> list[str]:
        return list(dict.fromkeys(image for _, image in self._of_listed(self._pacs.segmentations())))

    def _of_listed(self, segmentations: Sequence[tuple[str, str | None]]) -> list[tuple[str, str]]:
        listed = set(self.list_images())
        return [(seg, image) for seg, image in segmentations if image is not None and image in listed]

    def _kept_labels(self) -> dict[str, str]:
        """The SEGs whose labels lie here, and their images."""
        images = SegVolLocalStore.get_labeled_images(self)
        segs = {image: self.get_label_info(image, DefaultLabelTag.FINAL).get("SeriesInstanceUID") for image in images}
        return {seg: image for image, seg in segs.items() if seg is not None}

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any], label_id: str = ""
    ) -> str:
        """Keep a label; a final one goes to the archive as DICOM SEG first.

        Raises:
            ImageNotFoundException: the archive has no such series.
            MONAILabelException: the label is empty, or does not fit the series.
            HTTPException: 502, the archive did not take it.
        """
        plain_name(label_tag, "tag")
        image = self.get_image_uri(image_id)
        with _as_volume(image, Path(label_filename)) as label:
            info = dict(label_info or {})
            if label_tag == DefaultLabelTag.FINAL:
                info.update(self.save_segmentation(image_id, label, info.get("label_info") or []))
            return str(SegVolLocalStore.save_label(self, image_id, str(label), label_tag, info))

    def write_segmentation(self, image_id: str, label: Path, label_info: LabelInfo, output: Path) -> Written:
        """Write a label map of a series as DICOM SEG into a file.

        Raises:
            MONAILabelException: the label is empty, or does not fit the series.
        """
        self.get_image_uri(image_id)
        with _plain_errors():
            segments = self._segments_for(label_info, label_values(label))
            return write_segmentation(self._image_folder(image_id), label, segments, self._algorithm(), output)

    def save_segmentation(self, image_id: str, label: Path, label_info: LabelInfo) -> dict[str, Any]:
        """Store a label map of a series in the archive as DICOM SEG.

        Returns:
            UIDs of the new object, the names of its segments in the order of their numbers, and of those left out.
        """
        with tempfile.TemporaryDirectory(prefix="segvol-") as folder:
            written = self.write_segmentation(image_id, label, label_info, Path(folder) / "segmentation.dcm")
            sent = self._pacs.store(written.path)
        self.forget_lists()
        fields = ("SeriesInstanceUID", "SOPInstanceUID", "StudyInstanceUID", "PatientID", "Modality")
        names = {"segments": [segment.name for segment in written.segments], "left_out": list(written.left_out)}
        return {**{field: str(sent.get(field)) for field in fields}, **names}

    def _listed(self, name: str, ask: Callable[[], list[str]]) -> list[str]:
        with self._lists_lock:
            if name not in self._lists:
                self._lists[name] = ask()
            return list(self._lists[name])

    def _image_folder(self, image_id: str) -> Path:
        return Path(self._datastore.image_path()).resolve() / check_uid(image_id)

    @contextmanager
    def _one_at_a_time(self, uid: str) -> Iterator[None]:
        """Over threads and processes: a second user waits for the first one's download and then finds it there."""
        locks = Path(self._datastore_path) / ".locks"
        locks.mkdir(exist_ok=True)
        with FileLock(locks / f"{uid}.lock"):
            yield

    def _fetch(self, uid: str, folder: Path) -> None:
        if not folder.is_dir() or not os.listdir(folder):
            self._pacs.fetch(uid, folder)

    def _convert(self, image_id: str, folder: Path) -> None:
        with _plain_errors():
            read_series(folder)
        info = describe(self._pacs.find(image_id), image_id)
        with _converted(folder) as image:
            SegVolLocalStore.add_image(self, image_id, str(image), info)
        if image_id not in self.list_images():
            self.forget_lists()


@contextmanager
def _converted(folder: Path, is_seg: bool = False) -> Iterator[Path]:
    """A DICOM series or SEG as an image file, for as long as the block lasts."""
    path = Path(dicom_to_nifti(str(folder), is_seg))
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)


@contextmanager
def _as_volume(image: str, label: Path) -> Iterator[Path]:
    """The label as an image file; a viewer's bare bytes get their image's geometry, while the block lasts."""
    if label.suffix != ".bin":
        yield label
        return
    reference = sitk.ReadImage(image)
    size = reference.GetSize()[::-1]
    voxels = np.fromfile(label, np.uint8)
    with _plain_errors():
        if voxels.size != np.prod(size):
            raise ValueError(f"label has {voxels.size} bytes; it must have one for each of {np.prod(size)} voxels")
    volume = sitk.GetImageFromArray(voxels.reshape(size))
    volume.CopyInformation(reference)
    with tempfile.TemporaryDirectory(prefix="segvol-") as folder:
        path = Path(folder) / "label.nii.gz"
        sitk.WriteImage(volume, str(path))
        yield path


@contextmanager
def _plain_errors() -> Iterator[None]:
    """A user's mistake as the server tells it."""
    try:
        yield
    except ValueError as error:
        raise MONAILabelException(MONAILabelError.INVALID_INPUT, str(error)) from None
