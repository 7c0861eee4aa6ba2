"""One partition's state: what is in flight and what may be committed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.partition.chunk import HEADER_BYTES, size_of
from consumer.partition.state import Partition, Phase
from tests.unit.delivery.source import KEY, RawRecord


def test_a_new_partition_knows_nothing() -> None:
    """A new partition has no position and nothing to commit until the client knows its start."""
    partition = Partition(KEY, epoch=1)
    assert (partition.position, partition.done, partition.committed, partition.ended) == (None, -1, -1, False)


def test_start_is_committed_by_others() -> None:
    """Records below the start were done by others and are not committed again."""
    partition = Partition(KEY, epoch=1)
    partition.start(7)
    assert (partition.position, partition.done, partition.committed) == (7, 7, 7)


@pytest.mark.parametrize("phase", Phase)
def test_ended(phase: Phase) -> None:
    """Only an open partition starts calls for the first time."""
    partition = Partition(KEY, 1)
    partition.phase = phase
    assert partition.ended == (phase is not Phase.OPEN)


def test_size_is_key_value_and_headers() -> None:
    """A record's size is that of its key, value and headers; a missing one counts 0."""
    assert size_of(RawRecord(0, b"value", b"key")) == 8
    assert size_of(RawRecord(0, None)) == 0
    assert size_of(RawRecord(0, b"value", headers=(("name", b"12345"),))) == 5 + 4 + 5 + HEADER_BYTES
    assert size_of(RawRecord(0, b"value", headers=(("é", b""),))) == 5 + 2 + HEADER_BYTES


@given(st.lists(st.binary(max_size=9), max_size=30), st.randoms())
def test_held_records_are_counted(values: list[bytes], random: object) -> None:
    """Held records count as in flight, in records and bytes, and keep the watermark until they are released."""
    partition = Partition(KEY, epoch=1)
    partition.start(0)
    watermark = partition.watermark
    held = [RawRecord(offset, value, b"k") for offset, value in enumerate(values)]
    for raw in held:
        partition.hold(raw.offset, size_of(raw))
        watermark.advance(raw.offset + 1)
    left = list(held)
    random.shuffle(left)  # type: ignore[attr-defined]
    while left:
        assert partition.in_flight == (len(left), sum(map(size_of, left)))
        assert partition.done == min(raw.offset for raw in left)
        raw = left.pop()
        partition.release(raw.offset, size_of(raw))
    assert (*partition.in_flight, partition.done) == (0, 0, len(values))
