"""Decompression with a limit: payloads within it are decompressed as by aiokafka, larger ones never."""

from __future__ import annotations

import resource
import struct
from typing import Any

import cramjam
import pytest
from aiokafka import codec as plain
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder
from aiokafka.record.legacy_records import LegacyRecordBatch, LegacyRecordBatchBuilder
from hypothesis import given
from hypothesis import strategies as st

from consumer.kafka import codecs
from consumer.kafka.codecs import TooLargeError, bounded_decoders, decompress, limit_decompression

DATA = b"".join(b'{"session_id":"%d","agent":"agent-%d"}' % (each * 7919, each % 90) for each in range(3000))


def snappy_in_one_block(data: bytes) -> Any:
    return plain.snappy_encode(data, xerial_compatible=False)


ENCODERS: dict[str, Any] = {
    "gzip": plain.gzip_encode,
    "snappy": plain.snappy_encode,
    "snappy in one block": snappy_in_one_block,
    "lz4": plain.lz4_encode,
    "zstd": plain.zstd_encode,
}


def packed(codec: str, data: bytes = DATA) -> bytes:
    return bytes(ENCODERS[codec](data))


def unpacked(codec: str, payload: bytes, max_bytes: int) -> bytes:
    return bytes(bounded_decoders(max_bytes)[f"{codec.split(maxsplit=1)[0]}_decode"](payload))


def plainly(codec: str, payload: bytes) -> bytes:
    return bytes(getattr(plain, f"{codec.split(maxsplit=1)[0]}_decode")(payload))


def class_raised(function: Any, *args: Any) -> type[BaseException]:
    with pytest.raises(Exception) as raised:
        function(*args)
    return raised.type


@pytest.mark.parametrize("room", [0, 1, 1000, 100_000_000])
@pytest.mark.parametrize("codec", ENCODERS)
def test_a_payload_within_the_limit(codec: str, room: int) -> None:
    """A payload whose decompressed size is at most the limit comes out unchanged."""
    assert unpacked(codec, packed(codec), len(DATA) + room) == DATA


@pytest.mark.parametrize("missing", [1, 16, 17, 100_000])
@pytest.mark.parametrize("codec", ENCODERS)
def test_a_payload_over_the_limit(codec: str, missing: int) -> None:
    """One byte over the limit raises TooLargeError, which names the limit."""
    with pytest.raises(TooLargeError) as refused:
        unpacked(codec, packed(codec), len(DATA) - missing)
    assert refused.value.max_bytes == len(DATA) - missing


@pytest.mark.parametrize("size", [1, 15, 16, 17, 1000, 1_000_000])
@pytest.mark.parametrize("codec", ENCODERS)
def test_a_payload_that_compresses_well(codec: str, size: int) -> None:
    """A highly compressed payload is decompressed up to the limit, and not beyond."""
    data = bytes(size)
    payload = packed(codec, data)
    assert unpacked(codec, payload, size) == data
    assert class_raised(unpacked, codec, payload, size - 1) is TooLargeError


@given(data=st.binary(max_size=3000), times=st.integers(1, 300), room=st.integers(-50, 50))
def test_the_limit_is_exact(data: bytes, times: int, room: int) -> None:
    """For every codec a payload of at most ``max_bytes`` is decompressed; a larger one is too large."""
    whole = data * times
    max_bytes = max(0, len(whole) + room)
    for codec in ENCODERS:
        payload = packed(codec, whole)
        try:
            expected = plainly(codec, payload)
        except Exception as error:  # aiokafka's snappy refuses its own empty block
            assert type(error) is class_raised(unpacked, codec, payload, max_bytes)  # noqa: PT017
            continue
        if len(expected) <= max_bytes:
            assert unpacked(codec, payload, max_bytes) == whole
        else:
            assert class_raised(unpacked, codec, payload, max_bytes) is TooLargeError


def test_members_and_frames_in_a_row_count_together() -> None:
    """Several gzip members or zstd frames in a row count as one payload."""
    for codec in ("gzip", "zstd", "lz4"):
        payload = packed(codec) * 3
        assert unpacked(codec, payload, 3 * len(DATA)) == DATA * 3
        assert class_raised(unpacked, codec, payload, 3 * len(DATA) - 1) is TooLargeError


def broken(payload: bytes) -> list[bytes]:
    """Return a payload cut off, changed in the middle, changed at the start, and replaced."""
    middle = len(payload) // 2
    changed = bytes(each ^ 0x5A for each in payload[middle : middle + 40])
    return [payload[:-7], payload[:middle] + changed + payload[middle + 40 :], b"\0" * 9 + payload[9:], b"junk" * 300]


@pytest.mark.parametrize("max_bytes", [len(DATA), 4 * len(DATA), 1 << 26])
@pytest.mark.parametrize("codec", ENCODERS)
def test_a_corrupt_payload_is_not_too_large(codec: str, max_bytes: int) -> None:
    """A corrupt payload raises the codec's usual error, at any limit."""
    for payload in broken(packed(codec)):
        try:
            expected = plainly(codec, payload)
        except Exception as error:
            assert class_raised(unpacked, codec, payload, max_bytes) is type(error)  # noqa: PT017
        else:  # a literal was changed, and there is no checksum
            assert unpacked(codec, payload, max_bytes) == expected


