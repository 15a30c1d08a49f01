"""The corpus of hostile requests: one line each, all to be answered 4xx with one sentence.

A request is (method, path, form parts or JSON or None, headers). Paths are sent exactly as they stand here.
"""

import gzip
import io
import json
import stat
import zipfile
from typing import Any
from urllib.parse import quote

Parts = tuple[tuple[str, str | None, bytes], ...]
Request = tuple[str, str, Parts | dict | list | str | None, dict[str, str]]

MIB = 2**20

IDS = {
    "parent": "..",
    "here": ".",
    "up_and_out": "../../../../etc/passwd",
    "up_and_out_encoded_twice": "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "inside_and_up": "case_1/../../app/main.py",
    "absolute": "/etc/passwd",
    "absolute_url": "file:///etc/passwd",
    "backslashes": "..\\..\\windows\\system32",
    "home": "~root",
    "nul": "case_1\0.png",
    "newline": "case_1\r\nSet-Cookie: x",
    "shell": "$(touch owned)",
    "variable": "${HOME}",
    "backticks": "`touch owned`",
    "expression": "$import('os').system('touch owned')",
    "reference": "%app/main.py",
    "wide_slashes": "\uff0e\uff0e\uff0fetc",
    "ellipsis": "\u2026case",
    "reversed_text": "case\u202egnp",
    "glob": "case_*",
    "endless": "a" * 300,
    "empty": "",
    "hidden": ".lock",
    "option": "--app",
}
ID_ADDRESSES = {
    "infer": ("POST", "/infer/task?image={}", (("params", None, b"{}"),)),
    "image": ("GET", "/datastore/image?image={}", None),
    "image_info": ("GET", "/datastore/image/info?image={}", None),
    "image_removed": ("DELETE", "/datastore/image?id={}", None),
    "label": ("GET", "/datastore/label?tag=final&label={}", None),
    "label_removed": ("DELETE", "/datastore/label?tag=final&id={}", None),
    "label_saved": ("PUT", "/datastore/label?image={}", (("label", "mask.nii", b"mask"),)),
    "label_tag": ("GET", "/datastore/label?label=case_1&tag={}", None),
    "tag_removed": ("DELETE", "/datastore/label?id=case_1&tag={}", None),
    "session": ("GET", "/session/{}", None),
    "session_removed": ("DELETE", "/session/{}", None),
}
FILLED_IN = {"empty": {"session", "session_removed"}}

