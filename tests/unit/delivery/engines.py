"""An engine on a source in memory, as the unit tests make it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from consumer.delivery.decoding import Decoder
from consumer.delivery.engine import Engine
from consumer.delivery.failure import Letters
from consumer.delivery.pipeline import Choose, Pipeline, Pipelines
from consumer.observe.counters import Counters
from consumer.observe.remedy import OR_RUN
from consumer.process.lifecycle import Lifecycle
from consumer.process.parts import make_engine
from consumer.routes.handler import bind_handler
from consumer.routes.route import Route
from consumer.settings.sections import DeadLetterSettings, Delivery, RetrySettings, Settings
from schemas.formats import Plain
from tests.unit.delivery.source import MemorySource

ONE_CALL = RetrySettings(attempts=1)
QUICK = RetrySettings(attempts=3, initial_seconds=0.001, maximum_seconds=0.01)


class Bench(msgspec.Struct):
    """An engine, its source and its counters."""

    engine: Engine
    source: MemorySource
    counters: Counters
    failures: list[Exception]


async def outlive(release: asyncio.Event) -> None:
    """Wait for an event, and swallow every cancellation until it is set."""
    while not release.is_set():
        try:
            await release.wait()
        except asyncio.CancelledError:
            continue


def a_route(handler: Callable[..., Any], name: str = "r0") -> Route:
    return Route(name, None, bind_handler(handler, "test"))


class FakeLifecycle(Lifecycle):
    """Notes every failure, and goes on."""

    def __init__(self) -> None:
        super().__init__()
        self.failures: list[Exception] = []

    def fail(self, error: Exception) -> None:
        self.failures.append(error)


@asynccontextmanager
async def an_engine_on(
    source: MemorySource,
    *routes: Route,
    decoder: Decoder | None = None,
    retry: RetrySettings = ONE_CALL,
    letters: Letters | None = None,
    dead_letter: DeadLetterSettings | None = None,
    choose: Choose | None = None,
    **delivery: Any,
) -> AsyncIterator[Bench]:
    """Run an engine on a source until the end of the block; its events are the values unchanged."""
    lifecycle = FakeLifecycle()
    counters = Counters(["t"], [route.name for route in routes])
    pipeline = Pipeline(decoder or Decoder(Plain(lambda value: value), 1_000_000), routes, choose)
    settings = Settings(
        delivery=Delivery(**{"drain_seconds": 5.0, "commit_interval_seconds": 0.001} | delivery),
        retry=retry,
        dead_letter=dead_letter or DeadLetterSettings(),
    )
    async with lifecycle.tasks as tasks:
        engine = make_engine(
            settings,
            source,
            Pipelines(routes, lambda _topic: pipeline),
            counters,
            lifecycle,
            letters,
            lambda *_: f"mend it{OR_RUN}move",
        )
        loops = [tasks.create_task(engine.poll_forever()), tasks.create_task(engine.commit_forever())]
        try:
            yield Bench(engine, source, counters, lifecycle.failures)
            await engine.stop()
        finally:
            for loop in loops:
                loop.cancel()
