"""Every address that this server knows, and what may be sent to it.

What is not in this table is not handed on, so that a route that a later MONAI Label adds is closed until someone has
looked at it. Three pools of threads keep kinds of work apart: nothing queues behind an inference, nor behind an image
archive that does not answer.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from .names import check_id, check_name, check_session, check_tag
from .refusals import Refusal

Check = Callable[[str, str], str]
Pool = Literal["inference", "proxy", "server"]
Body = Literal["none", "json", "form", "files", "dicom"]

IMAGES = (".nii.gz", ".nii", ".nrrd")
SESSION_FILES = (*IMAGES, ".zip", ".dcm")
SUM = re.compile(r"((SHA256|SHA512|MD5):)?[0-9a-fA-F]{32,128}")
UID = r"\d+(?:\.\d+)*"
FALSE = frozenset({"", "0", "false", "off", "no", "f", "n"})
WORDS = "series|instances|frames|metadata|rendered|thumbnail|bulkdata|bulk|pixeldata"
DICOM_WEB = rf"studies(?:/(?:{WORDS}|{UID}|[0-9A-Fa-f]{{8}}|\d+(?:,\d+)*))*"


def _check_sum(value: str, name: str) -> str:
    if not SUM.fullmatch(value):
        raise Refusal(400, f"{name} must be a hexadecimal digest, after SHA256:, SHA512: or MD5:")
    return value


def check_beside(value: str, name: str) -> str:
    """Training in the server's own process could not be stopped."""
    if value.lower() not in FALSE:
        raise Refusal(400, f"{name} is not taken: training runs beside the server, and GET /train/ tells how far it is")
    return value


def _optional(check: Check) -> Check:
    return lambda value, name: check(value, name) if value else value


@dataclass(frozen=True)
class Route:
    """One address, its methods, and what is checked before the stock server sees it.

    Args:
        methods: allowed methods.
        path: the whole decoded path; named groups are checked like queries.
        checks: a check for every query parameter or named group that the stock server uses as a name.
        body: what kind of body is taken; `files` are forms with uploads, and may be large.
        files: for every upload field, the suffixes that its file name may end in.
        pool: where it runs.
        switch: word of `SEGVOL_ALLOW` without which the route is closed.
        known: names to look up in the app before the stock server runs: {parameter: what it names}.
        public: answered without a token.
    """

    methods: frozenset[str]
    path: re.Pattern[str]
    checks: Mapping[str, Check] = field(default_factory=dict)
    body: Body = "none"
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    pool: Pool = "server"
    switch: str = ""
    known: Mapping[str, str] = field(default_factory=dict)
    public: bool = False


def _route(methods: str, path: str, **parts: object) -> Route:
    return Route(frozenset(methods.split()), re.compile(path), **parts)  # type: ignore[arg-type]


IMAGE = {"image": check_id}
LABEL = {"label": check_id, "tag": check_tag}
BESIDE = {"run_sync": check_beside}
TASK = {"body": "json", "pool": "inference"}

ROUTES: tuple[Route, ...] = (
    _route("GET", r"/(docs|openapi\.json|favicon\.ico)?", public=True),
    _route("GET HEAD", r"/static(/[\w@-][\w.@-]*)*", public=True),
    _route("GET", r"/ohif(/[\w@-][\w.@-]*)*/?"),
    _route("GET", r"/info/?"),
    _route("GET", r"/auth/?", public=True),
    _route("POST", r"/auth/token", body="form", public=True),
    _route("GET", r"/auth/token/valid"),
    _route(
        "POST",
        r"/infer/(?P<model>[^/]+)",
        checks={"model": check_name, "image": _optional(check_id), "session_id": _optional(check_session)},
        body="files",
        files={"file": IMAGES, "label": (*IMAGES, ".bin")},
        pool="inference",
        known={"image": "image", "session_id": "session"},
    ),
    _route("GET DELETE", r"/batch/infer"),
    _route("POST", r"/batch/infer/(?P<model>[^/]+)", checks={"model": check_name}, known={"model": "models"}, **TASK),
    _route("GET DELETE", r"/train/?"),
    _route("POST", r"/train/?", checks=BESIDE, known={"params": "training"}, **TASK),
    _route(
        "POST",
        r"/train/(?P<model>[^/]+)",
        checks={"model": check_name} | BESIDE,
        known={"model": "trainers", "params": "training"},
        **TASK,
    ),
    _route("GET DELETE", r"/scoring/?"),
    _route("POST", r"/scoring/?", **TASK),
    _route("POST", r"/scoring/(?P<method>[^/]+)", checks={"method": check_name}, known={"method": "scoring"}, **TASK),
    _route(
        "POST",
        r"/activelearning/(?P<strategy>[^/]+)",
        checks={"strategy": check_name},
        body="json",
        known={"strategy": "strategies"},
    ),
    _route("GET", r"/datastore/?"),
    _route("PUT", r"/datastore/?|/datastore/image", checks=IMAGE, body="files", files={"file": IMAGES}),
    _route("DELETE", r"/datastore/?|/datastore/image", checks={"id": check_id}, known={"id": "image"}),
    _route("GET HEAD", r"/datastore/image", checks=IMAGE | {"check_sum": _check_sum}, known={"image": "image"}),
    _route("GET", r"/datastore/image/info", checks=IMAGE, known={"image": "image"}),
    _route("PUT", r"/datastore/image/info", checks=IMAGE, body="form", known={"image": "image"}),
    _route(
        "PUT",
        r"/datastore/label",
        checks=IMAGE | {"tag": _optional(check_tag)},
        body="files",
        files={"label": (*IMAGES, ".bin")},
        known={"image": "image"},
    ),
    _route("DELETE", r"/datastore/label", checks={"id": check_id, "tag": check_tag}),
    _route("GET", r"/datastore/label", checks=LABEL),
    _route("HEAD", r"/datastore/label", checks=IMAGE | {"tag": check_tag}),
    _route("GET", r"/datastore/label/info", checks=LABEL),
    _route("PUT", r"/datastore/label/info|/datastore/updatelabelinfo", checks=LABEL, body="form"),
    _route("GET", r"/datastore/dataset", pool="inference", known={"dataset": "dataset"}),
    _route("PUT", r"/session/?", body="files", files={"files": SESSION_FILES}),
    _route("GET DELETE", r"/session/(?P<session_id>[^/]+)", checks={"session_id": check_session}),
    _route("GET", r"/model/(info/)?(?P<model>[^/]+)", checks={"model": check_name}),
    _route(
        "PUT",
        r"/model/(?P<model>[^/]+)",
        checks={"model": check_name},
        body="files",
        files={"file": (".pt", ".safetensors")},
        switch="weights",
    ),
    _route("DELETE", r"/model/(?P<model>[^/]+)", checks={"model": check_name}, switch="weights"),
    _route("GET", r"/logs(/gpu)?/?", switch="logs"),
    _route("POST", r"/reload", switch="reload"),
    _route("GET", rf"/proxy/dicom/(wado|qido)/{DICOM_WEB}", pool="proxy"),
    _route("POST", rf"/proxy/dicom/(wado|stow)/studies(/{UID})?", body="dicom", pool="proxy", switch="stow"),
)

CLOSED: Mapping[re.Pattern[str], str] = MappingProxyType(
    {
        re.compile(r"/infer/wsi(_v2)?(/.*)?", re.DOTALL): "whole-slide images are not served here",
        re.compile(r"/proxy(/.*)?", re.DOTALL): "the proxy serves DICOMweb paths that begin with studies",
    }
)
