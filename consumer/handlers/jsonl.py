"""The handler that appends events to a file as JSON Lines, on disk before their offsets are committed."""

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
    """Appends to one file; opened with the daemon, flushed before each commit, closed at the end.

    Options: ``path``, and ``max_bytes`` (0: no limit): a file that has grown past it is renamed
    ``NAME-<UTC time>.jsonl``, and a new file is started.

    - A line is in the buffer or on disk as a whole; a line that was written in part is truncated.
    - No file is ever deleted; remove files that are no longer needed.
    - Only one route of one process may write a file; a second one is refused at start.
    """

    def __init__(self, path: Path, max_bytes: int = 0) -> None:
        if max_bytes < 0:
            raise SettingsError(f"options.max_bytes = {max_bytes} must be 0 (no limit) or above")
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
            raise SettingsError(
                f"options.path: {self._path} is already written by another route or process; choose another path"
            ) from error
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
        """Buffer one event. Raises SinkError, without buffering it, when the buffer is full and cannot be written."""
        if self._buffered >= BUFFER_BYTES:
            self._write()
        line = self._encode(event) + b"\n"
        self._lines.append(line)
        self._buffered += len(line)

    async def flush(self) -> None:
        """Write the buffer and wait until the disk has it. Raises SinkError when that fails."""
        self._write()
        assert self._file is not None
        files = [*self._retired, self._file]
        if self._retired or self._file.unsynced or self._file.failed:
            await asyncio.to_thread(self._sync, files)
            self._retired = [file for file in self._retired if not file.closed]

    def _sync(self, files: list[_File]) -> None:
        """Sync the files, in a thread. A cancelled flush's thread goes on, and the next flush waits for it here."""
        with self._syncing:
            for file in files:
                if not file.closed:
                    file.sync(self._path)
            if len(files) > 1:
                _sync_folder(self._path.parent)  # a renamed file is durable only after its folder is synced
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
        """Start a new file; the next flush syncs and closes the full one."""
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
    """One open file, with its size and whether the disk has all of it."""

    def __init__(self, number: int, size: int) -> None:
        self.size = size
        self.unsynced = False
        self.failed: OSError | None = None
        self.closed = False
        self._number = number

    def write(self, data: bytes) -> None:
        """Append all of ``data``, or nothing if that fails."""
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
        """Wait until the disk has all of it. It fails for ever after one failure: the kernel may have dropped data."""
        if self.failed is None and self.unsynced:
            self.unsynced = False  # set before the sync: data written during it needs the next one
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
    """Return an unused name with the time for a full file; a rename would replace an existing file."""
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
    """Truncate a partial last line that a kill left, and return the size; its record is not committed."""
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
