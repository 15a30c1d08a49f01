"""The MONAI Label app: SegVol by points, box and text for OHIF, Slicer and REST clients.

conf (strings)   size small|base, bundle, checkpoint, tokenizer, device, cache_mib, defaults
one Engine       network and memory, shared by
three tasks      segvol (deepgrow), segvol_classes (vista3d), segvol_text (segmentation)
"""

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from fastapi import HTTPException
from lib.bundle import MODES, Bundle
from lib.datastore import SegVolDicomStore, SegVolLocalStore
from lib.dicom_seg import Algorithm, Segment
from lib.engine import Engine
from lib.history import History
from lib.infers import SegVolInfer
from lib.memory import Memory
from lib.pacs import open_client
from lib.requests import BOX_LABEL, TEXT_LABEL, ModelSpec
from lib.scoring import DicePerLabel
from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.batch_infer import BatchInferTask
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod

logger = logging.getLogger(__name__)

DEFAULT_NAMES = "liver,spleen,left kidney,right kidney"
CACHE_MIB = "4096"
HOUR_S = 3600
IMAGE_SUFFIXES = (".nii.gz", ".nii", ".nrrd")


class SegVolApp(MONAILabelApp):
    """See the module.

    Args:
        app_dir: this folder.
        studies: a folder, or the URL of a DICOMweb server.
        conf: settings by name, all of them texts.

    Raises:
        ValueError: one line, for a setting that is not allowed.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        given = {key: str(value) for key, value in conf.items()}
        device = _device(given.get("device", "cuda:0" if torch.cuda.is_available() else "cpu"))
        self.bundle = Bundle(
            Path(given.get("bundle", Path(app_dir).parent / "bundle")).resolve(),
            given.get("size", "small"),
            device,
            given.get("checkpoint"),
            given.get("tokenizer"),
        )
        self.engine = Engine(self.bundle, Memory(_mebibytes(given.get("cache_mib", CACHE_MIB))), device)
        self.history = History()
        self._ahead = ThreadPoolExecutor(1, "ahead")
        self.defaults = tuple(_names(given.get("defaults", DEFAULT_NAMES), self.bundle))
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=given,
            name=f"SegVol ({self.bundle.size})",
            description="Segment a CT from points, a box, text or any mix of them; research only",
            version=self.bundle.version,
        )
        self._auto_update_scoring = False  # a second process at every start and sample; scores come when asked for

    def init_infers(self) -> dict[str, InferTask]:
        """One task for each panel of the viewers."""
        numbered = {name: value for value, name in enumerate(self.bundle.names, start=1)}
        helpers = {BOX_LABEL: len(numbered) + 1, TEXT_LABEL: len(numbered) + 2}
        specs = {
            "segvol": ModelSpec("deepgrow", {}, (), MODES),
            "segvol_classes": ModelSpec("vista3d", numbered | helpers, self.defaults, MODES),
            "segvol_text": ModelSpec("segmentation", numbered, self.defaults, MODES),
        }
        weights = self.bundle.weights_file
        return {name: SegVolInfer(self.engine, self.history, spec, name, weights) for name, spec in specs.items()}

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """Dice of final labels with what was drawn."""
        return {"dice": DicePerLabel()}

    def init_batch_infer(self) -> Callable[..., Any]:
        """Batch inference on the one device of the engine."""
        return OneDeviceBatch()

    def infer(self, request: Mapping[str, Any], datastore: Datastore | None = None) -> dict[str, Any]:
        """Answer a request, and save what was drawn beside the image where the client asked for it.

        Raises:
            HTTPException: 400 and one sentence, for what the user can mend.
        """
        store, image = datastore or self.datastore(), request.get("image")
        listed = isinstance(image, str) and not os.path.isabs(image)  # an upload is an absolute path
        path = store.get_image_uri(image) if listed else image  # the stock method would take a path of that name first
        if not path:
            raise HTTPException(404, "there is no image of that id")
        result: dict[str, Any] = super().infer({**request, "image": path}, store)
        save_to_study = result["params"].pop("save_to_study", False)
        if listed and save_to_study:
            saved = self._save(image, result, store)
            result["params"]["messages"] = [*result["params"]["messages"], saved]
        if listed and request.get("save_label"):
            tag = request.get("label_tag") or DefaultLabelTag.ORIGINAL
            info = {"model": request["model"], "params": result["params"]}
            result["label"] = store.save_label(image, result["file"], tag, info)
        return result

    def next_sample(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The next image to label; it is prepared and encoded while the client still loads it."""
        sample: dict[str, Any] = super().next_sample(request)
        if sample.get("path"):
            self._ahead.submit(_quietly, self.engine.encode_ahead, Path(sample["path"]))
        return sample

    def dicom_segmentation(self, request: Mapping[str, Any]) -> Path:
        """A request's answer as a DICOM SEG, in a temporary file that the caller deletes.

        Raises:
            HTTPException: 400 and one sentence, where the images are no DICOM series.
            MONAILabelException: where nothing was drawn.
        """
        store = self.datastore()
        if not isinstance(store, SegVolDicomStore):
            raise HTTPException(400, "output dicom_seg needs a DICOMweb server as studies; this is a folder of files")
        result = self.infer(request)
        drawn = Path(result["file"])
        handle, output = tempfile.mkstemp(suffix=".dcm")
        os.close(handle)
        try:
            info = self._label_info(result["params"])
            return store.write_segmentation(request["image"], drawn, info, Path(output)).path
        except BaseException:
            Path(output).unlink()
            raise
        finally:
            drawn.unlink(missing_ok=True)

    def _save(self, image: str, result: Mapping[str, Any], store: Datastore) -> str:
        """Save a drawn label map as final; nothing is saved where nothing was drawn."""
        if not result["params"]["label_names"]:
            return "nothing was drawn, so that nothing was saved"
        info = {"label_info": self._label_info(result["params"])}
        store.save_label(image, result["file"], DefaultLabelTag.FINAL, info)
        return "saved to the study"

    def _label_info(self, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        """What the DICOM SEG says of each label that was drawn."""
        return [{"name": name, "idx": value} for name, value in params["label_names"].items()]

    def init_datastore(self) -> Datastore:
        """A folder, whose files are whole at any time, or an image archive behind DICOMweb."""
        if self.studies.startswith(("http://", "https://")):
            return super().init_datastore()
        return SegVolLocalStore(
            self.studies,
            extensions=[f"*{suffix}" for suffix in IMAGE_SUFFIXES],
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD,
            read_only=settings.MONAI_LABEL_DATASTORE_READ_ONLY,
        )

    def _init_dicomweb_datastore(self) -> Datastore:
        """The archive of this URL, with our own way to fetch and to save."""
        return SegVolDicomStore(
            open_client(self.studies),
            settings.MONAI_LABEL_DICOMWEB_SEARCH_FILTER,
            self._segments_for,
            self._algorithm,
            cache_path=settings.MONAI_LABEL_DICOMWEB_CACHE_PATH.strip() or None,
            fetch_by_frame=settings.MONAI_LABEL_DICOMWEB_FETCH_BY_FRAME,
            convert_to_nifti=settings.MONAI_LABEL_DICOMWEB_CONVERT_TO_NIFTI,
        )

    def _segments_for(self, label_info: Sequence[Mapping[str, Any]], values: Sequence[int]) -> list[Segment]:
        """A segment for each value: named by ``label_info``, by its ``idx`` or else in its order, coded by us."""
        numbered = {info["idx"]: info for info in label_info if isinstance(info.get("idx"), int)}
        ordered = dict(zip(sorted(values), label_info, strict=False)) if not numbered else {}
        return [self._segment(value, {**numbered, **ordered}.get(value, {})) for value in values]

    def _segment(self, value: int, info: Mapping[str, Any]) -> Segment:
        name = str(info.get("name") or f"target {value}")
        structure = self.bundle.vocabulary.find(name)
        if structure is None:
            return Segment(value, name, None, self.bundle.vocabulary.color(name))
        code = None if structure.snomed is None else (structure.snomed["code"], structure.snomed["meaning"])
        return Segment(value, structure.name, code, structure.color, structure.side)

    def _algorithm(self) -> Algorithm:
        return Algorithm("SegVol", self.bundle.version, self.engine.weights()["sha256"])

    def cleanup_sessions(self) -> None:
        """Remove expired sessions, and those that a killed server left half made, which the stock method trips over."""
        if self._sessions is None:
            return
        remove_half_made(Path(self._sessions.store_path))
        with suppress(AttributeError):  # one is being made right now; the next turn comes in five minutes
            super().cleanup_sessions()

    def _download_dcmqi_tools(self) -> None:
        """Nothing is downloaded: DICOM SEG is written without dcmqi."""


class OneDeviceBatch(BatchInferTask):
    """Batch inference on the engine's device: the stock one asks for GPUs that may not be there."""

    def __call__(self, request: Mapping[str, Any], datastore: Datastore, infer: Callable[..., Any]) -> dict[str, Any]:
        """Draw every image of the data store that the request means."""
        single = {**request, "multi_gpu": False, "device": "cpu", "max_workers": 1}
        results: dict[str, Any] = super().__call__(single, datastore, infer)
        return results


def _quietly(call: Callable[..., Any], *args: Any) -> None:
    """Work ahead: whoever asks for the image in earnest is told what is wrong with it."""
    try:
        call(*args)
    except Exception:  # noqa: BLE001
        logger.warning("an image could not be prepared ahead", exc_info=True)


def remove_half_made(sessions: Path) -> None:
    """Remove session folders without their meta file that nobody has touched for an hour."""
    for folder in sessions.iterdir() if sessions.is_dir() else ():
        if folder.is_dir() and not (folder / "meta.info").is_file() and time.time() - folder.stat().st_mtime > HOUR_S:
            shutil.rmtree(folder, ignore_errors=True)


def _device(text: str) -> str:
    """A device of this machine."""
    cards = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if text not in ("cpu", *cards, *(["cuda"] if cards else [])):
        raise ValueError(f"device is {text!r}; this machine has {', '.join(['cpu', *cards])}")
    return text


def _mebibytes(text: str) -> int:
    if not text.isdigit():
        raise ValueError(f"cache_mib is {text!r}; it must be a whole number of MiB, 0 or more")
    return int(text) << 20


def _names(text: str, bundle: Bundle) -> list[str]:
    """Names of the vocabulary in a list with commas."""
    names = []
    for asked in filter(None, (part.strip() for part in text.split(","))):
        structure = bundle.vocabulary.find(asked)
        if structure is None or structure.name not in bundle.names:
            near = ", ".join(bundle.vocabulary.nearest(asked, names=bundle.names))
            raise ValueError(f"defaults: {asked!r} is unknown to these weights; nearest: {near}")
        names.append(structure.name)
    return names
