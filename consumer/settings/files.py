"""Text files that settings come from: their encodings, and who else may write them."""

from __future__ import annotations

import codecs
import os
import stat
from pathlib import Path

from consumer.errors import SettingsError

MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is the begin of this one
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def read_text(file: Path) -> str:
    """Return the text of a file in UTF-8, UTF-16 or UTF-32, with or without a byte order mark.

    Raises OSError, or ValueError for anything else; no message holds a part of the file.
    """
    content = file.read_bytes()
    encoding = _encoding_of(content)
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        name = encoding.removesuffix("-sig").upper()
        raise ValueError(f"line {line} is not {name}; save the file as UTF-8") from None


def read_value(file: Path) -> str:
    """Return the text of a file that holds one value, without the end of its line; raises as ``read_text`` does."""
    return read_text(file).rstrip("\r\n")


def require_no_other_writer(path: Path, what: str) -> None:
    """Raise SettingsError for a file or folder that other users may write: they would choose the code that runs.

    Nothing can be written where it is mounted read-only, as Kubernetes mounts a ConfigMap. A group with the number of
    the owner is the owner's own.
    """
    found = path.stat()
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)) or _is_read_only(path):
        return
    everyone = bool(found.st_mode & stat.S_IWOTH)
    own_group = found.st_uid == found.st_gid != 0
    if everyone or (found.st_mode & stat.S_IWGRP and not own_group):
        who = "every user" if everyone else "its group"
        raise SettingsError(
            f"{what} can be written by {who}, who could have this software run any code: chmod go-w {path};"
            " or set SESSION_CONSUMER_ALLOW_WRITABLE=true where that cannot be changed"
        )


def _is_read_only(path: Path) -> bool:
    return bool(os.statvfs(path).f_flag & os.ST_RDONLY)


def _encoding_of(content: bytes) -> str:
    """Return the encoding by its mark; without a mark, by the zero bytes that ASCII has in UTF-16."""
    for mark, encoding in MARKS:
        if content.startswith(mark):
            return encoding
    if content[1:2] == b"\0":
        return "utf-16-le"
    return "utf-16-be" if content[:1] == b"\0" else "utf-8"
