"""The handler that appends events to a file as JSON Lines, on disk before their offsets are committed."""

from __future__ import annotations

import asyncio
import inspect
import math
import os
import threading
import time
from typing import Any, Self

import msgspec
import structlog

from consumer import WorkerPath
from consumer.errors import SettingsError, SinkError
from consumer.handlers.documents import document_of, with_position
from consumer.handlers.full_files import Compressor, free_name, full_files
from consumer.handlers.line_file import LineFile, open_lines, real_path, sync_folder
from consumer.record import Record

log = structlog.get_logger("consumer.handlers.jsonl")

BUFFER_BYTES = 1_048_576
TRIES = 3
"""Number of times that lines are written when the file is moved away during each write."""


class JsonLines:
    """Appends to one file; opened with the daemon, flushed before each commit, closed at the end.

    - A line is in the buffer or on disk as a whole; a line that was written in part is cut off.
    - Lines leave the buffer once ``path`` led to the file that holds them after they were written. A file that was
      moved away, replaced or deleted is begun again at ``path``, and lines may then be in both.
    - No file is ever deleted, except after its compression; remove files that are no longer needed.
    - Only one route of one process may write a file; a second one is refused at start. With ``run --workers`` the name
      of the file gets the worker's number: ``voice-1.jsonl``.
    """

    in_event_loop = True
    """A line that a thread adds during a flush would be dropped with those that are written."""

    def __init__(
        self,
        path: WorkerPath,
        max_bytes: int = 0,
        max_seconds: float = 0.0,
        *,
        compress: bool = False,
        positions: bool = False,
        original: bool = False,
    ) -> None:
        """Take the route's options.

        A file is full at ``max_bytes``, and at each multiple of ``max_seconds`` in UTC; 0 means no limit. A full file
        is renamed ``NAME-<UTC time>.jsonl``, and compressed with ``compress``. ``positions`` adds ``_topic``,
        ``_partition`` and ``_offset`` of the record as first consumed. ``original`` writes the record's value instead
        of the event.
        """
        if max_bytes < 0:
            raise SettingsError(f"options.max_bytes = {max_bytes} must be 0 (no limit) or above")
        if not 0 <= max_seconds < math.inf:
            raise SettingsError(f"options.max_seconds = {max_seconds} must be 0 (no limit) or above")
        if compress and not (max_bytes or max_seconds):
            raise SettingsError("options.compress: only full files are compressed; set max_bytes or max_seconds")
        self._path = path
        self._max_bytes = max_bytes
        self._max_seconds = max_seconds
        self._compressor = Compressor() if compress else None
        self._positions = positions
        self._original = original
        if not (positions or original):  # then no Record need be made
            self.__signature__ = inspect.signature(lambda event: event)
        self._encode = msgspec.json.Encoder().encode
        self._lines: list[bytes] = []
        self._buffered = 0
        self._file: LineFile | None = None
        self._retired: list[LineFile] = []
        """Files that were full or moved away, and have lines that are not synced."""
        self._folder_unsynced = False
        self._syncing = threading.Lock()
        self._look_at: asyncio.TimerHandle | None = None

    async def __aenter__(self) -> Self:
        try:
            self._file = open_lines(self._path)
        except SinkError as error:
            raise SettingsError(f"options.path: {error}") from error
        self._folder_unsynced = not self._file.size  # then it may be new
        os.register_at_fork(after_in_child=self._close_all)
        if self._compressor is not None:
            self._compressor.start(full_files(real_path(self._path)))
        self._look_later()
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._look_at is not None:
            self._look_at.cancel()
        try:
            if self._file is not None:
                await self.flush()
        finally:
            self._close_all()
            if self._compressor is not None:
                await self._compressor.stop()

    def __call__(self, event: Any, record: Record | None = None) -> None:
        """Buffer one event. Raises SinkError, without buffering it, when the buffer is full and cannot be written."""
        if self._buffered >= BUFFER_BYTES:
            self._write()
        line = (self._encode(event) if record is None else self._with_record(event, record)) + b"\n"
        self._lines.append(line)
        self._buffered += len(line)

    def _with_record(self, event: Any, record: Record) -> bytes:
        """Return the line of an event with its record; a tombstone has no fields but its position."""
        line = document_of(record) if self._original else self._encode(event)
        return with_position(line if event is not None else b"{}", record) if self._positions else line

    async def flush(self) -> None:
        """Write the buffer and wait until the disk has it. Raises SinkError when that fails."""
        self._write()
        file = self._opened
        if self._retired or file.unsynced or file.failed or (self._folder_unsynced and file.size):
            retired = list(self._retired)
            await asyncio.to_thread(self._sync, [*retired, file])
            self._retired = [each for each in self._retired if each not in retired]
            for each in retired:
                self._let_go(each)

    def reopen(self) -> None:
        """Begin a new file if the path no longer leads to the one that is open. Raises SinkError."""
        if self._file is not None:
            self._in_place()

    @property
    def _opened(self) -> LineFile:
        if self._file is None:
            raise SinkError(f"{self._path} is not open: the handler was not entered")
        return self._file

    def _sync(self, files: list[LineFile]) -> None:
        """Sync the files, in a thread. A cancelled flush's thread goes on, and the next flush waits for it here."""
        with self._syncing:
            for file in files:
                if not file.closed:
                    file.sync()
            if self._folder_unsynced:  # a new or renamed file is durable only after its folder is synced
                self._folder_unsynced = False
                try:
                    sync_folder(real_path(self._path).parent)
                except OSError as error:
                    self._folder_unsynced = True
                    raise SinkError(f"cannot sync the folder of {self._path}: {error.strerror}") from error

    def _write(self) -> None:
        """Write the buffer to where the path leads."""
        if not self._lines:
            return
        data = b"".join(self._lines)
        for _ in range(TRIES):
            file = self._in_place()
            if self._is_full(file):
                file = self._rotate(file)
            try:
                file.write(data)
                if file.is_at(self._path) and file.is_whole:
                    break
            except OSError as error:
                raise SinkError(f"cannot write {self._path}: {error.strerror}") from error
        else:
            raise SinkError(f"{self._path} was moved away or cut off during each of {TRIES} writes; stop what does so")
        self._lines.clear()
        self._buffered = 0

    def _in_place(self) -> LineFile:
        """Return the open file; begin a new one if the path no longer leads to it."""
        file = self._opened
        if file.is_at(self._path):
            if not file.is_whole:
                log.warning("file_truncated", file=str(self._path))
                file.measure()
            return file
        begun = self._begin()
        log.info("file_reopened", file=str(self._path))
        return begun

    def _is_full(self, file: LineFile) -> bool:
        if not file.size:
            return False
        if self._max_bytes and file.size >= self._max_bytes:
            return True
        seconds = self._max_seconds
        return bool(seconds) and file.written_at // seconds != time.time() // seconds

    def _rotate(self, full: LineFile) -> LineFile:
        """Rename the full file, wherever links lead to it, and begin a new one."""
        path = real_path(self._path)
        name = free_name(path)
        try:
            full.mend()
            path.rename(name)
        except OSError as error:
            raise SinkError(f"cannot rename {self._path}: {error.strerror}") from error
        full.renamed_to = name
        return self._begin()

    def _begin(self) -> LineFile:
        """Open a file at the path in place of the open one, which is closed once it is synced."""
        old, self._file = self._opened, open_lines(self._path)
        self._folder_unsynced = True
        if old.unsynced or old.failed or self._syncing.locked():
            self._retired.append(old)
        else:
            self._let_go(old)
        return self._file

    def _let_go(self, file: LineFile) -> None:
        """Close a file that is synced, and compress it if it was full."""
        file.close()
        if self._compressor is not None and file.renamed_to is not None:
            self._compressor.add(file.renamed_to)

    def _look_later(self) -> None:
        if self._max_seconds:
            left = self._max_seconds - time.time() % self._max_seconds
            self._look_at = asyncio.get_running_loop().call_later(left, self._look)

    def _look(self) -> None:
        """Begin a new file when it is time, also without events."""
        try:
            file = self._in_place()
            if self._is_full(file):
                self._rotate(file)
        except SinkError as error:
            log.warning("rotation_failed", why=str(error))
        self._look_later()

    def _close_all(self) -> None:
        """Close all files at the end; and in a child that was forked, which must not keep their locks."""
        for file in [*self._retired, *([self._file] if self._file else [])]:
            file.close()
        self._file = None
