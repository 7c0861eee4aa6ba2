"""Bodies of requests: an event or several, as JSON or as CloudEvents in structured mode. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from consumer.record import Record

EPOCH = datetime.fromtimestamp(0, UTC)

encode = msgspec.json.Encoder().encode


class CloudEvent(msgspec.Struct, omit_defaults=True):
    """A CloudEvent 1.0 with the event of one record as its data."""

    id: str
    source: str
    type: str
    specversion: str = msgspec.field(default_factory=lambda: "1.0")  # a factory, because defaults are omitted
    time: datetime | msgspec.UnsetType = msgspec.UNSET
    partitionkey: str | msgspec.UnsetType = msgspec.UNSET
    datacontenttype: str | msgspec.UnsetType = msgspec.UNSET
    data: Any = msgspec.UNSET
    data_base64: bytes | msgspec.UnsetType = msgspec.UNSET


class Body(msgspec.Struct, frozen=True):
    """How bodies of one form are made."""

    content_type: str
    of_one: Callable[[Any, Record], bytes]
    of_many: Callable[[Sequence[Any], Sequence[Record]], bytes]


def id_of(record: Record) -> str:
    """Return the identity of a record: where it was first consumed."""
    topic, partition, offset = record.origin
    return f"{topic}-{partition}-{offset}"


def id_of_all(records: Sequence[Record]) -> str:
    """Return the identity of a batch: that of its first record, and a digest of those of all if there are several.

    Batches with the same first record may have different others after a restart, and are then different requests.
    """
    first, *others = map(id_of, records)
    return f"{first}-{hashlib.sha256(' '.join([first, *others]).encode()).hexdigest()[:32]}" if others else first


def cloud_event(event: Any, record: Record) -> CloudEvent:
    """Return an event as a CloudEvent; a tombstone has no data, and its key tells what was deleted."""
    topic = record.origin.topic
    found = CloudEvent(
        id=id_of(record),
        source=f"/topics/{topic}",
        type=topic if event is None or isinstance(event, bytes | dict) else type(event).__name__.lower(),
        time=_time_of(record.timestamp_ms),
        partitionkey=_text_of(record.key),
    )
    if isinstance(event, bytes):
        found.data_base64 = event
    elif event is not None:
        found.datacontenttype, found.data = "application/json", event
    return found


def _time_of(timestamp_ms: int) -> datetime | msgspec.UnsetType:
    try:
        return EPOCH + timedelta(milliseconds=timestamp_ms) if timestamp_ms >= 0 else msgspec.UNSET
    except OverflowError:  # a producer may write any time
        return msgspec.UNSET


def _text_of(key: bytes | None) -> str | msgspec.UnsetType:
    """Return a key as an attribute, which is text that can be printed and is not empty."""
    try:
        text = (key or b"").decode()
    except UnicodeDecodeError:
        return msgspec.UNSET
    return text if text and text.isprintable() else msgspec.UNSET


BODIES = {
    "json": Body("application/json", lambda event, _: encode(event), lambda events, _: encode(events)),
    "cloudevents": Body(
        "application/cloudevents+json",
        lambda event, record: encode(cloud_event(event, record)),
        lambda events, records: encode(list(map(cloud_event, events, records))),
    ),
}
"""Bodies by ``options.format``."""
BATCH_TYPES = {"json": "application/json", "cloudevents": "application/cloudevents-batch+json"}
