"""The image archive behind DICOMweb: finds, fetches and stores series, and says in one sentence what went wrong."""

import logging
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import requests
from dicomweb_client import DICOMwebClient
from dicomweb_client.session_utils import create_session_from_user_pass
from fastapi import HTTPException
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMwebClientX
from monailabel.datastore.utils.dicom import dicom_web_download_series
from monailabel.interfaces.exception import ImageNotFoundException, MONAILabelError, MONAILabelException
from pydicom import Dataset, dcmread

from lib.whole_file import UNFINISHED

logger = logging.getLogger(__name__)
T = TypeVar("T")

_UID = re.compile(r"[0-9]+(\.[0-9]+)*")
_LONGEST_UID = 64
_AS_STORED = (("application/dicom", "*"),)  # any transfer syntax
_SERIES_UID = "0020000E"


def open_client(url: str) -> DICOMwebClient:
    """A client for the archive at ``url``, set up by MONAI Label's own environment variables."""
    session = None
    if settings.MONAI_LABEL_DICOMWEB_USERNAME and settings.MONAI_LABEL_DICOMWEB_PASSWORD:
        session = create_session_from_user_pass(
            settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
        )
    return DICOMwebClientX(
        url=url,
        session=session,
        qido_url_prefix=settings.MONAI_LABEL_QIDO_PREFIX,
        wado_url_prefix=settings.MONAI_LABEL_WADO_PREFIX,
        stow_url_prefix=settings.MONAI_LABEL_STOW_PREFIX,
    )


class Pacs:
    """One archive.

    Args:
        client: the DICOMweb client that reaches it.
        by_frame: fetch single frames, for archives that give no whole instances.
    """

    def __init__(self, client: DICOMwebClient, by_frame: bool = False) -> None:
        self._client = client
        self._by_frame = by_frame

    def find(self, series_uid: str) -> Dataset:
        """The archive's entry of a series.

        Raises:
            ImageNotFoundException: the archive has no such series.
            HTTPException: 502, the archive does not answer.
        """
        filters = {"SeriesInstanceUID": check_uid(series_uid)}
        entries = _ask(lambda: self._client.search_for_series(search_filters=filters))
        for entry in entries:
            if entry.get(_SERIES_UID, {}).get("Value") == [series_uid]:
                return Dataset.from_json(entry)
        raise ImageNotFoundException(f"there is no series '{series_uid}' in the image archive")

    def segmentations(self) -> list[tuple[str, str | None]]:
        """Every SEG series, with the series that it refers to; None where that cannot be read.

        Raises:
            HTTPException: 502, the archive does not answer.
        """
        entries = _ask(lambda: self._client.search_for_series(search_filters={"Modality": "SEG"}))
        return [(str(entry.SeriesInstanceUID), self._referred(entry)) for entry in map(Dataset.from_json, entries)]

    def _referred(self, entry: Dataset) -> str | None:
        try:
            files = self._client.retrieve_series_metadata(str(entry.StudyInstanceUID), str(entry.SeriesInstanceUID))
            return str(Dataset.from_json(files[0]).ReferencedSeriesSequence[0].SeriesInstanceUID)
        except Exception as error:  # what other programs wrote fails in many ways, and hinders no other
            logger.warning("a segmentation of the archive is passed over: %s", type(error).__name__)
            return None

    def fetch(self, series_uid: str, folder: Path) -> None:
        """Bring all files of a series into ``folder``, which is there with all of them or not at all.

        Raises:
            ImageNotFoundException: the archive has no such series.
            HTTPException: 502, the archive does not answer, or broke off midway.
        """
        entry = self.find(series_uid)
        study_uid = str(entry.StudyInstanceUID)
        arriving = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=folder.parent))
        try:
            _ask(lambda: self._download(study_uid, series_uid, arriving))
            came, expected = len(list(arriving.iterdir())), int(entry.get("NumberOfSeriesRelatedInstances") or 0)
            if came == 0 or came < expected:
                raise HTTPException(502, f"the image archive sent {came} of {expected} slices, please try again")
            os.replace(arriving, folder)
        finally:
            shutil.rmtree(arriving, ignore_errors=True)

    def _download(self, study_uid: str, series_uid: str, folder: Path) -> None:
        """As the archive has them: one that cannot decompress its files fails where the stock server asks it to."""
        if self._by_frame:
            dicom_web_download_series(study_uid, series_uid, folder, self._client, True)
            return
        try:
            instances = list(self._client.retrieve_series(study_uid, series_uid, media_types=_AS_STORED))
        except requests.HTTPError:
            instances = list(self._client.retrieve_series(study_uid, series_uid))
        for number, instance in enumerate(instances):
            instance.save_as(folder / f"{number:05d}.dcm")

    def store(self, file: Path) -> Dataset:
        """Send one DICOM file to the archive; returns its content.

        Raises:
            HTTPException: 502, the archive does not answer, or did not take it.
        """
        sent = dcmread(file)
        answer = _ask(lambda: self._client.store_instances([sent]))
        failed = answer.get("FailedSOPSequence") or []
        if failed:
            reason = int(failed[0].get("FailureReason") or 0)
            raise HTTPException(502, f"the image archive did not take the segmentation (reason {reason:04X})")
        taken = [item.get("ReferencedSOPInstanceUID") for item in answer.get("ReferencedSOPSequence") or []]
        if taken and sent.SOPInstanceUID not in taken:
            raise HTTPException(502, "the image archive did not confirm the segmentation")
        return sent


def check_uid(uid: str) -> str:
    """The UID, if it is one and so can name nothing but itself.

    Raises:
        MONAILabelException: it is none.
    """
    if len(uid) > _LONGEST_UID or not _UID.fullmatch(uid):
        allowed = f"at most {_LONGEST_UID} digits and dots"
        raise MONAILabelException(MONAILabelError.INVALID_INPUT, f"image must be a series instance UID: {allowed}")
    return uid


def _ask(question: Callable[[], T]) -> T:
    try:
        return question()
    except (requests.RequestException, ConnectionError, TimeoutError) as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        logger.warning("the image archive failed: %s, status %s", type(error).__name__, status)
        answered = f"answered with status {status}" if status else "does not answer"
        raise HTTPException(502, f"the image archive {answered}, please try again") from None


def describe(entry: Dataset, series_uid: str) -> dict[str, Any]:
    """What the data store remembers about a series: no names."""
    fields = ("StudyDate", "StudyTime", "Modality", "RetrieveURL", "PatientID", "StudyInstanceUID")
    return {"SeriesInstanceUID": series_uid, **{name: str(entry.get(name, "") or "UNK") for name in fields}}
