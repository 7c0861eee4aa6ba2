"""The plain parser agrees with aiokafka's compiled one, and reads on where that one gives up."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote_to_bytes

import pytest
from aiokafka.record.default_records import DefaultRecordBatch
from hypothesis import given
from hypothesis import strategies as st

from consumer.errors import DecodeError
from consumer.kafka.codecs import TooLargeError
from consumer.kafka.plain_batch import ESCAPED, BadHeaderRecord, PlainRecord, escape, parse_batch
from tests.unit.kafka.batches import PLACEHOLDER, Raw, a_bad_batch, a_batch, with_checksum

CODECS = range(5)


def all_of(raw: Any) -> tuple[Any, ...]:
    return raw.offset, raw.timestamp, raw.key, raw.value, raw.headers


optional = st.none() | st.binary(max_size=30)
raws = st.builds(
    Raw,
    delta=st.integers(1, 500),
    timestamp=st.integers(-1, 1 << 42),
    key=optional,
    value=optional,
    headers=st.lists(st.tuples(st.text(max_size=8), optional), max_size=3).map(tuple),
)


@st.composite
def batches(draw: st.DrawFn) -> bytes | memoryview:
    """Draw any batch: codec, size, gaps between offsets, kind of timestamp."""
    records = draw(st.lists(raws, min_size=1, max_size=12))
    gaps, delta = [], 0
    for each in records:
        gaps.append(each._replace(delta=delta))
        delta += each.delta
    built = a_batch(
        gaps * draw(st.sampled_from([1, 1, 20])),
        base=draw(st.integers(0, 1 << 50)),
        codec=draw(st.sampled_from(CODECS)),
        attributes=draw(st.sampled_from([0, 0x08, 0x10])),
        max_timestamp=draw(st.integers(-1, 1 << 42)),
    )
    return memoryview(b"before" + built)[6:] if draw(st.booleans()) else built


@given(raw=batches())
def test_it_agrees_with_the_compiled_parser(raw: bytes | memoryview) -> None:
    """Offset, timestamp, key, value and headers of each record equal those of aiokafka's parser."""
    assert [all_of(record) for record in parse_batch(raw)] == [all_of(record) for record in DefaultRecordBatch(raw)]


@pytest.mark.parametrize("codec", CODECS)
def test_every_codec(codec: int) -> None:
    """A batch large enough to be compressed is read with every codec."""
    raw = a_batch([Raw(delta, value=b"value-%d" % delta) for delta in range(0, 1000, 3)], base=7000, codec=codec)
    assert raw[22] & 7 == codec
    assert [(record.offset, record.value) for record in parse_batch(raw)] == [
        (7000 + delta, b"value-%d" % delta) for delta in range(0, 1000, 3)
    ]


def test_an_empty_batch() -> None:
    """A batch without records, as compaction leaves it, is read."""
    assert parse_batch(a_batch([Raw(0)], count=0)[:61]) == []


BAD = b"na\xc3me,%\xff\xfe"


def test_a_bad_header_key_affects_one_record() -> None:
    """Only the record with the bad key is affected: its value is refused and its header keys are escaped."""
    record = Raw(1, key=b"k", value=b"v", headers=(("a%", b"1"), (PLACEHOLDER, b"2"), (PLACEHOLDER, None), ("z", b"3")))
    raw = a_bad_batch([Raw(0), record, Raw(2)], BAD, base=40)
    assert class_raised_by(lambda: list(DefaultRecordBatch(raw))) is UnicodeDecodeError
    before, bad, behind = parse_batch(raw)
    assert all_of(before) == (40, Raw(0).timestamp, None, b"value", [])
    assert all_of(behind) == (42, Raw(0).timestamp, None, b"value", [])
    assert isinstance(bad, BadHeaderRecord)
    name = "na%C3me,%25%FF%FE"
    headers = [("a%", b"1"), (name, b"2"), (name, None), ("z", b"3"), (ESCAPED, name.encode())]
    assert (bad.offset, bad.timestamp, bad.key, bad.headers) == (41, Raw(0).timestamp, b"k", headers)


def class_raised_by(function: Any) -> type[BaseException]:
    with pytest.raises(Exception) as raised:
        function()
    return raised.type


