"""A corpus of hostile requests: each is answered 4xx with one sentence, and nothing around the server changes."""

import json
from collections.abc import Iterator

import pytest
from fake_server import Answer, Running, multipart, running_server
from hostile import Request, corpus
from lib.serving.gate import make_app
from lib.serving.limits import MIB, Limits
from monailabel.app import app as stock

CORPUS = corpus()
TIGHT = Limits(upload=2 * MIB, unpacked=4 * MIB)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with running_server(tmp_path_factory.mktemp("hostile"), make_app(TIGHT, stock)) as running:
        yield running


@pytest.fixture(scope="module")
def before(server: Running) -> dict[str, bytes]:
    return server.files()


def _send(server: Running, request: Request) -> Answer:
    method, path, body, headers = request
    if body is None:
        return server.ask(method, path, **headers)
    if isinstance(body, tuple):
        content, kind = multipart(body)
        return server.ask(method, path, content, **{"content-type": kind} | headers)
    content = json.dumps(body).encode()
    return server.ask(method, path, content, **{"content-type": "application/json"} | headers)


def test_the_corpus_is_large():
    assert len(CORPUS) == 578


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_request_is_refused_in_one_sentence(server, before, name):
    answer = _send(server, CORPUS[name])
    assert 400 <= answer.status < 500
    assert answer.seconds < 10
    if CORPUS[name][0] != "HEAD":
        assert isinstance(answer.detail, str)
        assert 10 < len(answer.detail) < 400
        assert not any(word in answer.detail for word in ("\n", "Traceback", "site-packages", str(server.root)))
    assert server.files() == before
