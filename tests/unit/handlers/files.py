"""Events, the files that they were written to, and a disk that fails."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import pytest

from schemas.samples import sessions
from schemas.session import Session
from schemas.wire import session_reader

Write = Callable[[int, bytes], int]


def some(count: int, seed: int = 0) -> list[Session]:
    return list(islice(sessions(seed), count))


def read(file: Path) -> list[Session]:
    """Read a file of events; its last line must be complete."""
    *lines, rest = file.read_bytes().split(b"\n")
    assert rest == b""
    return list(map(session_reader(), lines))


def read_all(path: Path) -> list[Session]:
    """Read all files of a handler in the order in which they were begun."""
    old = sorted(each for each in path.parent.iterdir() if each != path)
    return [event for file in [*old, path] for event in read(file)]


class Disk:
    """A disk that is full after a number of bytes, and whose next syncs can fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.room: int | None = None
        self.code = errno.ENOSPC
        self.failing_syncs = 0
        self.synced: list[int] = []
        self._write: Write = os.write
        self._fsync = os.fsync
        monkeypatch.setattr(os, "write", self.write)
        monkeypatch.setattr(os, "fsync", self.fsync)

    def write(self, file: int, data: bytes) -> int:
        if self.room == 0:
            raise OSError(self.code, os.strerror(self.code))
        written = self._write(file, data if self.room is None else data[: self.room])
        if self.room is not None:
            self.room -= written
        return written

    def fsync(self, file: int) -> None:
        if self.failing_syncs:
            self.failing_syncs -= 1
            raise OSError(errno.EIO, "Input/output error")
        self._fsync(file)
        self.synced.append(os.fstat(file).st_ino)
