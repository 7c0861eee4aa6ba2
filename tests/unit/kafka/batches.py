"""Record batches as a producer builds them, valid and broken."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

PLACEHOLDER = "bad-key-%"


class Raw(NamedTuple):
    """One record of a batch; ``delta`` counts from the batch's first offset."""

    delta: int
    timestamp: int = 1_700_000_000_000
    key: bytes | None = None
    value: bytes | None = b"value"
    headers: tuple[tuple[str, bytes | None], ...] = ()


def a_batch(records: Sequence[Raw], base: int = 0, codec: int = 0, **header: int) -> bytes:
    """Build a batch as aiokafka's producer does; ``header`` changes fields, and the checksum is made to fit."""
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, -1, 1 << 24)
    for each in records:
        assert builder.append(each.delta, each.timestamp, each.key, each.value, list(each.headers))
    built = builder.build()
    struct.pack_into(">q", built, 0, base)
    if "attributes" in header:
        struct.pack_into(">h", built, 21, struct.unpack_from(">h", built, 21)[0] | header["attributes"])
    if "last_delta" in header:
        struct.pack_into(">i", built, 23, header["last_delta"])
    if "max_timestamp" in header:
        struct.pack_into(">q", built, 35, header["max_timestamp"])
    if "count" in header:
        struct.pack_into(">i", built, 57, header["count"])
    return with_checksum(built)


def with_checksum(batch: bytes | bytearray) -> bytes:
    return bytes(batch[:17]) + calc_crc32c(bytes(batch[21:])).to_bytes(4, "big") + bytes(batch[21:])


def a_bad_batch(records: Sequence[Raw], bad_key: bytes, base: int = 0, **header: int) -> bytes:
    """Build an uncompressed batch in which another text of the same length replaces each header key PLACEHOLDER."""
    assert len(bad_key) == len(PLACEHOLDER)
    return with_checksum(a_batch(records, base, **header).replace(PLACEHOLDER.encode(), bad_key))
