"""A stream in which one record in a hundred is bad in each way, and the outcome that each record must have."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from aiokafka.record.util import calc_crc32c

from consumer.dead_letters.headers import Context, read_context, split_headers
from consumer.kafka.scan import open_scan
from tests.cluster import Cluster

MAX_RECORD_BYTES = 4_000
CALLER = "+4930123456"
PARTITIONS = 4
BATCH = 50

EVERY_HUNDRED = {
    3: "cut",
    13: "wrong_type",
    23: "deep",
    33: "bad_utf8",
    43: "conflicting",
    53: "too_large",
    63: "tombstone",
    73: "bad_header",
    83: "transient",
    93: "transient",
}
BAD = {
    "cut": "undecodable",
    "wrong_type": "undecodable",
    "deep": "undecodable",
    "bad_utf8": "undecodable",
    "conflicting": "undecodable",
    "too_large": "too_large",
    "bad_header": "bad_header",
    "lasting": "exhausted",
}
"""Kinds that become dead letters, with the reason."""


class Sent(NamedTuple):
    """One record as it was produced."""

    kind: str
    key: bytes
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp: int


Place = tuple[int, int]
"""Partition and offset."""


def kind_of(number: int) -> str:
    """Return a record's kind: one in a hundred of each bad kind, two that fail twice; every 200th always fails."""
    return "lasting" if number % 200 == 99 else EVERY_HUNDRED.get(number % 100, "asks")


def value_of(kind: str, number: int) -> bytes | None:
    event = b'{"timestamp":"2024-10-21T14:05:00Z","session_id":"%s-%d","source":"%s"' % (
        kind.encode(),
        number,
        CALLER.encode(),
    )
    return {
        "cut": event,
        "wrong_type": event + b',"duration":"long"}',
        "deep": event + b',"extra":' + b"[" * 1500 + b"]" * 1500 + b"}",
        "bad_utf8": event + b',"agent_name":"\xff\xfe"}',
        "conflicting": event + b',"sessionId":"another"}',
        "too_large": event + b',"agent_name":"%s"}' % (b"a" * MAX_RECORD_BYTES),
        "tombstone": None,
    }.get(kind, event + b"}")


async def produce(cluster: Cluster, events: int) -> dict[Place, Sent]:
    """Produce the stream, batch by batch; return every record by its place."""
    sent: dict[Place, Sent] = {}
    async with cluster.producer(enable_idempotence=False, max_batch_size=1 << 20) as producer:
        for batch_number, first in enumerate(range(0, events, BATCH)):
            partition = batch_number % PARTITIONS
            made = [a_record(number) for number in range(first, min(events, first + BATCH))]
            batch = producer.create_batch()
            for each in made:
                headers = [("bad-key", b"x")] if each.kind == "bad_header" else list(each.headers)
                assert batch.append(timestamp=each.timestamp, key=each.key, value=each.value, headers=headers)
            built = bytearray(batch._build())
            if any(each.kind == "bad_header" for each in made):  # brokers let a header key pass that is no UTF-8
                built[built.index(b"bad-key")] = 0xFF
                built[17:21] = calc_crc32c(bytes(built[21:])).to_bytes(4, "big")
                batch._buffer = built
            answer = await (await producer.send_batch(batch, cluster.topic, partition=partition))
            sent |= {(partition, answer.offset + index): each for index, each in enumerate(made)}
    return sent


def a_record(number: int) -> Sent:
    kind = kind_of(number)
    headers: tuple[tuple[str, bytes | None], ...] = (("trace", b"%d" % number), ("empty", None))
    if kind == "bad_header":
        headers = (("%FFad-key", b"x"), ("session-consumer.escaped", b"%FFad-key"))
    return Sent(kind, b"k%d" % (number % 37), value_of(kind, number), headers, 1_700_000_000_000 + number)


class Read(NamedTuple):
    """One dead letter as it was read back."""

    context: Context
    record: Sent
    """The record with its own headers, without those of the dead letter; ``kind`` is empty."""
    headers: dict[str, bytes | None]


async def letters(cluster: Cluster) -> list[Read]:
    """Read the whole dead-letter topic."""
    kafka = msgspec.structs.replace(cluster.kafka, topics=[f"{cluster.topic}.dlq"])
    found = []
    async with open_scan(kafka) as scan:
        async for _, raw in scan.records():
            context = read_context(raw.headers)
            assert context is not None
            assert raw.key is not None
            own = tuple(split_headers(raw.headers)[0])
            found.append(Read(context, Sent("", raw.key, raw.value, own, raw.timestamp), dict(raw.headers)))
    return found


class Handled(NamedTuple):
    """One line of the handler's files."""

    place: Place
    key: str
    redriven: bool


def handled(folder: Path) -> Iterator[Handled]:
    """Read the handler's files in order; a last line that a kill cut off is left out."""
    for file in sorted(folder.glob("*.done"), key=lambda path: path.stat().st_ctime_ns):
        for line in file.read_text().split("\n")[:-1]:
            partition, offset, key, redriven = line.split()
            yield Handled((int(partition), int(offset)), key, redriven == "1")


def lost(sent: dict[Place, Sent], folder: Path, found: list[Read]) -> list[str]:
    """Return records without an outcome: neither handled, nor dead-lettered, nor a tombstone."""
    done = {each.place for each in handled(folder)}
    done |= {(each.context.origin.partition, each.context.origin.offset) for each in found}
    return [f"{place}: {each.kind}" for place, each in sent.items() if each.kind != "tombstone" and place not in done]


def wrong(sent: dict[Place, Sent], found: list[Read]) -> list[str]:
    """Return letters that differ from the record that was sent, or that have the wrong reason."""
    said = []
    for each in found:
        origin = each.context.origin
        original = sent[origin.partition, origin.offset]
        if each.record != original._replace(kind="") or each.context.reason != BAD.get(original.kind):
            said.append(f"{origin}: {original.kind} became {each.context.reason} {each.record}"[:300])
    return said


def disorder(folder: Path, *, by_key: bool) -> list[str]:
    """Return lanes whose records were not first handled in offset order."""
    lanes: dict[Any, list[int]] = defaultdict(list)
    for each in handled(folder):
        if not each.redriven:
            lanes[each.place[0], each.key if by_key else ""].append(each.place[1])
    return [
        f"{lane}: {offsets[:20]}"
        for lane, offsets in lanes.items()
        if list(dict.fromkeys(offsets)) != sorted(set(offsets))
    ]


def times(folder: Path) -> Counter[Place]:
    """Return how often each record was handled."""
    return Counter(each.place for each in handled(folder))
