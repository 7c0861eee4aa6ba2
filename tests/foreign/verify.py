"""Comparison of what a producer sent with what handlers got and what was dead-lettered."""

from __future__ import annotations

import base64
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from consumer.dead_letters.headers import read_context, split_headers
from consumer.record import Position, RawRecord, TopicPartition
from tests.foreign.plan import CODECS, PARTITIONS, Planned

BATCH = struct.Struct(">qiibihiqqqhii")
"""The head of a record batch, version 2; its sixth field has the codec, its last one the number of records."""
Records = Mapping[Position, RawRecord]
Calls = Mapping[Position, Sequence[Mapping[str, Any]]]
Letters = Mapping[Position, Sequence[RawRecord]]


class Seen(NamedTuple):
    """Everything that a run left behind."""

    records: Records
    """What is on the topics, read by another client."""
    calls: Calls
    """Lines of the handlers."""
    letters: Letters


def differences(planned: Sequence[Planned], sent: Mapping[int, Position], seen: Seen) -> Iterator[tuple[Planned, str]]:
    """Yield each record of which something is not as the contract says, and what."""
    for each in planned:
        position = sent.get(each.order["number"])
        if position is None or position not in seen.records:
            yield each, "was not sent"
            continue
        calls, letters = seen.calls.get(position, ()), seen.letters.get(position, ())
        handled, dead = wanted(each)
        if (len(calls), len(letters)) != (handled, dead):
            yield each, f"{len(calls)} calls and {len(letters)} dead letters, instead of {handled} and {dead}"
            continue
        found = [*wrong_calls(each, calls, seen.records[position])]
        found += wrong_letters(each, letters, seen.records[position])
        yield from ((each, what) for what in found)


def wanted(each: Planned) -> tuple[int, int]:
    """Return the number of calls and of dead letters. The sessions' route has ``tombstones = true``."""
    if each.outcome == "tombstone":
        return int("-sessions-" in each.topic), 0
    return (1, 0) if each.outcome == "handled" else (0, 1)


def wrong_calls(each: Planned, calls: Sequence[Mapping[str, Any]], record: RawRecord) -> Iterator[str]:
    for call in calls:
        if call["event"] != msgspec.to_builtins(each.event) or call["type"] != type(each.event).__name__:
            yield f"the event is {call['event']!r}, instead of {msgspec.to_builtins(each.event)!r}"
        key = None if each.order["key"] is None else each.order["key"].encode()
        if not key == record.key == (None if call["key"] is None else base64.b64decode(call["key"])):
            yield f"the key is {call['key']!r}, instead of {key!r}"
        if wrong := different(each.attributes, call["attributes"]):
            yield f"attributes: {wrong}"


def different(expected: Mapping[str, str], found: Mapping[str, str]) -> dict[str, tuple[str | None, str | None]]:
    """Return the attributes that differ. A content type that was not given may be any: some libraries set JSON."""
    names = {*expected, *found}
    if expected and "datacontenttype" not in expected:
        names.discard("datacontenttype")
    return {each: (expected.get(each), found.get(each)) for each in names if expected.get(each) != found.get(each)}


def wrong_letters(each: Planned, letters: Sequence[RawRecord], record: RawRecord) -> Iterator[str]:
    for letter in letters:
        context, (own, _) = read_context(letter.headers), split_headers(letter.headers)
        assert context is not None
        if context.reason != "undecodable" or each.says not in context.message:
            yield f"the dead letter says {context.reason}: {context.message!r}, instead of {each.says!r}"
        if (letter.key, letter.value, [*own]) != (record.key, record.value, [*record.headers]):
            yield "the dead letter is not the record byte for byte"


def by_letter(found: Sequence[tuple[TopicPartition, RawRecord]]) -> dict[Position, list[RawRecord]]:
    """Group letters by the position of the record in each."""
    letters: dict[Position, list[RawRecord]] = {}
    for _, letter in found:
        context = read_context(letter.headers)
        assert context is not None, "a dead letter does not name its record"
        letters.setdefault(context.origin, []).append(letter)
    return letters


def codecs(data: Path, topics: Sequence[str]) -> Counter[str]:
    """Count records by the codec of their batch, in the files of a broker."""
    found: Counter[str] = Counter()
    for topic in topics:
        for partition in range(PARTITIONS):
            for file in sorted((data / f"{topic}-{partition}").glob("*.log")):
                found += codecs_in(file.read_bytes())
    return found


def codecs_in(log: bytes) -> Counter[str]:
    found: Counter[str] = Counter()
    place = 0
    while place + BATCH.size <= len(log):
        _, length, _, _, _, bits, *_, records = BATCH.unpack_from(log, place)
        found[CODECS[bits & 7]] += records
        place += 12 + length
    return found
