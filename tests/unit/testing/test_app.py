"""What a test gives, and what it sees: outcomes, dead letters, calls, commits, and time that it moves."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator
from typing import Any

import pytest

from consumer import Pause, Record, Reject, Retry, testing
from consumer.errors import PartitionHaltedError
from consumer.settings.sections import DeadLetterSettings, Delivery, Kafka, Settings
from tests.unit.testing.events import ORDERS, Doing, Order, bill, pause, reject, retry

TOPIC = Kafka(topics=["orders"])


async def test_events_are_handled_in_order() -> None:
    """Each record has the outcome of each route, in the order in which they were given; a second give goes on."""
    seen: list[int] = []

    def note(event: Order) -> None:
        seen.append(event.order_id)

    async with testing.consumer(note, schemas=ORDERS) as app:
        await app.give(Order(1), Order(2))
        await app.give(Order(3))
        assert app.outcomes == [("note", "handled")] * 3
    assert seen == [1, 2, 3]


async def test_a_rejected_record_is_a_dead_letter() -> None:
    """A dead letter has its cause, the record and the headers as they would be written."""
    async with testing.consumer(reject, schemas=ORDERS) as app:
        await app.give(Order(1), key="k", headers={"trace": "t"}, timestamp_ms=5)
        (letter,) = app.dead_letters
        assert app.outcomes == [("reject", "dead_lettered")]
    assert (letter.reason, letter.route, letter.code, letter.attempts) == ("rejected", "reject", "unknown_order", 1)
    assert (letter.error_class, letter.topic) == ("consumer.instructions.Reject", "orders.dlq")
    assert letter.message.startswith("the handler of route 'reject' raised Reject 'unknown_order' (")
    assert letter.record == Record("orders", 0, 0, 5, b"k", b'{"order_id":1,"total":0.0}', (("trace", b"t"),))
    assert letter.headers[0] == ("trace", b"t")
    assert ("session-consumer.code", b"unknown_order") in letter.headers
    assert ("__connect.errors.offset", b"0") in letter.headers


async def test_a_failed_call_is_retried_when_its_time_comes() -> None:
    """A record waits between attempts, those behind it wait too, and the last attempt makes it a dead letter."""
    handler = Doing(order1=ValueError())
    async with testing.consumer(
        handler, schemas=ORDERS, retry={"attempts": 3, "initial_seconds": 60.0, "maximum_seconds": 300.0}
    ) as app:
        await app.give(Order(1), Order(2))
        assert app.outcomes == [("Doing", "waiting"), ("Doing", "waiting")]
        await app.advance(59.9)
        assert len(app.calls) == 1
        await app.advance(0.1)
        assert [type(call.error) for call in app.calls] == [ValueError, ValueError]
        await app.advance(120)
        assert app.outcomes == [("Doing", "dead_lettered"), ("Doing", "handled")]
        assert (app.dead_letters[0].reason, app.dead_letters[0].attempts) == ("exhausted", 3)
    assert handler.orders == [1, 1, 1, 2]


async def test_attempts_follow_each_other_in_one_advance() -> None:
    """A long advance makes every attempt at its own time."""
    async with testing.consumer(Doing(order1=ValueError()), schemas=ORDERS) as app:
        await app.give(Order(1))
        await app.advance(3600)
        assert (len(app.calls), app.outcomes) == (5, [("Doing", "dead_lettered")])


async def test_a_retry_holds_its_key_only() -> None:
    """With order by key, others are handled while one key waits."""
    handler = Doing(order1=Retry(after=30))
    settings = Settings(kafka=TOPIC, delivery=Delivery(ordering="key"))
    async with testing.consumer(handler, settings=settings, schemas=ORDERS) as app:
        await app.give(Order(1), key=b"a")
        await app.give(Order(2), key=b"a")
        await app.give(Order(3), key=b"b")
        assert [outcome for _, outcome in app.outcomes] == ["waiting", "waiting", "handled"]
        handler.does.clear()
        await app.advance(30)
        assert [outcome for _, outcome in app.outcomes] == ["handled"] * 3


@pytest.mark.parametrize("handler", [retry, pause])
async def test_a_record_that_waits_without_limit(handler: object) -> None:
    """Retry and Pause make no dead letter, however much time passes."""
    async with testing.consumer(handler, schemas=ORDERS) as app:  # type: ignore[arg-type]
        await app.give(Order(1))
        await app.advance(600)
        assert (len(app.calls), app.outcomes[0][1], app.dead_letters) == (61, "waiting", [])


async def test_a_pause_stops_its_partition_only() -> None:
    """While a partition is paused nothing starts there; another one goes on."""
    async with testing.consumer(Doing(order1=Pause(after=5)), schemas=ORDERS) as app:
        await app.give(Order(1), Order(2))
        await app.give(Order(3), partition=1)
        assert [outcome for _, outcome in app.outcomes] == ["waiting", "waiting", "handled"]
        assert app.committed == {}


async def test_records_without_a_route_are_skipped() -> None:
    """An event that no match wants, and a tombstone that no route takes, have the outcome skipped on route none."""
    async with testing.consumer(bill, schemas=ORDERS, match={"order_id": 1}) as app:
        await app.give(Order(2), None, Order(1))
        assert app.outcomes == [("none", "skipped"), ("none", "skipped"), ("bill", "handled")]


async def test_a_tombstone_reaches_a_route_that_takes_it() -> None:
    """A route with tombstones gets None and its Record."""

    def forget(event: Order | None, record: Record) -> None: ...

    async with testing.consumer(forget, schemas=ORDERS, tombstones=True) as app:
        await app.give(None, key="a")
        (call,) = app.calls
        assert (call.route, call.event, call.record.key, app.outcomes) == (
            "forget",
            None,
            b"a",
            [("forget", "handled")],
        )


async def test_bytes_that_are_no_event() -> None:
    """Bytes are delivered as they are; what cannot be decoded is a dead letter of no route."""
    async with testing.consumer(bill, schemas=ORDERS) as app:
        await app.give(b'{"order_id": 1}', b'{"order_id": "x"}', b"")
        assert app.outcomes == [("bill", "handled"), ("none", "dead_lettered"), ("none", "dead_lettered")]
        assert [letter.reason for letter in app.dead_letters] == ["undecodable", "undecodable"]


async def test_a_record_is_delivered_whole() -> None:
    """A Record keeps its place, key, value, headers and time; an offset that the partition has had is raised."""
    seen: list[Record] = []

    def note(_event: Order, record: Record) -> None:
        seen.append(record)

    given = Record("orders", 3, 70, 9, b"k", b'{"order_id":1}', (("h", None),))
    async with testing.consumer(note, schemas=ORDERS) as app:
        await app.give(given, given)
        await app.commit()
        assert app.committed == {("orders", 3): 72}
    assert seen[0] == given
    assert seen[1].offset == 71


async def test_a_call_shows_what_the_handler_got() -> None:
    """Calls have the decoded event, and the Record also if the handler does not take it."""
    async with testing.consumer(bill, schemas=ORDERS) as app:
        await app.give(Order(1, 2.5), key="k")
        (call,) = app.calls
        assert (call.route, call.event, call.error) == ("bill", Order(1, 2.5), None)
        assert (call.record.offset, call.record.key) == (0, b"k")


async def test_several_routes_have_an_outcome_each() -> None:
    """Only the route that failed is called again."""
    failing = Doing(order1=ValueError())
    async with testing.consumer(routes={"bill": bill, "failing": failing}, schemas=ORDERS) as app:
        await app.give(Order(1))
        assert app.outcomes == [("bill", "handled"), ("failing", "waiting")]
        failing.does.clear()
        await app.advance(0.2)
        assert app.outcomes == [("bill", "handled"), ("failing", "handled")]
        assert [call.route for call in app.calls] == ["bill", "failing", "failing"]


async def test_a_batch_is_called_when_it_is_due() -> None:
    """A batch waits for max_records or max_seconds; a call has the lists of events and Records."""

    async def insert(events: list[Order]) -> None: ...

    async with testing.consumer(insert, schemas=ORDERS, max_records=3, max_seconds=10.0) as app:
        await app.give(Order(1), Order(2))
        assert app.outcomes == [("insert", "waiting")] * 2
        await app.advance(10)
        assert app.outcomes == [("insert", "handled")] * 2
        await app.give(Order(3), Order(4), Order(5))
        assert [[each.order_id for each in call.event] for call in app.calls] == [[1, 2], [3, 4, 5]]
        assert [each.offset for each in app.calls[1].record] == [2, 3, 4]


async def test_rejected_records_of_a_batch() -> None:
    """Those that Reject names are dead letters; the handler is called again with the rest."""

    def insert(events: list[Order], records: list[Record]) -> None:
        wrong = [index for index, event in enumerate(events) if event.order_id == 2]
        if wrong:
            raise Reject("no", indexes=wrong)

    async with testing.consumer(insert, schemas=ORDERS, max_records=3) as app:
        await app.give(Order(1), Order(2), Order(3))
        assert [outcome for _, outcome in app.outcomes] == ["handled", "dead_lettered", "handled"]
        assert [letter.record.offset for letter in app.dead_letters] == [1]


async def test_flushes_come_before_commits() -> None:
    """A commit follows a flush, at its interval, on demand and at the end; a failed flush keeps it back."""
    events: list[str] = []

    class Buffer:
        fails = False

        def __call__(self, event: Order) -> None:
            events.append(f"call {event.order_id}")

        async def flush(self) -> None:
            if self.fails:
                raise OSError
            events.append("flush")

    buffer = Buffer()
    async with testing.consumer(routes={"buffer": buffer}, schemas=ORDERS) as app:
        await app.give(Order(1))
        assert app.committed == {}
        await app.advance(1)
        assert app.committed == {("orders", 0): 1}
        buffer.fails = True
        await app.give(Order(2))
        await app.commit()
        assert app.committed == {("orders", 0): 1}
        buffer.fails = False
        await app.commit()
        assert app.committed == {("orders", 0): 2}
        await app.give(Order(3))
    assert app.committed == {("orders", 0): 3}
    assert events == ["call 1", "flush", "call 2", "flush", "call 3", "flush"]


async def test_a_handler_is_entered_and_left() -> None:
    """An async context manager is entered before the first record and left after the last flush, also on a failure."""
    events: list[str] = []

    class Sink:
        async def __aenter__(self) -> None:
            events.append("enter")

        async def __aexit__(self, *_: object) -> None:
            events.append("leave")

        async def __call__(self, event: Order) -> None:
            events.append("call")

        async def flush(self) -> None:
            events.append("flush")

    with pytest.raises(ZeroDivisionError):  # noqa: PT012
        async with testing.consumer(Sink(), schemas=ORDERS) as app:
            await app.give(Order(1))
            raise ZeroDivisionError
    assert events == ["enter", "call", "flush", "leave"]


async def test_a_halt_is_shown() -> None:
    """Without a dead-letter topic the partition halts at the record, which has no outcome."""
    settings = Settings(kafka=TOPIC, dead_letter=DeadLetterSettings(topic=""))
    async with testing.consumer(reject, settings=settings, schemas=ORDERS) as app:
        await app.give(Order(1), Order(2))
        assert app.outcomes == [("reject", "waiting")] * 2
    assert [(key, halt.reason.value) for key, halt in app.halts.items()] == [(("orders", 0), "no_dead_letter")]


async def test_what_ends_the_daemon_is_raised_once() -> None:
    """A halt with on_halt = exit is raised by give, and not again at the end."""
    settings = Settings(kafka=TOPIC, delivery=Delivery(on_halt="exit"), dead_letter=DeadLetterSettings(topic=""))
    async with testing.consumer(reject, settings=settings, schemas=ORDERS) as app:
        with pytest.raises(PartitionHaltedError):
            await app.give(Order(1))


async def test_nothing_is_given_after_the_end() -> None:
    """An app that has stopped takes no more events; what it has seen can still be read."""
    async with testing.consumer(bill, schemas=ORDERS) as app:
        await app.give(Order(1))
    with pytest.raises(RuntimeError, match="the app has stopped"):
        await app.give(Order(2))
    assert (app.outcomes, len(app.calls)) == ([("bill", "handled")], 1)


async def test_what_a_plain_function_returns() -> None:
    """Something to await is awaited; a generator does nothing, so its call has failed."""

    def awaitable(event: Order) -> Awaitable[None]:
        return bill(event)

    def generator(event: Order) -> Iterator[int]:
        return iter_of(event)

    def iter_of(event: Order) -> Iterator[int]:
        yield event.order_id

    async with testing.consumer(routes={"r": awaitable}, schemas=ORDERS) as app:
        await app.give(Order(1))
        assert (app.outcomes, len(app.calls)) == ([("r", "handled")], 1)
    async with testing.consumer(routes={"r": generator}, schemas=ORDERS) as app:
        await app.give(Order(1))
        assert (app.outcomes, len(app.calls)) == ([("r", "waiting")], 1)


async def test_a_batch_that_a_pause_holds_back() -> None:
    """A batch that comes due during a pause is called once, after it."""

    async def pauses(event: Order) -> None:
        if len(app.calls) < 3:
            raise Pause(after=5)

    async def insert(events: list[Order]) -> None: ...

    routes: dict[str, Any] = {"insert": {"handler": insert, "max_records": 2}, "pauses": pauses}
    async with testing.consumer(routes=routes, schemas=ORDERS) as app:
        await app.give(Order(1), Order(2))
        assert [call.route for call in app.calls] == ["pauses"]
        await app.advance(15)
        inserted = [event.order_id for call in app.calls if call.route == "insert" for event in call.event]
        assert inserted == [1, 2]
        assert {outcome for _, outcome in app.outcomes} == {"handled"}
