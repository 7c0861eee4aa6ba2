"""Databases that are away, locked or full, tables that do not fit, and options that are wrong."""

from __future__ import annotations

import contextlib
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

import msgspec
import pytest

from consumer import testing
from consumer.errors import SettingsError, SinkError
from consumer.handlers.sql import Upsert
from consumer.record import TopicPartition
from consumer.routes.imports import import_reference
from tests.unit.handlers.databases import Postgres, a_record, execute, postgres_server


class Order(msgspec.Struct):
    order_id: int
    note: str | None = None


class Item(TypedDict):
    order_id: int


class Placed(msgspec.Struct, tag=True):
    order_id: int


class Paid(msgspec.Struct, tag=True):
    order_id: int


TABLE = "CREATE TABLE orders (order_id BIGINT PRIMARY KEY, note TEXT, _topic TEXT, _partition INTEGER, _offset BIGINT)"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "events.db"


@pytest.fixture
def url(file: Path) -> str:
    return f"sqlite:///{file}"


@pytest.fixture
def server() -> Iterator[Postgres]:
    with postgres_server() as running:
        yield running


def route(url: str, **options: Any) -> dict[str, Any]:
    given = {"url": url, "table": "orders", "key": ["order_id"], **options}
    return {"handler": "consumer.handlers.sql:Upsert", "options": given}


async def refusal(url: str, kind: Any = Order, match: dict[str, Any] | None = None, **options: Any) -> str:
    """Start a route that must be refused, and return the message."""
    table = {**route(url, **options), "match": match or {}}
    with pytest.raises(SettingsError) as refused:
        async with testing.consumer(routes={"store": table}, schemas={"t": kind}):
            pass
    return str(refused.value)


async def notes(url: str) -> dict[int, str]:
    return {row["order_id"]: row["note"] for row in await execute(url, "SELECT order_id, note FROM orders")}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("nothing", "options.url: it is not a URL of a database, such as sqlite:///events.db"),
        ("mysql://u:secret@h/d", "options.url: it must begin with sqlite:///, or with postgresql:// and use asyncpg"),
        ("postgresql+psycopg://h/d", "options.url: it must begin with sqlite:///"),
        ("sqlite://", "options.url: SQLite needs a file"),
        ("sqlite:////no/such/folder/events.db", "options.url: cannot open the file: OperationalError SQLITE_CANTOPEN"),
    ],
)
async def test_a_wrong_url(given: str, message: str) -> None:
    """The message says what a URL must be, and holds no part of it."""
    found = await refusal(given)
    assert message in found
    assert "secret" not in found
    assert "/no/such" not in found


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"table": ""}, "options.table is empty"),
        ({"key": []}, "options.key must name one or more fields"),
        ({"key": ["note", "note"]}, "options.key must name one or more fields, each once"),
        ({"key": ["order"]}, "options.key: Order has no field 'order'; did you mean 'order_id'?"),
        ({"create": "yes"}, "options.create: Expected bool, got str"),
        ({"create": False}, "options.table: orders does not exist; create it, or leave out create = false."),
        ({"erases": True}, "Upsert has no option 'erases'; did you mean 'erase'?"),
    ],
)
async def test_a_wrong_option(url: str, options: dict[str, Any], message: str) -> None:
    """Each option that does not fit is named, and why."""
    assert message in await refusal(url, **options)


class Nested(msgspec.Struct):
    parts: list[int]


class Own(msgspec.Struct):
    _offset: int


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (Nested, {"key": ["parts"]}, "field 'parts' of Nested is JSON, which cannot be a key"),
        (dict, {}, "events of type dict have no fields to be columns"),
        (Own, {"key": ["_offset"]}, "Own has a field _offset, which is a column that the handler adds"),
        (Placed | Paid, {}, "a table holds events of one type, and the route gets Placed and Paid"),
    ],
)
async def test_a_type_that_makes_no_table(url: str, kind: Any, options: dict[str, Any], message: str) -> None:
    """A type that does not fit is refused at start."""
    assert message in await refusal(url, kind, **options)


async def test_one_type_of_a_union_has_a_table(url: str) -> None:
    """A match on the tag leaves one class, which makes the table."""
    table = {**route(url), "match": {"type": "Paid"}}
    async with testing.consumer(routes={"paid": table}, schemas={"t": Placed | Paid}) as app:
        await app.give(Placed(1), Paid(2))
        await app.advance(2)
    assert [row["order_id"] for row in await execute(url, "SELECT * FROM orders")] == [2]


async def test_a_typed_dict_has_a_table(url: str) -> None:
    """An event that is a dict with known items is a row; a missing item is null."""
    async with testing.consumer(routes={"items": route(url)}, schemas={"t": Item}) as app:
        await app.give({"order_id": 5})
        await app.advance(2)
    assert [row["order_id"] for row in await execute(url, "SELECT * FROM orders")] == [5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("note TEXT, ", ""), "lacks columns of the event; run ALTER TABLE orders ADD COLUMN note TEXT"),
        (("note TEXT", "note INTEGER"), "column note of orders is INTEGER, and the events need TEXT"),
        ((" PRIMARY KEY", ""), "orders has no primary key or unique index of exactly (order_id)"),
        (("note TEXT", "note TEXT, shop TEXT NOT NULL"), "column shop of orders is no field of the event"),
    ],
)
async def test_a_table_that_does_not_fit(url: str, change: tuple[str, str], message: str) -> None:
    """A table that cannot take the events is refused at start, with what to change."""
    await execute(url, TABLE.replace(*change))
    assert message in await refusal(url)


