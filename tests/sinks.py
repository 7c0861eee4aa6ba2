"""Sessions that are sent again as they fill up, through daemons into tables and files, beside the truth.

Daemons are killed and the database restarts while records flow. ``python -m tests.sinks --events 200000 --seed 7`` runs
it at full size on a local Kafka.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import duckdb
import msgspec

from consumer.kafka.local.cluster import LocalKafka
from schemas.samples import sessions
from schemas.session import Session
from tests.cluster import Cluster, a_route, eventually
from tests.kafka.dlq import letters
from tests.process import RunningConsumer
from tests.unit.handlers.databases import Postgres, execute, postgres_server, programs

PARTITIONS = 6
DAEMONS = 2
SENT = 5
"""Mean number of times that a session is sent."""
KEYS = ("timestamp", "session_id", "channel_manager_service", "channel_manager_sid")
"""Fields that are always sent: without them a later record would be another session."""
OPTIONAL = [name for name in Session.__struct_fields__ if name not in KEYS]
WAIT_SECONDS = 300.0

Row = dict[str, Any]


class Sent(NamedTuple):
    """One record: the event, the record's key, and its value."""

    event: Session
    key: bytes | None
    value: bytes


class Plan(NamedTuple):
    """The parameters of a run; the same seed sends the same records and kills in the same order."""

    events: int
    seed: int
    kills: int
    rate: float
    """Records a second."""


class Report(NamedTuple):
    """The result of a run: rows of the truth, and for each sink the number of rows that differ from it."""

    rows: int
    kills: int
    seconds: float
    different: dict[str, int]
    dead_letters: int

    @property
    def broken(self) -> bool:
        return bool(self.dead_letters) or any(self.different.values())


