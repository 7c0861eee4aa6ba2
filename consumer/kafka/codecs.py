"""Decompression with a limit: aiokafka unpacks a batch whole, and 1 MiB of zstd can become 32 GiB.

Most batches cannot pass the limit whatever is in them: their size times the worst ratio of their codec lies below it,
and aiokafka's own decoder is called as ever. The others are unpacked within the limit: zstd may use that much once more
for its window. Measured on JSON that packs 3 to 6 times, beside aiokafka's own decoders: lz4 and gzip 1.00 to 1.04,
zstd 1.02 to 1.09, snappy 1.4 µs more a batch. zstd that packs more than 16 times is unpacked twice: 1.9.
"""

from __future__ import annotations

import gzip
import io
import os
import struct
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import cramjam
from aiokafka.codec import gzip_decode, lz4_decode, snappy_decode, zstd_decode
from aiokafka.record.default_records import DefaultRecordBatch
from aiokafka.record.legacy_records import LegacyRecordBatch

Packed = bytes | bytearray | memoryview
Unpacked = bytes | bytearray
Decoder = Callable[[Packed], Unpacked]

GZIP_WORST, SNAPPY_WORST, LZ4_WORST, ZSTD_WORST = 1032, 22, 255, 32_768
"""How many times its own size a payload may become, by each codec's format."""
LZ4_FIRST, ZSTD_FIRST, MORE = 8, 16, 4
"""Room that is tried first, in sizes of the payload, and how many times more is tried next."""
PIECE = 256 * 1024
MARK_BYTES = 16
XERIAL = b"\x82SNAPPY\x00" + struct.pack(">ii", 1, 1)
NAMES = {1: "gzip_decode", 2: "snappy_decode", 3: "lz4_decode", 4: "zstd_decode"}
"""aiokafka's decoders, by the codec's number in a batch's attributes."""


class TooLargeError(Exception):
    """A payload becomes larger than ``max_bytes`` when it is unpacked."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(f"it becomes larger than {max_bytes} bytes")
        self.max_bytes = max_bytes


def limit_decompression(max_bytes: int) -> None:
    """Have every batch that aiokafka unpacks from now on raise TooLargeError when it becomes larger than ``max_bytes``.

    It holds for the whole process, for all clients in it: the decoders are names in aiokafka's modules, and these are
    replaced. Calling it again is harmless; the last limit counts.
    """
    for parser in (DefaultRecordBatch, LegacyRecordBatch):
        module = _module_of(parser)
        for name, decoder in bounded_decoders(max_bytes).items():
            if hasattr(module, name):
                setattr(module, name, decoder)


def decompress(codec: int, payload: Packed) -> Unpacked:
    """Unpack a batch's records as aiokafka's parser would now, within the limit if there is one.

    Raises ValueError for a codec that does not exist, TooLargeError, or whatever the codec's library does.
    """
    if codec not in NAMES:
        raise ValueError(f"there is no codec {codec}")
    decoder: Decoder = getattr(_module_of(DefaultRecordBatch), NAMES[codec])
    return decoder(payload)


def bounded_decoders(max_bytes: int) -> dict[str, Decoder]:
    """Return a decoder for each of aiokafka's, which raises TooLargeError or else what aiokafka's would."""
    return {
        "gzip_decode": partial(_gzip, max_bytes),
        "snappy_decode": partial(_snappy, max_bytes),
        "lz4_decode": partial(_lz4, max_bytes),
        "zstd_decode": partial(_zstd, max_bytes),
    }


def _module_of(parser: Any) -> Any:
    """Return the module whose decoders a parser uses: the compiled one, where there is one."""
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
    """Unpack into room that grows up to the limit.

    The library says "no more room" and "corrupt" with the same exception. So the end of the largest room is marked with
    random bytes: where they are gone, more than ``max_bytes`` were written.
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
            del room  # the exception holds on to this frame
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
    """Unpack snappy, whose blocks say what they become: the library reserves that much before it looks further."""
    size = 0
    for block in _snappy_blocks(payload):
        claimed = cramjam.snappy.decompress_raw_len(block)
        if claimed > SNAPPY_WORST * len(block):
            raise cramjam.DecompressionError("snappy: a block claims to become larger than any can")
        size += claimed
        if size > max_bytes:
            raise TooLargeError(max_bytes)
    return snappy_decode(payload)


def _snappy_blocks(payload: Packed) -> Iterator[memoryview]:
    """Yield the blocks of a payload framed as Java's clients do, or the payload itself: it is one block then."""
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
