"""One open file of whole lines: locked, appended to, synced, and compared with what its path leads to."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from pathlib import Path

import msgspec
import structlog

from consumer.errors import SinkError

log = structlog.get_logger("consumer.handlers.line_file")

MAX_LINE_BYTES = 16_777_216
"""What follows the last newline of a file is half a line of ours only if it is no longer than this."""

KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
"""What a path may lead to besides a regular file."""


class LineFile:
    """One open file; made by ``open_lines``, owned by its handler.

    - A write adds all of its lines, or nothing: what was written in part is cut off again.
    - Opening changes nothing. Half a line that a kill left is cut off before the first write.
    - A sync that failed once fails for ever, because the kernel may have dropped what it kept.
    - The lock on the file ends with this process, also while a child that it forked lives on.
    """

    def __init__(self, number: int, path: Path, written_at: float) -> None:
        """Take over an open file; ``number`` is its descriptor, ``path`` its name in errors and in the log."""
        found = os.fstat(number)
        self.size = found.st_size
        """Where the last line ends that was written or found."""
        self.written_at = written_at
        """Time of the last write, in seconds since 1970."""
        self.renamed_to: Path | None = None
        """The name of a full file."""
        self.failed: OSError | None = None
        self.unsynced = False
        self.closed = False
        self._number = number
        self._path = path
        self._identity = found.st_dev, found.st_ino
        self._mended = False
        self._torn = False

    def write(self, data: bytes) -> None:
        """Append all of ``data``, or raise OSError and leave the file as long as it was."""
        self.mend()
        if self._torn:
            self._cut()
        self.measure()
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._number, rest) :]
        except OSError:
            self._torn = True
            with contextlib.suppress(OSError):  # then the next write cuts it off
                self._cut()
            raise
        self.size += len(data)
        self.written_at = time.time()
        self.unsynced = True

    def mend(self) -> None:
        """Cut off half a line that a kill left; end a line that lacks only its newline. Raises OSError or SinkError."""
        if self._mended:
            return
        rest = _unended(self._number, self._path)
        if _is_complete(rest):
            os.write(self._number, b"\n")
        elif rest:
            os.ftruncate(self._number, os.fstat(self._number).st_size - len(rest))
            log.warning("half_line_cut", file=str(self._path), bytes=len(rest))
        self.unsynced = bool(rest)
        self.measure()
        self._mended = True

    def _cut(self) -> None:
        """Remove what a write that failed has added."""
        if os.fstat(self._number).st_size > self.size:
            os.ftruncate(self._number, self.size)
        self._torn = False

    def is_at(self, path: Path) -> bool:
        """Whether a path leads to this file, and not to another one or to nothing."""
        try:
            found = path.stat()
        except OSError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def measure(self) -> None:
        """Note the present size of the file; other programs may have changed it."""
        self.size = os.fstat(self._number).st_size

    @property
    def is_whole(self) -> bool:
        """Whether the file is not shorter than what was written to it."""
        return os.fstat(self._number).st_size >= self.size

    def sync(self) -> None:
        """Wait until the disk has all of it. Raises SinkError."""
        if self.failed is None and self.unsynced:
            self.unsynced = False  # set before the sync: data written during it needs the next one
            try:
                os.fsync(self._number)
            except OSError as error:
                self.failed = error
        if self.failed is not None:
            why = self.failed.strerror
            raise SinkError(f"{self._path} may have lost lines on disk: {why}; restart to write them again")

    def close(self) -> None:
        """Close the file, which ends its lock; in a forked child the lock stays with the parent."""
        if not self.closed:
            self.closed = True
            os.close(self._number)


def open_lines(path: Path) -> LineFile:
    """Open a file to append lines, and make it and its folder if they are missing.

    Raises SinkError for a path that cannot be written, is no regular file, has another writer, or leads to a file whose
    end cannot be half a line of ours.
    """
    try:
        _require_regular(path)
        real_path(path).parent.mkdir(parents=True, exist_ok=True)
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o640)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            written_at = os.fstat(number).st_mtime
            _unended(number, path)
        except (OSError, SinkError):
            os.close(number)
            raise
    except BlockingIOError as error:
        raise SinkError(f"{path} is already written by another route or process; choose another path") from error
    except OSError as error:
        raise SinkError(f"cannot write {path}: {error.strerror}") from error
    return LineFile(number, path, written_at)


def real_path(path: Path) -> Path:
    """Return where a path leads: a link stays in its place, and what it leads to is renamed, made and synced."""
    return Path(os.path.realpath(path))


def sync_folder(folder: Path) -> None:
    """Wait until the disk has the names of a folder's files. Raises OSError."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _require_regular(path: Path) -> None:
    try:
        kind = stat.S_IFMT(path.stat().st_mode)
    except FileNotFoundError:
        return
    if kind in KINDS:
        raise SinkError(
            f"cannot write {path}: it is {KINDS[kind]}, and only a regular file can be synced and cut off;"
            " choose another path"
        )


def _unended(number: int, path: Path) -> bytes:
    """Return what follows the last newline. Raises SinkError if it cannot be half a line of ours."""
    size = os.fstat(number).st_size
    if not size or os.pread(number, 1, size - 1) == b"\n":
        return b""
    start = max(0, size - MAX_LINE_BYTES - 1)
    rest = os.pread(number, size - start, start).rpartition(b"\n")[2]
    if len(rest) > MAX_LINE_BYTES or not _may_be_ours(rest):
        raise SinkError(
            f"{path} was not written by this handler: its end is neither a newline nor half a line of JSON;"
            " choose another path, move the file away, or end it with a newline to append to it"
        )
    return rest


def _may_be_ours(rest: bytes) -> bool:
    """Whether a line of ours may begin so: an object, or null for a tombstone. A power failure may leave zeros."""
    begin = rest.lstrip(b" \t\0")
    return begin.startswith(b"{") or b"null".startswith(begin)


def _is_complete(rest: bytes) -> bool:
    try:
        msgspec.json.decode(rest, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True
