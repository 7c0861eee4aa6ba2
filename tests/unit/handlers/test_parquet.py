"""Parquet files as DuckDB reads them: columns, days, and rows that come again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, TypedDict
from uuid import UUID

import duckdb
import msgspec
import pytest

from consumer import testing
from consumer.errors import SinkError
from consumer.handlers import parquet
from consumer.handlers.parquet import Parquet
from consumer.instructions import Reject
from consumer.record import Position, Record, TopicPartition
from schemas.session import Session
from tests.unit.handlers.databases import a_record
from tests.unit.handlers.files import some

START = datetime(2026, 1, 2, 3, 4, 5, 600_000, tzinfo=UTC)
DAY = timedelta(days=1)


class Line(msgspec.Struct):
    product: str
    count: int | None = 1


@dataclass
class Address:
    city: str


class Extra(TypedDict, total=False):
    note: str


class Tree(msgspec.Struct):
    name: str
    parts: list[Tree] = []


class Order(msgspec.Struct):
    """An order with fields of many kinds."""

    at: datetime | None = None
    number: int = 0
    total: float | int | None = None
    paid: bool | msgspec.UnsetType = msgspec.UNSET
    stamp: bytes = b""
    day: date | None = None
    price: Decimal | None = None
    uid: UUID | None = None
    lines: list[Line] = []
    address: Address | None = None
    extra: Extra | None = None
    counts: dict[str, int] = {}
    tags: tuple[str, ...] = ()
    anything: Any = None
    either: str | int | None = None
    tree: Tree | None = None


class Event(msgspec.Struct):
    """A small event."""

    timestamp: datetime | None
    number: int = 0


def writer(path: Path, kind: type = Event, **options: Any) -> Parquet:
    made = Parquet(path, **options)
    made.expect_events(kind)
    return made


def rows(path: Path, columns: str = "*", order: str = "_topic, _partition, _offset") -> list[dict[str, Any]]:
    """Read all rows of a folder as anybody would."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found = connection.sql(f"SELECT {columns} FROM '{path}/**/*.parquet' ORDER BY {order}")
        return [dict(zip(found.columns, row, strict=True)) for row in found.fetchall()]


def offsets(path: Path) -> list[int]:
    return [row["_offset"] for row in rows(path, "_offset")] if files(path) else []


def files(path: Path) -> list[str]:
    return sorted(str(each.relative_to(path)) for each in path.glob("**/*.parquet"))


def events(numbers: Sequence[int]) -> list[Event]:
    return [Event(START, number) for number in numbers]


async def write(handler: Parquet, numbers: Sequence[int]) -> None:
    """Store one record for each offset."""
    await handler(events(numbers), [a_record(number) for number in numbers])


async def test_a_column_has_the_type_of_its_field(tmp_path: Path) -> None:
    """Nested Structs, lists and dicts are what they are, times are in UTC, and what has no one type is JSON."""
    order = Order(
        at=START.astimezone(timezone(timedelta(hours=5))),
        number=7,
        total=3,
        stamp=b"\0x",
        day=date(2026, 5, 6),
        price=Decimal("1.50"),
        uid=UUID(int=5),
        lines=[Line("a", 2), Line("b", None)],
        address=Address("Bonn"),
        extra={"note": "n"},
        counts={"a": 1},
        tags=("x", "y"),
        anything={"k": [1, None]},
        either=5,
        tree=Tree("t", [Tree("u")]),
    )
    async with writer(tmp_path, Order, date_field="at") as handler:
        await handler([order, Order()], [a_record(3, 2), a_record(4, 2)])
    first, second = rows(tmp_path)
    assert first == {
        "at": START,
        "number": 7,
        "total": 3.0,
        "paid": None,
        "stamp": b"\0x",
        "day": date(2026, 5, 6),
        "price": "1.50",
        "uid": str(UUID(int=5)),
        "lines": [{"product": "a", "count": 2}, {"product": "b", "count": None}],
        "address": {"city": "Bonn"},
        "extra": {"note": "n"},
        "counts": {"a": 1},
        "tags": ["x", "y"],
        "anything": '{"k":[1,null]}',
        "either": "5",
        "tree": {"name": "t", "parts": ['{"name":"u","parts":[]}']},
        "_topic": "t",
        "_partition": 2,
        "_offset": 3,
        "date": date(2026, 1, 2),
    }
    assert second["lines"] == []
    assert second["address"] is None


