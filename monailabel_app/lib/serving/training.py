"""Training over HTTP: what a request may ask is checked before a process is started for it, and a stop leaves nothing.

The stock route starts a second copy of the app with the request's JSON, and stops it by a kill of the whole tree.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Protocol, cast

import psutil
from fastapi import APIRouter, Depends
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.task import AsyncTask
from monailabel.utils.async_tasks.utils import tasks

from .refusals import Refusal

UNFINISHED = ("SUBMITTED", "RUNNING")

router = APIRouter()
Admin = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))]


class Trainable(Protocol):
    """The parts of the app that training needs."""

    def check_training(self, model: str | None, params: Mapping[str, Any]) -> None:
        """ValueError with one sentence, for a request that cannot be trained by; all trainers without a model."""
        ...

    def sweep_training(self) -> None:
        """Remove what a stopped training left."""
        ...


def check_training(app: object, model: str | None, params: Mapping[str, Any]) -> None:
    """Ask the app whether it can train by a request; the stock routes would queue a second training behind the first.

    Raises:
        Refusal: 400, or 429 while a training runs.
    """
    try:
        cast(Trainable, app).check_training(model, params)
    except ValueError as error:
        raise Refusal(400, str(error)) from None
    if any(task["status"] in UNFINISHED for task in tasks("train")):
        raise Refusal(429, "a training runs; wait for it, or stop it")


@router.delete("/train/", include_in_schema=False)
async def stop_training(user: Admin) -> Any:
    """Stop the training that runs, if one does, with all its processes, and remove its working folder."""
    try:
        task = AsyncTask.stop("train")
    except psutil.NoSuchProcess:  # it ended this moment
        task = None
    for waiting in tasks("train"):
        if waiting["status"] == "SUBMITTED":  # its process could not be started; it would be waited for for ever
            waiting["status"] = "STOPPED"
    cast(Trainable, app_instance()).sweep_training()
    return task
