"""``python -m bench.sql`` measures ``consumer.handlers.sql`` beside ``executemany`` by hand, and writes ``SQL.md``."""

from __future__ import annotations

import asyncio
import sqlite3
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import closing
from itertools import islice

import asyncpg
import msgspec

from bench.environment import ROOT
from bench.machine import machine
from consumer.handlers.columns import kinds_of
from consumer.handlers.sql import Upsert
from consumer.record import Record
from schemas.samples import sessions
from schemas.session import Session
from schemas.types import event_type
from tests.unit.handlers.databases import postgres_server

EVENTS, BATCH, ROUNDS = 40_000, 500, 5
PASSES = ("new rows", "the same rows again")
NAMES = Session.__struct_fields__
SET = ", ".join(f"{name} = coalesce(excluded.{name}, hand.{name})" for name in NAMES)
CONFLICT = f"ON CONFLICT (session_id) DO UPDATE SET {SET}"

Rates = dict[tuple[str, str, str], list[float]]


async def ours(url: str, events: list[Session]) -> AsyncIterator[None]:
    """Write the events twice, with a step after each pass."""
    handler = Upsert(url, "ours")
    handler.expect_events(Session)
    async with handler:
        for number in range(len(PASSES)):
            for begin in range(0, EVENTS, BATCH):
                batch = events[begin : begin + BATCH]
                first = number * EVENTS + begin
                records = [Record("t", 0, first + each, 0, None, b"{}") for each in range(len(batch))]
                await handler(batch, records)
            yield


async def by_hand_sqlite(url: str, events: list[Session]) -> AsyncIterator[None]:
    statement = f"INSERT INTO hand VALUES ({', '.join('?' * len(NAMES))}) {CONFLICT}"
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"), isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"CREATE TABLE hand ({', '.join(NAMES)}, PRIMARY KEY (session_id))")
        for _ in PASSES:
            for begin in range(0, EVENTS, BATCH):
                rows = [msgspec.structs.astuple(each) for each in events[begin : begin + BATCH]]
                connection.execute("BEGIN IMMEDIATE")
                connection.executemany(statement, [(row[0].isoformat(), *row[1:]) for row in rows])
                connection.execute("COMMIT")
            yield


async def by_hand_postgresql(url: str, events: list[Session]) -> AsyncIterator[None]:
    types = {"datetime": "timestamptz", "bool": "boolean", "int": "bigint", "float": "float8", "str": "text"}
    kinds = kinds_of(event_type(Session).members[0], ())
    columns = ", ".join(f"{name} {types[kind.__name__]}" for name, kind in kinds.items())
    marks = ", ".join(f"${number}" for number in range(1, len(NAMES) + 1))
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"CREATE TABLE hand ({columns}, PRIMARY KEY (session_id))")
        for _ in PASSES:
            for begin in range(0, EVENTS, BATCH):
                async with connection.transaction():
                    rows = [msgspec.structs.astuple(each) for each in events[begin : begin + BATCH]]
                    await connection.executemany(f"INSERT INTO hand VALUES ({marks}) {CONFLICT}", rows)
            yield
        await connection.execute("DROP TABLE hand")
    finally:
        await connection.close()


async def measure(rates: Rates, database: str, who: str, steps: AsyncIterator[None]) -> None:
    begun, number = time.perf_counter(), 0
    async for _ in steps:
        now = time.perf_counter()
        rates[database, who, PASSES[number]].append(EVENTS / (now - begun))
        begun, number = time.perf_counter(), number + 1


async def rounds(rates: Rates) -> None:
    events = list(islice(sessions(0), EVENTS))
    for _ in range(ROUNDS):
        with tempfile.TemporaryDirectory(dir=str(ROOT / "bench")) as folder:
            for who, run in (("this project", ours), ("by hand", by_hand_sqlite)):
                await measure(rates, "SQLite", who, run(f"sqlite:///{folder}/{run.__name__}.db", events))
        with postgres_server(fsync=True) as server:
            for who, run in (("this project", ours), ("by hand", by_hand_postgresql)):
                await measure(rates, "PostgreSQL", who, run(server.url, events))


def report(rates: Rates) -> str:
    where = machine()
    rows = [
        f"| {database} | {which} | {who} | {statistics.median(found):,.0f} ({min(found):,.0f} to {max(found):,.0f}) |"
        for (database, who, which), found in rates.items()
    ]
    return "\n".join(
        [
            "# The SQL handler",
            "",
            "Written by `python -m bench.sql`; not edited by hand. Sessions of 28 fields into a table with their id as",
            f"key, {EVENTS:,} a pass, one synced transaction for each {BATCH}. By hand: `executemany` of sqlite3 or",
            "asyncpg with the same upsert, without positions and their comparison. Medians of",
            f"{ROUNDS} rounds, in brackets the lowest and the highest. The server runs on the same cores.",
            "",
            f"Machine: {where['cores']} cores of {where['cpu']}, {where['memory_gb']} GB, Python {where['python']}.",
            "",
            "| database | pass | who | rows/s |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def main() -> None:
    rates: Rates = defaultdict(list)
    asyncio.run(rounds(rates))
    (ROOT / "bench" / "SQL.md").write_text(report(rates), encoding="utf-8")


if __name__ == "__main__":
    main()
