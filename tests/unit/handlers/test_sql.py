"""Rows in SQLite and PostgreSQL: keys, what wins, and what is refused."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consumer import testing
from consumer.handlers.sql import Upsert
from consumer.instructions import Reject
from consumer.record import Position
from schemas.session import Session
from tests.unit.handlers.databases import Postgres, a_record, execute, postgres_server
from tests.unit.handlers.files import some

START = datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC)


class Line(msgspec.Struct):
    product: str
    count: int = 1


class Order(msgspec.Struct):
    """An order with fields of many kinds."""

    order_id: int
    total: float | None = None
    paid: bool | None = None
    note: str | None = None
    lines: list[Line] = []
    at: datetime | None = None
    stamp: bytes | None = None


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres_server() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
async def url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'events.db'}"
        return
    found = request.getfixturevalue("server").url
    yield found
    await execute(found, "DROP TABLE IF EXISTS events")


def upsert(url: str, kind: type = Session, **options: Any) -> Upsert:
    made = Upsert(url, "events", **options)
    made.expect_events(kind)
    return made


async def rows(url: str) -> list[dict[str, Any]]:
    return await execute(url, "SELECT * FROM events ORDER BY _topic, _partition, _offset")


def a_session(session_id: str | None = "1", **fields: Any) -> Session:
    return Session(START, session_id, **fields)


async def test_a_row_has_the_fields_and_the_position(url: str) -> None:
    """Each field is a column; a nested value is JSON, and a time is in UTC."""
    lines = [Line("a", 2), Line("b")]
    at = START.astimezone(timezone(timedelta(hours=5)))
    async with upsert(url, Order, key=["order_id"]) as write:
        await write([Order(7, 1.5, paid=True, note="n", lines=lines, at=at, stamp=b"\0x")], [a_record(3, 2)])
    (row,) = await rows(url)
    row["lines"] = json.loads(row["lines"]) if isinstance(row["lines"], str) else row["lines"]
    row["at"] = datetime.fromisoformat(row["at"]) if isinstance(row["at"], str) else row["at"]
    assert row == {
        "order_id": 7,
        "total": 1.5,
        "paid": True,
        "note": "n",
        "lines": [{"product": "a", "count": 2}, {"product": "b", "count": 1}],
        "at": START,
        "stamp": b"\0x",
        "_topic": "t",
        "_partition": 2,
        "_offset": 3,
    }
    assert row["at"].utcoffset() == timedelta(0)


@pytest.mark.parametrize("in_one_batch", [True, False])
async def test_a_later_record_wins_and_null_does_not_erase(url: str, in_one_batch: bool) -> None:
    """A session that is sent again is one row, with all that is known of it."""
    events = [a_session(agent_name="a", source="s"), a_session(agent_name="b", duration=3.5)]
    async with upsert(url) as write:
        if in_one_batch:
            await write(events, [a_record(0), a_record(1)])
        else:
            await write(events[:1], [a_record(0)])
            await write(events[1:], [a_record(1)])
    (row,) = await rows(url)
    assert (row["agent_name"], row["source"], row["duration"], row["_offset"]) == ("b", "s", 3.5, 1)


@pytest.mark.parametrize("in_one_batch", [True, False])
async def test_with_erase_the_latest_record_replaces_the_row(url: str, in_one_batch: bool) -> None:
    """With ``erase`` a null of the latest record is a null of the row."""
    async with upsert(url, erase=True) as write:
        events, records = [a_session(agent_name="a", source="s"), a_session(agent_name="b")], [a_record(0), a_record(1)]
        for part in [slice(0, 2)] if in_one_batch else [slice(0, 1), slice(1, 2), slice(0, 1)]:
            await write(events[part], records[part])
    (row,) = await rows(url)
    assert (row["agent_name"], row["source"], row["_offset"]) == ("b", None, 1)


@pytest.mark.parametrize("in_one_batch", [True, False])
async def test_an_older_record_overwrites_nothing(url: str, in_one_batch: bool) -> None:
    """A redriven record of a lower offset adds what is not known, and changes nothing else."""
    letter = a_record(99, letter_of=Position("t", 0, 1), topic="t.dlq")
    events, records = [a_session(agent_name="new"), a_session(agent_name="old", source="s")], [a_record(5), letter]
    async with upsert(url) as write:
        for part in [slice(0, 2)] if in_one_batch else [slice(0, 1), slice(1, 2)]:
            await write(events[part], records[part])
    (row,) = await rows(url)
    assert (row["agent_name"], row["source"], row["_topic"], row["_offset"]) == ("new", "s", "t", 5)


@pytest.mark.parametrize("erase", [True, False])
async def test_repeats_change_nothing(url: str, erase: bool) -> None:
    """Batches that are written again, as after a kill, leave the table as it was."""
    choose = random.Random(7)
    events = [a_session(str(choose.randrange(9)), agent_name=choose.choice([None, "a", "b"])) for _ in range(60)]
    records = [a_record(offset) for offset in range(60)]
    async with upsert(url, erase=erase) as write:
        for begin in range(0, 60, 7):
            await write(events[begin : begin + 7], records[begin : begin + 7])
        once = await rows(url)
        for _ in range(20):
            begin = choose.randrange(60)
            await write(events[begin : begin + 11], records[begin : begin + 11])
    assert await rows(url) == once
    assert len(once) == 9


async def test_a_session_without_id_is_known_by_its_channel(url: str) -> None:
    """The key is the session id, else service and sid, else the position."""
    channel = {"channel_manager_service": "twilio", "channel_manager_sid": "CA1"}
    events = [a_session(None, **channel), a_session(None, **channel, duration=1.0), a_session(None), a_session(None)]
    events += [a_session("1"), a_session("1", **channel)]
    async with upsert(url) as write:
        await write(events, [a_record(offset) for offset in range(6)])
    assert [row["_offset"] for row in await rows(url)] == [1, 2, 3, 5]


async def test_events_of_another_type_have_a_row_for_each_record(url: str) -> None:
    """Without ``key`` the position is the key of what is no session."""
    async with upsert(url, Order) as write:
        await write([Order(1), Order(1)], [a_record(0), a_record(1)])
        await write([Order(1)], [a_record(1)])
    assert len(await rows(url)) == 2


@pytest.mark.parametrize("bad", [{3}, {0, 17, 39}, set(range(40))])
async def test_only_refused_records_are_rejected(url: str, bad: set[int]) -> None:
    """A record that the database refuses is named, and nothing of its batch is stored."""
    async with upsert(url, Order, key=["order_id"]) as write:
        events = [Order(2**70 if index in bad else 1, note=str(index)) for index in range(40)]
        with pytest.raises(Reject) as caught:
            await write(events, [a_record(index) for index in range(40)])
        assert set(caught.value.indexes or ()) == bad
        assert caught.value.code == "refused_by_database"
    assert await rows(url) == []


async def test_a_constraint_rejects_its_record_only(url: str) -> None:
    """The record whose values violate a constraint becomes a dead letter, and the rest of its key is stored."""
    table = (
        "CREATE TABLE events (order_id BIGINT PRIMARY KEY, total FLOAT CHECK (total >= 0), paid BOOLEAN, note TEXT,"
        " lines JSON, at TIMESTAMP, stamp BLOB, _topic TEXT, _partition INTEGER, _offset BIGINT)"
    )
    if url.startswith("postgresql"):
        table = table.replace("BLOB", "BYTEA").replace("JSON", "JSONB").replace("TIMESTAMP", "TIMESTAMPTZ")
    await execute(url, table)
    route = {"handler": "consumer.handlers.sql:Upsert", "options": {"url": url, "table": "events", "key": ["order_id"]}}
    async with testing.consumer(routes={"store": route}, schemas={"t": Order}) as app:
        await app.give(Order(1, 5.0), Order(1, -1.0), Order(1, note="n"), Order(2, 7.0))
        await app.advance(2)
        assert [outcome for _, outcome in app.outcomes] == ["handled", "dead_lettered", "handled", "handled"]
        assert [letter.code for letter in app.dead_letters] == ["refused_by_database"]
    assert [(row["order_id"], row["total"], row["note"]) for row in await rows(url)] == [(1, 5.0, "n"), (2, 7.0, None)]


async def test_a_record_without_its_key_is_rejected(url: str) -> None:
    """A null in a field of ``key`` identifies no row."""
    async with upsert(url, Order, key=["order_id", "note"]) as write:
        with pytest.raises(Reject) as caught:
            await write([Order(1, note="a"), Order(1)], [a_record(0), a_record(1)])
    assert (caught.value.indexes, caught.value.code) == ([1], "no_key")


async def test_a_time_without_a_form_in_utc_is_rejected(url: str) -> None:
    """A time that lies before the first year in UTC rejects its record, whatever else the batch holds."""
    early = Session(datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))), "1")
    async with upsert(url) as write:
        with pytest.raises(Reject) as caught:
            await write([a_session(), early], [a_record(0), a_record(1)])
    assert (caught.value.indexes, caught.value.code) == ([1], "time_out_of_range")


async def test_partitions_write_at_the_same_time(url: str) -> None:
    """Batches of several partitions that share keys do not fail one another."""
    events = some(50)
    async with upsert(url) as write, asyncio.TaskGroup() as tasks:
        for partition in range(12):
            tasks.create_task(write(events, [a_record(offset, partition) for offset in range(50)]))
    keys = {each.session_id for each in events}
    assert len(await rows(url)) == len(keys)
