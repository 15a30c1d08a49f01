"""What a SIGKILL in the middle of saving leaves of the data store: nothing may be lost, half written or forgotten.

Every saved label carries a number. Each writer has a tag of its own, so that of an image and a tag the file must hold a
number between the last one that the server acknowledged and the last one that was sent.
"""

import gzip
import itertools
import json
import threading
import time
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import nibabel as nib
import numpy as np
import requests
from label_server import Server

WRITERS = 4
SAVED = "saved"
SAVING_S = 5.0
IDLE_S = 2.0  # after which the server has deleted what it sent
INDEX = "datastore_v2.json"
OWN_FILES = (INDEX, ".lock")  # what the data store keeps beside images and labels

Shape = tuple[int, ...]
Place = tuple[str, str]  # image and tag of a label


@dataclass
class Saved:
    """Numbers of the labels, by place: the last that was sent, and the last that the server acknowledged."""

    sent: dict[Place, int] = field(default_factory=dict)
    acknowledged: dict[Place, int] = field(default_factory=dict)
    answers: list[str] = field(default_factory=list)

    @property
    def open(self) -> int:
        """Labels that were sent last to their place and not acknowledged."""
        return sum(number > self.acknowledged.get(place, 0) for place, number in self.sent.items())


def kill_while_saving(server: Server, shapes: Mapping[str, Shape], kills: int) -> tuple[dict[str, str], list[str]]:
    """Save labels from several threads, kill the server meanwhile, start it again and look.

    Args:
        server: running; runs again afterwards.
        shapes: voxels of every image.
        kills: how often.

    Returns:
        Rows of a table, and one sentence for every fault.
    """
    time.sleep(IDLE_S)
    faults = [f"after the load a temporary file stayed: {path.name}" for path in _temporary(server)]
    saved, still_open, torn, readable = Saved(), 0, set[Path](), 0
    for _ in range(kills):
        _save_and_kill(server, shapes, saved)
        still_open += saved.open
        torn |= set(server.studies.rglob(".unfinished-*"))
        faults += [f"before the restart: {fault}" for fault in _lost(server, shapes, saved)[0]]
        server.start()
        lost, readable = _lost(server, shapes, saved)
        faults += [f"after the restart: {fault}" for fault in [*lost, *_stayed(server)]]
    faults += [f"a label was not saved: {answer}" for answer in saved.answers if answer != SAVED]
    return {
        "kills while labels were saved": f"{kills}, {WRITERS} writers",
        "labels acknowledged": f"{saved.answers.count(SAVED)}, to {len(saved.acknowledged)} places",
        "labels under way at the kills": str(still_open),
        "unfinished files that the kills left": str(len(torn)),
        "labels listed and readable at the end": str(readable),
    }, list(dict.fromkeys(faults))


def _save_and_kill(server: Server, shapes: Mapping[str, Shape], saved: Saved) -> None:
    first, killed = max(saved.sent.values(), default=0) + 1, threading.Event()
    with ThreadPoolExecutor(WRITERS) as pool:
        jobs = [pool.submit(_save, server, shapes, (f"writer{n}", first), saved, killed) for n in range(WRITERS)]
        time.sleep(SAVING_S)
        killed.set()
        server.kill()
    for job in jobs:
        job.result()


def _save(
    server: Server, shapes: Mapping[str, Shape], writer: tuple[str, int], saved: Saved, killed: threading.Event
) -> None:
    """Save labels, numbered from the writer's first on, image after image, until the server is gone."""
    session, (tag, first) = requests.Session(), writer
    for number, image in zip(itertools.count(first), itertools.cycle(shapes), strict=False):
        file = {"label": ("label.nii.gz", _numbered(number, shapes[image]))}
        saved.sent[image, tag] = number
        try:
            query = {"image": image, "tag": tag}
            reply = session.put(f"{server.url}/datastore/label", params=query, files=file, timeout=60)
        except requests.RequestException as error:
            saved.answers += [] if killed.is_set() else [type(error).__name__]
            return
        if reply.ok:
            saved.acknowledged[image, tag] = number
        saved.answers.append(SAVED if reply.ok else f"{reply.status_code} {reply.text}")


def _numbered(number: int, shape: Shape) -> bytes:
    """A label whose first voxels are a number and whose others are noise, so that it is not written in a moment."""
    voxels = np.random.default_rng(number).integers(0, 4, shape, dtype=np.uint8)
    voxels.reshape(-1)[:4] = np.frombuffer(number.to_bytes(4, "big"), np.uint8)
    return gzip.compress(nib.Nifti1Image(voxels, np.eye(4)).to_bytes(), 1)


def _lost(server: Server, shapes: Mapping[str, Shape], saved: Saved) -> tuple[list[str], int]:
    """What is wrong with the data store, and how many of its labels are not."""
    try:
        images, labels = _listed(server)
    except ValueError as error:
        return [f"{INDEX} cannot be read: {error}"], 0
    faults = [f"image {image} is not listed" for image in sorted(set(shapes) - set(images))]
    faults += [f"label {place} is not listed" for place in sorted(set(saved.acknowledged) - set(labels))]
    wrong = [_wrong(path, place, shapes[place[0]], saved) for place, path in labels.items()]
    return [*faults, *filter(None, wrong)], wrong.count("")


def _listed(server: Server) -> tuple[dict[str, Path], dict[Place, Path]]:
    """Files of images and labels, as the index has them."""
    objects = json.loads((server.studies / INDEX).read_text())["objects"]
    images = {image: server.studies / f"{image}{entry['image']['ext']}" for image, entry in objects.items()}
    labels = {
        (image, tag): server.studies / "labels" / tag / f"{image}{label['ext']}"
        for image, entry in objects.items()
        for tag, label in entry["labels"].items()
    }
    return images, labels


def _stayed(server: Server) -> list[str]:
    """One sentence for every file that is neither listed nor the data store's own."""
    images, labels = _listed(server)
    expected = {*images.values(), *labels.values(), *(server.studies / name for name in OWN_FILES)}
    there = {path for path in server.studies.rglob("*") if path.is_file()} | _temporary(server)
    return [f"a file stayed: {path.name}" for path in sorted(there - expected)]


def _temporary(server: Server) -> set[Path]:
    """Temporary files, without the settings of its log that MONAI Label writes at every start."""
    files = {path for path in server.scratch.rglob("*") if path.is_file()}
    return files - set(server.scratch.glob("tmp*.json"))


def _wrong(path: Path, place: Place, shape: Shape, saved: Saved) -> str:
    """What is wrong with a listed label; empty where nothing is."""
    try:
        voxels = np.asarray(nib.load(path).dataobj)
    except (OSError, EOFError, ValueError, zlib.error, nib.filebasedimages.ImageFileError) as error:
        return f"label {place} cannot be read: {error}"
    if voxels.shape != shape:
        return f"label {place} has the shape {voxels.shape}; it must be {shape}"
    number = int.from_bytes(voxels.astype(np.uint8).reshape(-1)[:4].tobytes(), "big")
    first, last = saved.acknowledged.get(place, 1), saved.sent.get(place, 0)
    return "" if first <= number <= last else f"label {place} is number {number}; it must be {first} to {last}"
