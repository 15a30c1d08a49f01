"""What only the app can say: does this image exist, this session, this model, this device?

Asked in the worker thread, before the stock route, which would answer an unknown name with a crash, or start a second
copy of the app for it.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.others.generic import device_map

from .guard import Asked
from .refusals import Refusal
from .training import check_training

UID = re.compile(r"[0-9.]{1,64}")
DEVICE = re.compile(r"|cpu|cuda(:\d+)?")
TASKS = {"models": "model", "trainers": "trainer", "scoring": "scoring method", "strategies": "strategy"}


def check_known(asked: Asked, uploads: frozenset[str], params: Mapping[str, Any]) -> None:
    """Look up what a request names.

    Args:
        asked: the request, its head checked.
        uploads: names of the fields in which files came.
        params: its options.

    Raises:
        Refusal: 400 for a device and for a training that cannot be, 404 for anything else that is not there.
    """
    for parameter, kind in _lookups(asked, uploads).items():
        if kind == "training":
            check_training(app_instance(), asked.values.get("model"), params)
        else:
            LOOKUPS[kind](app_instance(), asked.values.get(parameter, ""))
    for image in params.get("images", ()) if isinstance(params.get("images"), list) else ():
        _check_image(app_instance(), image)
    _check_device(params.get("device"))


def has_image(store: Datastore, image: str) -> bool:
    """Whether the store has an image; an archive is asked when it is opened, and then says so itself.

    Its list will not do: it is filtered by modality and hours old.
    """
    archive = isinstance(store, DICOMWebDatastore)
    return bool(UID.fullmatch(image)) if archive else bool(store.get_image_info(image))


def _lookups(asked: Asked, uploads: frozenset[str]) -> Mapping[str, str]:
    """What is to be looked up; an inference takes its image from a file or a session first."""
    known = asked.route.known
    if "session_id" not in known:
        return known
    if asked.values.get("session_id"):
        return {"session_id": "session"}
    return {} if "file" in uploads else {"image": "image"}


def _check_image(app: MONAILabelApp, image: str) -> None:
    if not has_image(app.datastore(), image):
        raise Refusal(404, "there is no such image in the data store")


def _check_session(app: MONAILabelApp, session: str) -> None:
    sessions = app.sessions()
    if sessions is None or not sessions.get_session(session, update_ts=False):
        raise Refusal(404, "there is no such session, or it has expired")


def _check_dataset(app: MONAILabelApp, _: str) -> None:
    if not app.datastore().datalist():
        raise Refusal(404, "there is no finished label yet, so there is nothing to download")


def _check_task(kind: str) -> Callable[[MONAILabelApp, str], None]:
    def check(app: MONAILabelApp, name: str) -> None:
        if name not in app.info()[kind]:
            raise Refusal(404, f"there is no {TASKS[kind]} named '{name}'")

    return check


LOOKUPS: Mapping[str, Callable[[MONAILabelApp, str], None]] = {
    "image": _check_image,
    "session": _check_session,
    "dataset": _check_dataset,
    **{kind: _check_task(kind) for kind in TASKS},
}


def _check_device(device: object) -> None:
    if isinstance(device, str) and not DEVICE.fullmatch(device) and device not in device_map():
        raise Refusal(400, "device must be cpu, cuda, cuda:N or a device that /info lists")
