"""The folder of images and labels, and the image archive: nothing half written, nothing outside, nothing left over."""

import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pytest
import requests
import SimpleITK as sitk
from dicom_files import write_series
from fastapi import HTTPException
from lib import local_store
from lib.datastore import SegVolDicomStore
from lib.dicom_seg import Algorithm, Segment
from lib.labelled import read_cases
from lib.local_store import SegVolLocalStore
from lib.whole_file import UNFINISHED, remove_abandoned, whole_file
from monailabel.interfaces.exception import ImageNotFoundException, MONAILabelException
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

SHAPE = (4, 8, 12)  # slices, rows, columns
HOSTILE = ["../out", "a/b", "/etc/passwd", "a\\b", "..", ".", "", ".hidden", "a\0b", "x" * 300]


class FakeArchive:
    """Answers as DICOMwebClient does, from a folder of files."""

    base_url = "http://archive.test/dicom-web"

    def __init__(self, slices: Sequence[Dataset]) -> None:
        self.slices = list(slices)
        self.stored: list[Dataset] = []
        self.asked: list[str] = []
        self.breaks_after: int | None = None
        self.silently = False
        self.answer = Dataset()
        self.delay = 0.0
        self.speaks: Any = (("application/dicom", "*"),)

    def search_for_series(self, search_filters: dict[str, str]) -> list[dict[str, Any]]:
        self.asked.append("search")
        entries = {file.SeriesInstanceUID: file for file in (*self.slices, *self.stored)}
        return [self._entry(file) for file in entries.values() if self._fits(file, search_filters)]

    def retrieve_series(self, study_uid: str, series_uid: str, media_types: Any = None) -> Iterator[Dataset]:
        self.asked.append("retrieve")
        if media_types != self.speaks:
            raise requests.exceptions.HTTPError("cannot transcode")
        time.sleep(self.delay)
        for number, file in enumerate(file for file in self.slices if file.SeriesInstanceUID == series_uid):
            if number == self.breaks_after:
                if self.silently:
                    return
                raise requests.exceptions.ChunkedEncodingError("broken")
            yield file

    def retrieve_series_metadata(self, study_uid: str, series_uid: str) -> list[dict[str, Any]]:
        self.asked.append("metadata")
        return [file.to_json_dict() for file in self.stored if file.SeriesInstanceUID == series_uid]

    def store_instances(self, datasets: Sequence[Dataset]) -> Dataset:
        self.asked.append("store")
        if isinstance(self.answer, Exception):
            raise self.answer
        if "FailedSOPSequence" not in self.answer:
            self.stored += datasets
        return self.answer

    def _fits(self, file: Dataset, filters: dict[str, str]) -> bool:
        return all(file.get(name) == value for name, value in filters.items())

    def _entry(self, file: Dataset) -> dict[str, Any]:
        entry = Dataset()
        for name in ("StudyInstanceUID", "SeriesInstanceUID", "Modality", "PatientID"):
            setattr(entry, name, file.get(name))
        entry.NumberOfSeriesRelatedInstances = len(
            [other for other in (*self.slices, *self.stored) if other.SeriesInstanceUID == file.SeriesInstanceUID]
        )
        return dict(entry.to_json_dict())


def segments_for(label_info: Sequence[dict[str, Any]], values: Sequence[int]) -> list[Segment]:
    names = {info.get("idx"): info["name"] for info in label_info}
    return [Segment(value, names.get(value, f"segment {value}"), None, (1, 2, 3)) for value in values]


@pytest.fixture
def archive(tmp_path) -> FakeArchive:
    write_series(tmp_path / "series", np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE))
    return FakeArchive([dcmread(path) for path in sorted((tmp_path / "series").iterdir())])


