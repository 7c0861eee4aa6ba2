"""Values of records as a producer writes them: the reverse of the readers in ``schemas/formats.py``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from consumer.errors import hint
from consumer.routes.topics import Topics
from consumer.settings.sections import Settings, matches_topic
from schemas.formats import CODECS
from schemas.types import BYTES

SCHEMA_ID = b"\0\0\0\0\1"
"""The magic byte, and a schema id in four bytes."""

GivenHeaders = Mapping[str, bytes | str | None] | Iterable[tuple[str, bytes | str | None]]


def bytes_of(given: bytes | str | None) -> bytes | None:
    """Return a key or the value of a header as bytes."""
    return given.encode() if isinstance(given, str) else given


def headers_of(given: GivenHeaders) -> tuple[tuple[str, bytes | None], ...]:
    """Return headers as Kafka delivers them."""
    pairs = given.items() if isinstance(given, Mapping) else given
    return tuple((name, bytes_of(value)) for name, value in pairs)


class Values:
    """Encodes the events of each topic; owned by an app."""

    def __init__(self, settings: Settings, topics: Topics) -> None:
        self._topics = topics
        self._names = settings.kafka.topics
        self._pattern = matches_topic(settings) if settings.kafka.topic_pattern else None

    def topic(self, name: str | None) -> str:
        """Return a topic that is consumed; the only one for None."""
        if name is None and len(self._names) == 1:
            return self._names[0]
        if name is None:
            raise ValueError(f"name the topic: topic=…; it is one of {', '.join(self._names) or 'kafka.topic_pattern'}")
        if name not in self._names and not (self._pattern is not None and self._pattern.fullmatch(name)):
            raise ValueError(f"the topic {name!r} is not consumed{hint(name, self._names)}")
        return name

    def encoded(self, event: Any, topic: str) -> bytes | None:
        """Return an event as a record's value; bytes and None are one already."""
        if event is None or isinstance(event, bytes):
            return event
        schema = self._topics.schema(topic)
        if schema.kind is BYTES:
            raise TypeError(f"the values of topic {topic!r} are bytes as they are; give bytes")
        if schema.format == "cloudevents":
            envelope = {"specversion": "1.0", "id": "1", "source": "/testing", "type": type(event).__name__}
            event = {**envelope, "data": event}
        value: bytes = CODECS[schema.format].encode(event)
        return SCHEMA_ID + value if schema.framing == "confluent" else value
