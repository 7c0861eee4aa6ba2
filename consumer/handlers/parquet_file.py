"""One Parquet file that is being written: rows in memory, row groups on disk under a hidden name, then its own name."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from consumer.errors import SinkError
from consumer.handlers.columns import OFFSET
from consumer.handlers.offsets import Offsets
from consumer.handlers.parquet_folder import TIMESTAMPS, Folder, file_name
from consumer.record import TopicPartition

ARRAY_BYTES = 500
"""What an array takes in memory besides its values."""
TIMESTAMPS_KEPT = 64
"""Timestamps of records in a file's metadata, about."""


class Output:
    """What pyarrow writes to: bytes wait here until the disk has taken them, so that a full disk breaks no file."""

    closed = False

    def __init__(self) -> None:
        self.waiting = bytearray()

    def write(self, data: bytes) -> int:
        """Take bytes; never fails."""
        self.waiting += data
        return len(data)

    def flush(self) -> None:
        """Do nothing; pyarrow calls it."""

    def close(self) -> None:
        """Take no more."""
        self.closed = True


class RowFile:
    """The rows of one day of one partition since the last flush; owned by the handler's thread.

    - Rows are in ``batches``, in ``Output`` or in the hidden file, and an error loses none of them.
    - ``add`` may follow ``spill``, and nothing may follow ``finish`` but ``publish``.
    - A sync that failed fails for ever, because the kernel may have dropped what it kept.
    """

    def __init__(self, folder: Folder, key: TopicPartition, day: date, schema: pa.Schema, compression: str) -> None:
        self.day = day
        self.first, self.last = -1, -1
        self._folder, self._key = folder, key
        self._schema, self._compression = schema, compression
        self._timestamps: dict[int, int] = {}
        self._batches: list[pa.RecordBatch] = []
        self._batch_bytes = 0
        self._output = Output()
        self._writer: Any = None
        self._path: Path | None = None
        self._number = -1
        self._size = 0
        self._finished = False
        self._synced = False
        self._failed: OSError | None = None
        self._named = False

    @property
    def held_bytes(self) -> int:
        """Bytes in memory."""
        return self._batch_bytes + len(self._output.waiting)

    @property
    def is_open(self) -> bool:
        """Whether it has a hidden file."""
        return self._number >= 0

    def add(self, batch: pa.RecordBatch, first: int, last: int, timestamps: Mapping[int, int]) -> None:
        """Add rows with offsets from ``first`` to ``last``; ``timestamps`` are those of some of their records."""
        if len(self._timestamps) < TIMESTAMPS_KEPT:
            self._timestamps |= timestamps
        self._batches.append(batch)
        self._batch_bytes += batch.nbytes + ARRAY_BYTES * batch.num_columns
        self.first = first if self.first < 0 else min(self.first, first)
        self.last = max(self.last, last)

    def spill(self) -> None:
        """Write the rows in memory as a row group of the hidden file. Raises OSError."""
        self._begin()
        if self._batches:
            self._writer.write_table(pa.Table.from_batches(self._batches))
            self._batches, self._batch_bytes = [], 0
        self._drain()

    def finish(self) -> None:
        """Complete the hidden file, and wait until the disk has it. Raises OSError or SinkError."""
        if self._failed is not None:
            raise SinkError(
                f"{self._folder.path} may have lost rows of {self._key} on disk: {self._failed.strerror}; restart to"
                " write them again"
            )
        if not self._finished:
            self.spill()
            self._writer.add_key_value_metadata({TIMESTAMPS: msgspec.json.encode(self._timestamps)})
            self._writer.close()
            self._finished = True
        self._drain()
        if not self._synced:
            try:
                os.fsync(self._number)
            except OSError as error:
                self._failed = error
                raise
            self._synced = True

    def _begin(self) -> None:
        if self._number < 0:
            self._path, self._number = self._folder.temporary()
        if self._writer is None:
            sink = pa.PythonFile(self._output, mode="w")
            self._writer = pq.ParquetWriter(sink, self._schema, compression=self._compression)

    def _drain(self) -> None:
        """Write what waits, all of it or nothing."""
        data = bytes(self._output.waiting)  # a copy: an error keeps what it wrote from, and that could not grow
        if not data:
            return
        done = 0
        try:
            while done < len(data):
                done += os.pwrite(self._number, memoryview(data)[done:], self._size + done)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._number, self._size)
            raise
        self._size += done
        self._output.waiting.clear()

    def publish(self) -> None:
        """Give the finished file its name. Raises OSError or SinkError, and may be called again."""
        if not self._named:
            path = self._path
            if path is None or not path.exists():
                path = self._copy()
            self._folder.add(path, self.day, file_name(self._key, self.first, self.last))
            self._named = True
        self._folder.sync(self.day)
        self._folder.close_number(self._number)

    def _copy(self) -> Path:
        """Write a hidden file again that was removed; its bytes are there as long as it is open."""
        path, number = self._folder.temporary()
        old, self._path, self._number = self._number, path, number
        done = 0
        try:
            while done < self._size:
                done += os.pwrite(number, os.pread(old, 1 << 20, done), done)
            os.fsync(number)
        except OSError:
            self._path, self._number = None, old
            self._folder.close_number(number)
            path.unlink(missing_ok=True)
            raise
        self._folder.close_number(old)
        return path

    def without(self, stored: Offsets) -> RowFile | None:
        """Return a file of the rows whose offsets are not ``stored``, in place of this one; None if none is left."""
        made = RowFile(self._folder, self._key, self.day, self._schema, self._compression)
        try:
            for batch in self._rows():
                offsets = batch.column(OFFSET).to_pylist()
                kept = [index for index, offset in enumerate(offsets) if offset not in stored]
                if kept:
                    left = [offsets[index] for index in kept]
                    timestamps = {each: at for each, at in self._timestamps.items() if each not in stored}
                    made.add(batch.take(pa.array(kept)), min(left), max(left), timestamps)
                    made.spill()
        except BaseException:
            made.discard()
            raise
        self.discard()
        return made if made.is_open else None

    def _rows(self) -> Iterator[pa.RecordBatch]:
        """All rows, the file of which is finished."""
        self.finish()
        with os.fdopen(os.dup(self._number), "rb") as file, pq.ParquetFile(file) as written:
            yield from written.iter_batches()

    def discard(self) -> None:
        """Remove the hidden file."""
        if self._number >= 0:
            self._folder.close_number(self._number)
        if self._path is not None and not self._named:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
