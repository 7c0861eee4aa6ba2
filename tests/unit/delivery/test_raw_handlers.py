"""Handlers that want bytes beside handlers of events: each gets its own, also when a batch fails and is read again."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from consumer import Record, Reject
from consumer.delivery.decoding import Decoder
from consumer.routes.handler import bind_handler
from consumer.routes.route import Route
from schemas.formats import Plain
from tests.unit.delivery.engines import QUICK, an_engine_on
from tests.unit.delivery.handlers import Letters
from tests.unit.delivery.log_source import LogSource, keyed
from tests.unit.delivery.source import KEY
from tests.unit.delivery.waiting import until


def a_raw_route(handler: Any, name: str = "raw") -> Route:
    """Make a route as the topics do it for a handler of bytes beside others."""
    bound = msgspec.structs.replace(bind_handler(handler, "test"), wants_bytes=True, max_records=3, max_seconds=0.01)
    return Route(name, None, bound)


def decoder() -> Decoder:
    return Decoder(Plain(lambda value: ("event", value)), 1000)


async def test_each_route_gets_what_it_wants() -> None:
    """One record is an event for one handler and bytes for the other, with its Record or without."""
    got: list[tuple[str, Any]] = []
    routes = [
        Route("events", None, bind_handler(lambda event: got.append(("events", event)), "test")),
        a_raw_route(lambda value: got.append(("raw", value))),
        a_raw_route(lambda value, record: got.append(("both", (value, record.value))), "both"),
    ]
    source = LogSource(keyed([b"k"]))
    async with an_engine_on(source, *routes, decoder=decoder()) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end)
    value = got[1][1]
    assert got == [("events", ("event", value)), ("raw", value), ("both", (value, value))]
    assert type(value) is bytes


@pytest.mark.parametrize("wants_record", [False, True])
async def test_a_batch_of_bytes_that_fails(*, wants_record: bool) -> None:
    """A batch that fails is called again with bytes, and one record of it can be rejected."""
    got: list[list[bytes]] = []

    def handle(values: list[bytes]) -> None:
        got.append(list(values))
        if len(got) == 1:
            raise ValueError
        if len(values) == 3:
            raise Reject(indexes=[1])

    def handle_with(values: list[bytes], found: list[Record]) -> None:
        assert [each.value for each in found] == values
        handle(values)

    routes = [
        a_raw_route(handle_with if wants_record else handle),
        Route("e", None, bind_handler(lambda _e: None, "t")),
    ]
    source, letters = LogSource(keyed([b"k"] * 3)), Letters()
    async with an_engine_on(source, *routes, decoder=decoder(), retry=QUICK, letters=letters) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end)
    assert [len(each) for each in got] == [3, 3, 2]
    assert got[1] == got[0]
    assert all(type(value) is bytes for values in got for value in values)


async def test_batches_of_bytes_without_another_route() -> None:
    """A batch of the only route holds bytes too, though its events are decoded for its match."""
    got: list[bytes] = []

    def handle(values: list[bytes]) -> None:
        got.extend(values)

    source = LogSource(keyed([b"k"] * 3))
    async with an_engine_on(source, a_raw_route(handle), decoder=decoder()) as bench:
        bench.engine.assign([KEY])
        await until(lambda: source.committed == source.end)
    assert [type(each) for each in got] == [bytes] * 3
