"""Plain values that identify and carry a record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import msgspec


class TopicPartition(NamedTuple):
    """One partition of a topic. It equals the client library's type, so either works as the same dict key."""

    topic: str
    partition: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}"


class Position(NamedTuple):
    """Topic, partition and offset of one record, which may have been deleted since."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}-{self.partition}@{self.offset}"


class RawRecord(Protocol):
    """A record as the client library delivers it: not decoded, and without its topic and partition.

    Reading ``value`` raises DecodeError when the record cannot be read as it is.
    """

    @property
    def offset(self) -> int:
        """Offset in its partition."""

    @property
    def timestamp(self) -> int:
        """Milliseconds since 1970; -1 if the record has no timestamp."""

    @property
    def key(self) -> bytes | None:
        """Key as it was produced; None is a missing key, not an empty one."""

    @property
    def value(self) -> bytes | None:
        """Value as it was produced; None is a tombstone."""

    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]:
        """Headers in their order; a key may occur more than once."""


BINARY = "ce_"
"""What the headers of a CloudEvent in binary mode begin with."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record of Kafka: its raw bytes and its position. Passed to a handler that has a second parameter."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    """Milliseconds since 1970, set by the producer or by the broker (the topic's setting)."""
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    letter_of: Position | None = None
    """Position at which the record was first consumed, if this is a dead letter being redriven."""

    @property
    def origin(self) -> Position:
        """Position at which the record was first consumed: the identity and the order for a sink."""
        return self.letter_of or Position(self.topic, self.partition, self.offset)

    @property
    def attributes(self) -> dict[str, str]:
        """Attributes of the CloudEvent that the record is, as text; empty if it is none. Computed at each access.

        In binary mode they are headers ``ce_NAME``, and the content type; in structured mode they are in the value.
        """
        found = {
            name.removeprefix(BINARY): value.decode(errors="replace")
            for name, value in self.headers
            if value is not None and (name.startswith(BINARY) or name == "content-type")
        }
        if "specversion" in found:
            return {"datacontenttype" if name == "content-type" else name: text for name, text in found.items()}
        return _attributes_in(self.value or b"")


class NewRecord(msgspec.Struct, frozen=True, gc=False):
    """A record to be written to a topic."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]]
    timestamp_ms: int
    """Milliseconds since 1970; -1 for none."""
    source: int
    """Number of the partition that it comes from: records without a key stay in order, in one partition for each."""


def _attributes_in(value: bytes) -> dict[str, str]:
    """Return the attributes of a CloudEvent in structured mode, also behind a schema id. One that is null is unset."""
    from schemas.formats import SCHEMA_ID_BYTES  # noqa: PLC0415 - the start names a foreign package `schemas`, which this would import

    document = value[SCHEMA_ID_BYTES:] if value[:1] == b"\0" else value
    try:
        found = msgspec.json.decode(document, type=dict[str, msgspec.Raw])
        given = {name: msgspec.json.decode(raw) for name, raw in found.items() if name not in ("data", "data_base64")}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}
    known = {name: each for name, each in given.items() if each is not None}
    if "specversion" not in known:
        return {}
    return {name: each if isinstance(each, str) else msgspec.json.encode(each).decode() for name, each in known.items()}