def stream(plan: Plan) -> Iterator[Sent]:
    """Yield the records: each with some fields null, some missing, and most of its session known from others.

    One session in twenty has no id but its carrier's, and one in twenty has neither: each of its records is a row.
    """
    random, samples = Random(plan.seed), sessions(plan.seed)
    known = [next(samples) for _ in range(max(1, plan.events // SENT))]
    for index in range(0, len(known), 20):
        known[index] = msgspec.structs.replace(known[index], session_id=None)
    for index in range(1, len(known), 20):
        known[index] = msgspec.structs.replace(known[index], session_id=None, channel_manager_sid=None)
    for number in range(plan.events):
        hidden = random.sample(OPTIONAL, 12)
        session = msgspec.structs.replace(random.choice(known), duration=float(number))
        event = msgspec.structs.replace(session, **dict.fromkeys(hidden))
        document = msgspec.to_builtins(event) | dict.fromkeys(hidden[:6])
        key = session.session_id or session.channel_manager_sid
        yield Sent(event, key.encode() if key else None, msgspec.json.encode(document))


def truth(records: dict[tuple[int, int], Session], topic: str) -> list[Row]:
    """Compute the rows apart: of each session the last value of each field that is not null, and the last offset."""
    rows: dict[Any, Row] = {}
    for (partition, offset), event in sorted(records.items()):
        carrier = event.channel_manager_service, event.channel_manager_sid
        key = event.session_id or (carrier if None not in carrier else (partition, offset))
        row = rows.setdefault(key, dict.fromkeys(Session.__struct_fields__))
        row |= {name: value for name, value in msgspec.structs.asdict(event).items() if value is not None}
        row |= {"_topic": topic, "_partition": partition, "_offset": offset}
    return list(rows.values())


def each_record(records: dict[tuple[int, int], Session], topic: str) -> list[Row]:
    """Return a row for each record, as files keep them: what is sent again is there again."""
    return [
        msgspec.structs.asdict(event) | {"_topic": topic, "_partition": partition, "_offset": offset}
        for (partition, offset), event in records.items()
    ]


async def stored(url: str) -> list[Row]:
    """Return the rows of the table, in the types of the event."""
    rows = await execute(url, "SELECT * FROM sessions")
    for row in rows:
        del row["_key"]
        if isinstance(row["timestamp"], str):
            row["timestamp"] = datetime.fromisoformat(row["timestamp"])
        row |= {name: bool(row[name]) for name in BOOLEANS if row[name] is not None}
    return rows


def in_files(folder: Path) -> list[Row]:
    """Return the rows of the Parquet files, as DuckDB reads them."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found = connection.sql(f"SELECT * EXCLUDE (date) FROM '{folder}/**/*.parquet'")
        return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


BOOLEANS = [each.name for each in msgspec.structs.fields(Session) if each.type == bool | None]


def differences(rows: list[Row], expected: list[Row]) -> int:
    """Return the number of rows that only one side has; a row is named by the record that wrote last."""
    a, b = ({(row["_partition"], row["_offset"]): row for row in each} for each in (rows, expected))
    return len([name for name in a.keys() | b.keys() if a.get(name) != b.get(name)]) + len(rows) - len(a)


class Sinks:
    """One plan on one topic; ``go`` returns when all records are stored and committed."""

    def __init__(self, cluster: Cluster, plan: Plan, server: Postgres | None) -> None:
        self._cluster, self._plan, self._server = cluster, plan, server
        self._random = Random(plan.seed)
        self._records: dict[tuple[int, int], Session] = {}
        self._names = 0
        self._files = cluster.folder / "sessions"
        self.urls = {"sqlite": f"sqlite:///{cluster.folder / 'sessions.db'}"}
        if server is not None:
            self.urls["postgresql"] = server.url

    async def go(self) -> Report:
        began = time.monotonic()
        await self._cluster.create(PARTITIONS, dead_letters=1)
        async with AsyncExitStack() as opened:
            producing = asyncio.create_task(self._produce())
            opened.callback(producing.cancel)
            daemons = [await opened.enter_async_context(self._daemon()) for _ in range(DAEMONS)]
            for number in range(self._plan.kills):
                await self._until((number + 1) / (self._plan.kills + 1))
                if all_at_once := number % 2 == 0:
                    await self._new_file()
                killed = [daemons.pop(0) for _ in range(DAEMONS if all_at_once else 1)]
                for daemon in killed:
                    daemon.signal(signal.SIGKILL)
                for daemon in killed:
                    await daemon.exit_code()
                if number == self._plan.kills // 2 and self._server is not None:
                    await asyncio.to_thread(self._server.stop)
                    await asyncio.sleep(self._random.uniform(1, 3))
                    await asyncio.to_thread(self._server.start)
                daemons += [await opened.enter_async_context(self._daemon()) for _ in killed]
            await producing
            await eventually(self._all_committed, seconds=WAIT_SECONDS)
            for daemon in daemons:
                await daemon.said("daemon_started")
                assert await daemon.stop() == 0, daemon.lines[-5:]
        expected = truth(self._records, self._cluster.topic)
        different = {name: differences(await stored(url), expected) for name, url in self.urls.items()}
        different["parquet"] = differences(in_files(self._files), each_record(self._records, self._cluster.topic))
        dead_letters = len(await letters(self._cluster))
        return Report(len(expected), self._plan.kills, time.monotonic() - began, different, dead_letters)

    def _daemon(self) -> RunningConsumer:
        self._names += 1
        routes = [
            a_route("consumer.handlers.sql:Upsert", name, url=url, table="sessions") + "max_records = 200\n"
            for name, url in self.urls.items()
        ]
        files = a_route("consumer.handlers.parquet:Parquet", "files", path=str(self._files)) + "flush_seconds = 2\n"
        return self._cluster.run(
            "kafka.session_timeout_seconds=6",
            "kafka.heartbeat_interval_seconds=0.5",
            "retry.maximum_seconds=1",
            routes="".join([*routes, files]),
            name=f"daemon-{self._names}",
        )

    async def _produce(self) -> None:
        began = time.monotonic()
        async with self._cluster.producer(enable_idempotence=True, linger_ms=5) as producer:
            sent = []
            for number, each in enumerate(stream(self._plan)):
                sent.append((await producer.send(self._cluster.topic, each.value, key=each.key), each.event))
                if (early := number / self._plan.rate - (time.monotonic() - began)) > 0.01:
                    await asyncio.sleep(early)
            for future, event in sent:
                found = await future
                self._records[found.partition, found.offset] = event

    async def _until(self, share: float) -> None:
        """Wait until a share of all records is committed, and a moment that the seed chooses."""

        async def reached() -> bool:
            done = await self._cluster.committed()
            return sum(offset or 0 for offset in done.values()) >= share * self._plan.events

        await eventually(reached, seconds=WAIT_SECONDS)
        await asyncio.sleep(self._random.uniform(0, 0.5))

    async def _new_file(self) -> None:
        """Wait for the first file of a flush, for at most a few flushes: its offsets are not committed yet."""
        files, until = set(self._files.glob("*/*.parquet")), time.monotonic() + 10.0
        while files.issuperset(self._files.glob("*/*.parquet")) and time.monotonic() < until:
            await asyncio.sleep(0)

    async def _all_committed(self) -> bool:
        return await self._cluster.lag() == 0


async def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sinks", description=__doc__)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--kills", type=int, default=8)
    parser.add_argument("--rate", type=float, default=4_000.0)
    plan = Plan(**vars(parser.parse_args()))
    async with AsyncExitStack() as opened:
        folder = opened.enter_context(tempfile.TemporaryDirectory())
        kafka = await opened.enter_async_context(LocalKafka())
        server = opened.enter_context(postgres_server(fsync=True)) if programs() is not None else None
        cluster = Cluster(kafka.bootstrap_servers, "sinks", Path(folder))
        report = await Sinks(cluster, plan, server).go()
    print(report)
    return int(report.broken)


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
