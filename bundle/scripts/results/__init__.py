"""Results: logits become masks and a label map (``resolve``), files (``save``, ``files``), a picture (``preview``)."""

from .resolve import ResolveTargetsd
from .save import SaveResultd

__all__ = ["ResolveTargetsd", "SaveResultd"]
