"""The guard: what a request says about itself, checked before anything of the stock server runs.

Pure functions of the method, the path, the query, the headers and the form; no MONAI, no torch, no MONAI Label. What
needs the app (does this image exist?) is asked later, in `known`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any, Protocol
from urllib.parse import parse_qsl

from .limits import MIB, Limits
from .names import check_file_name, check_id
from .params import check_infer, check_info, check_task, read_object
from .refusals import Refusal
from .routes import CLOSED, ROUTES, Route
from .uploads import check_upload

MAX_QUERY = 8192
SMALL_BODY = 2 * MIB
MAX_FILES = 1000
OUTPUTS = ("image", "json", "all", "dicom_seg")


class Upload(Protocol):
    """A file of a form, as starlette gives it."""

    filename: str | None
    file: IO[bytes]


@dataclass(frozen=True)
class Asked:
    """A request whose head passed: its route, and its checked parameters.

    Args:
        route: the entry of the table.
        values: query parameters and named parts of the path.
    """

    route: Route
    values: Mapping[str, str]


def check_head(method: str, path: str, query: bytes, headers: Mapping[str, str], limits: Limits) -> Asked:
    """Check everything that is known before the body is read.

    Args:
        method: HTTP method.
        path: decoded path below the server's root.
        query: raw query string.
        headers: names in lower case.
        limits: bounds and switches.

    Raises:
        Refusal: 400, 403, 404, 405, 413 or 415.
    """
    route = _find_route(method, path)
    if route.switch and route.switch not in limits.allowed:
        raise Refusal(403, f"this route is closed; the server's owner opens it with SEGVOL_ALLOW={route.switch}")
    values = _read_query(query) | _path_values(route, path)
    for name, check in route.checks.items():
        if name in values:
            check(values[name], name)
    if path.startswith("/infer/"):
        _check_output(values)
    _check_length(route, headers, limits)
    _check_type(route, headers)
    return Asked(route, values)


def body_limit(route: Route, limits: Limits) -> int:
    """Largest body of a request to a route, in bytes."""
    return limits.upload if route.body in {"files", "dicom"} else SMALL_BODY


def check_json(body: bytes) -> dict[str, Any]:
    """The JSON body of a training, a batch, a scoring or a next sample; no body is an empty object."""
    if body.strip() in {b"", b"null"}:
        return {}
    params = read_object(body, "the body")
    check_task(params)
    return params


def check_form(asked: Asked, items: Sequence[tuple[str, str | Upload]], limits: Limits) -> dict[str, Any]:
    """Fields and files of a form, in the order in which they came; the answer is what its JSON field holds.

    Raises:
        Refusal: 400 or 413.
    """
    params: dict[str, Any] = {}
    fields = [(name, value) for name, value in items if isinstance(value, str)]
    uploads = [(name, value) for name, value in items if not isinstance(value, str)]
    _check_once([name for name, _ in items if name != "files"], "the form")
    infer = asked.route.pool == "inference"
    for name, value in fields:
        if name in {"params", "info"} and value:
            params = read_object(value, name)
            (check_infer if infer else check_info)(params, name)
    for name, upload in uploads:
        _check_file(asked, name, upload, limits)
    if infer and not (asked.values.get("image") or asked.values.get("session_id") or _has(uploads, "file")):
        raise Refusal(400, "give an image id, a session id or a file")
    return params


def _find_route(method: str, path: str) -> Route:
    here = [route for route in ROUTES if route.path.fullmatch(path)]
    if not here:
        closed = next((sentence for pattern, sentence in CLOSED.items() if pattern.fullmatch(path)), None)
        raise Refusal(403, closed) if closed else Refusal(404, "there is no such address on this server")
    allowed = sorted(frozenset().union(*(route.methods for route in here)))
    for route in here:
        if method in route.methods:
            return route
    raise Refusal(405, f"this address takes {', '.join(allowed)}", [("allow", ", ".join(allowed))])


def _read_query(query: bytes) -> dict[str, str]:
    try:
        text = query.decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, errors="strict", max_num_fields=100)
    except ValueError:
        raise Refusal(400, "the query must be percent-encoded UTF-8 of at most 100 parameters") from None
    if len(query) > MAX_QUERY or any("\0" in name + value for name, value in pairs):
        raise Refusal(400, f"the query must be shorter than {MAX_QUERY} bytes and free of NUL")
    _check_once([name for name, _ in pairs], "the query")
    return dict(pairs)


def _path_values(route: Route, path: str) -> dict[str, str]:
    match = route.path.fullmatch(path)
    return {name: value for name, value in match.groupdict().items() if value is not None} if match else {}


def _check_once(names: Sequence[str], where: str) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise Refusal(400, f"{where} holds '{twice[0][:64]}' more than once")


def _check_output(values: Mapping[str, str]) -> None:
    if values.get("output", "all") not in OUTPUTS:
        raise Refusal(422, f"output must be one of {', '.join(OUTPUTS)}")


def _check_length(route: Route, headers: Mapping[str, str], limits: Limits) -> None:
    length = headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > 18:
        raise Refusal(400, "content-length must be a number of bytes")
    check_size(int(length), body_limit(route, limits))


def check_size(size: int, limit: int) -> None:
    """Refuse a body above its limit, whether it was announced or has just arrived."""
    if size > limit:
        raise Refusal(413, f"this address takes at most {limit // MIB} MiB")


def _check_type(route: Route, headers: Mapping[str, str]) -> None:
    kind = headers.get("content-type", "").split(";")[0].strip().lower()
    forms = {"multipart/form-data", "application/x-www-form-urlencoded"}
    if route.body in {"form", "files"} and kind and kind not in forms:
        raise Refusal(415, f"send a form: {kind[:64]} is not read here, and params is a form field with JSON in it")
    if route.body == "json" and kind and kind != "application/json":
        raise Refusal(415, "send the options as a JSON object with content-type application/json")


def _check_file(asked: Asked, name: str, upload: Upload, limits: Limits) -> None:
    if name not in asked.route.files:
        raise Refusal(400, f"'{name[:64]}' must be a plain form field, or is no field of this address")
    if not upload.filename:
        raise Refusal(400, f"{name} must carry a file name")
    base = check_file_name(upload.filename, name, asked.route.files[name])
    archive = asked.values.get("uncompress", "").lower() in {"1", "true", "on", "yes", "t", "y"}
    if "files" in asked.route.files and archive != base.lower().endswith(".zip"):
        raise Refusal(400, "uncompress goes with one .zip archive, and with nothing else")
    if name == "file" and not asked.values.get("image"):
        check_id(base.split(".")[0], "the name of file")
    check_upload(upload.file, base, name, limits.unpacked)


def _has(uploads: Sequence[tuple[str, Upload]], field: str) -> bool:
    return any(name == field for name, _ in uploads)
