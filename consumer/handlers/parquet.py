"""The handler that writes events to Parquet files, one for each day and partition in each flush.

A record may come again after a kill or a lost partition, in another process and in other batches, so files cannot be
recognised by their names alone. No row is stored twice, because:

- a file appears under its name when it is whole and synced, and offsets are committed after that
- before a row is added, the offsets in the partition's files of the folder are known: names tell which files to read
- files of a partition are added under its lock, whose file names the last writer; one that finds another's name there
  looks again at what the folder holds, and drops those of its rows that the other has stored

A process that was stopped and has lost its partition thus adds nothing twice when it goes on, whenever that is.
"""

from __future__ import annotations

import asyncio
import os
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any, Literal, Self, TypeVar

import structlog

from consumer.errors import SettingsError, SinkError
from consumer.instructions import Reject
from consumer.record import Position, Record, TopicPartition
from schemas.types import event_type

try:
    import pyarrow as pa

    from consumer.handlers.parquet_folder import Folder
    from consumer.handlers.parquet_partition import PartitionRows
    from consumer.handlers.parquet_rows import UNFIT, ArrowRows
except ModuleNotFoundError as error:
    raise SettingsError("it needs pyarrow; install session-consumer with the extra `parquet`") from error

log = structlog.get_logger("consumer.handlers.parquet")

BUFFER_BYTES = 67_108_864
"""Rows in memory, of all partitions; above it the largest files get a row group each until half of it is free."""
OPEN_FILES = 64
"""Files on disk that are not published; above it all rows are published before the flush, or calls pause."""

Result = TypeVar("Result")