@pytest.fixture
def scratch(tmp_path, monkeypatch) -> Path:
    """The folder of temporary files, empty at first."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def store(tmp_path, archive, scratch) -> Iterator[SegVolDicomStore]:
    made = open_store(tmp_path / "cache", archive)
    yield made
    stop_watching(made)


def open_store(cache: Path, archive: FakeArchive) -> SegVolDicomStore:
    algorithm = Algorithm("SegVol small", "0.1.0", "ab" * 32)
    return SegVolDicomStore(archive, {"Modality": "CT"}, segments_for, lambda: algorithm, cache_path=str(cache))


def stop_watching(store: SegVolLocalStore) -> None:
    store._observer.stop()
    store._observer.join()


def series_of(archive: FakeArchive) -> str:
    return str(archive.slices[0].SeriesInstanceUID)


def cached(tmp_path: Path) -> list[str]:
    """What lies in the store's folder, but for its own locks and index, which the watcher may be writing."""
    own = {"datastore_v2.json", ".lock", ".locks", "labels"}
    found = [path for folder in (tmp_path / "cache").iterdir() for path in folder.iterdir() if path.name not in own]
    return sorted(path.name for path in found if path.is_dir() or not path.name.startswith(UNFINISHED))


def label_on(image: str, folder: Path, value: int = 1, suffix: str = ".nii.gz") -> Path:
    read = sitk.ReadImage(image)
    labels = sitk.GetImageFromArray(np.zeros(read.GetSize()[::-1], np.uint8))
    labels.CopyInformation(read)
    if value:
        labels[3, 2, 1] = value
    path = folder / f"label{suffix}"
    sitk.WriteImage(labels, str(path))
    return path


def test_a_series_is_fetched_once_and_converted(tmp_path, store, archive, scratch):
    uid = series_of(archive)
    image = store.get_image_uri(uid)
    again = store.get_image_uri(uid)

    assert image == again and archive.asked.count("retrieve") == 1
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(image)), np.arange(np.prod(SHAPE)).reshape(SHAPE))
    assert cached(tmp_path) == sorted([uid, f"{uid}.nii.gz"])
    assert store.get_image_info(uid)["Modality"] == "CT"
    assert not list(scratch.iterdir())


@pytest.mark.parametrize("silently", [False, True], ids=["with_an_error", "silently"])
def test_a_download_that_breaks_off_leaves_nothing_and_works_the_next_time(tmp_path, store, archive, silently):
    archive.breaks_after, archive.silently = 2, silently
    with pytest.raises(HTTPException, match="please try again") as caught:
        store.get_image_uri(series_of(archive))
    assert caught.value.status_code == 502 and cached(tmp_path) == []

    archive.breaks_after = None
    assert len(os.listdir(Path(store.get_image_uri(series_of(archive))).with_suffix("").with_suffix(""))) == SHAPE[0]


def test_an_archive_that_does_not_know_any_transfer_syntax_is_asked_for_the_usual_one(store, archive):
    archive.speaks = None
    assert Path(store.get_image_uri(series_of(archive))).is_file()


def test_two_users_of_one_series_cause_one_download(store, archive):
    archive.delay = 0.3
    with ThreadPoolExecutor(4) as pool:
        images = list(pool.map(store.get_image_uri, [series_of(archive)] * 4))
    assert len(set(images)) == 1 and archive.asked.count("retrieve") == 1


def test_an_unknown_series_is_not_found(store):
    with pytest.raises(ImageNotFoundException) as caught:
        store.get_image_uri("1.2.3")
    assert caught.value.msg == "there is no series '1.2.3' in the image archive"


@pytest.mark.parametrize("uid", [*HOSTILE, "1.2/../3", "1.2.3\n", "1..2", "1." + "2" * 70])
def test_only_uids_reach_the_archive_or_the_disk(tmp_path, store, archive, uid):
    before = len(archive.asked)
    for call in (
        lambda: store.get_image_uri(uid),
        lambda: store.save_label(uid, "label.nii.gz", "final", {}),
        lambda: store.get_label_uri(uid, "final", "1.2"),
    ):
        with pytest.raises(MONAILabelException) as caught:
            call()
        assert "UID" in caught.value.msg
    assert len(archive.asked) == before and cached(tmp_path) == []


def test_a_removed_series_leaves_no_file_behind(tmp_path, store, archive):
    uid = series_of(archive)
    store.get_image_uri(uid)
    store.remove_image(uid)
    assert cached(tmp_path) == []


def test_an_upload_beside_the_archive_is_refused(tmp_path, store):
    with pytest.raises(MONAILabelException) as caught:
        store.add_image("mine", str(tmp_path / "mine.nii.gz"), {})
    assert caught.value.msg == "images are read from the archive; send them there"


