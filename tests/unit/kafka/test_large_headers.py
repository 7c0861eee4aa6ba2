"""Records with large headers: both fetch paths refuse that record alone, and use little memory for it."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka.consumer import fetcher as aiokafka_fetcher
from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import given
from hypothesis import strategies as st

from consumer.errors import DecodeError
from consumer.kafka import fetch_raw, plain_batch
from consumer.kafka.codecs import limit_decompression
from consumer.kafka.fetch_plain import PlainFetch, encoded_size
from consumer.kafka.fetch_raw import RawFetch
from consumer.kafka.plain_batch import (
    HEADER,
    MAX_HEADER_BYTES,
    MAX_HEADERS,
    PACKED,
    LargeHeadersError,
    parse_batch,
    refuse_large_headers,
)
from tests.unit.kafka.batches import Raw, a_batch
from tests.unit.kafka.conftest import decoders
from tests.unit.kafka.test_fetch_raw import KEY, Client, client, pulled, read, taken

__all__ = ["client", "decoders"]

CODECS = range(5)
FEW = (("trace", b"x" * MAX_HEADER_BYTES), ("none", None))
MANY = (("", b"x" * 120),) * (MAX_HEADERS + 1)
VALUE = b"v" * 2 * MAX_HEADER_BYTES
"""A value that is larger than the headers may be."""


@pytest.fixture
def fetch(client: Client, decoders: None) -> Iterator[RawFetch]:
    found = aiokafka_fetcher.MemoryRecords  # type: ignore[attr-defined]
    limit_decompression(1 << 30, refuse_large_headers)
    yield RawFetch(client, {KEY.topic: 0})
    aiokafka_fetcher.MemoryRecords = found  # type: ignore[attr-defined]


def refused(raw: Any) -> DecodeError:
    with pytest.raises(DecodeError) as raised:
        _ = raw.value
    return raised.value


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("headers", [FEW, MANY], ids=["few", "many"])
def test_the_raw_path_refuses_the_record_alone(client: Client, fetch: RawFetch, codec: int, headers: Any) -> None:
    """A record with large headers is refused undecoded; those before and after it in its batch are delivered."""
    batch = [Raw(0), Raw(1, key=b"k", headers=headers), Raw(2, value=VALUE, headers=(("a", b"b"),))]
    client.fetched(a_batch(batch, base=5, codec=codec), a_batch([Raw(0)], base=8))
    chunk = taken(fetch)
    offsets, error = pulled(chunk)
    if error is not None:
        chunk = fetch.salvage(KEY, 5, error)
        offsets, error = [], None
    assert (offsets, error) in (([], None), ([5, 6, 7], None))
    assert chunk.reread is not None
    assert read(iter(chunk.reread())) == {5: b"value", 6: "too_large", 7: VALUE}
    assert pulled(taken(fetch)) == ([8], None)


@pytest.mark.parametrize(("headers", "packed"), [(FEW, False), (MANY, True)], ids=["few", "many"])
def test_the_letter_keeps_the_headers(headers: Any, packed: bool) -> None:
    """The refused record is whole; very many headers are one, in Kafka's own encoding."""
    built = a_batch([Raw(0, key=b"k", value=b"secret", headers=headers)])
    (raw,) = parse_batch(built)
    error = refused(raw)
    size = encoded_size(headers)
    assert error.reason == "too_large"
    assert str(error) == f"its headers of {size} bytes are over the limit of {MAX_HEADER_BYTES}"
    assert error.record is not None
    assert (error.record.key, error.record.value) == (b"k", b"secret")
    assert error.record.headers == raw.headers == ([(PACKED, built[-size:])] if packed else list(headers))


