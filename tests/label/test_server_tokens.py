"""Tokens: those of the realm pass, all others get 401, a missing role 403, an unreachable realm 503."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator

import jwt
import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from fake_server import Running, running_server
from lib.serving import tokens
from lib.serving.gate import make_app
from lib.serving.limits import Limits
from monailabel.app import app as stock
from monailabel.config import settings


def _key() -> tuple[str, str]:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


PRIVATE, PUBLIC = _key()
OTHER, _ = _key()


def _claims(*roles: str, **changes: object) -> dict:
    claims = {"preferred_username": "jo", "exp": time.time() + 60, "realm_access": {"roles": list(roles)}}
    return {name: value for name, value in (claims | changes).items() if value is not None}


def _sign(key: str = PRIVATE, algorithm: str = "RS256", **changes: object) -> str:
    return jwt.encode(_claims("monailabel-user", **changes), key, algorithm=algorithm)


def _part(value: dict) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def _sign_with_public_key() -> str:
    text = f"{_part({'alg': 'HS256', 'typ': 'JWT'})}.{_part(_claims('monailabel-admin'))}"
    digest = hmac.new(PUBLIC.encode(), text.encode(), hashlib.sha256).digest()
    return f"{text}.{base64.urlsafe_b64encode(digest).decode().rstrip('=')}"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_server(tmp_path_factory.mktemp("tokens"), make_app(Limits(), stock)) as running:
        yield running


@pytest.fixture(autouse=True)
def _realm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settings, "MONAI_LABEL_AUTH_ENABLE", True)
    monkeypatch.setattr(tokens, "public_key", lambda realm: PUBLIC)


def test_a_valid_token_passes(server):
    assert server.ask("GET", "/info/", authorization=f"Bearer {_sign()}").status == 200
    assert server.infer({}, authorization=f"bearer {_sign()}").status == 200


BAD = {
    "none": "",
    "no_scheme": _sign(),
    "other_scheme": f"Basic {_sign()}",
    "empty": "Bearer ",
    "no_token": "Bearer x",
    "dots": "Bearer ...",
    "expired": f"Bearer {_sign(exp=time.time() - 60)}",
    "without_expiry": f"Bearer {_sign(exp=None)}",
    "expiry_is_a_list": f"Bearer {jwt.api_jws.encode(json.dumps(_claims(exp=[2**40])).encode(), PRIVATE, 'RS256')}",
    "not_yet": f"Bearer {_sign(nbf=time.time() + 600)}",
    "other_key": f"Bearer {_sign(OTHER)}",
    "other_algorithm": f"Bearer {_sign(algorithm='RS512')}",
    "unsigned": f"Bearer {jwt.encode(_claims('monailabel-admin'), None, algorithm='none')}",
    "unsigned_in_capitals": f"Bearer {_part({'alg': 'NONE'})}.{_part(_claims('monailabel-admin'))}.",
    "public_key_as_password": f"Bearer {_sign_with_public_key()}",
    "changed": f"Bearer {_sign().rsplit('.', 1)[0]}.{_sign(preferred_username='eve').rsplit('.', 1)[1]}",
    "nobody": f"Bearer {_sign(preferred_username=None)}",
    "user_is_a_list": f"Bearer {_sign(preferred_username=['jo'])}",
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("path", ["/info/", "/datastore/?output=all", "/datastore/image?image=case_1", "/ohif/"])
def test_any_other_token_is_401(server, name, path):
    answer = server.ask("GET", path, authorization=BAD[name])
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert len(answer.detail) < 100


def test_the_token_is_checked_before_anything_is_looked_up_or_taken_in(server):
    assert server.infer({}, "image=nobody").status == 401
    assert server.ask("PUT", "/datastore/image?image=x", None, content_length=str(2**30)).status == 401


@pytest.mark.parametrize("roles", [[], ["other"], "monailabel-user", None, {"x": 1}])
def test_a_missing_role_is_403(server, roles):
    token = _sign(realm_access={"roles": roles})
    answer = server.ask("GET", "/info/", authorization=f"Bearer {token}")
    assert (answer.status, answer.detail) == (403, 'Role "monailabel-user" is required to perform this action')


def test_claims_without_roles_are_403(server):
    answer = server.ask("GET", "/info/", authorization=f"Bearer {_sign(realm_access='x')}")
    assert answer.status == 403


def test_our_own_routes_want_the_role_too(server):
    token = jwt.encode(_claims("other"), PRIVATE, algorithm="RS256")
    answer = server.infer({}, "image=case_1&output=dicom_seg", authorization=f"Bearer {token}")
    assert answer.status == 403
    answer = server.ask("GET", "/proxy/dicom/wado/studies", authorization=f"Bearer {token}")
    assert answer.status == 403


def test_a_user_may_not_do_what_admins_do(server):
    answer = server.ask("DELETE", "/datastore/image?id=case_1", authorization=f"Bearer {_sign()}")
    assert answer.status == 403
    assert server.ask("GET", "/datastore/image?image=case_1", authorization=f"Bearer {_sign()}").status == 200


def test_a_realm_out_of_reach_is_503(server, monkeypatch):
    def fail(realm):
        raise requests.ConnectionError("no route")

    monkeypatch.setattr(tokens, "public_key", fail)
    answer = server.ask("GET", "/info/", authorization=f"Bearer {_sign()}")
    assert (answer.status, answer.detail) == (503, "the login server cannot be reached, so no token can be checked")


def test_other_algorithms_can_be_named(server, monkeypatch):
    monkeypatch.setenv("SEGVOL_AUTH_ALGORITHMS", "RS256, RS512")
    assert server.ask("GET", "/info/", authorization=f"Bearer {_sign(algorithm='RS512')}").status == 200


@pytest.mark.parametrize("text", ["none", "HS256", "RS256 HS512", "rs256"])
def test_algorithms_without_a_private_key_cannot_be_named(text):
    with pytest.raises(ValueError, match="SEGVOL_AUTH_ALGORITHMS takes words of RS256"):
        tokens.read_algorithms(text)