def test_a_series_with_a_missing_slice_is_refused(store, archive):
    del archive.slices[1]
    with pytest.raises(MONAILabelException) as caught:
        store.get_image_uri(series_of(archive))
    assert caught.value.msg.endswith("3 to 6 mm apart; one is missing")


def test_an_archive_that_does_not_answer_is_a_sentence(store, archive, monkeypatch):
    def refuse(search_filters: dict[str, str]) -> None:
        raise requests.exceptions.ConnectionError("no route to 10.0.0.1")

    monkeypatch.setattr(archive, "search_for_series", refuse)
    with pytest.raises(HTTPException) as caught:
        store.get_image_uri("1.2.3")
    assert (caught.value.status_code, caught.value.detail) == (
        502,
        "the image archive does not answer, please try again",
    )


def test_a_final_label_is_stored_as_dicom_seg(tmp_path, store, archive, scratch):
    uid = series_of(archive)
    label = label_on(store.get_image_uri(uid), tmp_path, 3)
    store.save_label(uid, str(label), "final", {"label_info": [{"name": "liver", "idx": 3}]})

    (stored,) = archive.stored
    seg = hd.seg.Segmentation.from_dataset(stored)
    planes = seg.get_pixels_by_source_instance([file.SOPInstanceUID for file in archive.slices], combine_segments=True)
    assert np.argwhere(planes).tolist() == [[1, 2, 3]]
    assert seg.get_segment_description(1).segment_label == "liver"
    info = store.get_label_info(uid, "final")
    assert (info["SeriesInstanceUID"], info["segments"]) == (stored.SeriesInstanceUID, ["liver"])
    assert Path(store.get_label_uri(uid, "final")).read_bytes() == label.read_bytes()
    assert not list(scratch.iterdir())


def test_the_lists_are_asked_anew_after_saving(tmp_path, store, archive):
    uid = series_of(archive)
    image = store.get_image_uri(uid)
    assert (store.list_images(), store.get_labeled_images()) == ([uid], [])
    asked = len(archive.asked)
    assert store.list_images() == [uid] and len(archive.asked) == asked

    store.save_label(uid, str(label_on(image, tmp_path)), "final", {})
    assert store.get_labeled_images() == [uid]


def test_a_series_that_came_to_the_archive_later_is_listed_once_it_was_opened(tmp_path, store, archive):
    later = tmp_path / "later"
    write_series(later, np.zeros(SHAPE, np.int16))
    assert store.list_images() == [series_of(archive)]
    archive.slices += [dcmread(path) for path in later.iterdir()]

    new = str(archive.slices[-1].SeriesInstanceUID)
    store.get_image_uri(new)
    assert new in store.list_images()


def test_bare_bytes_of_a_viewer_become_a_label(tmp_path, store, archive, scratch):
    uid = series_of(archive)
    store.get_image_uri(uid)
    mask = np.zeros(SHAPE, np.uint8)
    mask[2, 5, 7] = 1
    raw = tmp_path / "label.bin"
    raw.write_bytes(mask.tobytes())
    store.save_label(uid, str(raw), "final", {})

    seg = hd.seg.Segmentation.from_dataset(archive.stored[0])
    planes = seg.get_pixels_by_source_instance([file.SOPInstanceUID for file in archive.slices], combine_segments=True)
    assert np.array_equal(planes, mask)
    assert not list(scratch.iterdir())


def test_bare_bytes_of_another_size_are_refused(tmp_path, store, archive):
    raw = tmp_path / "label.bin"
    raw.write_bytes(b"123")
    with pytest.raises(MONAILabelException) as caught:
        store.save_label(series_of(archive), str(raw), "final", {})
    assert caught.value.msg == "label has 3 bytes; it must have one for each of 384 voxels"