@given(data=st.data())
def test_a_changed_payload_never_passes_the_limit(data: st.DataObject) -> None:
    """A changed payload gives what aiokafka decompresses, or raises."""
    codec = data.draw(st.sampled_from(sorted(ENCODERS)))
    payload = bytearray(packed(codec, DATA[:9000]))
    for _ in range(data.draw(st.integers(1, 4))):
        payload[data.draw(st.integers(0, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = unpacked(codec, bytes(payload), 12_000)
    except Exception:
        return
    assert len(found) <= 12_000
    assert found == plainly(codec, bytes(payload))


def test_a_snappy_block_that_claims_too_much() -> None:
    """A block that claims an impossible size is corrupt and reserves no memory; a plausible claim counts."""
    claim = b"\xff\xff\xff\xff\x0f"  # 4 GiB
    assert class_raised(unpacked, "snappy", claim + b"abc", 1 << 26) is cramjam.DecompressionError
    framed = codecs.XERIAL + struct.pack(">i", 8) + claim + b"abc"
    assert class_raised(unpacked, "snappy", framed, 1 << 26) is cramjam.DecompressionError


@pytest.mark.parametrize("length", [-4, -1, -(2**31), 6, 2**31 - 1])
def test_a_snappy_frame_with_a_wrong_length(length: int) -> None:
    """A block length that is negative, or beyond the end, ends the search."""
    framed = codecs.XERIAL + struct.pack(">i", length) + b"abcde"
    assert class_raised(unpacked, "snappy", framed, 1 << 26) is cramjam.DecompressionError


def test_memory_stays_near_the_limit() -> None:
    """32 KiB of zstd that would become 1 GiB are refused with little more memory than the limit."""
    window, block, blocks = b"\x50", struct.pack("<I", (128 << 10) << 3 | 1 << 1)[:3] + b"x", 8192
    last = struct.pack("<I", (128 << 10) << 3 | 1 << 1 | 1)[:3] + b"x"
    bomb = b"\x28\xb5\x2f\xfd\x00" + window + block * (blocks - 1) + last
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert class_raised(unpacked, "zstd", bomb, 16 << 20) is TooLargeError
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 48 << 10  # of KiB


def test_small_payloads_go_to_the_plain_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """A payload that cannot exceed the limit at its codec's worst ratio goes to the plain decoder."""
    for name in ("gzip", "lz4", "zstd"):
        monkeypatch.setattr(codecs, f"{name}_decode", lambda payload: b"plain")
        worst = getattr(codecs, f"{name.upper()}_WORST")
        payload = packed(name)
        assert unpacked(name, payload, worst * len(payload)) == b"plain"
        assert unpacked(name, payload, worst * len(payload) - 1) == DATA


def a_batch(codec: int, values: list[bytes]) -> bytes:
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 24)
    for offset, value in enumerate(values):
        assert builder.append(offset, 0, None, value, [])
    return bytes(builder.build())


@pytest.mark.usefixtures("decoders")
@pytest.mark.parametrize("codec", [1, 2, 3, 4])
def test_a_batch_over_the_limit(codec: int) -> None:
    """aiokafka's compiled parser raises TooLargeError when it first reads the batch; the last limit set counts."""
    raw = a_batch(codec, [DATA] * 3)
    limit_decompression(1 << 20)
    limit_decompression(2 * len(DATA))
    limit_decompression(2 * len(DATA))
    batch = DefaultRecordBatch(raw)
    assert batch.validate_crc()
    assert class_raised(iter, batch) is TooLargeError
    limit_decompression(4 * len(DATA))
    assert [record.value for record in DefaultRecordBatch(raw)] == [DATA] * 3


@pytest.mark.usefixtures("decoders")
@pytest.mark.parametrize("codec", [1, 2, 3])
def test_an_old_batch_over_the_limit(codec: int) -> None:
    """The parser of formats before version 2 is limited too."""
    builder = LegacyRecordBatchBuilder(1, codec, 1 << 24)
    assert builder.append(0, 0, None, DATA)
    raw = bytes(builder.build())
    limit_decompression(len(DATA) // 2)
    assert class_raised(list, LegacyRecordBatch(raw, 1)) is TooLargeError
    limit_decompression(2 * len(DATA))
    assert [record.value for record in LegacyRecordBatch(raw, 1)] == [DATA]


@pytest.mark.usefixtures("decoders")
def test_decompress_is_limited_as_aiokafka_is() -> None:
    """The plain parser has the same limit; an unknown codec is a ValueError."""
    assert decompress(4, packed("zstd")) == DATA
    limit_decompression(1000)
    assert class_raised(decompress, 4, packed("zstd")) is TooLargeError
    assert class_raised(decompress, 5, packed("zstd")) is ValueError