def test_its_value_is_not_decoded() -> None:
    """Reading that record's value raises a decode error each time; the error keeps the value and shows none of it."""
    record = Raw(0, value=b"secret", headers=((PLACEHOLDER, b"secret"),))
    (bad,) = parse_batch(a_bad_batch([record], BAD))
    for _ in range(2):
        with pytest.raises(DecodeError) as refused:
            _ = bad.value
        assert refused.value.reason == "bad_header"
        assert str(refused.value) == f"a header key of {len(BAD)} bytes is not UTF-8"
        assert refused.value.record == PlainRecord(0, record.timestamp, None, b"secret", bad.headers)


@given(key=st.binary(max_size=40))
def test_an_escaped_key_can_be_undone(key: bytes) -> None:
    """Percent-decoding an escaped key gives the original bytes."""
    assert unquote_to_bytes(escape(key)) == key
    escape(key).encode()


@pytest.mark.parametrize(
    ("key", "escaped"),
    [
        (b"\xff", "%FF"),
        (b"\xc3\xa4\xc3", "ä%C3"),
        (b"100%\x80", "100%25%80"),
        (b"\xed\xa0\x80", "%ED%A0%80"),
        (b"\xf4\x90\x80\x80", "%F4%90%80%80"),
    ],
)
def test_only_what_is_not_text_is_escaped(key: bytes, escaped: str) -> None:
    """Valid UTF-8 is kept; surrogates and code points beyond Unicode are not valid."""
    assert escape(key) == escaped


def test_several_bad_keys_are_all_named() -> None:
    """The header that lists escaped keys names each one once, in order."""
    raw = a_batch([Raw(0, headers=(("key-1", b""), ("key-2", b""), ("key-1", b"")))]).replace(b"key-", b"key\xfe")
    (bad,) = parse_batch(raw)
    assert bad.headers[-1] == (ESCAPED, b"key%FE1,key%FE2")


@given(data=st.data())
def test_a_changed_batch_is_read_or_refused(data: st.DataObject) -> None:
    """A batch with bytes changed, cut off or added gives records or the one error class."""
    raw = bytearray(data.draw(batches()))
    for _ in range(data.draw(st.integers(1, 5))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(raw)) | st.just(len(raw)))
    try:
        records = parse_batch(bytes(raw[:cut]) + data.draw(st.binary(max_size=3)))
    except (ValueError, TooLargeError):
        return
    assert all(isinstance(record, PlainRecord | BadHeaderRecord) for record in records)


@given(body=st.binary(max_size=200), count=st.integers(-5, 2**31 - 1))
def test_any_bytes_are_read_or_refused(body: bytes, count: int) -> None:
    """Whatever number of records a batch claims, reading stays within its bytes and ends soon."""
    try:
        records = parse_batch(a_batch([Raw(0)], count=count)[:61] + body)
    except ValueError:
        return
    assert len(records) <= len(body)


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b"", 1),
        (b"\x80" * 20, 1),
        (b"\xff" * 9 + b"\x01" + b"\x00" * 8, 1),
        (b"\x0c\x00\x00\x00\x01\x01\x01", 1),  # a negative number of headers
        (b"\x0c\x00\x00\x00\x01\xfe\xff\xff\xff\x0f", 1),  # a value of 2 GiB
        (b"\x0e\x00\x00\x00\x01\x01\x02\x01", 1),  # a header without a key
        (b"\x0c\x00\x00\x00\x01\x01\x00\x00", 1),  # more behind the last record
        (b"\x0a\x00\x00\x00\x01\x01\x00", 1),  # longer than it says
        (b"\x00", 0),
    ],
)
def test_what_is_malformed_is_refused(body: bytes, count: int) -> None:
    """Wrong numbers, lengths and counts are one error class; the compiled parser refuses them too."""
    raw = with_checksum(a_batch([Raw(0)], count=count)[:61] + body)
    with pytest.raises(ValueError):
        parse_batch(raw)
    padded = memoryview(raw + b"\0" * 64)[: len(raw)]  # it looks a little beyond the end
    assert class_raised_by(lambda: list(DefaultRecordBatch(padded))) is not AssertionError


@pytest.mark.parametrize("magic", [0, 1, 3, 255])
def test_another_format_is_refused(magic: int) -> None:
    """Only the format with headers (version 2) is read."""
    raw = a_batch([Raw(0)])
    with pytest.raises(ValueError):
        parse_batch(raw[:16] + bytes([magic]) + raw[17:])


@pytest.mark.parametrize("codec", [1, 2, 3, 4, 5, 7])
def test_what_cannot_be_unpacked_is_refused(codec: int) -> None:
    """A codec's error, or an unknown codec, is the same error class."""
    with pytest.raises(ValueError):
        parse_batch(a_batch([Raw(0)], attributes=codec))
