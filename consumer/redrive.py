"""Run dead letters again: the daemon's own engine on the dead-letter topics, under a group of its own.

What decides which handlers get a record is the letter's route, not the matches; all else is as in ``run``: retries,
holds, new dead letters, commits. It goes as far as the letters went when it began, so a letter that fails again, and
is written anew behind them, waits for the next redrive.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import time
from collections.abc import Collection, Coroutine, Mapping, Sequence
from functools import partial
from itertools import takewhile
from typing import Any

import msgspec

from consumer.decoding import Decoder
from consumer.dispatch import Choice, Route, matching
from consumer.engine import Engine
from consumer.errors import SettingsError
from consumer.handler import Handler
from consumer.kafka.letters import LetterBox
from consumer.kafka.source import KafkaSource
from consumer.letter import NO_ROUTE, Letter, Writer, read_context, split_headers
from consumer.partition import Chunk
from consumer.record import Position, Record, TopicPartition
from consumer.settings import Settings
from consumer.survey import Filter
from consumer.tally import Tally
from consumer.way_out import way_out

LOOK_SECONDS = 0.1
EMPTY_LOOKS = 100


class Bounded:
    """A source that ends where the dead letters ended; what came behind them is not even delivered."""

    def __init__(self, source: KafkaSource, ends: Mapping[TopicPartition, int]) -> None:
        self._source = source
        self._ends = ends
        self._over: set[TopicPartition] = set()
        self.wait = source.wait
        self.commit = source.commit
        self.end_offsets = source.end_offsets

    async def start(self, engine: Engine) -> None:
        """Join the group, and pass its decisions on to the engine."""
        self.revoke, self.halt, self._assign = engine.revoke, engine.halt, engine.assign
        await self._source.start(self)

    def assign(self, keys: Collection[TopicPartition]) -> None:
        """Begin again in every partition."""
        self._over.clear()
        self._assign(keys)

    def ready(self, key: TopicPartition) -> bool:
        """Whether ``take`` would return something."""
        return key not in self._over and self._source.ready(key)

    def take(self, key: TopicPartition) -> Chunk | None:
        """Return what comes next below the end."""
        chunk = self._source.take(key) if key not in self._over else None
        return self._cut(key, chunk) if chunk is not None else None

    def salvage(self, key: TopicPartition, position: int, error: Exception) -> Chunk:
        """Return what can still be read below the end."""
        return self._cut(key, self._source.salvage(key, position, error))

    def _cut(self, key: TopicPartition, chunk: Chunk) -> Chunk:
        end = self._ends.get(key, 0)
        if chunk.next_offset < end:
            return chunk
        self._over.add(key)
        below = takewhile(lambda raw: raw.offset < end, chunk.records)
        return Chunk(chunk.first_offset, below, max(chunk.first_offset, end), chunk.again)


class Redrive:
    """One run over the letters of a survey; made by a command, ended by ``stop`` or by itself."""

    def __init__(
        self,
        settings: Settings,
        routes: Sequence[Route],
        decoder: Decoder,
        chosen: Filter,
        to_run: Mapping[Position, str],
        ends: Mapping[TopicPartition, int],
        rate: float = 0.0,
    ) -> None:
        """``to_run`` are the letters by their place, with their route; ``rate`` is in letters a second, 0 for no limit.

        Raises SettingsError when there are letters of routes that the settings do not have.
        """
        self.to_run = to_run
        self._ends = ends
        self._settings = settings
        self._decoder = decoder
        pace = Pace(rate) if rate else None
        self._routes = {route.name: _prepared(route, pace) for route in routes}
        unknown = sorted(set(to_run.values()) - {*self._routes, NO_ROUTE})
        if unknown:
            raise SettingsError(
                f"routes: there are dead letters of {', '.join(map(repr, unknown))}, and no such route; add it, or"
                " choose others with --route"
            )
        topics = sorted({key.topic for key in ends})
        self.tally = Tally(topics, self._routes)
        self._letters = LetterBox(
            settings.kafka, Writer(settings.dead_letter, settings.kafka.group_id, of_letters=True)
        )
        self._kafka = msgspec.structs.replace(
            settings.kafka,
            topics=topics,
            group_id=chosen.group(settings.kafka.group_id),
            offset_reset="earliest",
            out_of_range="earliest",
        )
        self._source = KafkaSource(self._kafka, self.tally, self._fail, chosen.as_text())
        # Those that wait for their turn end a stop late: no more of them than go in a second.
        most = min(settings.delivery.concurrency, math.ceil(rate)) if rate else settings.delivery.concurrency
        self._delivery = msgspec.structs.replace(
            settings.delivery, ordering="unordered", concurrency=most, on_halt="exit"
        )
        self._stopping = asyncio.Event()
        self._failure: Exception | None = None

    @property
    def done(self) -> int:
        """Letters and their routes that have an outcome so far."""
        counts = self.tally.routes.values()
        return sum(each.handled + each.dead_lettered for each in counts) + self.tally.no_route.dead_lettered

    @property
    def failed_again(self) -> int:
        """New letters written."""
        return sum(each.dead_lettered for each in self.tally.routes.values()) + self.tally.no_route.dead_lettered

    def stop(self) -> None:
        """Drain and end; the next redrive goes on from there."""
        self._stopping.set()

    def _fail(self, error: Exception) -> None:
        self._failure = self._failure or error
        self._stopping.set()

    async def run(self) -> None:
        """Run until all letters have an outcome; raise what ended it otherwise, after committing what was done."""
        source = Bounded(self._source, self._ends)
        async with asyncio.TaskGroup() as tasks:
            engine = Engine(
                source=source,
                decoder=self._decoder,
                routes=list(self._routes.values()),
                delivery=self._delivery,
                tally=self.tally,
                tasks=tasks,
                fail=self._fail,
                retry=self._settings.retry,
                dead_letter=self._settings.dead_letter,
                letters=self._letters,
                way_out=partial(way_out, self._kafka),
                choose=self._choose,
            )
            loops = [
                tasks.create_task(self._guard(loop))
                for loop in (self._poll(source, engine), engine.commit_forever(), self._until_done(engine))
            ]
            await self._stopping.wait()
            await engine.stop()
            await self._source.stop()
            await self._letters.close()
            for loop in loops:
                loop.cancel()
        if self._failure is not None:
            raise self._failure

    async def _poll(self, source: Bounded, engine: Engine) -> None:
        await source.start(engine)
        await engine.poll_forever()

    async def _until_done(self, engine: Engine) -> None:
        """End when every partition is at its end; one without partitions waits first: it may be between two epochs."""
        empty_looks = 0
        while not self._source.joined or empty_looks < EMPTY_LOOKS:
            await asyncio.sleep(LOOK_SECONDS)
            owned = engine.partitions
            if owned and all(each.done >= self._ends.get(key, 0) for key, each in owned.items()):
                break
            empty_looks = 0 if owned or not self._source.joined else empty_looks + 1
        self._stopping.set()

    async def _guard(self, loop: Coroutine[Any, Any, None]) -> None:
        try:
            await loop
        except Exception as error:
            self._fail(error)

    # -- letters -------------------------------------------------------------------------------------------------

    def _choose(self, key: TopicPartition, raw: Any) -> Choice | None:
        """Choose the route of one letter: the one that failed, or all that match when it came to none."""
        name = self.to_run.get(Position(*key, raw.offset))
        if name is None:
            return None
        return partial(matching, list(self._routes.values())) if name == NO_ROUTE else lambda _: [self._routes[name]]


def republishing(letters: LetterBox, topic: str) -> Route:
    """Make a route that puts the original record on another topic, whatever its event may be."""

    async def republish(_event: Any, record: Record) -> None:
        await letters.send(Letter(topic, record.key, record.value, list(record.headers), record.timestamp_ms))

    return Route("republish", None, Handler(republish, is_async=True, wants_record=True), tombstones=True)


class Pace:
    """Lets so many through a second, evenly."""

    def __init__(self, rate: float) -> None:
        self._seconds = 1 / rate
        self._next = 0.0

    async def wait(self, count: int) -> None:
        """Wait for one's turn with so many letters."""
        turn = max(self._next, time.monotonic())
        self._next = turn + count * self._seconds
        await asyncio.sleep(turn - time.monotonic())


def as_consumed(record: Record) -> Record:
    """Return a letter as its handler sees it: with the record's own headers, and where it was consumed first."""
    context = read_context(record.headers)
    own = tuple(split_headers(record.headers)[0])
    return msgspec.structs.replace(record, headers=own, letter_of=context.origin if context else None)


def _prepared(route: Route, pace: Pace | None) -> Route:
    """Make a route whose handler gets Records as they were consumed, at the pace that was asked for."""
    handler = route.handler

    def call(event: Any, *records: Any) -> Any:
        if handler.takes_batches:
            return handler.call(event, *([as_consumed(record) for record in each] for each in records))
        return handler.call(event, *map(as_consumed, records))

    async def paced(event: Any, *records: Any) -> Any:
        assert pace is not None
        await pace.wait(len(event) if handler.takes_batches else 1)
        result = call(event, *records)
        return await result if inspect.isawaitable(result) else result

    prepared = msgspec.structs.replace(handler, call=paced if pace else call, is_async=handler.is_async or bool(pace))
    return msgspec.structs.replace(route, handler=prepared)
