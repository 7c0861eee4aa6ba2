"""Fetches in memory. Each reading makes new records, as with Kafka; a test can ask which fetches are alive."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from weakref import WeakSet

from consumer.partition.chunk import Chunk, size_of
from consumer.record import RawRecord

Headers = tuple[tuple[str, bytes | None], ...]


class LiveRecord:
    """A raw record; it is in ``alive`` as long as something refers to it."""

    def __init__(self, offset: int, value: bytes, key: bytes | None, headers: Headers) -> None:
        self.offset = offset
        self.timestamp = 0
        self.key = key
        self.value = value + b""
        self.headers = headers


class Fetches:
    """Makes chunks, each of a fetch of its own or of the last one, and counts what of them is alive."""

    def __init__(self) -> None:
        self.alive: WeakSet[LiveFetch] = WeakSet()
        self.records: WeakSet[LiveRecord] = WeakSet()
        self.end = 0
        self._last: LiveFetch | None = None

    def chunk(
        self,
        values: Iterable[bytes],
        *,
        size: int = 1000,
        key: bytes | None = None,
        headers: Headers = (),
        shared: bool = False,
    ) -> Chunk:
        """Make the next chunk; ``shared`` with the fetch of the chunk before."""
        fetch = self._last if shared and self._last is not None else LiveFetch(size)
        self.alive.add(fetch)
        self._last = fetch
        rows = [(offset, value, key, headers) for offset, value in enumerate(values, self.end)]
        first, self.end = self.end, self.end + len(rows)

        def reread() -> Iterator[RawRecord]:
            assert len(fetch)
            for row in rows:
                record = LiveRecord(*row)
                self.records.add(record)
                yield record
                del record

        return Chunk(first, reread(), self.end, reread, fetch)

    def forget(self) -> None:
        """Drop the test's own reference to the last fetch."""
        self._last = None

    @property
    def fetch_bytes(self) -> int:
        """Bytes of the fetches that are alive."""
        gc.collect(1)
        return sum(map(len, self.alive))

    @property
    def record_bytes(self) -> int:
        """Bytes of the records that are alive."""
        return sum(map(size_of, self.records))


class LiveFetch:
    """The bytes of one fetch."""

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size