class Parquet:
    """Stores each record once, in files that appear in flushes; one thread does all work on rows and files."""

    def __init__(
        self,
        path: Path,
        date_field: str = "timestamp",
        compression: Literal["zstd", "snappy", "gzip", "lz4", "brotli", "none"] = "zstd",
    ) -> None:
        """Take the route's options; ``date_field`` decides the folder ``date=YYYY-MM-DD`` of a row, in UTC."""
        self._folder = Folder(path)
        self._date_field = date_field
        self._compression = compression
        self._kind: type | None = None
        self._rows: ArrowRows | None = None
        self._partitions: dict[TopicPartition, PartitionRows] = {}
        self._skipped: Counter[tuple[str, int]] = Counter()
        """Records since the last flush whose rows the folder had."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="parquet")

    def expect_events(self, kind: type) -> None:
        """Take the class of the route's events. Raises SettingsError if it makes no columns, or other ones."""
        if self._kind is not None and self._kind is not kind:
            raise SettingsError(
                f"a folder holds events of one type, and the route gets {self._kind.__name__} and {kind.__name__};"
                " set topics of the route, or match a union's tag"
            )
        if self._rows is None:
            (member,) = event_type(kind).members
            self._kind, self._rows = kind, ArrowRows(member, self._date_field)

    async def __aenter__(self) -> Self:
        try:
            await self._in_thread(self._folder.open)
        except OSError as error:
            raise SettingsError(f"options.path: cannot write {self._folder.path}: {error.strerror}") from error
        os.register_at_fork(after_in_child=self._folder.close_all)
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self.flush()
        finally:
            await self._in_thread(self._discard)
            self._thread.shutdown()

    async def __call__(self, events: list[Any], records: list[Record]) -> None:
        """Take a batch. Raises SinkError if no room can be made, and Reject for records that fit no column."""
        refused = await self._storing(lambda: self._take(events, records))
        for code, indexes in refused.items():  # the rest comes again, and then those of the next code are found
            if indexes:
                raise Reject("a value fits no column", code=code, indexes=indexes)

    async def flush(self) -> None:
        """Publish all rows, and return when the disk has them. Raises SinkError when that fails."""
        await self._storing(self._publish)

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _storing(self, work: Callable[[], Result]) -> Result:
        try:
            return await self._in_thread(work)
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise SinkError(f"cannot write to {self._folder.path}: {why}") from error

    @property
    def _arrow(self) -> ArrowRows:
        if self._rows is None:
            raise SinkError("the type of the events is unknown; call expect_events with it")
        return self._rows

    def _take(self, events: Sequence[Any], records: Sequence[Record]) -> dict[str, list[int]]:
        """Add the rows of records that the folder does not have.

        Return, by code, the indexes of records that fit no column; then no row was added.
        """
        self._make_room()
        positions = [record.origin for record in records]
        new = self._new(positions, records)
        days, refused = self._by_day(events, records, new)
        batches = []
        for (key, day), indexes in days.items():
            made, unfit = self._batches(events, positions, indexes)
            batches += [(key, day, batch, part) for batch, part in made]
            refused["fits_no_column"] += unfit
        if not any(refused.values()):
            for key, day, batch, part in batches:
                first = records[part[0]]
                timestamps = {first.offset: first.timestamp_ms} if first.letter_of is None else {}
                self._partitions[key].add(day, batch, [positions[index].offset for index in part], timestamps)
            self._count_skipped(positions, new)
        return refused

    def _new(self, positions: Sequence[Position], records: Sequence[Record]) -> dict[TopicPartition, list[int]]:
        """Return the indexes of records whose rows are not stored, by partition."""
        by_partition: defaultdict[tuple[str, int], dict[int, int]] = defaultdict(dict)
        for index, (topic, partition, offset) in enumerate(positions):
            by_partition[topic, partition][offset] = index
        found = {}
        for pair, indexes in by_partition.items():
            key = TopicPartition(*pair)
            if key not in self._partitions:
                self._partitions[key] = PartitionRows(self._folder, key, self._arrow.schema, self._compression)
            new = self._partitions[key].new_among({offset: _timestamp(records[at]) for offset, at in indexes.items()})
            found[key] = [index for offset, index in indexes.items() if offset in new]
        return found

    def _by_day(
        self, events: Sequence[Any], records: Sequence[Record], new: Mapping[TopicPartition, Sequence[int]]
    ) -> tuple[dict[tuple[TopicPartition, date], list[int]], defaultdict[str, list[int]]]:
        """Return the indexes by partition and day, and by code those of records without a day."""
        days: defaultdict[tuple[TopicPartition, date], list[int]] = defaultdict(list)
        refused: defaultdict[str, list[int]] = defaultdict(list)
        for key, index in ((key, index) for key, indexes in new.items() for index in indexes):
            try:
                days[key, self._arrow.day(events[index], records[index])].append(index)
            except Reject as error:
                refused[error.code or ""].append(index)
        return days, refused

    def _batches(
        self, events: Sequence[Any], positions: Sequence[Position], indexes: Sequence[int]
    ) -> tuple[list[tuple[pa.RecordBatch, Sequence[int]]], list[int]]:
        """Return rows with their indexes, and the indexes of records that fit no column, found by halving."""
        try:
            batch = self._arrow.batch([events[each] for each in indexes], [positions[each] for each in indexes])
        except UNFIT:
            if len(indexes) == 1:
                return [], list(indexes)
        else:
            return [(batch, indexes)], []
        half = len(indexes) // 2
        first, second = (self._batches(events, positions, part) for part in (indexes[:half], indexes[half:]))
        return first[0] + second[0], first[1] + second[1]

    def _count_skipped(self, positions: Sequence[Position], new: Mapping[TopicPartition, Sequence[int]]) -> None:
        if sum(map(len, new.values())) < len(positions):
            self._skipped.update(position[:2] for position in positions)
            self._skipped.subtract({key: len(indexes) for key, indexes in new.items()})

    def _make_room(self) -> None:
        """Write row groups, or publish, if the rows in memory or the open files are too many."""
        files = [file for rows in self._partitions.values() for file in rows.files]
        held = sum(file.held_bytes for file in files)
        if held >= BUFFER_BYTES:
            for file in sorted(files, key=lambda each: each.held_bytes, reverse=True):
                if held <= BUFFER_BYTES // 2:
                    break
                held -= file.held_bytes
                file.spill()
        if sum(file.is_open for file in files) > OPEN_FILES:
            self._publish()

    def _publish(self) -> None:
        """Publish the rows of each partition. Raises the first OSError or SinkError after all had their turn."""
        failed: OSError | SinkError | None = None
        for rows in self._partitions.values():
            try:
                rows.publish()
            except (OSError, SinkError) as error:
                failed = failed or error
        if failed is not None:
            raise failed
        for (topic, partition), count in self._skipped.items():
            log.info("rows_already_stored", topic=topic, partition=partition, rows=count)
        self._skipped.clear()

    def _discard(self) -> None:
        for rows in self._partitions.values():
            rows.discard()
        self._folder.close_all()


def _timestamp(record: Record) -> int | None:
    return record.timestamp_ms if record.letter_of is None else None
