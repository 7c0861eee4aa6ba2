"""The folder of Parquet files: their names, the offsets they hold, and which writer may add to a partition's.

The hidden folder ``.writing`` holds files that are not finished, and one lock for each partition.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import time
import uuid
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import NamedTuple

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from consumer.errors import SinkError
from consumer.handlers.columns import OFFSET
from consumer.handlers.line_file import sync_folder
from consumer.handlers.offsets import Offsets
from consumer.record import TopicPartition

HIDDEN = ".writing"
DAY = "date="
"""What the name of a day's folder begins with, as Hive and DuckDB expect it."""
RANGE = re.compile(r"(\d+)-(\d+)\.parquet")
TIMESTAMPS = b"session-consumer.timestamps"
"""Key in a file's metadata: timestamps of some records by offset, which show that a topic was created again."""
LOCK_SECONDS = 5.0
"""Time for which the lock of a partition is waited for; its owner holds it while it adds finished files."""
LOCK_POLL_SECONDS = 0.02


class Stored(NamedTuple):
    """One file of a partition: the lowest and the highest offset of its rows, by its name."""

    first: int
    last: int
    path: Path


def file_name(key: TopicPartition, first: int, last: int) -> str:
    """Return the name of a file of a partition's rows."""
    return f"{key.topic}-{key.partition}-{first}-{last}.parquet"


class Lock:
    """The lock of one partition, held. Its file names the writer who was the last to add files."""

    def __init__(self, number: int, writer: bytes) -> None:
        self._number = number
        self._writer = writer

    @property
    def is_ours(self) -> bool:
        """Whether no other writer has added files since ``claim``."""
        return os.pread(self._number, len(self._writer) + 1, 0) == self._writer

    def claim(self) -> None:
        """Name this writer as the last one, before it adds files: another one then looks for them."""
        os.pwrite(self._number, self._writer, 0)
        os.ftruncate(self._number, len(self._writer))
        os.fsync(self._number)


class Folder:
    """The folder of one handler; made with it. Any method may raise OSError or SinkError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.writer = uuid.uuid4().hex
        """Identifies this handler among all that add to the folder."""
        self.numbers: set[int] = set()
        """Open descriptors; a forked child closes them, because their locks must end with this process."""
        self._made = 0

    def open(self) -> None:
        """Make the folder, and remove what dead processes have left unfinished."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / HIDDEN).mkdir(exist_ok=True)
        for each in (self.path / HIDDEN).glob("*.tmp"):
            _remove_if_dead(each)
        path, number = self.temporary()  # a folder that takes no file is found at start
        path.unlink(missing_ok=True)
        self.close_number(number)

    def temporary(self) -> tuple[Path, int]:
        """Make a hidden file; it counts as left by a dead process when the descriptor is closed."""
        (self.path / HIDDEN).mkdir(exist_ok=True)
        self._made += 1
        path = self.path / HIDDEN / f"{self.writer}-{self._made}.tmp"
        number = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640)
        self.numbers.add(number)
        try:
            fcntl.flock(number, fcntl.LOCK_EX)  # a process that starts may look for a moment whether it is locked
        except OSError:
            self.close_number(number)
            raise
        return path, number

    def close_number(self, number: int) -> None:
        """Close a descriptor."""
        self.numbers.discard(number)
        with contextlib.suppress(OSError):
            os.close(number)

    def close_all(self) -> None:
        """Close all descriptors."""
        for number in list(self.numbers):
            self.close_number(number)

    @contextlib.contextmanager
    def locked(self, key: TopicPartition) -> Iterator[Lock]:
        """Hold the lock of a partition. Raises SinkError if another writer keeps it too long."""
        (self.path / HIDDEN).mkdir(exist_ok=True)
        path, until = self.path / HIDDEN / f"{key}.lock", time.monotonic() + LOCK_SECONDS
        while True:
            number = os.open(path, os.O_RDWR | os.O_CREAT, 0o640)
            self.numbers.add(number)
            try:
                if _lock(number, path):
                    yield Lock(number, self.writer.encode())
                    return
            finally:
                self.close_number(number)
            if time.monotonic() > until:
                raise SinkError(
                    f"another process that adds files of {key} to {self.path} is stopped or hangs; resume or end it"
                )
            time.sleep(LOCK_POLL_SECONDS)

    def files(self, key: TopicPartition, first: int) -> list[Stored]:
        """Return the files of a partition that may hold offsets from ``first`` on, the lowest last."""
        found, prefix = [], f"{key}-"
        with os.scandir(self.path) as days:
            folders = [day.path for day in days if day.name.startswith(DAY)]
        for each in folders:
            with os.scandir(each) as entries:
                for entry in entries:
                    range_ = entry.name.startswith(prefix) and RANGE.fullmatch(entry.name, len(prefix))
                    if range_ and int(range_[2]) >= first:
                        found.append(Stored(int(range_[1]), int(range_[2]), Path(entry.path)))
        return sorted(found, reverse=True)

    def add(self, temporary: Path, day: date, name: str) -> None:
        """Give a finished file its name in the folder of a day."""
        folder = self.path / f"{DAY}{day}"
        folder.mkdir(exist_ok=True)
        if (folder / name).exists():
            raise SinkError(f"{folder / name} exists, and this process has not written it; move it away")
        temporary.rename(folder / name)

    def sync(self, day: date) -> None:
        """Wait until the disk has the names of a day's files."""
        sync_folder(self.path / f"{DAY}{day}")
        sync_folder(self.path)


def _lock(number: int, path: Path) -> bool:
    """Lock a file, and return whether that succeeded, and its path still leads to it."""
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(number), path.stat())
    except (BlockingIOError, FileNotFoundError):
        return False


def _remove_if_dead(path: Path) -> None:
    """Remove an unfinished file unless a living process has it locked."""
    with contextlib.suppress(OSError):
        number = os.open(path, os.O_RDWR)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
        finally:
            os.close(number)


class Held(NamedTuple):
    """What a file holds."""

    offsets: Offsets
    timestamps: dict[int, int]
    """Timestamps of some of its records, by offset."""


def held_by(path: Path) -> Held:
    """Read what a file holds; nothing if it was removed. Raises OSError, or SinkError for one that cannot be read.

    Its writer may have died before it synced the name of the file, so that is done first.
    """
    offsets = Offsets()
    try:
        sync_folder(path.parent)
        sync_folder(path.parent.parent)
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=[OFFSET]):
                offsets.add(batch.column(OFFSET).to_pylist())
            timestamps = (file.metadata.metadata or {}).get(TIMESTAMPS, b"{}")
        return Held(offsets, msgspec.json.decode(timestamps, type=dict[int, int]))
    except FileNotFoundError:
        return Held(Offsets(), {})
    except (pa.ArrowException, OSError, msgspec.MsgspecError, KeyError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise SinkError(
            f"{path} cannot be read, and may have rows that come again; repair it, or move it away"
        ) from error