def test_headers_within_the_limit() -> None:
    """Headers that take as much as they may are delivered, whatever their number."""
    headers = [("", b"")] * ((MAX_HEADER_BYTES - 3) // 2)
    assert encoded_size(headers) in (MAX_HEADER_BYTES - 1, MAX_HEADER_BYTES)
    built = a_batch([Raw(0, value=VALUE, headers=tuple(headers))])
    refuse_large_headers(built[HEADER.size :])
    assert parse_batch(built)[0].value == VALUE


def test_a_flood_of_headers_takes_little_memory(client: Client, fetch: RawFetch) -> None:
    """Headers that would take a hundred times the memory of their batch are never made."""
    batch = a_batch([Raw(0, headers=(("", b""),) * 3_000_000)], codec=4)
    client.fetched(batch)
    tracemalloc.start()
    try:
        _, error = pulled(taken(fetch))
        assert error is not None
        assert read(iter(fetch.salvage(KEY, 0, error).records)) == {0: "too_large"}
        assert tracemalloc.get_traced_memory()[1] < 60_000_000
    finally:
        tracemalloc.stop()


LIMIT = 10_000
headers_of_a_record = st.lists(
    st.tuples(st.sampled_from(["", "key"]), st.none() | st.sampled_from([0, 50, 4_000, 12_000]).map(bytes)), max_size=4
).map(tuple)


@given(
    all_headers=st.lists(headers_of_a_record, min_size=1, max_size=5),
    sizes=st.lists(st.sampled_from([0, 70, 9_000, 20_000]), min_size=5, max_size=5),
)
def test_large_headers_are_found(all_headers: Any, sizes: list[int]) -> None:
    """A batch is refused if and only if the encoding of the headers of one of its records is over the limit."""
    batch = a_batch(
        [Raw(delta, value=bytes(sizes[delta]), headers=headers) for delta, headers in enumerate(all_headers)]
    )
    assert [encoded_size(raw.headers) for raw in DefaultRecordBatch(batch)] == [*map(encoded_size, all_headers)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_batch, "MAX_HEADER_BYTES", LIMIT)
        assert is_refused(batch[HEADER.size :]) == any(encoded_size(each) > LIMIT for each in all_headers)


@given(records=st.binary(max_size=300), room=st.integers(0, 300))
def test_any_bytes_are_looked_at(records: bytes, room: int) -> None:
    """The look at records that are malformed ends, without an error of its own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plain_batch, "MAX_HEADER_BYTES", max(1, len(records) - room))
        is_refused(records)


def is_refused(records: bytes) -> bool:
    try:
        refuse_large_headers(records)
    except LargeHeadersError:
        return True
    return False


def test_the_plain_path_refuses_the_record_alone() -> None:
    """The plain path delivers the same: the record is refused when its value is read."""
    fetch = PlainFetch(None, {KEY.topic: 0})
    batch = a_batch([Raw(0), Raw(1, headers=FEW), Raw(2, value=VALUE, headers=(("a", b"b"),))])
    fetch._keep(KEY, list(DefaultRecordBatch(batch)), 3)
    chunk = fetch.take(KEY)
    assert chunk is not None
    assert chunk.reread is not None
    for records in (chunk.records, iter(chunk.reread())):
        found = list(records)
        assert read(iter(found)) == {0: b"value", 1: "too_large", 2: VALUE}
        assert refused(found[1]).record.headers == list(FEW)  # type: ignore[union-attr]


def test_many_small_batches_are_not_looked_at(client: Client, fetch: RawFetch, monkeypatch: pytest.MonkeyPatch) -> None:
    """A large fetch of small batches is gone through once, not once for each batch."""
    passed = []
    slices = fetch_raw._slices_of

    def counted(raw: bytes) -> Any:
        passed.append(len(raw))
        return slices(raw)

    monkeypatch.setattr(fetch_raw, "_slices_of", counted)
    count = 500
    value = b"v" * (2 * MAX_HEADER_BYTES // count)
    client.fetched(*(a_batch([Raw(0, value=value)], base=number) for number in range(count)))
    assert [pulled(taken(fetch)) for _ in range(count)] == [([number], None) for number in range(count)]
    assert len(passed) == 1