async def test_a_table_that_fits_is_used(url: str) -> None:
    """A table with a unique index and further columns is written as it is."""
    more = TABLE.replace(" PRIMARY KEY", " UNIQUE").replace("note TEXT", "note TEXT, shop TEXT NOT NULL DEFAULT 'x'")
    await execute(url, more)
    async with testing.consumer(routes={"store": route(url, create=False)}, schemas={"t": Order}) as app:
        await app.give(Order(1, "a"))
        await app.advance(2)
    assert await notes(url) == {1: "a"}


async def test_a_locked_database_holds_the_partition(url: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another process writes, nothing is dead-lettered or committed; then the batch is stored."""
    monkeypatch.setattr("consumer.handlers.sql_engine.SQLITE_BUSY_SECONDS", 0.0)
    async with testing.consumer(routes={"store": route(url)}, schemas={"t": Order}) as app:
        with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            await app.give(Order(1, "a"))
            await app.advance(300)
            assert (app.outcomes, app.dead_letters, app.committed) == ([("store", "waiting")], [], {})
            assert len(app.calls) > 5
            other.execute("ROLLBACK")
        await app.advance(60)
        assert app.outcomes == [("store", "handled")]
    assert await notes(url) == {1: "a"}


async def test_a_dropped_table_holds_the_partition(url: str) -> None:
    """A table that vanished is no fault of the records: they wait until it is there again."""
    async with testing.consumer(routes={"store": route(url)}, schemas={"t": Order}) as app:
        await execute(url, "DROP TABLE orders")
        await app.give(*map(Order, range(20)))
        await app.advance(300)
        assert {outcome for _, outcome in app.outcomes} == {"waiting"}
        await execute(url, TABLE)
        await app.advance(60)
        assert {outcome for _, outcome in app.outcomes} == {"handled"}
    assert len(await notes(url)) == 20


async def test_an_altered_table_holds_the_partition(url: str) -> None:
    """A column that no event fills, and that must not be null, is no fault of the records."""
    async with testing.consumer(routes={"store": route(url)}, schemas={"t": Order}) as app:
        await execute(url, "DROP TABLE orders", TABLE.replace("note TEXT", "note TEXT, shop TEXT NOT NULL"))
        await app.give(Order(1), Order(2))
        await app.advance(60)
        assert {outcome for _, outcome in app.outcomes} == {"waiting"}
        await execute(url, "DROP TABLE orders", TABLE)
        await app.advance(60)
        assert {outcome for _, outcome in app.outcomes} == {"handled"}


async def test_an_error_holds_no_value(url: str) -> None:
    """The message names the table and the class of the error, never a value or the statement."""
    write = Upsert(url, "orders", ["order_id"])
    write.expect_events(Order)
    async with write:
        await execute(url, "DROP TABLE orders")
        with pytest.raises(SinkError) as failed:
            await write([Order(1, "a caller")], [a_record(0)])
    assert str(failed.value) == "cannot store in table orders: OperationalError SQLITE_ERROR"


async def test_a_server_that_stops_holds_the_partition(server: Postgres) -> None:
    """Batches wait while PostgreSQL is down, and are stored after its restart."""
    async with testing.consumer(routes={"store": route(server.url)}, schemas={"t": Order}, limit_seconds=60) as app:
        await app.give(Order(1, "a"))
        await app.advance(2)
        server.stop()
        await app.give(Order(2, "b"), Order(1, "c"))
        await app.advance(300)
        assert app.outcomes[1:] == [("store", "waiting")] * 2
        server.start()
        await app.advance(60)
        assert app.outcomes == [("store", "handled")] * 3
        assert app.dead_letters == []
        await app.advance(2)
        assert app.committed == {TopicPartition("t", 0): 3}
    assert await notes(server.url) == {1: "c", 2: "b"}


async def test_a_server_that_is_away_at_start(server: Postgres) -> None:
    """The daemon starts, and the table is created when PostgreSQL is there."""
    server.stop()
    async with testing.consumer(routes={"store": route(server.url)}, schemas={"t": Order}, limit_seconds=60) as app:
        await app.give(Order(1, "a"))
        await app.advance(60)
        assert app.outcomes == [("store", "waiting")]
        server.start()
        await app.advance(60)
        assert app.outcomes == [("store", "handled")]
    assert await notes(server.url) == {1: "a"}


async def test_a_database_that_does_not_exist(server: Postgres) -> None:
    """PostgreSQL's refusal at start is a settings error with its code."""
    assert "InvalidCatalogNameError 3D000" in await refusal(server.url.replace("/postgres", "/nowhere"))


async def test_a_schema_and_text_that_postgresql_refuses(server: Postgres) -> None:
    """A table may be in a schema; a text with NUL is rejected alone."""
    await execute(server.url, "CREATE SCHEMA shop")
    table = route(server.url, table="shop.orders")
    async with testing.consumer(routes={"store": table}, schemas={"t": Order}) as app:
        await app.give(Order(1, "a"), Order(2, "a\0b"), Order(3, "c"))
        await app.advance(2)
        assert [outcome for _, outcome in app.outcomes] == ["handled", "dead_lettered", "handled"]
    rows = await execute(server.url, "SELECT order_id FROM shop.orders ORDER BY 1")
    assert [row["order_id"] for row in rows] == [1, 3]


def test_without_its_libraries_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon without SQLAlchemy says which extra brings it."""
    for name in [each for each in sys.modules if each.startswith(("sqlalchemy", "consumer.handlers.sql"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "sqlalchemy", None)
    with pytest.raises(SettingsError, match="install session-consumer with the extra `sql`"):
        import_reference("consumer.handlers.sql:Upsert", "routes[0]")
