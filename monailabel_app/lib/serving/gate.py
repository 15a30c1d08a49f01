"""The server: guard, thread, stock app, in this order, for every request.

The main event loop checks heads, takes in bodies and moves answers; whatever blocks runs in `offload`'s threads. The
stock app is used as it is installed: its only middleware, an open CORS, is taken out, its exceptions are answered by
`errors`, its tokens are read by `tokens`.
"""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import IO, Any

from fastapi import FastAPI, HTTPException
from monailabel.config import settings
from monailabel.endpoints.user.auth import get_current_user
from starlette.formparsers import MultiPartException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request

from . import proxy, segmentation, training
from .body import Disconnected, read_body, replay
from .errors import describe, install_handlers
from .guard import MAX_FILES, Asked, body_limit, check_form, check_head, check_json
from .known import check_known
from .limits import Limits
from .logs import install_filter
from .offload import make_pools, run_job
from .refusals import Refusal, send_refusal
from .relay import Relay
from .scratch import scratch_folder
from .tokens import authenticate, current_user

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

ASSETS = ("/ohif/assets/", "/ohif/dicom-microscopy-viewer/")
MAX_FIELDS = 50


def make_app(limits: Limits, stock: FastAPI) -> CORSMiddleware:
    """The whole server around a stock app; other origins are those of MONAI_LABEL_CORS_ORIGINS, none by default."""
    _prepare(stock)
    origins = [str(origin).rstrip("/") for origin in settings.MONAI_LABEL_CORS_ORIGINS]
    gate = Gate(limits, stock, _own_routes(), frozenset(origins))
    return CORSMiddleware(gate, origins, allow_methods=["*"], allow_headers=["*"], allow_credentials=True)


class Gate:
    """ASGI app that checks every request and runs it in a thread.

    Args:
        limits: bounds and switches.
        stock: MONAI Label's app, prepared.
        own: the routes that replace stock ones.
        origins: origins of other sites whose pages may write.
    """

    def __init__(self, limits: Limits, stock: FastAPI, own: FastAPI, origins: frozenset[str]) -> None:
        self._limits = limits
        self._stock = stock
        self._own = own
        self._origins = origins
        self._pools = make_pools(limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One connection, or the server's life."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The stock app's own start and end, once, with a folder for temporary files around them."""
        install_filter()
        with scratch_folder():
            await self._stock(scope, receive, send)
        for pool in self._pools.values():
            pool.close()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            asked = self._check(scope)
            await self._authenticate(asked, scope)
            body = await read_body(receive, body_limit(asked.route, self._limits))
            relay = Relay(asyncio.get_running_loop(), unlink="dataset" in asked.route.known)
            job = partial(self._work, asked, _inner(scope), body)
            await run_job(self._pools[asked.route.pool], job, relay, receive, send, done=body.close)
        except Refusal as refusal:
            await send_refusal(send, refusal)
        except Disconnected:
            return

    def _check(self, scope: Scope) -> Asked:
        headers = _headers(scope)
        asked = check_head(scope["method"], _path(scope), scope["query_string"], headers, self._limits)
        foreign = headers.get("sec-fetch-site") == "cross-site" and headers.get("origin") not in self._origins
        if foreign and scope["method"] not in {"GET", "HEAD"}:
            raise Refusal(403, "pages of other sites may not write here; name theirs in MONAI_LABEL_CORS_ORIGINS")
        return asked

    async def _authenticate(self, asked: Asked, scope: Scope) -> None:
        """Check the token before anything is uploaded or looked up; the stock route then checks the role."""
        if asked.route.public or not settings.MONAI_LABEL_AUTH_ENABLE:
            return
        check = partial(authenticate, _headers(scope).get("authorization", ""))
        try:
            await asyncio.wrap_future(self._pools["server"].submit(check))
        except HTTPException as error:
            raise Refusal(error.status_code, str(error.detail), tuple((error.headers or {}).items())) from None

    async def _work(self, asked: Asked, scope: Scope, body: IO[bytes], relay: Relay) -> None:
        """The part that runs in a thread."""
        try:
            await self._check_body(asked, scope, body)
            await self._choose(asked, scope)(scope, replay(body), relay.send)
        except Refusal as refusal:
            await send_refusal(relay.send, refusal)
        except Exception as error:  # the stock app has answered already, and raises for the server's log
            if not relay.started:
                await send_refusal(relay.send, Refusal(*describe(error)))

    async def _check_body(self, asked: Asked, scope: Scope, body: IO[bytes]) -> None:
        uploads: frozenset[str] = frozenset()
        params: dict[str, Any] = {}
        if asked.route.body == "json":
            params = check_json(body.read())
        elif asked.route.body in {"form", "files"}:
            request = Request(scope, replay(body))
            try:
                form = await request.form(max_files=MAX_FILES, max_fields=MAX_FIELDS)
            except (MultiPartException, HTTPException) as error:
                raise Refusal(400, f"the form cannot be read: {getattr(error, 'message', 'it is damaged')}") from None
            items = form.multi_items()
            try:
                params = check_form(asked, items, self._limits)
            finally:
                await form.close()
            uploads = frozenset(name for name, value in items if not isinstance(value, str))
        check_known(asked, uploads, params)

    def _choose(self, asked: Asked, scope: Scope) -> FastAPI:
        dicom = asked.route.pool == "inference" and asked.values.get("output") == "dicom_seg"
        stop = scope["method"] == "DELETE" and _path(scope).rstrip("/") == "/train"
        return self._own if dicom or stop or asked.route.pool == "proxy" else self._stock


def _prepare(stock: FastAPI) -> None:
    if stock.middleware_stack is None:
        stock.user_middleware[:] = [each for each in stock.user_middleware if each.cls is not CORSMiddleware]
    install_handlers(stock)
    stock.dependency_overrides[get_current_user] = current_user


def _own_routes() -> FastAPI:
    own = FastAPI(openapi_url=None)
    own.include_router(proxy.router, prefix=settings.MONAI_LABEL_API_STR)
    own.include_router(segmentation.router, prefix=settings.MONAI_LABEL_API_STR)
    own.include_router(training.router, prefix=settings.MONAI_LABEL_API_STR)
    install_handlers(own)
    own.dependency_overrides[get_current_user] = current_user
    return own


def _inner(scope: Scope) -> dict[str, Any]:
    """The scope as the stock app gets it: files are handed over, not streamed, and OHIF's folders are found."""
    path = scope["path"]
    if _path(scope).startswith(ASSETS):  # the stock route looks for them under a wrong name
        path = scope.get("root_path", "") + "/static" + _path(scope)
    return {
        **scope,
        "path": path,
        "headers": [(name, value) for name, value in scope["headers"] if name.lower() != b"range"],
        "extensions": {"http.response.pathsend": {}},
        "asgi": {**scope.get("asgi", {}), "spec_version": "2.4"},
    }


def _path(scope: Scope) -> str:
    """The path below the server's root and the API's prefix."""
    path = str(scope["path"])
    for prefix in (scope.get("root_path", ""), settings.MONAI_LABEL_API_STR):
        if prefix and path.startswith(f"{prefix}/"):
            path = path.removeprefix(prefix)
    return path


def _headers(scope: Scope) -> dict[str, str]:
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
