"""Errors of the stock server as answers: the user's mistakes are 4xx with one sentence, ours say nothing but an id."""

import logging
import re
import uuid

import requests
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from monailabel.interfaces.exception import (
    ImageNotFoundException,
    LabelNotFoundException,
    MONAILabelError,
    MONAILabelException,
)

logger = logging.getLogger(__name__)

NO_SUCH = re.compile(r"There is no [^;.]*")


def install_handlers(app: FastAPI) -> None:
    """Answer every exception of an app as this module says; HTTPExceptions stay as they are."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(MONAILabelException, _monailabel)
    app.add_exception_handler(requests.RequestException, _upstream)
    app.add_exception_handler(Exception, _unexpected)


def describe(error: Exception) -> tuple[int, str]:
    """Status and sentence for an exception; one that is not the client's fault goes to the log, under an id."""
    if isinstance(error, ImageNotFoundException | LabelNotFoundException):
        return 404, str(error.msg)
    if isinstance(error, MONAILabelException) and (no_such := NO_SUCH.search(str(error.msg))):
        return 400, no_such.group()
    if isinstance(error, MONAILabelException) and error.error is MONAILabelError.INVALID_INPUT:
        return 400, str(error.msg)
    number = uuid.uuid4().hex[:8]
    logger.error("request failed, error %s", number, exc_info=error)
    return 500, f"the server could not finish this request; its log has the reason under error {number}"


async def _invalid(_: Request, error: Exception) -> JSONResponse:
    first = error.errors()[0] if isinstance(error, RequestValidationError) else {}
    place = ".".join(str(part) for part in first.get("loc", ())[1:])
    return JSONResponse({"detail": f"{place[:64] or 'the body'}: {first.get('msg', 'is not valid')}"}, 422)


async def _monailabel(_: Request, error: Exception) -> JSONResponse:
    status, sentence = describe(error)
    return JSONResponse({"detail": sentence}, status)


async def _upstream(request: Request, error: Exception) -> JSONResponse:
    """A server behind this one: the image archive, or the one that gives out tokens."""
    response = getattr(error, "response", None)
    status = response.status_code if response is not None else 0
    if request.url.path.endswith("/auth/token") and status in {400, 401, 403}:
        return JSONResponse({"detail": "the login server does not accept this user name and password"}, 401)
    if status == 404:
        return JSONResponse({"detail": "the image archive has nothing under this id"}, 404)
    logger.warning("a server behind this one failed: %s", type(error).__name__)
    return JSONResponse({"detail": "the server behind this one did not answer as expected, please try again"}, 502)


async def _unexpected(_: Request, error: Exception) -> JSONResponse:
    status, sentence = describe(error)
    return JSONResponse({"detail": sentence}, status)
