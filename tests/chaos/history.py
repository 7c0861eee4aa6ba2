"""The history of a run: calls from the workers' files, commits from Kafka's own offsets topic."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, NamedTuple

import aiokafka
from aiokafka.admin import AIOKafkaAdminClient

OFFSETS_TOPIC = "__consumer_offsets"


class Call(NamedTuple):
    """One call of the handler; ``ended_ns`` is None when its process died, or was cancelled, before the end."""

    partition: int
    offset: int
    key: str
    worker: str
    began_ns: int
    ended_ns: int | None


class Commit(NamedTuple):
    """One committed offset in log order; ``at_ns`` is the broker's clock, to the millisecond."""

    partition: int
    offset: int
    at_ns: int


def read_calls(folder: Path) -> list[Call]:
    """Read all workers' files; a last line that a kill cut off is left out."""
    calls = []
    for file in folder.glob("*.calls"):
        open_calls: dict[tuple[int, int], list[Call]] = {}
        for line in file.read_text().split("\n")[:-1]:
            what, partition, offset, key, ns = line.split()
            place = int(partition), int(offset)
            if what == "begin":
                open_calls.setdefault(place, []).append(Call(*place, key, file.stem, int(ns), None))
            else:
                calls.append(open_calls[place].pop()._replace(ended_ns=int(ns)))
        calls += [call for left in open_calls.values() for call in left]
    return sorted(calls, key=lambda call: call.began_ns)


async def read_commits(bootstrap_servers: str, group: str, topic: str) -> list[Commit]:
    """Read every commit of a group from Kafka's offsets topic, where later commits do not hide earlier ones."""
    reader = aiokafka.AIOKafkaConsumer(
        bootstrap_servers=bootstrap_servers, exclude_internal_topics=False, auto_offset_reset="earliest"
    )
    await reader.start()
    try:
        keys = [aiokafka.TopicPartition(OFFSETS_TOPIC, number) for number in await _partitions(bootstrap_servers)]
        reader.assign(keys)
        await reader.seek_to_beginning(*keys)
        ends = await reader.end_offsets(keys)
        commits = []
        while any([await reader.position(key) < ends[key] for key in keys]):
            for records in (await reader.getmany(timeout_ms=500)).values():
                commits += [commit for record in records if (commit := _commit(record, group, topic)) is not None]
        return commits
    finally:
        await reader.stop()


async def _partitions(bootstrap_servers: str) -> list[int]:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    try:
        (found,) = [each for each in await admin.describe_topics() if each["topic"] == OFFSETS_TOPIC]
        return [each["partition"] for each in found["partitions"]]
    finally:
        await admin.close()


def _commit(record: Any, group: str, topic: str) -> Commit | None:
    """Decode an offset commit: key version 0 or 1 = group, topic, partition; value = version, offset, …, timestamp."""
    if record.key is None or record.value is None or struct.unpack(">h", record.key[:2])[0] > 1:
        return None
    found_group, rest = _text(record.key[2:])
    found_topic, rest = _text(rest)
    if (found_group, found_topic) != (group, topic):
        return None
    return Commit(
        struct.unpack(">i", rest)[0], struct.unpack(">q", record.value[2:10])[0], record.timestamp * 1_000_000
    )


def _text(data: bytes) -> tuple[str, bytes]:
    (length,) = struct.unpack(">h", data[:2])
    return data[2 : 2 + length].decode(), data[2 + length :]
