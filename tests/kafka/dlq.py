"""Dead letters on a real Kafka, ``dlq`` commands on them, and what a redrive handled."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from consumer.dead_letters.cause import Cause
from consumer.dead_letters.headers import write_context
from consumer.dead_letters.letter import Letter
from consumer.kafka.scan import open_scan
from consumer.record import Position
from tests.cluster import Cluster, a_route
from tests.process import command

NOON = 1_729_512_000_000
"""2024-10-21T12:00:00Z."""
CALLER = "+4930123456"
PLACE = "the handler of route 'all' raised ValueError (handler.py:7)"


def an_event(name: str) -> bytes:
    return b'{"timestamp":"2024-10-21T12:00:00Z","session_id":"%s","source":"%s"}' % (name.encode(), CALLER.encode())


def a_letter(
    cluster: Cluster,
    offset: int,
    value: bytes | None = an_event("good"),
    *,
    topic: str = "",
    key: bytes | None = b"key",
    headers: tuple[tuple[str, bytes | None], ...] = (("trace", b"7"),),
    timestamp: int = NOON,
    route: str = "all",
    reason: str = "exhausted",
    redrives: int = 0,
    group: str = "",
    code: str = "",
) -> Letter:
    """Make the letter of the record at ``offset`` of the test's topic, as a daemon would have written it."""
    cause = Cause(reason, route, 5, "builtins.ValueError", PLACE, code)
    origin = Position(topic or cluster.topic, 0, offset)
    block = write_context("connect", origin, timestamp, group or cluster.kafka.group_id, cause, redrives)
    return Letter(f"{cluster.topic}.dlq", key, value, [*headers, *block], timestamp)


async def put(cluster: Cluster, *letters: Letter, partition: int = 0) -> None:
    async with cluster.producer() as producer:
        for each in letters:
            await producer.send_and_wait(
                each.topic,
                each.value,
                each.key,
                partition=partition,
                timestamp_ms=each.timestamp_ms,
                headers=each.headers,
            )


async def read(cluster: Cluster, topic: str) -> list[Any]:
    async with open_scan(msgspec.structs.replace(cluster.kafka, topics=[topic])) as scan:
        return [raw async for _, raw in scan.records()]


async def letters(cluster: Cluster) -> list[Any]:
    return await read(cluster, f"{cluster.topic}.dlq")


def homing(cluster: Cluster, route: str = "all") -> str:
    return a_route("homing:Homing", route, path=notes(cluster), route=route)


def notes(cluster: Cluster) -> Path:
    return cluster.folder / "notes"


def handled(cluster: Cluster) -> list[tuple[str, int]]:
    """Read which route handled which record, by its original offset, in call order."""
    lines = notes(cluster).read_text().split("\n")[:-1] if notes(cluster).exists() else []
    return [(route, int(offset)) for route, _topic, _partition, offset in map(str.split, lines)]


def arguments(cluster: Cluster, *words: str, routes: str = "", overrides: tuple[str, ...] = ()) -> list[str]:
    settings = ("retry.attempts=1", "kafka.session_timeout_seconds=6", "kafka.heartbeat_interval_seconds=0.5")
    daemon = cluster.run(*settings, *overrides, routes=routes or homing(cluster))
    return ["dlq", *words, *daemon.arguments[2:]]


async def dlq(cluster: Cluster, *words: str, routes: str = "", overrides: tuple[str, ...] = ()) -> tuple[int, str, str]:
    return await command(*arguments(cluster, *words, routes=routes, overrides=overrides), COLUMNS="200")


async def redriven(cluster: Cluster, *words: str, **options: Any) -> list[int]:
    """Redrive; return the original offsets of the records that it handled."""
    before = len(handled(cluster))
    code, out, err = await dlq(cluster, "redrive", *words, **options)
    assert code == 0, (out, err)
    return sorted(offset for _, offset in handled(cluster)[before:])


async def left(cluster: Cluster) -> tuple[int, int]:
    """Return how many letters are left to redrive, and how many were redriven."""
    code, out, err = await dlq(cluster, "list", "--json")
    assert code == 0, err
    rows = json.loads(out)["letters"]
    return sum(row["left"] for row in rows), sum(row["home"] for row in rows)
