"""The rows of one partition between two flushes, and the offsets that are stored or wait to be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import pyarrow as pa

from consumer.errors import SinkError
from consumer.handlers.offsets import Offsets
from consumer.handlers.parquet_file import RowFile
from consumer.handlers.parquet_folder import Folder, Lock, Stored, held_by
from consumer.record import TopicPartition


class PartitionRows:
    """Rows of one partition, as long-lived as its handler and owned by the handler's thread.

    A row is added if its offset is neither in a file of the folder nor among the rows that wait. What the folder holds
    from the offset ``floor`` on is known as long as no other writer adds files; the lock of the partition shows that.
    """

    def __init__(self, folder: Folder, key: TopicPartition, schema: pa.Schema, compression: str) -> None:
        self._key = key
        self._folder = folder
        self._schema, self._compression = schema, compression
        self._open: dict[date, RowFile] = {}
        self._finished: list[RowFile] = []
        self._floor: int | None = None
        self._known = Offsets()
        self._timestamps: dict[int, int] = {}
        """Timestamps of some records in ``_known``, by offset."""
        self._unread: list[Stored] = []
        """Files in the folder whose offsets are not in ``_known``, the lowest last."""

    @property
    def files(self) -> list[RowFile]:
        """All files that wait to be published."""
        return [*self._finished, *self._open.values()]

    def new_among(self, timestamps: Mapping[int, int | None]) -> set[int]:
        """Return those of the offsets of which no row is stored or waits. Raises OSError or SinkError.

        ``timestamps`` are those of the records by offset, None for a dead letter, which has its own.
        """
        offsets = timestamps.keys()
        first, last = min(offsets), max(offsets)
        if self._floor is None or first < self._floor:
            with self._folder.locked(self._key) as lock:
                self._look(lock, first, last)
        else:
            self._read(last)
        known = {offset for offset in offsets if offset in self._known}
        for offset in known & self._timestamps.keys():
            if timestamps[offset] not in (None, self._timestamps[offset]):
                raise SinkError(
                    f"{self._folder.path} has another record of {self._key} with offset {offset}: the topic was created"
                    " again, or is of another cluster; choose another options.path, or move the files away"
                )
        return set(offsets - known)

    def add(self, day: date, batch: pa.RecordBatch, offsets: Sequence[int], timestamps: Mapping[int, int]) -> None:
        """Add rows of a day, which ``new_among`` has returned; ``timestamps`` are those of some of their records."""
        if day not in self._open:
            self._open[day] = RowFile(self._folder, self._key, day, self._schema, self._compression)
        self._open[day].add(batch, min(offsets), max(offsets), timestamps)
        self._known.add(offsets)

    def publish(self) -> None:
        """Give all rows their place in the folder. Raises OSError or SinkError, and may be called again."""
        if not self.files:
            return
        first = min(each.first for each in self.files)
        self._finish()
        with self._folder.locked(self._key) as lock:
            if not lock.is_ours:
                self._look(lock, first, first)
            while self._finished:
                self._finished[-1].publish()
                self._finished.pop()
        self._floor = first
        self._known.forget_below(first)
        self._timestamps = {offset: at for offset, at in self._timestamps.items() if offset >= first}

    def _finish(self) -> None:
        """Complete all files; rows that come later go to others, also if that fails."""
        self._finished += self._open.values()
        self._open.clear()
        for file in self._finished:
            file.finish()

    def _look(self, lock: Lock, first: int, last: int) -> None:
        """Find out what the folder holds from ``first`` on, and drop rows that another writer has stored."""
        waiting = self.files
        first = min([first, *(each.first for each in waiting)])
        self._unread = self._folder.files(self._key, first)
        stored = self._read(max([last, *(each.last for each in waiting)]))
        self._floor = first
        if lock.is_ours:
            return
        if waiting and stored:
            self._finish()
            self._drop(stored)
        lock.claim()

    def _drop(self, stored: Offsets) -> None:
        for index in reversed(range(len(self._finished))):
            left = self._finished[index].without(stored)
            self._finished[index : index + 1] = [left] if left is not None else []
        self._finish()

    def _read(self, last: int) -> Offsets:
        """Read the offsets of files that begin at ``last`` or below."""
        found = Offsets()
        while self._unread and self._unread[-1].first <= last:
            offsets, timestamps = held_by(self._unread[-1].path)
            self._unread.pop()
            self._timestamps |= timestamps
            self._known.update(offsets)
            found.update(offsets)
        return found

    def discard(self) -> None:
        """Remove what is not published."""
        for file in self.files:
            file.discard()