def test_a_finished_label_is_a_case_with_its_names_and_to_another_server_only_a_seg_of_some_slices(
    tmp_path, store, archive, small_bundle, monkeypatch
):
    uid = series_of(archive)
    label = label_on(store.get_image_uri(uid), tmp_path, 3)
    store.save_label(uid, str(label), "final", {"label_info": [{"name": "Liver", "idx": 3}]})
    everything = (*archive.slices, *archive.stored)
    monkeypatch.setattr(archive, "retrieve_series", lambda _, series, **__: of_series(everything, series))

    (case,), left_out = read_cases(store.final_labels(into(tmp_path / "run")), small_bundle)
    assert (case.labels, left_out) == ({3: "liver"}, {})

    other = open_store(tmp_path / "other", archive)
    stop_watching(other)
    (found,) = other.final_labels(into(tmp_path / "other run"))
    cases, left_out = read_cases([found], small_bundle)  # its SEG has the one slice that is not empty
    assert found.image_id == uid and not cases and "another grid than the image" in left_out[uid]


def into(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest.fixture
def beside_a_broken_one(tmp_path, store, archive, monkeypatch) -> str:
    """The series of a finished label, in an archive with other SEGs that cannot be converted, and one without files."""
    uid = series_of(archive)
    store.save_label(uid, str(label_on(store.get_image_uri(uid), tmp_path)), "final", {})
    write_series(tmp_path / "second", np.zeros(SHAPE, np.int16))
    archive.slices += [dcmread(path) for path in sorted((tmp_path / "second").iterdir())]
    second = str(archive.slices[-1].SeriesInstanceUID)
    broken, bare = (foreign_seg(number, image) for number, image in ((1, second), (2, uid)))
    archive.stored[:0] = [broken, bare]
    everything, metadata = (*archive.slices, broken), archive.retrieve_series_metadata

    def empty_for_the_bare(study: str, series: str) -> list[dict[str, Any]]:
        return [] if series == bare.SeriesInstanceUID else metadata(study, series)

    monkeypatch.setattr(archive, "retrieve_series", lambda _, series, **__: of_series(everything, series))
    monkeypatch.setattr(archive, "retrieve_series_metadata", empty_for_the_bare)
    store.forget_lists()
    return uid


def foreign_seg(number: int, image: str) -> Dataset:
    """A SEG of another program, of which little more is there than what it refers to."""
    seg, referred = Dataset(), Dataset()
    referred.SeriesInstanceUID = image
    seg.Modality, seg.PatientID, seg.ReferencedSeriesSequence = "SEG", "Smith-77", [referred]
    seg.StudyInstanceUID, seg.SeriesInstanceUID, seg.SOPInstanceUID = "1.2", f"1.2.{number}", f"1.2.{number}.1"
    seg.SOPClassUID = SegmentationStorage
    seg.file_meta = FileMetaDataset()
    seg.file_meta.MediaStorageSOPClassUID, seg.file_meta.MediaStorageSOPInstanceUID = (
        seg.SOPClassUID,
        seg.SOPInstanceUID,
    )
    seg.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return seg


def test_a_foreign_seg_that_cannot_be_read_is_left_out_and_hinders_no_other(
    tmp_path, store, beside_a_broken_one, caplog
):
    (found,) = store.final_labels(into(tmp_path / "run"))
    assert found.image_id == beside_a_broken_one
    assert "a segmentation of the archive is left out: " in caplog.text
    assert not any("1.2.1" in line or found.image_id in line for line in caplog.messages if "left out" in line)


def test_series_with_a_label_are_listed_beside_a_foreign_seg_without_files(store, beside_a_broken_one):
    assert beside_a_broken_one in store.get_labeled_images()


def test_a_label_whose_seg_the_archive_has_no_more_is_not_trained_on(tmp_path, store, archive):
    uid = series_of(archive)
    store.save_label(uid, str(label_on(store.get_image_uri(uid), tmp_path)), "final", {})
    archive.stored.clear()
    assert store.final_labels(into(tmp_path / "run")) == []


def test_a_label_stays_where_the_archive_cuts_its_list_short(tmp_path, store, archive, monkeypatch):
    uid, search = series_of(archive), archive.search_for_series
    store.save_label(uid, str(label_on(store.get_image_uri(uid), tmp_path)), "final", {})

    def cut_short(search_filters: dict[str, str]) -> list[dict[str, Any]]:
        return [] if search_filters == {"Modality": "SEG"} else search(search_filters)

    monkeypatch.setattr(archive, "search_for_series", cut_short)
    assert [found.image_id for found in store.final_labels(into(tmp_path / "run"))] == [uid]


def of_series(files: Sequence[Dataset], series: str) -> list[Dataset]:
    return [file for file in files if file.SeriesInstanceUID == series]


def test_an_unfinished_label_stays_out_of_the_archive(tmp_path, store, archive):
    uid = series_of(archive)
    store.save_label(uid, str(label_on(store.get_image_uri(uid), tmp_path)), "original", {})
    assert archive.stored == [] and store.get_label_uri(uid, "original")


def refusing(reason: int) -> Dataset:
    failed = Dataset()
    failed.FailureReason = reason
    answer = Dataset()
    answer.FailedSOPSequence = [failed]
    return answer


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (refusing(0x0110), "the image archive did not take the segmentation (reason 0110)"),
        (requests.exceptions.ReadTimeout("slow"), "the image archive does not answer, please try again"),
    ],
    ids=["refused", "timeout"],
)
def test_a_label_the_archive_did_not_take_is_not_kept_as_final(tmp_path, store, archive, scratch, answer, sentence):
    uid = series_of(archive)
    label = label_on(store.get_image_uri(uid), tmp_path)
    archive.answer = answer
    with pytest.raises(HTTPException) as caught:
        store.save_label(uid, str(label), "final", {})

    assert (caught.value.status_code, caught.value.detail) == (502, sentence)
    assert store.get_label_uri(uid, "final") == "" and not list(scratch.iterdir())


