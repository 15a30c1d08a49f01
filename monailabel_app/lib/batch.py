"""Batch inference on the one device that the engine has."""

from collections.abc import Callable, Mapping
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.batch_infer import BatchInferTask


class OneDeviceBatch(BatchInferTask):
    """Batch inference on the engine's device: the stock one asks for GPUs that may not be there."""

    def __call__(self, request: Mapping[str, Any], datastore: Datastore, infer: Callable[..., Any]) -> dict[str, Any]:
        """Draw every image of the data store that the request means."""
        single = {**request, "multi_gpu": False, "device": "cpu", "max_workers": 1}
        results: dict[str, Any] = super().__call__(single, datastore, infer)
        return results