async def test_sessions(tmp_path: Path) -> None:
    """Sessions are read with all their fields."""
    given = some(300)
    async with testing.consumer(
        "consumer.handlers.parquet:Parquet", options={"path": str(tmp_path / "new" / "folder")}
    ) as app:
        await app.give(*given)
        await app.advance(3)
        found = rows(tmp_path / "new" / "folder", "* EXCLUDE (_topic, _partition, _offset, date)")
    assert [msgspec.convert(row, Session) for row in found] == given


async def test_a_file_for_each_day_and_partition_in_a_flush(tmp_path: Path) -> None:
    """Names have the day in UTC, the partition and the offsets; a flush without rows adds nothing."""
    late = Event((START - DAY).astimezone(timezone(timedelta(hours=-11))))
    async with writer(tmp_path) as handler:
        await handler([*events([1, 2]), late, *events([4])], [a_record(each) for each in (1, 2, 3, 4)])
        await handler(events([9]), [a_record(9, 1, topic="a-1")])
        await handler.flush()
        await handler.flush()
        assert files(tmp_path) == [
            "date=2026-01-01/t-0-3-3.parquet",
            "date=2026-01-02/a-1-1-9-9.parquet",
            "date=2026-01-02/t-0-1-4.parquet",
        ]
        await write(handler, [5, 6])
    assert "date=2026-01-02/t-0-5-6.parquet" in files(tmp_path)


async def test_a_row_without_a_date_has_that_of_its_record(tmp_path: Path) -> None:
    """Null, a tombstone, and an empty ``date_field``: the timestamp of the record decides."""
    stamped = [Record("t", 0, offset, int(START.timestamp() * 1000), None, None) for offset in (0, 1)]
    async with writer(tmp_path / "a") as handler:
        await handler([Event(None), None], stamped)
    async with writer(tmp_path / "b", date_field="") as handler:
        await handler([Event(START + 3 * DAY), Event(None)], stamped)
    assert files(tmp_path / "a") == files(tmp_path / "b") == ["date=2026-01-02/t-0-0-1.parquet"]
    assert [row["number"] for row in rows(tmp_path / "a")] == [0, None]


async def test_nothing_is_committed_before_its_file_is_there(tmp_path: Path) -> None:
    """Rows appear in a flush, and their offsets are committed after it."""
    async with testing.consumer(
        "consumer.handlers.parquet:Parquet", schemas={"t": Event}, options={"path": str(tmp_path)}, flush_seconds=60
    ) as app:
        await app.give(*events(range(20)))
        await app.advance(10)
        assert (app.committed, files(tmp_path)) == ({}, [])
        await app.advance(60)
        assert app.committed == {TopicPartition("t", 0): 20}
        assert offsets(tmp_path) == list(range(20))


@pytest.mark.parametrize(
    ("event", "code"),
    [
        (Event(START, 2**63), "fits_no_column"),
        (Event(datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14)))), "time_out_of_range"),
    ],
)
async def test_only_the_record_that_fits_no_column_is_rejected(tmp_path: Path, event: Event, code: str) -> None:
    """The rest of its batch is stored."""
    given = events(range(9))
    given[4:4] = [event]
    async with testing.consumer(
        "consumer.handlers.parquet:Parquet", schemas={"t": Event}, options={"path": str(tmp_path)}
    ) as app:
        await app.give(*given)
        await app.advance(3)
        assert [each.code for each in app.dead_letters] == [code]
    assert offsets(tmp_path) == [0, 1, 2, 3, 5, 6, 7, 8, 9]


async def test_text_that_is_not_unicode(tmp_path: Path) -> None:
    """A lone surrogate is rejected, and the batch is called again with the rest."""
    async with writer(tmp_path, Line, date_field="") as handler:
        lines, records = [Line("a"), Line("\ud800"), Line("c")], [a_record(each) for each in range(3)]
        with pytest.raises(Reject) as rejected:
            await handler(lines, records)
        assert rejected.value.indexes == [1]
        await handler([lines[0], lines[2]], [records[0], records[2]])
    assert offsets(tmp_path) == [0, 2]


