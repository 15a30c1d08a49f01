"""The folder of images and labels, without the moments in which the stock one is half written.

The stock store copies images and labels in place, rewrites its index in place, and empties the index in memory while
it compares it with the folder: a kill leaves half a file, and a request that falls into a comparison finds no image.
Here every file is written whole or not at all, and the index is only ever replaced by a finished one.
"""

import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore, LocalDatastoreModel
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.exception import ImageNotFoundException, MONAILabelError, MONAILabelException

from lib.whole_file import remove_abandoned, whole_file

logger = logging.getLogger(__name__)
_LONGEST_NAME = 200
_SUFFIXES = (".nii.gz", ".nii", ".nrrd")


@dataclass(frozen=True)
class FinalLabel:
    """A finished label with its image, as both were when they were asked for.

    Attributes:
        image_id: id of the image.
        image: its file.
        label: the label map.
        info: what was saved with the label.
    """

    image_id: str
    image: Path
    label: Path
    info: dict[str, Any]


class SegVolLocalStore(LocalDatastore):
    """MONAI Label's folder of images and labels; takes the arguments of the stock class."""

    def __init__(self, datastore_path: str, *args: Any, **kwargs: Any) -> None:
        self._guard = threading.RLock()
        os.makedirs(datastore_path, exist_ok=True)
        self._between_processes = FileLock(os.path.join(datastore_path, ".lock"))
        super().__init__(datastore_path, *args, **kwargs)
        labels = Path(self._datastore.label_path(None))
        with self._between_processes:
            for folder in {Path(datastore_path), Path(self._datastore.image_path()), *labels.iterdir()}:
                remove_abandoned(folder, files_at_once=True)
        if hasattr(self, "_handler"):
            self._handler.on_moved = self._on_moved

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Copy an image into the folder.

        Args:
            image_id: its name there, without the suffix; empty for that of the file.
            image_filename: the file to copy.
            image_info: what to remember about it.
        """
        own_id, suffix = self._to_id(os.path.basename(image_filename))
        image_id = plain_name(image_id or own_id, "image")
        name = plain_name(self._filename(image_id, suffix), "image")
        with self._changing():
            _copy(image_filename, Path(self._datastore.image_path()) / name)
            info = {**(image_info or {}), "ts": int(time.time()), "name": name}
            added = ImageLabelModel(image=DataModel(info=info, ext=suffix))
            self._replace_objects({**self._datastore.objects, image_id: added})
        return image_id

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Copy a label into the folder of its tag.

        Raises:
            ImageNotFoundException: there is no image of this id.
        """
        tag = plain_name(label_tag, "tag")
        suffix = self._to_id(os.path.basename(label_filename))[1]
        name = plain_name(self._filename(plain_name(image_id, "image"), suffix), "label")
        with self._changing():
            entry = self._datastore.objects.get(image_id)
            if entry is None:
                raise ImageNotFoundException(f"there is no image '{image_id}' in the data store")
            folder = Path(self._datastore.label_path(tag))
            folder.mkdir(parents=True, exist_ok=True)
            _copy(label_filename, folder / name)
            info = {**(label_info or {}), "ts": int(time.time()), "name": name}
            labels = {**entry.labels, tag: DataModel(info=info, ext=suffix)}
            changed = entry.model_copy(update={"labels": labels})
            self._replace_objects({**self._datastore.objects, image_id: changed})
        return image_id

    def final_labels(self, folder: Path) -> list[FinalLabel]:
        """Every finished label whose files are there, by the ids of their images.

        Args:
            folder: gets the files under numbers, so that no name tells an image and no later upload changes one.
        """
        self.reread()
        ids = sorted(self._datastore.filter_by_tag(DefaultLabelTag.FINAL))
        found = (self._final_label(image_id, folder, number) for number, image_id in enumerate(ids, 1))
        return [label for label in found if label is not None]

    def _final_label(self, image_id: str, folder: Path, number: int) -> FinalLabel | None:
        """One of them, with names and voxels of the same upload; None where its files are gone."""
        with self._guard, self._between_processes:
            self.reread()
            image = Path(SegVolLocalStore.get_image_uri(self, image_id))
            label = Path(SegVolLocalStore.get_label_uri(self, image_id, DefaultLabelTag.FINAL))
            if not image.is_file() or not label.is_file():
                return None
            info = dict(self._datastore.objects[image_id].labels[DefaultLabelTag.FINAL].info)
            image = _keep(image, folder / f"image_{number:04d}")
            return FinalLabel(image_id, image, _keep(label, folder / f"label_{number:04d}"), info)

    def reread(self) -> None:
        """Take in what another process wrote into the index."""
        self._init_from_datastore_file()

    @contextmanager
    def _changing(self) -> Iterator[None]:
        """One change at a time over all threads and processes; it starts from the newest index and writes its own."""
        with self._guard, self._between_processes:
            self._init_from_datastore_file()
            yield
            self._update_datastore_file()

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Remember more about an image."""
        with self._changing():
            super().update_image_info(image_id, info)

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Remember more about a label."""
        with self._changing():
            super().update_label_info(label_id, label_tag, info)

    def _reconcile_datastore(self) -> None:
        with self._guard, self._between_processes:
            self._init_from_datastore_file()
            found = self._in_folder()
            if found != self._datastore.objects:
                self._replace_objects(found)
                self._update_datastore_file()

    def _in_folder(self) -> dict[str, ImageLabelModel]:
        """The index as the files have it: what is known and there, and what is there and new."""
        images = self._files(self._datastore.image_path())
        tags = [path.name for path in Path(self._datastore.label_path(None)).iterdir() if path.is_dir()]
        labels = {tag: self._files(self._datastore.label_path(tag)) for tag in tags}
        known = self._datastore.objects
        found = {}
        for image_id in [*known, *(image_id for image_id in images if image_id not in known)]:
            entry = known.get(image_id) or ImageLabelModel(image=images[image_id])
            if (Path(self._datastore.image_path()) / self._filename(image_id, entry.image.ext)).exists():
                kept = {tag: label for tag, label in entry.labels.items() if self._label_exists(image_id, tag, label)}
                new = {tag: files[image_id] for tag, files in labels.items() if image_id in files and tag not in kept}
                found[image_id] = entry.model_copy(update={"labels": {**kept, **new}})
        return found

    def _files(self, folder: str) -> dict[str, DataModel]:
        """Images or labels in a folder, by id."""
        named = ((self._to_id(name), name) for name in sorted(self._list_files(folder, self._extensions)))
        now = int(time.time())
        return {key: DataModel(info={"ts": now, "name": name}, ext=suffix) for (key, suffix), name in named}

    def _label_exists(self, image_id: str, tag: str, label: DataModel) -> bool:
        return (Path(self._datastore.label_path(tag)) / self._filename(image_id, label.ext)).exists()

    def _init_from_datastore_file(self, throw_exception: bool = False) -> None:
        index = Path(self._datastore_config_path)
        with self._guard, self._between_processes:
            stamp = index.stat().st_mtime_ns if index.exists() else self._config_ts
            if stamp == self._config_ts:
                return
            try:
                read = LocalDatastoreModel.model_validate_json(index.read_text(encoding="utf-8"))
            except ValueError as error:
                if throw_exception:
                    raise
                logger.error("the index of the data store cannot be read: %s", type(error).__name__)
                return
            read.base_path = self._datastore_path
            self._datastore, self._config_ts = read, stamp

    def _update_datastore_file(self, lock: bool = True) -> None:
        index = Path(self._datastore_config_path)
        with self._guard, self._between_processes:
            content = json.dumps(self._datastore.model_dump(exclude={"base_path"}), indent=2, default=str)
            with whole_file(index) as unfinished:
                unfinished.write_text(content, encoding="utf-8")
            self._config_ts = index.stat().st_mtime_ns

    def _replace_objects(self, objects: Mapping[str, ImageLabelModel]) -> None:
        self._datastore = self._datastore.model_copy(update={"objects": dict(objects)})

    def _on_moved(self, event: Any) -> None:
        """A file that took its name whole is a new one, also for another process that watches the folder."""
        if event.dest_path == self._datastore_config_path:
            self._init_from_datastore_file()
        else:
            self.refresh()


def plain_name(name: str, what: str) -> str:
    """The name, if it can name a file in a folder and nothing else.

    Raises:
        MONAILabelException: it could lead out of the folder, or is hidden or too long.
    """
    leads_out = any(sign in name for sign in ("/", "\\", "\0")) or name.startswith(".")
    if not name or leads_out or len(name.encode("utf-8", "replace")) > _LONGEST_NAME:
        allowed = f"1 to {_LONGEST_NAME} bytes, no path and no dot in front"
        raise MONAILabelException(MONAILabelError.INVALID_INPUT, f"{what} must be a plain name: {allowed}")
    return name


def _keep(source: Path, target: Path) -> Path:
    """A second name, with the suffix, for what a file holds now: uploads replace files and never write into them."""
    suffix = next((suffix for suffix in _SUFFIXES if source.name.lower().endswith(suffix)), "")
    kept = target.with_name(target.name + suffix)
    try:
        os.link(source, kept)
    except OSError:  # on another file system, or on one without links
        shutil.copyfile(source, kept)
    return kept


def _copy(source: str, target: Path) -> None:
    with whole_file(target) as unfinished:
        shutil.copyfile(source, unfinished)
