"""What was drawn goes to the data store: label maps with their names, and DICOM SEG with the vocabulary's codes."""

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import HTTPException
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag

from .bundle import Bundle
from .datastore import SegVolDicomStore
from .dicom_seg import Algorithm, Segment
from .engine import Engine


class Saving:
    """Writes label maps as the store keeps them.

    Args:
        bundle: its vocabulary codes the segments.
        engine: knows which weights draw.
    """

    def __init__(self, bundle: Bundle, engine: Engine) -> None:
        self._bundle = bundle
        self._engine = engine

    def save(self, image: str, result: Mapping[str, Any], store: Datastore) -> str:
        """Save a drawn label map as final; nothing is saved where nothing was drawn.

        Returns:
            What to tell the user.
        """
        if not result["params"]["label_names"]:
            return "nothing was drawn, so that nothing was saved"
        info = {"label_info": label_info(result["params"])}
        store.save_label(image, result["file"], DefaultLabelTag.FINAL, info)
        return "saved to the study"

    def write_dicom(self, image: str, result: Mapping[str, Any], store: Datastore) -> Path:
        """A drawn label map as a DICOM SEG in a temporary file that the caller deletes; the drawn file is removed.

        Raises:
            MONAILabelException: where nothing was drawn.
        """
        series = archive(store)
        drawn = Path(result["file"])
        handle, output = tempfile.mkstemp(suffix=".dcm")
        os.close(handle)
        try:
            return series.write_segmentation(image, drawn, label_info(result["params"]), Path(output)).path
        except BaseException:
            Path(output).unlink()
            raise
        finally:
            drawn.unlink(missing_ok=True)

    def segments_for(self, named: Sequence[Mapping[str, Any]], values: Sequence[int]) -> list[Segment]:
        """A segment for each value: named by a label_info, by its ``idx`` or else in its order, coded by us."""
        numbered = {info["idx"]: info for info in named if isinstance(info.get("idx"), int)}
        ordered = dict(zip(sorted(values), named, strict=False)) if not numbered else {}
        return [self._segment(value, {**numbered, **ordered}.get(value, {})) for value in values]

    def _segment(self, value: int, info: Mapping[str, Any]) -> Segment:
        name = str(info.get("name") or f"target {value}")
        structure = self._bundle.vocabulary.find(name)
        if structure is None:
            return Segment(value, name, None, self._bundle.vocabulary.color(name))
        code = None if structure.snomed is None else (structure.snomed["code"], structure.snomed["meaning"])
        return Segment(value, structure.name, code, structure.color, structure.side)

    def algorithm(self) -> Algorithm:
        """What draws the masks now, as a DICOM SEG says it."""
        return Algorithm("SegVol", self._bundle.version, self._engine.weights()["sha256"])


def archive(store: Datastore) -> SegVolDicomStore:
    """The store, if it is an image archive.

    Raises:
        HTTPException: 400 and one sentence, where the images are no DICOM series.
    """
    if not isinstance(store, SegVolDicomStore):
        raise HTTPException(400, "output dicom_seg needs a DICOMweb server as studies; this is a folder of files")
    return store


def label_info(params: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the store keeps of each label that was drawn."""
    return [{"name": name, "idx": value} for name, value in params["label_names"].items()]