async def test_records_that_come_again(tmp_path: Path) -> None:
    """In the same flush, in a later one, and in another process: each row is stored once, whatever the batches."""
    choose = random.Random(5)
    for _ in range(6):
        async with writer(tmp_path) as handler:
            for _ in range(5):
                begin = choose.randrange(0, 60)
                numbers = list(range(begin, begin + 30))
                choose.shuffle(numbers)
                await write(handler, numbers)
                if choose.random() < 0.6:
                    await handler.flush()
    found = offsets(tmp_path)
    assert found == sorted(set(found))
    assert len(found) > 60


async def test_two_writers_of_one_partition(tmp_path: Path) -> None:
    """A process that lost its partition flushes late, and then goes on: what the other has stored is left out."""
    async with writer(tmp_path) as old, writer(tmp_path) as new:
        await write(old, range(10))
        await old.flush()
        await write(old, range(10, 30))
        await write(new, range(5, 20))
        await new.flush()
        await write(new, range(20, 40))
        await old.flush()
        await new.flush()
        await write(old, range(30, 50))
        await write(new, range(40, 45))
        await new.flush()
        await old.flush()
    assert offsets(tmp_path) == list(range(50))


async def test_two_writers_that_overlap_at_random(tmp_path: Path) -> None:
    """Whoever flushes when: no row is stored twice, and none is missing."""
    choose, given = random.Random(11), set[int]()
    async with writer(tmp_path) as first, writer(tmp_path) as second:
        for _ in range(150):
            handler = choose.choice([first, second])
            begin = choose.randrange(0, 400)
            numbers = choose.sample(range(begin, begin + 40), 20)
            given |= set(numbers)
            await write(handler, numbers)
            if choose.random() < 0.3:
                await handler.flush()
    assert offsets(tmp_path) == sorted(given)


async def test_rows_beyond_memory_are_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above the limit rows become row groups of the same file, also when some of them turn out to be stored."""
    monkeypatch.setattr(parquet, "BUFFER_BYTES", 20_000)
    async with writer(tmp_path) as old, writer(tmp_path) as new:
        for begin in range(0, 3000, 100):
            await write(old, range(begin, begin + 100))
        held = sum(file.held_bytes for each in old._partitions.values() for file in each.files)
        assert held < 30_000
        assert files(tmp_path) == []
        await write(new, range(1000, 1300))
        await new.flush()
    assert offsets(tmp_path) == list(range(3000))
    assert len(files(tmp_path)) == 2


async def test_many_days_open_few_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of many days beyond memory are published before the flush, because each open file has a descriptor."""
    monkeypatch.setattr(parquet, "BUFFER_BYTES", 20_000)
    monkeypatch.setattr(parquet, "OPEN_FILES", 5)
    async with writer(tmp_path) as handler:
        for begin in range(0, 400, 100):
            numbers = range(begin, begin + 100)
            await handler([Event(START + each * DAY) for each in numbers], [a_record(each) for each in numbers])
            assert len(handler._folder.numbers) <= 100
        assert files(tmp_path)
    assert offsets(tmp_path) == list(range(400))


async def test_a_redrive_has_the_first_position(tmp_path: Path) -> None:
    """A dead letter is stored with the position of its record, and once, also if it is redriven again."""
    letter = a_record(99, letter_of=Position("t", 0, 3), topic="t.dlq")
    for _ in range(2):
        async with writer(tmp_path) as handler:
            await write(handler, range(10, 12))
            await handler(events([3]), [letter])
    assert files(tmp_path) == ["date=2026-01-02/t-0-3-11.parquet"]
    assert offsets(tmp_path) == [3, 10, 11]


async def test_a_topic_that_was_created_again(tmp_path: Path) -> None:
    """Other records with the offsets of stored ones hold their partition; they are neither lost nor dead letters."""
    async with writer(tmp_path) as handler:
        await write(handler, range(10))
    async with writer(tmp_path) as handler:
        with pytest.raises(SinkError, match="created again"):
            await handler(events([0]), [Record("t", 0, 0, 2, b"k", b"{}")])
