"""The handler that writes records to another topic, with their keys, headers and timestamps."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, Self

import msgspec

from consumer.errors import SettingsError, SinkError, hint
from consumer.instructions import Reject
from consumer.record import NewRecord, Record, TopicPartition
from consumer.routes.writing import Writer
from schemas.types import event_type

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
LONGEST_CALL_SECONDS = 20.0
"""A write has 15 seconds, and what it leaves under way is stopped after that."""


class Republish:
    """Writes each batch, or each record, and returns when all replicas have it; opened and closed with the daemon.

    - A call whose records are not all acknowledged raises, so no offset is committed past one that is not.
    - What a topic refuses is rejected alone. What it cannot take now holds the partition.
    """

    longest_call_seconds = LONGEST_CALL_SECONDS
    """The watchdog's limit follows it."""

    def __init__(
        self, topic: str, fields: list[str] | None = None, *, original: bool = False, batch: bool = True
    ) -> None:
        """Take the route's options.

        ``{topic}`` in ``topic`` stands for the record's topic. ``fields`` are those of the event that are written.
        ``original`` writes the record's own value. ``batch = false`` makes a call for each record.
        """
        if not topic:
            raise SettingsError("options.topic is empty; name a topic, such as {topic}.clean")
        if original and fields:
            raise SettingsError(
                "options.fields chooses fields of the event, and options.original writes the whole value"
            )
        self._topic = topic
        self._fields = fields or []
        self._original = original
        self._known: set[str] | None = set()
        """Fields of the events; None if they may have any."""
        self._names: dict[type, list[str]] = {}
        """The written names of the chosen fields by class of event; those of a dict are the fields themselves."""
        self._writer: Writer | None = None
        self._acknowledged: dict[TopicPartition, set[tuple[int, int]]] = {}
        """Offsets and times of a failed call's records that are written: the next call of the partition leaves them
        out."""
        self.__signature__ = inspect.signature(_takes_many if batch else _takes_one)

    def target_of(self, topic: str) -> str:
        """Return the topic that takes the records of a topic."""
        return self._topic.replace("{topic}", topic)

    def expect_writer(self, writer: Writer) -> None:
        """Take what writes to the daemon's brokers."""
        self._writer = writer

    def expect_events(self, kind: type) -> None:
        """Take a class of the route's events. Raises SettingsError if it has no fields to choose from."""
        if not self._fields:
            return
        if kind is bytes:
            raise SettingsError("options.fields: the events are bytes, which have no fields")
        (member,) = event_type(kind).members
        if member.fields is None:
            self._known = None
            return
        names = {name: name for name in member.fields}
        if issubclass(kind, msgspec.Struct):
            names |= {each.name: each.encode_name for each in msgspec.structs.fields(kind)}
            tag = kind.__struct_config__.tag_field
            names |= {} if tag is None else {tag: tag}
        self._names[kind] = [names[name] for name in self._fields if name in names]
        if self._known is not None:
            self._known |= names.keys()

    async def __aenter__(self) -> Self:
        for name in self._fields:
            if self._known is not None and name not in self._known:
                near = hint(name, sorted(self._known))
                raise SettingsError(f"options.fields: the events have no field {name!r}{near}")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._writer is not None:
            await self._writer.close()

    async def __call__(self, event: Any, record: Any) -> None:
        """Write a record, or a batch. Raises Reject for what is never taken, SinkError for what is not taken now."""
        if isinstance(record, Record):
            await self._write([event], [record])
        else:
            await self._write(event, record)

    async def _write(self, events: Sequence[Any], records: Sequence[Record]) -> None:
        if self._writer is None:
            raise SinkError("there are no brokers to write to: the handler was not entered by a daemon")
        place = TopicPartition(records[0].topic, records[0].partition)
        done = self._acknowledged.pop(place, ())
        left = [index for index, each in enumerate(records) if _identity(each) not in done]
        written: list[NewRecord] = []
        refused: dict[int, Reject] = {}
        for index in left:
            try:
                written.append(self._new(events[index], records[index]))
            except Reject as error:
                refused[index] = error
        tried = [index for index in left if index not in refused]
        outcomes = dict(zip(tried, await self._writer.write(written), strict=True)) if written else {}
        delayed = [each for each in outcomes.values() if isinstance(each, SinkError)]
        refused |= {index: each for index, each in outcomes.items() if isinstance(each, Reject)}
        if delayed or refused:
            now = {_identity(records[index]) for index, outcome in outcomes.items() if outcome is None}
            self._acknowledged[place] = now.union(done)
        if delayed:
            raise delayed[0]
        if refused:
            code = next(iter(refused.values())).code
            indexes = [index for index, each in refused.items() if each.code == code]
            raise Reject("the topic does not take them", code=code, indexes=indexes)

    def _new(self, event: Any, record: Record) -> NewRecord:
        """Return what is to be written for a record. Raises Reject if its event has no form in JSON."""
        try:
            value = self._value_of(event, record)
        except (TypeError, ValueError, RecursionError) as error:
            raise Reject("the event has no form in JSON", code="not_json") from error
        target = self.target_of(record.origin.topic)
        return NewRecord(target, record.key, value, record.headers, record.timestamp_ms, record.partition)

    def _value_of(self, event: Any, record: Record) -> bytes | None:
        if self._original or event is None or isinstance(event, bytes):
            return record.value
        value = encode(event)
        if not self._fields:
            return value
        found = decode(value)
        names = self._names.get(type(event), self._fields)
        return encode({name: found[name] for name in names if name in found})


def _identity(record: Record) -> tuple[int, int]:
    """Return what tells a record from the others of its partition, also of one that was created again."""
    return record.offset, record.timestamp_ms


def _takes_one(event: Any, record: Record) -> None: ...


def _takes_many(events: list[Any], records: list[Record]) -> None: ...
