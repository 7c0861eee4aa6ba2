"""A parser of record batches in Python, for batches that aiokafka's compiled parser cannot or should not read.

The compiled parser decodes header keys, and fails for the rest of a batch at a key that is not UTF-8. Brokers accept
such keys, and librdkafka writes them. It also makes objects of all headers: two bytes become 70, so a batch of 64 MiB
can become gigabytes. With this parser only the record with such headers is bad. It costs about 5 µs a record.

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
PACKED = "session-consumer.packed"
MAX_HEADER_BYTES = 1_048_576
"""Largest encoding of one record's headers. A smaller batch needs no look at it, and a larger one is rare: Kafka's own
limit of a whole batch is 1 MiB, compressed. They are half a million headers at most, some 40 MB in memory."""
MAX_HEADERS = 10_000
"""Most headers that are read when their encoding is larger than that."""
SMALLEST_RECORD = 6

Headers = list[tuple[str, bytes | None]]
Buffer = bytes | bytearray | memoryview


class PlainRecord(msgspec.Struct, frozen=True, gc=False):
    """A record with the attributes of aiokafka's; ``timestamp`` in milliseconds since 1970, or -1."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


class BadHeaderRecord:
    """A record whose headers are refused; all its attributes but the value can be read.

    Reading the value raises DecodeError, so that the record is dead-lettered as any that cannot be decoded. The error's
    ``record`` is the whole record. The reasons:

    - ``bad_header``: a header key is not UTF-8. Such a key is written with each byte that is not UTF-8 as %C3 and each
      % as %25; the last header, ``session-consumer.escaped``, names these keys.
    - ``too_large``: the headers take more than MAX_HEADER_BYTES. More than MAX_HEADERS are not read: one header,
      ``session-consumer.packed``, has all of them in Kafka's encoding, with their number in front.
    """

    __slots__ = ("_refusal", "_whole", "headers", "key", "offset", "timestamp")

    def __init__(self, whole: PlainRecord, reason: str, message: str) -> None:
        self.offset = whole.offset
        self.timestamp = whole.timestamp
        self.key = whole.key
        self.headers = whole.headers
        self._whole = whole
        self._refusal = reason, message

    @classmethod
    def of_size(cls, whole: PlainRecord, size: int) -> BadHeaderRecord:
        """Make one whose headers take ``size`` bytes, which are too many."""
        return cls(whole, "too_large", f"its headers of {size} bytes are over the limit of {MAX_HEADER_BYTES}")

    @property
    def value(self) -> bytes | None:
        raise DecodeError(*self._refusal, self._whole)


class LargeHeadersError(Exception):
    """A batch has a record whose headers take more than MAX_HEADER_BYTES."""


def refuse_large_headers(records: Buffer) -> None:
    """Raise LargeHeadersError if there is such a record in a batch's uncompressed records.

    This reads the records' lengths alone, 0.2 µs each, and only as long as what is left is larger than the limit.
    """
    reader, most = _Reader(records), len(records) - MAX_HEADER_BYTES
    while (at := reader.at) < most:
        # Two bytes, the length of most records, are read here: `varint` costs three times as much.
        low, high = records[at], records[at + 1]
        if low >= 0x80 > high:
            reader.at = at + 2 + (high << 6 | (low & 0x7F) >> 1)
            continue
        try:
            if reader.skip_record() > MAX_HEADER_BYTES:
                raise LargeHeadersError
        except ValueError:  # it is malformed, and the parser will say so
            return


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
    size = start + length - reader.at
    headers, bad = _read_headers(reader, size)
    if reader.at - start != length:
        raise ValueError("a record does not have the length that it states")
    record = PlainRecord(offset, created if appended is None else appended, key, value, headers)
    if size > MAX_HEADER_BYTES:
        return BadHeaderRecord.of_size(record, size)
    if bad:
        return BadHeaderRecord(record, "bad_header", f"a header key of {counted(bad, 'byte', '')} is not UTF-8")
    return record


def _read_headers(reader: _Reader, size: int) -> tuple[Headers, int]:
    """Return the headers, and the size in bytes of the first key that was escaped, else 0."""
    headers: Headers = []
    escaped: dict[str, int] = {}
    start = reader.at
    count = reader.varint()
    if count < 0:
        raise ValueError("a record has a negative number of headers")
    if size > MAX_HEADER_BYTES and count > MAX_HEADERS:
        reader.at = start
        return [(PACKED, reader.bytes(size))], 0
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

    def __init__(self, data: Buffer) -> None:
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
        return None if size < 0 else self.bytes(size)

    def bytes(self, size: int) -> bytes:
        """Read that many bytes."""
        start = self.at
        self.skip(size)
        return bytes(self._data[start : self.at])

    def skip(self, size: int) -> None:
        """Pass that many bytes; none if the number is negative."""
        self.at += max(0, size)
        if self.at > len(self._data):
            raise ValueError("a field goes beyond the end")

    def skip_record(self) -> int:
        """Pass one record, and return the size of its headers' encoding; at most that if the record is small."""
        length = self.varint()
        start = self.at
        if length < SMALLEST_RECORD:
            raise ValueError("a record is too short")
        if length > MAX_HEADER_BYTES:
            for _ in range(3):  # attributes, timestamp and offset
                self.varint()
            for _ in range(2):  # key and value
                self.skip(self.varint())
        size = start + length - self.at
        self.at = start
        self.skip(length)
        return size

    def require_end(self) -> None:
        """Raise ValueError unless the end is reached."""
        if self.at != len(self._data):
            raise ValueError("bytes follow the last record")
