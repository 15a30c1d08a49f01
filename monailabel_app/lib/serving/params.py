"""JSON that clients send: the `params` form field and the bodies of train, batch, scoring and next sample.

The stock server pours these objects over its own request, so that a key named `model` or `image` replaces the route's,
and hands them on to config files, where strings that begin with $, @ or % are code. Both end here.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, NoReturn

from .names import check_id, check_tag
from .refusals import Refusal

MAX_BYTES = 2**20
MAX_DEPTH = 8
MAX_NODES = 50_000
MAX_STRING = 4096
MAX_KEY = 256

ROUTE_KEYS = frozenset(
    {
        *("model", "image", "images", "session", "session_id", "strategy", "method", "image_path", "bundle_path"),
        *("file", "output", "description", "logging", "skip_writer", "result_write_to_file"),
    }
)
STORE_KEYS = frozenset({"name", "path", "strategy", "ts"})
BOOLEANS = ("save_label", "result_compress", "restore_label_idx", "multi_gpu")
EXTENSIONS = ("", ".nii", ".nii.gz", ".nrrd")
DTYPES = ("", "uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
DEVICE = re.compile(r"|cpu|cuda(:\d{1,2})?|[A-Z][A-Za-z0-9 ()_.-]{1,79}(:\d{1,2})?")
GPUS = re.compile(r"all|\d{1,2}(,\d{1,2}){0,15}")
TASK_STRING = re.compile(r"[\w .,:+()-]*")
SUBSETS = ("all", "labeled", "unlabeled")


def read_object(text: str | bytes, field: str) -> dict[str, Any]:
    """One JSON object, bounded in size, depth, number and length of its parts.

    Raises:
        Refusal: 400, or 413 where it is too large.
    """
    if len(text) > MAX_BYTES:
        raise Refusal(413, f"{field} may hold {MAX_BYTES // 2**20} MiB of JSON")
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise Refusal(400, f"{field} must be valid JSON") from None
    if not isinstance(value, dict):
        raise Refusal(400, f"{field} must be a JSON object, such as {{}}")
    _check_nodes(value, field)
    return value


def check_infer(params: dict[str, Any], field: str = "params") -> None:
    """The options of one inference: none of the route's own, known ones in their closed forms."""
    _no_keys(params, ROUTE_KEYS, field, "it belongs to the address, not to the options")
    _check_options(params, field)
    label = params.get("label", "")
    if not isinstance(label, str) or len(label) > MAX_KEY or not label.isprintable():
        raise Refusal(400, f"label in {field} must be the name of a segment, at most {MAX_KEY} characters")


def check_task(params: dict[str, Any], field: str = "the body") -> None:
    """The options of a training, a batch, a scoring or a next sample: plain values only, no paths and no addresses."""
    _no_keys(params, ROUTE_KEYS - {"images"}, field, "it belongs to the address, not to the options")
    _check_options(params, field)
    _check_images(params.get("images", "all"), field)
    rest = {key: value for key, value in params.items() if key not in {"images", "device"}}
    for value in _walk(rest):
        if isinstance(value, str) and (not TASK_STRING.fullmatch(value) or ".." in value):
            raise Refusal(400, f"{field} may hold words and numbers, no paths, addresses or expressions")


def check_info(params: dict[str, Any], field: str) -> None:
    """What a client stores beside an image or a label: none of the keys that the store itself reads."""
    _no_keys(params, STORE_KEYS, field, "the data store writes it itself")


def _check_options(params: dict[str, Any], field: str) -> None:
    for key in BOOLEANS:
        if not isinstance(params.get(key, False), bool):
            raise Refusal(400, f"{key} in {field} must be true or false")
    _choice(params, "result_extension", EXTENSIONS, field)
    _choice(params, "result_dtype", DTYPES, field)
    _form(params, "device", DEVICE, field, "cpu, cuda, cuda:N or a device that /info lists")
    _form(params, "gpus", GPUS, field, "all, or numbers such as 0,1")
    _form(params, "client_id", re.compile(r"[\w .@+-]{0,128}"), field, "at most 128 letters and digits")
    if "label_tag" in params:
        check_tag(_string(params["label_tag"]), f"label_tag in {field}")


def _check_images(images: object, field: str) -> None:
    if isinstance(images, list):
        for image in images:
            check_id(_string(image), f"images in {field}")
    elif images not in SUBSETS:
        raise Refusal(400, f"images in {field} must be one of {', '.join(SUBSETS)}, or a list of ids")


def _no_keys(params: dict[str, Any], keys: frozenset[str], field: str, reason: str) -> None:
    if found := sorted(keys & set(params)):
        raise Refusal(400, f"{field} may not hold '{found[0]}': {reason}")


def _choice(params: dict[str, Any], key: str, allowed: tuple[str, ...], field: str) -> None:
    value = params.get(key)
    if value is not None and _string(value) not in allowed:
        raise Refusal(400, f"{key} in {field} must be one of {', '.join(filter(None, allowed))}")


def _form(params: dict[str, Any], key: str, pattern: re.Pattern[str], field: str, allowed: str) -> None:
    value = params.get(key)
    if value is not None and not pattern.fullmatch(_string(value)):
        raise Refusal(400, f"{key} in {field} must be {allowed}")


def _string(value: object) -> str:
    """The value if it is a string, else one that no form allows."""
    return value if isinstance(value, str) else "\0"


def _check_nodes(value: dict[str, Any], field: str) -> None:
    for count, node in enumerate(_walk(value, field=field)):
        if count >= MAX_NODES:
            raise Refusal(413, f"{field} may hold {MAX_NODES} values")
        if isinstance(node, dict):
            for key in node:
                _check_key(key, field)
        elif isinstance(node, str):
            _check_string(node, field)
        elif isinstance(node, int | float) and not -(2**63) <= node < 2**63:
            raise Refusal(400, f"{field} may hold finite numbers of at most 64 bits")


def _check_key(key: str, field: str) -> None:
    if len(key) > MAX_KEY or not key.isprintable() or key.startswith(("_", "$", "@", "%")):
        raise Refusal(400, f"{field} holds a key that is too long, unprintable or begins with one of _ $ @ %")


def _check_string(text: str, field: str) -> None:
    printable = text.replace("\n", " ").replace("\r", " ").replace("\t", " ").isprintable()
    if len(text) > MAX_STRING or not printable or text.lstrip().startswith(("$", "@", "%")):
        raise Refusal(400, f"{field} holds a text that is too long, unprintable or begins with one of $ @ %")


def _walk(value: object, depth: int = 0, field: str = "the body") -> Iterator[object]:
    """Every value in a JSON document, parents first."""
    if depth > MAX_DEPTH:
        raise Refusal(400, f"{field} may be nested {MAX_DEPTH} deep")
    yield value
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        yield from _walk(child, depth + 1, field)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)
