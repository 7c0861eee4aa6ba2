"""A parser of record batches in Python, for batches that aiokafka's compiled parser cannot read.

The compiled parser decodes header keys, and fails for the rest of a batch at a key that is not UTF-8. Brokers accept
such keys, and librdkafka writes them. With this parser only that record is bad. It costs about 5 µs a record.

The format is Kafka's record batch with magic 2; https://kafka.apache.org/documentation/#recordbatch
"""

from __future__ import annotations

import re
import struct

import msgspec

from consumer.errors import DecodeError, counted
from consumer.kafka.codecs import TooLargeError, decompress

HEADER = struct.Struct(">qiibIhiqqqhii")
CODEC, APPEND_TIME = 0x07, 0x08
ESCAPED = "session-consumer.escaped"

Headers = list[tuple[str, bytes | None]]


class PlainRecord(msgspec.Struct, frozen=True, gc=False):
    """A record with the attributes of aiokafka's; ``timestamp`` in milliseconds since 1970, or -1."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class BadHeaderRecord:
    """A record with a header key that is not UTF-8; all its attributes but the value can be read.

    Reading the value raises DecodeError ``bad_header``, so that the record is dead-lettered as any that cannot be
    decoded. The error's ``record`` is the whole record. In both, such a key is written with each byte that is not UTF-8
    as %C3 and each % as %25; the last header, ``session-consumer.escaped``, names these keys.
    """

    __slots__ = ("_size", "_whole", "headers", "key", "offset", "timestamp")

    def __init__(self, whole: PlainRecord, size: int) -> None:
        self.offset = whole.offset
        self.timestamp = whole.timestamp
        self.key = whole.key
        self.headers = whole.headers
        self._whole = whole
        self._size = size

    @property
    def value(self) -> bytes | None:
        raise DecodeError("bad_header", f"a header key of {counted(self._size, 'byte', '')} is not UTF-8", self._whole)


def parse_batch(batch: bytes | memoryview) -> list[PlainRecord | BadHeaderRecord]:
    """Return the records of one batch, given from its base offset to its end; the checksum is not verified.

    Raises ValueError when it is malformed, and TooLargeError when it is larger than the limit when uncompressed.
    """
    if len(batch) < HEADER.size:
        raise ValueError(f"{len(batch)} bytes are too few for a batch")
    base, _, _, magic, _, attributes, _, first, last, _, _, _, count = HEADER.unpack_from(batch)
    if magic != 2:
        raise ValueError(f"its format is {magic}, not 2")
    reader = _Reader(_uncompressed(attributes & CODEC, memoryview(batch)[HEADER.size :]))
    records = [_read_record(reader, base, first, last if attributes & APPEND_TIME else None) for _ in range(count)]
    reader.require_end()
    return records


def _uncompressed(codec: int, packed: memoryview) -> bytes:
    if codec == 0:
        return bytes(packed)
    try:
        return bytes(decompress(codec, packed))
    except TooLargeError:
        raise
    except Exception as error:  # each codec's library has its own errors
        raise ValueError(f"it cannot be uncompressed: {type(error).__name__}") from error


def _read_record(reader: _Reader, base: int, first: int, appended: int | None) -> PlainRecord | BadHeaderRecord:
    length = reader.varint()
    start = reader.at
    reader.varint()  # attributes; none are in use
    created = _int64(first + reader.varint())
    offset = _int64(base + reader.varint())
    key, value = reader.optional_bytes(), reader.optional_bytes()
    headers, bad = _read_headers(reader)
    if reader.at - start != length:
        raise ValueError("a record does not have the length that it states")
    record = PlainRecord(offset, created if appended is None else appended, key, value, headers)
    return BadHeaderRecord(record, bad) if bad else record


def _read_headers(reader: _Reader) -> tuple[Headers, int]:
    """Return the headers, and the size in bytes of the first key that was escaped, else 0."""
    headers: Headers = []
    escaped: dict[str, int] = {}
    count = reader.varint()
    if count < 0:
        raise ValueError("a record has a negative number of headers")
    for _ in range(count):
        key = reader.optional_bytes()
        if key is None:
            raise ValueError("a header has no key")
        try:
            name = key.decode()
        except UnicodeDecodeError:
            name = escape(key)
            escaped.setdefault(name, len(key))
        headers.append((name, reader.optional_bytes()))
    if escaped:
        headers.append((ESCAPED, ",".join(escaped).encode()))
    return headers, next(iter(escaped.values()), 0)


def escape(key: bytes) -> str:
    """Percent-escape a header key: each % and each byte that is not UTF-8 becomes % and two hexadecimal digits."""
    text = key.replace(b"%", b"%25").decode(errors="surrogateescape")
    return re.sub("[\udc80-\udcff]", lambda found: f"%{ord(found[0]) - 0xDC00:02X}", text)


def _int64(number: int) -> int:
    """Wrap a sum to 64 bits with a sign, as the compiled parser does."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


class _Reader:
    """The parser's place in the uncompressed records; reading past their end raises ValueError."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def varint(self) -> int:
        """Read a number of up to 64 bits: seven bits a byte, lowest first, with the sign in the lowest bit."""
        data, at, bits = self._data, self.at, 0
        for shift in range(0, 70, 7):
            if at >= len(data):
                raise ValueError("a number goes beyond the end")
            byte = data[at]
            at += 1
            bits |= (byte & 0x7F) << shift
            if byte < 0x80:
                self.at = at
                bits &= (1 << 64) - 1
                return (bits >> 1) ^ -(bits & 1)
        raise ValueError("a number has more than 64 bits")

    def optional_bytes(self) -> bytes | None:
        """Read a length and that many bytes; None if the length is negative."""
        size = self.varint()
        if size < 0:
            return None
        start, self.at = self.at, self.at + size
        if self.at > len(self._data):
            raise ValueError("a field goes beyond the end")
        return self._data[start : self.at]

    def require_end(self) -> None:
        """Raise ValueError unless the end is reached."""
        if self.at != len(self._data):
            raise ValueError("bytes follow the last record")
