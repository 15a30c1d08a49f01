"""The MONAI Label app: SegVol by points, box and text for OHIF, Slicer and REST clients.

conf (strings)   size small|base, bundle, checkpoint, tokenizer, device, cache_mib, defaults, models
one Engine       network and memory, shared by
three tasks      segvol (deepgrow), segvol_classes (vista3d), segvol_text (segmentation)
one trainer      segvol, whose weights the engine takes over where they score better
one strategy     segvol_uncertainty, by the scores of the scoring method of that name
"""

import logging
import os
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from lib import uncertainty
from lib.batch import OneDeviceBatch
from lib.bundle import MODES, Bundle
from lib.datastore import SegVolDicomStore, SegVolLocalStore
from lib.engine import Engine
from lib.history import History
from lib.infers import SegVolInfer
from lib.memory import Memory
from lib.pacs import open_client
from lib.parent import end_with_server
from lib.requests import BOX_LABEL, TEXT_LABEL, ModelSpec
from lib.saving import Saving, archive
from lib.scoring import DicePerLabel
from lib.settings import read_cache, read_defaults, read_device, read_models
from lib.training import SegVolTrain
from lib.weights import WeightsFolder
from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask
from monailabel.tasks.activelearning.first import First
from monailabel.tasks.activelearning.random import Random

logger = logging.getLogger(__name__)

HOUR_S = 3600
STOPPING_S = 30
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
        end_with_server()
        given = {key: str(value) for key, value in conf.items()}
        device = read_device(given)
        self.bundle = Bundle(
            Path(given.get("bundle", Path(app_dir).parent / "bundle")).resolve(),
            given.get("size", "small"),
            device,
            given.get("checkpoint"),
            given.get("tokenizer"),
        )
        self.own = WeightsFolder(read_models(given, app_dir), self.bundle.size, self.bundle.weights_file)
        self.own.sweep()
        self.engine = Engine(self.bundle, Memory(read_cache(given)), device, self.own)
        self.saving = Saving(self.bundle, self.engine)
        self.history = History()
        self._ahead = ThreadPoolExecutor(1, "ahead")
        self.defaults = read_defaults(given, self.bundle)
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
        return {name: SegVolInfer(self.engine, self.history, spec, name) for name, spec in specs.items()}

    def init_trainers(self) -> dict[str, TrainTask]:
        """Fine-tuning on the finished labels."""
        return {"segvol": SegVolTrain(self.bundle, self.own, str(self.engine.device))}

    def init_strategies(self) -> dict[str, Strategy]:
        """The stock ones, and the least certain image first."""
        return {"random": Random(), "first": First(), uncertainty.NAME: uncertainty.LeastCertain()}

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """Dice of final labels with what was drawn, and how certain the model is of images without a label."""
        return {"dice": DicePerLabel(), uncertainty.NAME: uncertainty.Uncertainty(self.engine, self.defaults)}

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
            saved = self.saving.save(image, result, store)
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
            self._ahead.submit(_quietly, self.engine.zoom_out, Path(sample["path"]))
        return sample

    def dicom_segmentation(self, request: Mapping[str, Any]) -> Path:
        """A request's answer as a DICOM SEG, in a temporary file that the caller deletes.

        Raises:
            HTTPException: 400 and one sentence, where the images are no DICOM series.
            MONAILabelException: where nothing was drawn.
        """
        store = archive(self.datastore())
        return self.saving.write_dicom(request["image"], self.infer(request), store)

    def check_training(self, model: str | None, params: Mapping[str, Any]) -> None:
        """Refuse a training that cannot be, before anything is started for it.

        Args:
            model: the trainer, None for all, whose options then lie under their names.
            params: the request's options.

        Raises:
            ValueError: one sentence.
        """
        flat = {key: value for key, value in params.items() if model is not None or key not in self._trainers}
        for name in self._trainers if model is None else [model]:
            named = params.get(name, {}) if model is None else {}
            if not isinstance(named, dict):
                raise ValueError(f"{name} must be an object with the settings of that trainer")
            self._trainers[name].check({**named, **flat}, self.datastore())

    def sweep_training(self) -> None:
        """Remove what a stopped training left."""
        self.own.sweep(STOPPING_S)

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
            self.saving.segments_for,
            self.saving.algorithm,
            cache_path=settings.MONAI_LABEL_DICOMWEB_CACHE_PATH.strip() or None,
            fetch_by_frame=settings.MONAI_LABEL_DICOMWEB_FETCH_BY_FRAME,
            convert_to_nifti=settings.MONAI_LABEL_DICOMWEB_CONVERT_TO_NIFTI,
        )

    def cleanup_sessions(self) -> None:
        """Remove expired sessions, and those that a killed server left half made, which the stock method trips over."""
        if self._sessions is None:
            return
        remove_half_made(Path(self._sessions.store_path))
        with suppress(AttributeError):  # one is being made right now; the next turn comes in five minutes
            super().cleanup_sessions()

    def _download_dcmqi_tools(self) -> None:
        """Nothing is downloaded: DICOM SEG is written without dcmqi."""


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
