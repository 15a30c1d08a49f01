"""Uploaded files, opened before anything else opens them: bombs, links, and headers that name other files.

A few kilobytes of gzip or zip can unpack to terabytes, a zip member can be a link or name a path outside its folder,
and a NRRD header can name any file of the server as its data.
"""

import re
import stat
import zipfile
import zlib
from typing import IO

from .refusals import Refusal

CHUNK = 2**20
NRRD_HEADER = 2**20
MAX_MEMBERS = 20_000
MAX_RATIO = 200
RATIO_FROM = 256 * 2**20


def check_upload(file: IO[bytes], name: str, field: str, limit: int) -> None:
    """Check one uploaded file by what its name says it is, and rewind it.

    Args:
        file: the content, seekable.
        name: the file's name; its suffix decides what is checked.
        field: how the answer calls the file.
        limit: largest unpacked size in bytes.

    Raises:
        Refusal: 400 for a file that is not what it claims, 413 for one that unpacks to more than the limit.
    """
    lower = name.lower()
    if lower.endswith(".gz"):
        check_gzip(file, field, limit)
    elif lower.endswith(".nrrd"):
        check_nrrd(file, field, limit)
    elif lower.endswith(".zip"):
        check_zip(file, field, limit)
    file.seek(0)


def check_gzip(file: IO[bytes], field: str, limit: int) -> None:
    """A gzip file, unpacked piece by piece without keeping it."""
    head = file.read(2)
    if head != b"\x1f\x8b":
        raise Refusal(400, f"{field} is named .gz and is not a gzip file")
    _inflate(file, head, field, limit)


def check_zip(file: IO[bytes], field: str, limit: int) -> None:
    """A zip archive of plain files and folders that stay in their folder."""
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            _check_total(members, field, limit)
            for member in members:
                _check_member(archive, member, field, limit)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, zlib.error, ValueError, OSError):
        raise Refusal(400, f"{field} is named .zip and cannot be read as a zip archive") from None


def check_nrrd(file: IO[bytes], field: str, limit: int) -> None:
    """A NRRD file that holds its own data."""
    head = file.read(NRRD_HEADER)
    end = re.search(rb"\r?\n\r?\n", head)
    header = head[: end.start()] if end else b""
    if end is None or not header.startswith(b"NRRD000"):
        raise Refusal(400, f"{field} is named .nrrd and does not begin with a NRRD header")
    if re.search(rb"^\s*data\s*file\s*:", header, re.IGNORECASE | re.MULTILINE):
        raise Refusal(400, f"{field} must hold its own data: a NRRD header may not name another file")
    if re.search(rb"^\s*encoding\s*:\s*(bz2|bzip2)", header, re.IGNORECASE | re.MULTILINE):
        raise Refusal(400, f"{field} must be raw or gzip NRRD")
    if re.search(rb"^\s*encoding\s*:\s*(gz|gzip)", header, re.IGNORECASE | re.MULTILINE):
        file.seek(end.end())
        _inflate(file, b"", field, limit)


def _inflate(file: IO[bytes], head: bytes, field: str, limit: int) -> None:
    total, unzip, packed = 0, zlib.decompressobj(wbits=31), head + file.read(CHUNK)
    try:
        while packed:
            total += len(unzip.decompress(packed, CHUNK))
            if total > limit:
                raise Refusal(413, f"{field} unpacks to more than {limit // 2**20} MiB")
            packed = unzip.unconsumed_tail or unzip.unused_data.lstrip(b"\0")
            if unzip.eof:
                unzip = zlib.decompressobj(wbits=31)
            packed = packed or file.read(CHUNK)
    except zlib.error:
        raise Refusal(400, f"{field} is damaged: its gzip data cannot be unpacked") from None


def _check_total(members: list[zipfile.ZipInfo], field: str, limit: int) -> None:
    unpacked = sum(member.file_size for member in members)
    packed = sum(member.compress_size for member in members)
    if len(members) > MAX_MEMBERS:
        raise Refusal(413, f"{field} may hold {MAX_MEMBERS} files")
    if unpacked > limit or (unpacked > RATIO_FROM and unpacked > MAX_RATIO * packed):
        raise Refusal(413, f"{field} unpacks to more than {limit // 2**20} MiB, or is packed suspiciously well")


def _check_member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, field: str, limit: int) -> None:
    parts = re.split(r"[/\\]", member.orig_filename)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if parts[0] == "" or ".." in parts or ":" in parts[0] or "\0" in member.orig_filename or len(parts) > 16:
        raise Refusal(400, f"{field} holds a member that names a path outside its folder")
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or member.flag_bits & 1:
        raise Refusal(400, f"{field} may hold plain files and folders, no links, devices or encrypted members")
    if member.filename.lower().endswith((".gz", ".nrrd", ".zip")):
        if member.filename.lower().endswith(".zip"):
            raise Refusal(400, f"{field} may not hold another archive")
        with archive.open(member) as inner:
            check_upload(inner, member.filename, f"a member of {field}", limit)
