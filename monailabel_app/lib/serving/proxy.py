"""The way to the image archive: DICOMweb and nothing else, as the viewer asks for it.

In place of the stock proxy, which drops the query and the Accept header, waits for ever, and sends the client's own
headers on. The guard has let only DICOMweb paths through.
"""

from collections.abc import Iterator
from typing import Annotated

import requests
from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import StreamingResponse
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User

CHUNK = 2**16
PASSED = ("content-type", "content-length", "etag", "last-modified")
SENT = ("accept", "content-type")

router = APIRouter()
Viewer = Annotated[User, Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))]


@router.api_route("/proxy/dicom/{kind}/{path:path}", methods=["GET", "POST"], include_in_schema=False)
async def ask_archive(request: Request, kind: str, path: str, user: Viewer) -> StreamingResponse:
    """Pass one DICOMweb request on and stream the answer back."""
    server = _server()
    if not server or "googleapis.com" in server:
        raise HTTPException(404, "there is no image archive behind this server")
    prefix = _prefix("wado" if path.endswith("metadata") and request.method == "GET" else kind)
    body = await request.body() if request.method == "POST" else None
    answer = _ask(request, f"{server}/{prefix}{path}", body)
    headers = {name: answer.headers[name] for name in PASSED if name in answer.headers}
    if answer.headers.get("content-encoding", "identity") != "identity":
        headers.pop("content-length", None)
    return StreamingResponse(_pieces(answer), answer.status_code, headers)


def _ask(request: Request, url: str, body: bytes | None) -> requests.Response:
    try:
        return requests.request(
            request.method,
            url,
            params=request.url.query or None,
            headers={name: request.headers[name] for name in SENT if name in request.headers},
            data=body,
            auth=_login(),
            timeout=settings.MONAI_LABEL_DICOMWEB_PROXY_TIMEOUT,
            stream=True,
            allow_redirects=False,
        )
    except requests.RequestException:
        raise HTTPException(502, "the image archive does not answer") from None


def _pieces(answer: requests.Response) -> Iterator[bytes]:
    with answer:
        yield from answer.iter_content(CHUNK)


def _server() -> str:
    """The image archive's address, or nothing where the studies are a folder."""
    studies = settings.MONAI_LABEL_STUDIES.rstrip("/")
    return studies if studies.startswith(("http://", "https://")) else ""


def _prefix(kind: str) -> str:
    prefixes = {
        "wado": settings.MONAI_LABEL_WADO_PREFIX,
        "qido": settings.MONAI_LABEL_QIDO_PREFIX,
        "stow": settings.MONAI_LABEL_STOW_PREFIX,
    }
    prefix = prefixes[kind]
    return f"{prefix.strip('/')}/" if prefix else ""


def _login() -> tuple[str, str] | None:
    name = settings.MONAI_LABEL_DATASTORE_USERNAME or settings.MONAI_LABEL_DICOMWEB_USERNAME
    password = settings.MONAI_LABEL_DATASTORE_PASSWORD or settings.MONAI_LABEL_DICOMWEB_PASSWORD
    return (name, password) if name and password else None
