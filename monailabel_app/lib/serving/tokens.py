"""Tokens, when MONAI_LABEL_AUTH_ENABLE is set: those of the realm are accepted, all others are not.

The stock server names no algorithm to its JWT library, which then refuses every token; here the algorithms are a closed
list of public-key ones, so that neither `none` nor a public key used as a password passes.
"""

import os
from threading import Lock
from typing import Any

import jwt
import requests
from cachetools import TTLCache, cached
from fastapi import HTTPException, Request
from monailabel.config import settings
from monailabel.endpoints.user import auth
from starlette.concurrency import run_in_threadpool

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
KEY_SECONDS = 600


async def current_user(request: Request) -> auth.User:
    """Who asks; stands in for the stock server's `get_current_user`."""
    return await run_in_threadpool(authenticate, request.headers.get("authorization", ""))


def authenticate(authorization: str) -> auth.User:
    """The user behind an Authorization header; the stock default user where tokens are off.

    Raises:
        HTTPException: 401 without a valid token, 503 where the realm's key cannot be fetched.
    """
    if not settings.MONAI_LABEL_AUTH_ENABLE:
        return auth.DEFAULT_USER
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise _unauthorized("log in first: this server wants a bearer token")
    return _read_user(_read_claims(token.strip(), _fetch_key()))


def read_algorithms(text: str) -> list[str]:
    """The algorithms of SEGVOL_AUTH_ALGORITHMS.

    Raises:
        ValueError: one that needs no private key, or that does not exist.
    """
    names = text.replace(",", " ").split() or ["RS256"]
    if unknown := [name for name in names if name not in ALGORITHMS]:
        raise ValueError(f"SEGVOL_AUTH_ALGORITHMS takes words of {', '.join(ALGORITHMS)}; got '{unknown[0]}'")
    return names


@cached(cache=TTLCache(maxsize=1, ttl=KEY_SECONDS), lock=Lock())
def public_key(realm: str) -> str:
    """The realm's public key in PEM, asked for again after `KEY_SECONDS` so that keys can change."""
    return auth.get_public_key.__wrapped__(realm)


def _fetch_key() -> str:
    try:
        return public_key(settings.MONAI_LABEL_AUTH_REALM_URI)
    except (requests.RequestException, KeyError, ValueError):
        raise HTTPException(503, "the login server cannot be reached, so no token can be checked") from None


def _read_claims(token: str, key: str) -> dict[str, Any]:
    algorithms = read_algorithms(os.environ.get("SEGVOL_AUTH_ALGORITHMS", ""))
    options = {"verify_aud": False, "require": ["exp"]}
    try:
        return jwt.decode(token, key, algorithms=algorithms, options=options)
    except jwt.ExpiredSignatureError:
        raise _unauthorized("the token has expired, please log in again") from None
    except (jwt.InvalidTokenError, jwt.InvalidKeyError, ValueError):
        raise _unauthorized("the token is not valid") from None


def _read_user(claims: dict[str, Any]) -> auth.User:
    """The user as the stock server's settings describe it."""
    roles: Any = claims
    for key in settings.MONAI_LABEL_AUTH_TOKEN_ROLES.split("#"):
        roles = roles.get(key) if isinstance(roles, dict) else None
    name = claims.get(settings.MONAI_LABEL_AUTH_TOKEN_USERNAME)
    if not isinstance(name, str) or not name:
        raise _unauthorized("the token names no user")
    return auth.User(
        username=name,
        email=_text(claims, settings.MONAI_LABEL_AUTH_TOKEN_EMAIL),
        name=_text(claims, settings.MONAI_LABEL_AUTH_TOKEN_NAME),
        roles=[role for role in roles if isinstance(role, str)] if isinstance(roles, list) else [],
    )


def _text(claims: dict[str, Any], key: str) -> str | None:
    value = claims.get(key)
    return value if isinstance(value, str) else None


def _unauthorized(sentence: str) -> HTTPException:
    return HTTPException(401, sentence, {"WWW-Authenticate": "Bearer"})