def test_an_empty_label_is_one_sentence(tmp_path, store, archive, scratch):
    uid = series_of(archive)
    label = label_on(store.get_image_uri(uid), tmp_path, 0)
    with pytest.raises(MONAILabelException) as caught:
        store.save_label(uid, str(label), "final", {})
    assert caught.value.msg == "label_map: the mask is empty; there is nothing to save"
    assert archive.stored == [] and not list(scratch.iterdir())


def test_a_label_that_only_the_archive_has_comes_back(tmp_path, store, archive, scratch):
    uid = series_of(archive)
    store.save_label(uid, str(label_on(store.get_image_uri(uid), tmp_path)), "final", {})
    archive.slices += archive.stored
    archive.stored = []

    fresh = open_store(tmp_path / "another", archive)
    fresh.get_image_uri(uid)
    label = fresh.get_label_uri(str(archive.slices[-1].SeriesInstanceUID), "final", uid)
    image = sitk.Resample(sitk.ReadImage(label), sitk.ReadImage(fresh.get_image_uri(uid)))
    assert np.argwhere(sitk.GetArrayFromImage(image)).tolist() == [[1, 2, 3]]
    assert not list(scratch.iterdir())
    stop_watching(fresh)


@pytest.fixture
def folder(tmp_path) -> Path:
    """A studies folder with two images."""
    made = tmp_path / "studies"
    made.mkdir()
    for name in ("one.nii.gz", "two.nii.gz"):
        (made / name).write_bytes(name.encode())
    return made


@pytest.fixture
def local(folder) -> SegVolLocalStore:
    return SegVolLocalStore(str(folder))


def test_images_and_labels_are_kept(tmp_path, folder, local):
    new, label = tmp_path / "three.nii.gz", tmp_path / "upload.nii.gz"
    new.write_bytes(b"3")
    label.write_bytes(b"label")

    assert local.add_image("three", str(new), {"by": "me"}) == "three"
    assert local.save_label("three", str(label), "final", {"name": "x"}) == "three"
    assert local.list_images() == ["one", "two", "three"] and local.get_labeled_images() == ["three"]

    again = SegVolLocalStore(str(folder))
    assert again.get_image_info("three")["by"] == "me"
    assert Path(again.get_label_uri("three", "final")).read_bytes() == b"label"
    assert not list(folder.rglob(".unfinished-*"))


def test_what_others_put_into_the_folder_is_found_and_what_they_take_is_forgotten(folder, local):
    (folder / "three.nii").write_bytes(b"3")
    (folder / "labels" / "final" / "two.nii.gz").write_bytes(b"label")
    (folder / "one.nii.gz").unlink()
    local.refresh()
    assert (local.list_images(), local.get_labeled_images()) == (["two", "three"], ["two"])

    (folder / "labels" / "final" / "two.nii.gz").unlink()
    local.refresh()
    assert local.get_labeled_images() == []


