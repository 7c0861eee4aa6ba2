"""The handler that appends events to a file as JSON Lines: whole lines, on disk before their offsets are committed."""

from __future__ import annotations

import asyncio
import fcntl
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import msgspec

from consumer.errors import SettingsError, SinkError

BUFFER_BYTES = 1_048_576


class JsonLines:
    """Owns one file; opened with the daemon, flushed before each commit, closed at the end.

    Options: ``path``; ``max_bytes``: a file that has grown past this is renamed ``NAME-<UTC time>.jsonl`` and a new one
    begun (0: never).

    - A line is in the buffer, or on disk; one that was written in part is cut off again.
    - Nothing is ever deleted: what a reader no longer needs is the reader's to remove.
    - One route of one process a file: a second one is refused at start.
    """

    def __init__(self, path: Path, max_bytes: int = 0) -> None:
        if max_bytes < 0:
            raise SettingsError(f"options.max_bytes = {max_bytes} must be 0 (never begin a new file) or above")
        self._path = path
        self._max_bytes = max_bytes
        self._encode = msgspec.json.Encoder().encode
        self._lines: list[bytes] = []
        self._buffered = 0
        self._file: _File | None = None
        self._retired: list[_File] = []
        self._syncing = threading.Lock()

    async def __aenter__(self) -> Self:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = _open(self._path)
        except BlockingIOError as error:
            raise SettingsError(f"options.path: {self._path} is being written already; give each its own") from error
        except OSError as error:
            raise SettingsError(f"options.path: cannot write {self._path}: {error.strerror}") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._file is not None:
            try:
                await self.flush()
            finally:
                self._file.close()
                self._file = None

    def __call__(self, event: Any) -> None:
        """Keep one event; raises SinkError when the buffer is full and cannot be written, with the event not kept."""
        if self._buffered >= BUFFER_BYTES:
            self._write()
        line = self._encode(event) + b"\n"
        self._lines.append(line)
        self._buffered += len(line)

    async def flush(self) -> None:
        """Write what is kept and wait until the disk has it; raises SinkError when it has not."""
        self._write()
        assert self._file is not None
        files = [*self._retired, self._file]
        if self._retired or self._file.unsynced or self._file.failed:
            await asyncio.to_thread(self._sync, files)
            self._retired = [file for file in self._retired if not file.closed]

    def _sync(self, files: list[_File]) -> None:
        """Sync in a thread; a flush that was cancelled goes on in its own, and the next one waits for it here."""
        with self._syncing:
            for file in files:
                if not file.closed:
                    file.sync(self._path)
            if len(files) > 1:
                _sync_folder(self._path.parent)  # a renamed file is safe only when its folder is
            for file in files[:-1]:
                file.close()

    def _write(self) -> None:
        file = self._file
        assert file is not None
        if not self._lines:
            return
        try:
            if self._max_bytes and file.size >= self._max_bytes:
                file = self._rotate(file)
            file.write(b"".join(self._lines))
        except OSError as error:
            raise SinkError(f"cannot write {self._path}: {error.strerror}") from error
        self._lines.clear()
        self._buffered = 0

    def _rotate(self, full: _File) -> _File:
        """Begin a new file; the full one is synced and closed by the next flush."""
        old = _free_name(self._path)
        self._path.rename(old)
        try:
            self._file = _open(self._path)
        except OSError:
            old.rename(self._path)
            raise
        self._retired.append(full)
        return self._file


class _File:
    """One open file: how long it is, and whether the disk has all of it."""

    def __init__(self, number: int, size: int) -> None:
        self.size = size
        self.unsynced = False
        self.failed: OSError | None = None
        self.closed = False
        self._number = number

    def write(self, data: bytes) -> None:
        """Append all of it or nothing."""
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._number, rest) :]
        except OSError:
            os.ftruncate(self._number, self.size)
            raise
        self.size += len(data)
        self.unsynced = True

    def sync(self, path: Path) -> None:
        """Wait until the disk has it; once failed it fails for ever, as the kernel may have dropped what it kept."""
        if self.failed is None and self.unsynced:
            self.unsynced = False  # first: what is written meanwhile waits for the next one
            try:
                os.fsync(self._number)
            except OSError as error:
                self.failed = error
        if self.failed is not None:
            raise SinkError(f"{path} may have lost lines on disk: {self.failed.strerror}; restart to write them again")

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            os.close(self._number)


def _free_name(path: Path) -> Path:
    """Name a full file by the time; a clock may stand still, and rename would replace what is there."""
    now = datetime.now(UTC)
    while (old := path.with_name(f"{path.stem}-{now:%Y%m%dT%H%M%S.%fZ}{path.suffix}")).exists():
        now += timedelta(microseconds=1)
    return old


def _sync_folder(folder: Path) -> None:
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _open(path: Path) -> _File:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise
    return _File(file, _without_half_line(file))


def _without_half_line(file: int) -> int:
    """Cut off a last line without an end, left by a kill in mid-write: its record was not committed and comes again."""
    size = os.fstat(file).st_size
    end = size
    while end > 0:
        start = max(0, end - 65536)
        newline = os.pread(file, end - start, start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end != size:
        os.ftruncate(file, end)
    return end
