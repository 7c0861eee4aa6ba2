"""Decompression with a limit: aiokafka uncompresses a batch as a whole, and 1 MiB of zstd can become 32 GiB.

Most batches cannot exceed the limit: their size times the worst ratio of their codec is below it, and aiokafka's own
decoder is called. The others are uncompressed within the limit; zstd may use that much memory again for its window.
Time relative to aiokafka's own decoders, measured on JSON compressed 3 to 6 times: lz4 and gzip 1.00 to 1.04, zstd 1.02
to 1.09, snappy 1.4 µs more per batch. zstd compressed more than 16 times is uncompressed twice: 1.9.
"""

from __future__ import annotations

import gzip
import io
import os
import struct
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import cramjam
from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch

Packed = bytes | bytearray | memoryview
Unpacked = bytes | bytearray
Decoder = Callable[[Packed], Unpacked]

GZIP_WORST, SNAPPY_WORST, LZ4_WORST, ZSTD_WORST = 1032, 22, 255, 32_768
"""Largest ratio of uncompressed to compressed size, by each codec's format."""
LZ4_FIRST, ZSTD_FIRST, MORE = 8, 16, 4
"""Size of the first buffer in payload sizes, and the factor for each next one."""
PIECE = 256 * 1024
MARK_BYTES = 16
XERIAL = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1)
NAMES = {1: "gzip_decode", 2: "snappy_decode", 3: "lz4_decode", 4: "zstd_decode"}
"""aiokafka's decoders, by the codec's number in a batch's attributes."""


class TooLargeError(Exception):
    """A payload is larger than ``max_bytes`` when uncompressed."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"it is larger than {max_bytes} bytes when uncompressed")
        self.max_bytes = max_bytes


class _Inspected(NamedTuple):
    """A decoder whose result is looked at before it is parsed."""

    decoder: Decoder
    inspect: Callable[[Unpacked], None]

    def __call__(self, payload: Packed) -> Unpacked:
        records = self.decoder(payload)
        self.inspect(records)
        return records


def limit_decompression(max_bytes: int, inspect: Callable[[Unpacked], None] | None = None) -> None:
    """Make aiokafka raise TooLargeError for each batch that is larger than ``max_bytes`` when uncompressed.

    ``inspect`` may raise for the uncompressed records of a batch, before aiokafka parses them.

    The limit holds for all clients of the process, because it replaces the decoders in aiokafka's modules. It may be
    called again; the last limit counts.
    """
    for parser in (DefaultRecordBatch, LegacyRecordBatch):
        module = _module_of(parser)
        for name, decoder in bounded_decoders(max_bytes).items():
            if hasattr(module, name):
                if inspect is None or parser is LegacyRecordBatch:  # which has no headers
                    setattr(module, name, decoder)
                else:
                    setattr(module, name, _Inspected(decoder, inspect))


def decompress(codec: int, payload: Packed) -> Unpacked:
    """Uncompress a batch's records as aiokafka's parser does, within the limit if there is one, without a look at them.

    Raises ValueError for a codec that does not exist, TooLargeError, or an error of the codec's library.
    """
    if codec not in NAMES:
        raise ValueError(f"there is no codec {codec}")
    decoder = getattr(_module_of(DefaultRecordBatch), NAMES[codec])
    unpacked: Unpacked = (decoder.decoder if isinstance(decoder, _Inspected) else decoder)(payload)
    return unpacked


def bounded_decoders(max_bytes: int) -> dict[str, Decoder]:
    """Return replacements for aiokafka's decoders that also raise TooLargeError."""
    return {
        "gzip_decode": partial(_gzip, max_bytes),
        "snappy_decode": partial(_snappy, max_bytes),
        "lz4_decode": partial(_lz4, max_bytes),
        "zstd_decode": partial(_zstd, max_bytes),
    }


def _module_of(parser: Any) -> Any:
    """Return the module whose decoders a parser uses: the compiled one if there is one."""
    return sys.modules[parser.__module__]


def _gzip(max_bytes: int, payload: Packed) -> Unpacked:
    if len(payload) * GZIP_WORST <= max_bytes:
        return gzip_decode(payload)
    pieces, size = [], 0
    with gzip.GzipFile(fileobj=io.BytesIO(payload)) as file:
        while piece := file.read(PIECE):
            size += len(piece)
            if size > max_bytes:
                raise TooLargeError(max_bytes)
            pieces.append(piece)
    return b"".join(pieces)


def _lz4(max_bytes: int, payload: Packed) -> Unpacked:
    if len(payload) * LZ4_WORST <= max_bytes:
        return lz4_decode(payload)
    return _with_room(cramjam.lz4.decompress_into, LZ4_FIRST, max_bytes, payload)


def _zstd(max_bytes: int, payload: Packed) -> Unpacked:
    if len(payload) * ZSTD_WORST <= max_bytes:
        return zstd_decode(payload)
    return _with_room(cramjam.zstd.decompress_into, ZSTD_FIRST, max_bytes, payload)


def _with_room(into: Callable[[Packed, bytearray], int], first: int, max_bytes: int, payload: Packed) -> Unpacked:
    """Uncompress into a buffer that grows up to the limit.

    The library raises the same exception for a full buffer and for a corrupt payload. So the end of the largest buffer
    is marked with random bytes: if they were overwritten, the payload is larger than ``max_bytes``.
    """
    largest = max_bytes + MARK_BYTES
    size = min(first * len(payload), largest)
    while True:
        room = bytearray(size)
        mark = b""
        if size == largest:
            mark = room[-MARK_BYTES:] = os.urandom(MARK_BYTES)
        try:
            written = into(payload, room)
        except cramjam.DecompressionError:
            overwritten = not room.endswith(mark)
            del room  # the exception keeps this frame alive
            if overwritten:
                raise TooLargeError(max_bytes) from None
            if size == largest:
                raise
            size = min(MORE * size, largest)
        else:
            if written > max_bytes:
                raise TooLargeError(max_bytes)
            del room[written:]
            return room


def _snappy(max_bytes: int, payload: Packed) -> Unpacked:
    """Uncompress snappy, whose blocks state their size; the library allocates that much before it checks them."""
    size = 0
    for block in _snappy_blocks(payload):
        claimed = cramjam.snappy.decompress_raw_len(block)
        if claimed > SNAPPY_WORST * len(block):
            raise cramjam.DecompressionError("snappy: a block states an impossible size")
        size += claimed
        if size > max_bytes:
            raise TooLargeError(max_bytes)
    return snappy_decode(payload)


def _snappy_blocks(payload: Packed) -> Iterator[memoryview]:
    """Yield the blocks of a payload that Java's clients framed, or the payload itself as one block."""
    view = memoryview(payload)
    if len(view) <= len(XERIAL) or view[: len(XERIAL)] != XERIAL:
        yield view
        return
    at = len(XERIAL)
    while at < len(view):
        start = at + 4
        at = start + int.from_bytes(view[at:start], "big", signed=True)
        if not start <= at <= len(view):
            raise cramjam.DecompressionError("snappy: the length of a block is wrong")
        yield view[start:at]