@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_is_written_outside_the_folder(tmp_path, folder, local, name):
    label = tmp_path / "upload.nii.gz"
    label.write_bytes(b"label")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(MONAILabelException):
        local.save_label("one", str(label), name, {})
    with pytest.raises(MONAILabelException):
        local.save_label(name, str(label), "final", {})
    if name:
        with pytest.raises(MONAILabelException):
            local.add_image(name, str(label), {})
    assert sorted(tmp_path.rglob("*")) == before


def test_a_label_needs_an_image(tmp_path, local):
    (tmp_path / "upload.nii.gz").write_bytes(b"label")
    with pytest.raises(ImageNotFoundException):
        local.save_label("three", str(tmp_path / "upload.nii.gz"), "final", {})


def test_a_copy_that_fails_leaves_the_old_label(tmp_path, folder, local, monkeypatch):
    label = tmp_path / "upload.nii.gz"
    label.write_bytes(b"old")
    local.save_label("one", str(label), "final", {})

    def full(source: str, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError("no space left on device")

    monkeypatch.setattr(local_store.shutil, "copyfile", full)
    with pytest.raises(OSError, match="no space left"):
        local.save_label("one", str(label), "final", {})
    assert Path(local.get_label_uri("one", "final")).read_bytes() == b"old"
    assert not list(folder.rglob(".unfinished-*"))


def test_the_index_is_replaced_and_never_rewritten(folder, local, monkeypatch):
    index = folder / "datastore_v2.json"
    before = index.read_bytes()

    def killed(source: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        local.update_image_info("one", {"note": "x"})
    assert index.read_bytes() == before


def test_readers_never_see_an_empty_index_while_the_folder_is_compared(folder, local):
    seen: list[list[str]] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.append([local.get_image_uri("one"), *local.list_images(), str(local.status())])

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(30):
        (folder / f"new{number}.nii").write_bytes(b"n")
        local.refresh()
    stop.set()
    reader.join()
    assert seen and all(entry[0] == str(folder / "one.nii.gz") and entry[1:3] == ["one", "two"] for entry in seen)


def test_changes_of_two_stores_on_one_folder_are_both_kept(tmp_path, folder, local):
    (tmp_path / "upload.nii.gz").write_bytes(b"label")
    other = SegVolLocalStore(str(folder))

    def save(tag_and_store: tuple[str, SegVolLocalStore]) -> None:
        tag, store = tag_and_store
        store.save_label("one", str(tmp_path / "upload.nii.gz"), tag, {})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(save, [(f"tag{n}", local if n % 2 else other) for n in range(12)]))
    index = json.loads((folder / "datastore_v2.json").read_text())
    assert sorted(index["objects"]["one"]["labels"]) == sorted(f"tag{n}" for n in range(12))


def test_a_watching_store_sees_what_another_one_saved(tmp_path, folder):
    watching = SegVolLocalStore(str(folder), auto_reload=True)
    try:
        (tmp_path / "upload.nii.gz").write_bytes(b"label")
        SegVolLocalStore(str(folder)).save_label("two", str(tmp_path / "upload.nii.gz"), "final", {"by": "other"})
        deadline = time.monotonic() + 20
        while not watching.get_labeled_images() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert watching.get_label_info("two", "final")["by"] == "other"
    finally:
        stop_watching(watching)


def test_what_a_killed_writer_left_is_removed_after_an_hour(folder):
    with pytest.raises(KeyboardInterrupt), whole_file(folder / "a.nii") as young:
        kept = [young.with_name(young.name + "file"), young.with_name(young.name + "folder")]
        kept[0].write_bytes(b"half")
        kept[1].mkdir()
        raise KeyboardInterrupt
    remove_abandoned(folder)
    assert all(path.exists() for path in kept)
    for path in kept:
        os.utime(path, (0, 0))
    remove_abandoned(folder)
    assert not any(path.exists() for path in kept)


def test_a_start_removes_what_a_killed_writer_left_at_once_and_no_running_download(folder):
    left, running = folder / "labels" / "final" / ".unfinished-file", folder / ".unfinished-folder"
    left.parent.mkdir(parents=True, exist_ok=True)
    left.write_bytes(b"half")
    running.mkdir()
    SegVolLocalStore(str(folder))
    assert not left.exists() and running.exists()
