"""Names that clients choose and the stock server turns into paths: each is checked here, and only here.

Image ids become file names in the studies folder, tags become folders, session ids become folders of the session
store, suffixes of uploaded files become suffixes of temporary files and of images in the store.
"""

import re
import unicodedata
from collections.abc import Sequence

from .refusals import Refusal

MAX_ID_BYTES = 200
MAX_FILE_NAME = 1024
UNWANTED = frozenset('/\\*?"<>|~$%`;')
TAG = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,63}")
SESSION = re.compile(r"[A-Za-z0-9-]{1,64}")
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}")


def check_id(value: str, field: str) -> str:
    """An image or label id: the name of a file without its suffix.

    Raises:
        Refusal: 400, for anything that could be a path, a shell or config expression, or an unprintable name.
    """
    plain = unicodedata.normalize("NFKC", value)
    fits = 0 < len(value.encode("utf-8", "replace")) <= MAX_ID_BYTES and value.isprintable()
    pathlike = ".." in plain or UNWANTED & set(plain) or plain[:1] in {".", "-", " "} or plain[-1:] in {".", " "}
    if not fits or pathlike:
        raise Refusal(
            400,
            f"{field} must be an id of the data store: at most {MAX_ID_BYTES} bytes of letters, digits, dots, dashes,"
            " underscores and blanks, and no path",
        )
    return value


def check_tag(value: str, field: str) -> str:
    """A label tag: it names a folder under `labels`."""
    return _match(TAG, value, field, "1 to 64 of A-Z a-z 0-9 _ . - and may not begin with a dot")


def check_session(value: str, field: str) -> str:
    """A session id, as the server gave it out."""
    return _match(SESSION, value, field, "a session id: 1 to 64 of A-Z a-z 0-9 -")


def check_name(value: str, field: str) -> str:
    """The name of a model, a strategy or a scoring method."""
    return _match(NAME, value, field, "a name: 1 to 64 of A-Z a-z 0-9 _ . + - and begin with a letter or digit")


def check_file_name(value: str, field: str, suffixes: Sequence[str]) -> str:
    """The last part of an uploaded file's name; clients send whole paths of their own machine.

    Raises:
        Refusal: 400, unless the last part is a plain name that ends in one of the suffixes.
    """
    name = re.split(r"[/\\]", value)[-1]
    stem = name.removesuffix(next((s for s in suffixes if name.endswith(s)), "\0"))
    if len(value) > MAX_FILE_NAME or stem == name or not stem or not value.isprintable():
        raise Refusal(400, f"{field} must be a file whose name ends in {' or '.join(suffixes)}")
    check_id(stem, f"the name of {field}")
    return name


def _match(pattern: re.Pattern[str], value: str, field: str, allowed: str) -> str:
    if not pattern.fullmatch(value) or ".." in value:
        raise Refusal(400, f"{field} must be {allowed}")
    return value