PARAMS: dict[str, Any] = {
    "no_json": b"{",
    "no_object": b"[]",
    "a_number": b"7",
    "a_string": b'"$open"',
    "not_a_number": b'{"spacing": NaN}',
    "infinity": b'{"spacing": Infinity}',
    "overflow": b'{"spacing": 1e999}',
    "long_integer": b'{"spacing": ' + b"9" * 5000 + b"}",
    "integer_of_65_bits": b'{"spacing": 18446744073709551616}',
    "deep": b'{"points": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "nested": b'{"points": ' + b"[" * 9 + b"]" * 9 + b"}",
    "large": b'{"text": "' + b"a" * (MIB + 1) + b'"}',
    "long_text": b'{"text": "' + b"a" * 5000 + b'"}',
    "many_values": b'{"points": [' + b"1," * 60_000 + b"1]}",
    "nul_in_text": b'{"text": "liver\\u0000"}',
    "lone_surrogate": b'{"text": "\\ud800"}',
    "model": {"model": "other"},
    "image": {"image": "/etc/passwd"},
    "images": {"images": ["/etc/passwd"]},
    "image_path": {"image_path": "/etc/passwd"},
    "session": {"session": {"image": "/etc/passwd"}},
    "session_id": {"session_id": "x"},
    "bundle_path": {"bundle_path": "/tmp"},
    "output": {"output": "dicom_seg"},
    "description": {"description": "x"},
    "logging": {"logging": "DEBUG"},
    "logging_class": {"logging": "shutdown"},
    "skip_writer": {"skip_writer": "true"},
    "write_to_file": {"result_write_to_file": False},
    "extension_with_path": {"result_extension": "/../../owned.nii"},
    "extension_of_a_script": {"result_extension": ".py"},
    "extension_as_list": {"result_extension": [".nii"]},
    "dtype": {"result_dtype": "object"},
    "dtype_as_number": {"result_dtype": 8},
    "tag_with_path": {"label_tag": "../../owned"},
    "tag_absolute": {"label_tag": "/tmp/owned"},
    "tag_as_list": {"label_tag": ["final"]},
    "save_as_text": {"save_label": "yes"},
    "compress_as_text": {"result_compress": "yes"},
    "device_of_another_kind": {"device": "meta"},
    "device_as_path": {"device": "/dev/null"},
    "device_as_list": {"device": ["cpu"]},
    "device_not_listed": {"device": "NVIDIA Imaginary 9000"},
    "label_as_list": {"label": ["x"]},
    "label_long": {"label": "x" * 300},
    "client_with_path": {"client_id": "../../etc"},
    "expression": {"text_prompt": "$import('os').system('touch owned')"},
    "expression_after_a_blank": {"text_prompt": "  $1+1"},
    "reference": {"text_prompt": "@network"},
    "macro": {"text_prompt": "%/etc/passwd"},
    "expression_as_key": {"$x": 1},
    "expression_inside": {"targets": [{"text": "$open('/etc/passwd')"}]},
    "component": {"targets": [{"_target_": "os.system", "command": "touch owned"}]},
    "private_key": {"_image_id": "x"},
}

TASKS: dict[str, Any] = {
    "model": {"model": "other"},
    "bundle": {"bundle_path": "/tmp"},
    "images_by_path": {"images": ["../../etc/passwd"]},
    "images_as_text": {"images": "/etc"},
    "images_as_number": {"images": 3},
    "image_not_there": {"images": ["nobody"]},
    "gpus": {"gpus": "0;touch owned"},
    "gpus_as_list": {"gpus": [0]},
    "tracking": {"tracking_uri": "http://evil.example/"},
    "run": {"run_id": "../../owned"},
    "weights_name": {"model_filename": "../owned.pt"},
    "dataset": {"train_ds": "/etc/passwd"},
    "url": {"distributed_url": "tcp://evil.example:1"},
    "expression": {"max_epochs": "$__import__('os')"},
    "component": {"_target_": "os.system"},
    "tag": {"label_tag": "../x"},
    "list": [1],
    "text": "x",
}
TRAIN = {
    "no_epochs": {"max_epochs": 0},
    "endless": {"max_epochs": 10**9},
    "epochs_as_list": {"max_epochs": [1]},
    "nothing_to_judge_by": {"val_split": 0},
    "nothing_to_train_on": {"val_split": 1},
    "rate": {"learning_rate": 1},
    "rate_as_name": {"learning_rate": "nan"},
    "device": {"device": "cuda"},
    "override": {"train#trainer#max_epochs": 1},
    "config": {"output_dir": "owned"},
    "weights": {"checkpoint": "owned.pt"},
    "datalist": {"datalist": "owned.json"},
    "imports": {"imports": ["import os"]},
}
TASK_ADDRESSES = {
    "batch": "/batch/infer/task",
    "scoring": "/scoring/dice",
    "sample": "/activelearning/random",
    "train": "/train/task",
    "train_all": "/train/",
}

PROXY = (
    "wado/instances",
    "wado/../instances",
    "wado/../../system",
    "wado/studies/../../tools/execute-script",
    "wado/studies/..%2f..%2fsystem",
    "wado/studies/%2e%2e/%2e%2e/system",
    "wado/studies/%252e%252e/system",
    "wado/studies/1.2/../../../system",
    "wado/system",
    "wado/tools/execute-script",
    "wado/patients",
    "wado/http://evil.example/studies",
    "wado//evil.example/studies",
    "wado/studies@evil.example",
    "wado/studies%3Fx=1",
    "wado/studies%23",
    "wado/studies%0d%0aHost:%20evil.example",
    "wado/studies;x",
    "wado/studies/1.2%00",
    "qido/modalities/x/query",
    "qido/studies/1.2/archive",
    "qido/plugins/explorer.js",
    "stow/studies",
    "studies",
    "system",
    "",
    "other/studies",
)
CLOSED = (
    ("PUT", "/model/task"),
    ("DELETE", "/model/task"),
    ("GET", "/logs/"),
    ("GET", "/logs/gpu"),
    ("GET", "/logs/?lines=-1&text=true"),
    ("POST", "/reload"),
    ("POST", "/infer/wsi/task"),
    ("POST", "/infer/wsi_v2/task"),
    ("POST", "/proxy/dicom/stow/studies"),
    ("POST", "/proxy/dicom/wado/studies"),
    ("POST", "/proxy/dicom/wado/studies/1.2"),
    ("DELETE", "/proxy/dicom/wado/studies/1.2"),
    ("TRACE", "/info/"),
    ("CONNECT", "/info/"),
    ("GET", "/metrics"),
    ("GET", "/static/../app.py"),
    ("GET", "/static/..%2f..%2fapp.py"),
    ("GET", "/static/%2e%2e/%2e%2e/config.py"),
    ("GET", "/static//etc/passwd"),
    ("GET", "/ohif/../../app.py"),
    ("GET", "/ohif/..%2f..%2f..%2fapp.py"),
    ("GET", "/ohif/assets/..%2f..%2f..%2fconfig.py"),
    ("GET", "/ohif//etc/passwd"),
    ("GET", "/ohif/%00"),
)
QUERIES = (
    ("POST", "/infer/task?image=case_1&image=/etc/passwd"),
    ("POST", "/infer/task?image=case_1&output=../x"),
    ("POST", "/infer/task?image=case_1&output=pickle"),
    ("POST", "/infer/task"),
    ("POST", "/infer/..%2ftask?image=case_1"),
    ("POST", "/infer/%24(id)?image=case_1"),
    ("POST", "/infer/task?session_id=../../etc"),
    ("POST", "/infer/task?session_id=..%2f..%2fstudies"),
    ("GET", "/datastore/image?image=%ff%fe"),
    ("GET", "/datastore/image?image=case_1&" + "x=1&" * 200),
    ("GET", "/datastore/image?image=case_1&y=" + "x" * 9000),
    ("GET", "/datastore/?output=secrets"),
    ("HEAD", "/datastore/label?image=..&tag=final"),
    ("GET", "/session/0b1a?update_ts=perhaps"),
    ("POST", "/activelearning/..%2frandom"),
    ("POST", "/train/..%2f..%2fx"),
    ("POST", "/train/task?run_sync=true"),
    ("POST", "/train/?run_sync=1"),
    ("POST", "/train/task?enqueue=perhaps"),
    ("POST", "/batch/infer/task?images=/etc"),
    ("POST", "/batch/infer/task?run_sync=perhaps"),
    ("GET", "/model/..%2f..%2fetc%2fpasswd"),
    ("GET", "/model/info/..%5c..%5cx"),
)
NAMES = {
    "script": "owned.sh",
    "pickle": "owned.pkl",
    "python_in_disguise": "image.nii.gz.py",
    "no_suffix": "image",
    "only_a_suffix": ".nii.gz",
    "parent": "..",
    "detached_header": "image.nhdr",
    "raw_header": "image.mhd",
    "tar": "image.tar.gz",
    "nul": "image\0.nii",
    "shell": "$(id).nii",
    "dots": "../..nii",
    "long": "a" * 2000 + ".nii",
    "no_name": "",
}


def _zip(*members: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return file.getvalue()


def _special(kind: int) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("link.dcm")
    info.external_attr = (kind | 0o777) << 16
    return info


BOMB = gzip.compress(bytes(8 * MIB))
NRRD = b"NRRD0004\ntype: uchar\ndimension: 3\nsizes: 200 200 200\n"
FILES = {
    "gzip_bomb": ("image.nii.gz", BOMB),
    "gzip_bomb_of_many_parts": ("image.nii.gz", gzip.compress(bytes(2 * MIB)) * 4),
    "no_gzip": ("image.nii.gz", b"not packed"),
    "half_a_gzip_header": ("image.nii.gz", b"\x1f\x8bxxxxxxxxxxxxxx"),
    "gzip_with_a_flaw": ("image.nii.gz", BOMB[:200] + b"\0" * 50 + BOMB[250:]),
    "nrrd_of_another_file": ("image.nrrd", NRRD + b"encoding: raw\ndata file: /etc/passwd\n\n"),
    "nrrd_of_another_file_in_capitals": ("image.nrrd", NRRD + b"encoding: raw\nDATAFILE: ../../x\n\n"),
    "nrrd_of_many_files": ("image.nrrd", NRRD + b"encoding: raw\r\ndata file: LIST\r\n/etc/passwd\r\n\r\n"),
    "nrrd_bomb": ("image.nrrd", NRRD + b"encoding: gzip\n\n" + BOMB),
    "nrrd_without_end": ("image.nrrd", NRRD),
    "no_nrrd": ("image.nrrd", b"\n\n"),
}
ARCHIVES = {
    "bomb": _zip(("a.dcm", bytes(8 * MIB))),
    "bomb_in_parts": _zip(*((f"{n}.dcm", bytes(MIB)) for n in range(8))),
    "bomb_inside": _zip(("a.nii.gz", BOMB)),
    "archive_inside": _zip(("a.zip", _zip(("a.dcm", b"x")))),
    "absolute": _zip(("/etc/owned", b"x")),
    "parent": _zip(("../../owned", b"x")),
    "parent_with_backslashes": _zip(("..\\..\\owned", b"x")),
    "drive": _zip(("C:\\owned", b"x")),
    "link": _zip((_special(stat.S_IFLNK), b"/etc/passwd")),
    "device": _zip((_special(stat.S_IFCHR), b"")),
    "pipe": _zip((_special(stat.S_IFIFO), b"")),
    "no_zip": b"PK nothing",
    "half_a_zip": _zip(("a.dcm", b"x" * 1000))[:-30],
    "other_file_inside": _zip(("a.nrrd", NRRD + b"encoding: raw\ndata file: /etc/passwd\n\n")),
}
FORMS: dict[str, tuple[str, str, Parts]] = {
    "params_twice": ("POST", "/infer/task?image=case_1", (("params", None, b"{}"), ("params", None, b'{"model":"x"}'))),
    "params_as_file": ("POST", "/infer/task?image=case_1", (("params", "params.nii", b"{}"),)),
    "file_twice": ("POST", "/infer/task", (("file", "a.nii", b"x"), ("file", "b.nii", b"x"))),
    "unknown_file": ("POST", "/infer/task?image=case_1", (("other", "a.nii", b"x"),)),
    "scribbles_without_an_image": ("POST", "/infer/task", (("label", "a.bin", b"x"),)),
    "image_info_of_the_store": ("PUT", "/datastore/image/info?image=case_1", (("info", None, b'{"path": "/etc"}'),)),
    "strategy_in_the_info": ("PUT", "/datastore/image/info?image=case_1", (("info", None, b'{"strategy": 1}'),)),
    "info_is_a_list": ("PUT", "/datastore/image/info?image=case_1", (("info", None, b"[]"),)),
    "no_image_to_upload": ("PUT", "/datastore/image?image=x", (("params", None, b"{}"),)),
    "image_as_text": ("PUT", "/datastore/image?image=x", (("file", None, b"x"),)),
    "tar_as_session": ("PUT", "/session/?uncompress=true", (("files", "a.tar.gz", BOMB),)),
    "zip_that_stays_packed": ("PUT", "/session/", (("files", "a.zip", _zip(("a.dcm", b"x"))),)),
    "image_to_unpack": ("PUT", "/session/?uncompress=1", (("files", "a.nii", b"x"),)),
    "session_without_files": ("PUT", "/session/", (("client_id", None, b"x"),)),
    "session_meta": ("PUT", "/session/", (("files", "meta.info", b"{}"),)),
    "many_fields": ("PUT", "/session/", tuple((f"f{n}", None, b"x") for n in range(60))),
    "large_field": ("POST", "/infer/task?image=case_1", (("x", None, b"a" * (MIB + 1)),)),
    "label_for_nobody": ("PUT", "/datastore/label?image=nobody", (("label", "mask.nii", b"mask"),)),
    "upload_to_a_path": ("PUT", "/datastore/image?image=..%2f..%2fowned", (("file", "a.nii", b"x"),)),
    "upload_as_tag": ("PUT", "/datastore/label?image=case_1&tag=..%2f..", (("label", "mask.nii", b"mask"),)),
}
HEADERS = {
    "announced_too_large": {"content-length": str(10**12)},
    "json_for_a_form": {"content-type": "application/json"},
    "xml_for_a_form": {"content-type": "application/xml"},
    "no_boundary": {"content-type": "multipart/form-data"},
    "page_of_another_site": {"sec-fetch-site": "cross-site", "origin": "http://evil.example"},
}


def corpus() -> dict[str, Request]:
    """Every hostile request by its name."""
    return {**_ids(), **_json(), **_addresses(), **_uploads(), **_headers()}


def _ids() -> dict[str, Request]:
    return {
        f"id-{address}-{name}": (method, path.format(quote(value, safe="")), parts, {})
        for address, (method, path, parts) in ID_ADDRESSES.items()
        for name, value in IDS.items()
        if address not in FILLED_IN.get(name, ())
        and not (address in {"label_tag", "tag_removed", "session", "session_removed"} and name == "option")
    }


def _json() -> dict[str, Request]:
    requests: dict[str, Request] = {}
    for name, value in PARAMS.items():
        text = value if isinstance(value, bytes) else json.dumps(value).encode()
        requests[f"params-{name}"] = ("POST", "/infer/task?image=case_1", (("params", None, text),), {})
    for address, path in TASK_ADDRESSES.items():
        for name, value in TASKS.items():
            requests[f"{address}-{name}"] = ("POST", path, value, {})
    for name, value in TRAIN.items():
        requests[f"train-setting-{name}"] = ("POST", "/train/task", value, {})
    return requests


def _addresses() -> dict[str, Request]:
    paths = [("GET", f"/proxy/dicom/{path}") for path in PROXY] + [*CLOSED, *QUERIES]
    return {f"{method} {path[:60]} ({n})": (method, path, None, {}) for n, (method, path) in enumerate(paths)}


def _uploads() -> dict[str, Request]:
    requests: dict[str, Request] = {f"form-{name}": (*request, {}) for name, request in FORMS.items()}
    for name, file in NAMES.items():
        requests[f"name-{name}"] = ("PUT", "/datastore/image?image=x", (("file", file, b"x"),), {})
        requests[f"name-{name}-to-infer"] = ("POST", "/infer/task", (("file", file, b"x"),), {})
    for name, (file, content) in FILES.items():
        requests[f"file-{name}"] = ("PUT", "/datastore/image?image=x", (("file", file, content),), {})
        requests[f"file-{name}-as-label"] = ("PUT", "/datastore/label?image=case_1", (("label", file, content),), {})
    for name, content in ARCHIVES.items():
        requests[f"zip-{name}"] = ("PUT", "/session/?uncompress=true", (("files", "a.zip", content),), {})
    return requests


def _headers() -> dict[str, Request]:
    return {f"header-{name}": ("POST", "/infer/task?image=case_1", "{}", each) for name, each in HEADERS.items()}
