"""What an entry of the catalogue must say; whatever is wrong is one line that names the entry and the key."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from ..vocabulary import Vocabulary

ROLES = ("train", "test")
KINDS = ("generic", "m3d")
TEXTS = ("image", "label", "files", "folders", "raters", "structure")
LABELLED = ("label", "files", "folders", "raters")  # at most one of them
CHOICES: Mapping[str, Sequence[Any]] = {
    "is": ("file", "dicom"),
    "split": ("train", "validation", "test"),
    "optional": (True, False),
    "slices": ("png", "tif"),
}
_FIELD = re.compile(r"\{([A-Za-z_]\w*)\}")


def check_entry(entry: Any, keys: Collection[str], vocabulary: Vocabulary) -> None:
    """Check one data set.

    Args:
        entry: of the file.
        keys: all of them must be there, and no other.
        vocabulary: every structure is named as here.

    Raises:
        ValueError: one line.
    """
    if not isinstance(entry, dict) or not _is_text(entry.get("name")):
        raise ValueError(f"every data set needs a name, got {entry!r:.100}")
    place = f"of {entry['name']!r}"
    _check_keys(entry, keys, keys, place)
    _check_values(entry, place)
    for key, names in (("targets", entry["targets"]), ("labels", entry["labels"].values())):
        _check_names(names, vocabulary, f"{key} {place}")
    if entry["patient"] is not None:
        groups = _compiled(entry["patient"], f"patient {place}").groups
        _expect(groups == 1, f"patient {place}", entry["patient"], "an expression with one group")
    for number, block in enumerate(entry["layout"], start=1):
        check_block(block, entry["labels"], f"of layout block {number} {place}")


def check_block(block: Any, labels: Mapping[str, Any], place: str) -> None:
    """Check one block of a layout.

    Args:
        block: of the entry.
        labels: of the entry.
        place: how an error calls the block.

    Raises:
        ValueError: one line.
    """
    if not isinstance(block, dict):
        raise ValueError(f"layout is {block!r:.100} {place}, expected an object")
    if "kind" in block:
        _check_keys(block, ("kind",), ("kind",), place)
        return _expect(block["kind"] in KINDS, f"kind {place}", block["kind"], " or ".join(KINDS))
    _check_keys(block, (*TEXTS, *CHOICES), ("image",), place)
    for key, value in block.items():
        if key in TEXTS:
            _expect(_is_text(value), f"{key} {place}", value, "a text")
        else:
            good = any(value is each or (value == each and isinstance(value, str)) for each in CHOICES[key])
            _expect(good, f"{key} {place}", value, " or ".join(map(str, CHOICES[key])))
    image = _compiled(block["image"], f"image {place}")
    _expect("case" in image.groupindex, f"image {place}", block["image"], "an expression with a group 'case'")
    _check_label(block, labels, image.groupindex, place)


def _check_label(block: Mapping[str, Any], labels: Mapping[str, Any], fields: Collection[str], place: str) -> None:
    given = [key for key in LABELLED if key in block]
    if len(given) > 1:
        raise ValueError(f"{given[0]} and {given[1]} {place} exclude each other, expected one of {', '.join(LABELLED)}")
    for key, needs in (("slices", ("folders",)), ("structure", LABELLED[1:])):
        if key in block and not set(needs) & set(given):
            raise ValueError(f"{key} {place} has no meaning without {' or '.join(needs)}")
    if not given:
        return
    unknown = [name for name in _FIELD.findall(block[given[0]]) if name not in fields]
    if unknown:
        raise ValueError(f"{given[0]} {place} has the field {unknown[0]!r}, expected a named group of image")
    if given == ["label"]:
        _check_map(labels, place)
    else:
        _check_pieces(block, given[0], labels, place)


def _check_map(labels: Mapping[str, Any], place: str) -> None:
    for value in labels:
        good = value.isascii() and value.isdecimal() and int(value) > 0
        _expect(good, f"a value of labels, for label {place},", value, "a whole number above 0")


def _check_pieces(block: Mapping[str, Any], key: str, labels: Mapping[str, Any], place: str) -> None:
    groups = _compiled(_FIELD.sub("x", block[key]), f"{key} {place}").groupindex
    if key == "raters":
        _expect("rater" in groups, f"{key} {place}", block[key], "an expression with a group 'rater'")
    if "structure" in block:
        _expect(block["structure"] in labels, f"structure {place}", block["structure"], "a key of labels")
    else:
        wanted = "an expression with a group 'structure', or a key 'structure' beside it"
        _expect("structure" in groups, f"{key} {place}", block[key], wanted)


def _check_keys(content: Mapping[str, Any], allowed: Collection[str], needed: Iterable[str], place: str) -> None:
    missing = [key for key in needed if key not in content]
    if missing:
        raise ValueError(f"{missing[0]} {place} is missing")
    unknown = [key for key in content if key not in allowed]
    if unknown:
        raise ValueError(f"key {unknown[0]!r} {place} is unknown, expected one of {', '.join(allowed)}")


def _check_values(entry: Mapping[str, Any], place: str) -> None:
    targets, labels, layout, patient = (entry[key] for key in ("targets", "labels", "layout", "patient"))
    checks = {
        **{key: (_is_text(entry[key]), "a text") for key in ("licence", "download")},
        **{key: (_is_count(entry[key]), "a whole number, 0 or more") for key in ("volumes", "categories")},
        "source": (_is_text(entry["source"]) and re.match("https?://", entry["source"]), "a link"),
        "role": (entry["role"] in ROLES, " or ".join(ROLES)),
        "note": (isinstance(entry["note"], str), "a text, which may be empty"),
        "targets": (_are_texts(targets) and targets and len(set(targets)) == len(targets), "names, each once"),
        "labels": (_are_labels(labels), "an object: value, file or folder -> name or null"),
        "patient": (patient is None or _is_text(patient), "null or a text"),
        "layout": (isinstance(layout, list) and layout, "a list of blocks"),
        "confirmed": (_is_confirmation(entry["confirmed"]), "layout and labels (true or false) and from (a text)"),
    }
    for key, (good, allowed) in checks.items():
        _expect(good, f"{key} {place}", entry[key], allowed)


def _check_names(names: Iterable[str | None], vocabulary: Vocabulary, place: str) -> None:
    for name in names:
        known = None if name is None else vocabulary.find(name)
        if name is None or (known is not None and known.name == name):
            continue
        near = [known.name] if known else vocabulary.nearest(name)
        said = f", nearest: {', '.join(near)}" if near else ""
        raise ValueError(f"{place} has {name!r}, expected a canonical name of the vocabulary{said}")


def _compiled(pattern: str, place: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{place} is {pattern!r:.100}, expected a regular expression ({error})") from None


def _expect(good: Any, place: str, value: Any, allowed: str) -> None:
    if not good:
        raise ValueError(f"{place} is {value!r:.100}, expected {allowed}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and "\n" not in value


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _are_texts(values: Any) -> bool:
    return isinstance(values, list) and all(map(_is_text, values))


def _are_labels(labels: Any) -> bool:
    return isinstance(labels, dict) and all(name is None or _is_text(name) for name in labels.values())


def _is_confirmation(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != {"layout", "labels", "from"}:
        return False
    return type(value["layout"]) is type(value["labels"]) is bool and _is_text(value["from"])
