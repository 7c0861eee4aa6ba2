"""The handler that appends events to a file as JSON Lines: whole lines, on disk before their offsets are committed."""

from __future__ import annotations

import asyncio
import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import msgspec

from consumer.errors import SettingsError

BUFFER_BYTES = 1_048_576


class JsonLines:
    """Owns one file; opened with the daemon, flushed before each commit, closed at the end.

    Options: ``path``; ``max_bytes``: a file that has grown past this is renamed ``NAME-<UTC time>.jsonl`` and a new one
    begun (0: never).

    - A line is in the buffer, or on disk; one that was written in part is cut off again.
    - Nothing is ever deleted: what a reader no longer needs is the reader's to remove.
    - One process a file: a second one is refused at start.
    """

    def __init__(self, path: Path, max_bytes: int = 0) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._encode = msgspec.json.Encoder().encode
        self._lines: list[bytes] = []
        self._buffered = 0
        self._file = -1
        self._size = 0
        self._unsynced: list[_Written] = []

    async def __aenter__(self) -> Self:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file, self._size = _open(self._path)
        except BlockingIOError as error:
            raise SettingsError(f"options.path: another process writes {self._path}; give each its own") from error
        except OSError as error:
            raise SettingsError(f"options.path: cannot write {self._path}: {error.strerror}") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._file >= 0:
            try:
                await self.flush()
            finally:
                os.close(self._file)
                self._file = -1

    def __call__(self, event: Any) -> None:
        """Keep one event; raises OSError when the buffer is full and cannot be written, with the event not kept."""
        if self._buffered >= BUFFER_BYTES:
            self._write()
        line = self._encode(event) + b"\n"
        self._lines.append(line)
        self._buffered += len(line)

    async def flush(self) -> None:
        """Write what is kept and wait until the disk has it; raises OSError when it has not."""
        self._write()
        if self._unsynced:
            files, self._unsynced = self._unsynced, []
            try:
                await asyncio.to_thread(_sync, files)
            except BaseException:
                # After a failed fsync the kernel may drop what was not written, and call the next one a success:
                # these files stay unsynced, and _sync remembers which failed.
                self._unsynced = files + self._unsynced
                raise

    def _write(self) -> None:
        if not self._lines:
            return
        if self._max_bytes and self._size >= self._max_bytes:
            self._rotate()
        data = memoryview(b"".join(self._lines))
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError:
            os.ftruncate(self._file, self._size)  # no half line: all of them stay in the buffer
            raise
        self._size += written
        self._lines.clear()
        self._buffered = 0
        if not self._unsynced or self._unsynced[-1].number != self._file:
            self._unsynced.append(_Written(self._file))

    def _rotate(self) -> None:
        """Begin a new file; the old one is closed by the next flush."""
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        old = self._path.with_name(f"{self._path.stem}-{stamp}{self._path.suffix}")
        self._path.rename(old)
        try:
            file, size = _open(self._path)
        except OSError:
            old.rename(self._path)
            raise
        retired = _Written(self._file, retired=True)
        self._unsynced = [each for each in self._unsynced if each.number != self._file] + [retired]
        self._file, self._size = file, size


class _Written:
    """A file that was written to and not synced since."""

    def __init__(self, number: int, *, retired: bool = False) -> None:
        self.number = number
        self.retired = retired
        self.failed: OSError | None = None


def _sync(files: list[_Written]) -> None:
    for file in files:
        if file.failed is not None:
            raise file.failed
        try:
            os.fsync(file.number)
        except OSError as error:
            file.failed = error
            raise
    for file in files:
        if file.retired:
            os.close(file.number)


def _open(path: Path) -> tuple[int, int]:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(file)
        raise
    return file, _without_half_line(file)


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
