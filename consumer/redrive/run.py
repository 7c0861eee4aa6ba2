"""Run dead letters again: the daemon's own engine on the dead-letter topics, under a group of its own.

What decides which handlers get a record is the letter's route, not the matches; all else is as in ``run``: retries,
holds, new dead letters, commits. It goes as far as the last letter that is to be run, so a letter that fails again, and
is written anew behind it, waits for the next redrive.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import structlog

from consumer.dead_letters.cause import NO_ROUTE
from consumer.dead_letters.filter import Filter
from consumer.dead_letters.headers import read_context, split_headers
from consumer.dead_letters.letter import Letter, Writer
from consumer.delivery.decoding import Decoder
from consumer.delivery.dispatch import Choice
from consumer.delivery.engine import Engine
from consumer.errors import KafkaError, LetterDelayedError, LetterRefusedError, SettingsError
from consumer.instructions import Pause, Retry
from consumer.kafka.letter_box import LetterBox
from consumer.kafka.source import KafkaSource
from consumer.observe.counters import Counters
from consumer.outcome import HaltReason
from consumer.partition.remedy import remedy
from consumer.process.lifecycle import exit_if_stuck, guarded
from consumer.record import Position, RawRecord, Record, TopicPartition
from consumer.redrive.bounded_source import BoundedSource, ends_of
from consumer.redrive.rate import RateLimit
from consumer.routes.handler import Handler
from consumer.routes.route import Route, matching
from consumer.settings.sections import Settings

log = structlog.get_logger("consumer.redrive.run")

LOOK_SECONDS = 0.1
EMPTY_LOOKS = 100


class Redrive:
    """One run over the letters of a inventory; made by a command, ended by ``stop`` or by itself."""

    def __init__(
        self,
        settings: Settings,
        routes: Sequence[Route],
        decoder: Decoder,
        chosen: Filter,
        to_run: Mapping[Position, str],
        rate: float = 0.0,
    ) -> None:
        """``to_run`` are the letters by their place, with their route; ``rate`` is in letters a second, 0 for no limit.

        Raises SettingsError when there are letters of routes that ``routes`` does not have.
        """
        require_routes(to_run, [route.name for route in routes])
        self.to_run = to_run
        self.unwanted: set[Position] = set()
        """Letters that no route wants, though they can be read."""
        self.complete = False
        """Whether it came to its end by itself."""
        self._ends = ends_of(to_run)
        self._settings = settings
        self._decoder = decoder
        self._stopping = asyncio.Event()
        self._failure: Exception | None = None
        pace = RateLimit(rate, self._stopping) if rate else None
        self._routes = {route.name: _prepared(route, pace) for route in routes}
        topics = sorted({key.topic for key in self._ends})
        self.counters = Counters(topics, self._routes)
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
        self._source = KafkaSource(self._kafka, self.counters, self.fail, chosen.as_text())
        self._delivery = msgspec.structs.replace(settings.delivery, ordering="unordered", on_halt="exit")

    @property
    def group(self) -> str:
        """The group that its offsets are kept under."""
        return self._kafka.group_id

    @property
    def joined(self) -> bool:
        """Whether the group has let it in."""
        return self._source.joined

    @property
    def done(self) -> int:
        """Letters and their routes that have an outcome so far."""
        counts = self.counters.routes.values()
        return sum(each.handled + each.dead_lettered for each in counts) + self.counters.no_route.dead_lettered

    @property
    def failed_again(self) -> int:
        """New letters written."""
        return sum(each.dead_lettered for each in self.counters.routes.values()) + self.counters.no_route.dead_lettered

    def stop(self) -> None:
        """Drain and end; the next redrive goes on from there."""
        self._stopping.set()

    def fail(self, error: Exception) -> None:
        """Drain and end with this error; the first one counts."""
        self._failure = self._failure or error
        self._stopping.set()

    async def run(self) -> None:
        """Run until all letters have an outcome; raise what ended it otherwise, after committing what was done."""
        source = BoundedSource(self._source, self._ends)
        async with asyncio.TaskGroup() as tasks:
            engine = Engine(
                source=source,
                decoder=self._decoder,
                routes=list(self._routes.values()),
                delivery=self._delivery,
                counters=self.counters,
                tasks=tasks,
                fail=self.fail,
                retry=self._settings.retry,
                dead_letter=self._settings.dead_letter,
                letters=self._letters,
                remedy=self._remedy,
                choose=self._choose,
            )
            loops = [
                tasks.create_task(guarded(loop, self.fail))
                for loop in (
                    partial(self._poll, source, engine),
                    engine.commit_forever,
                    partial(self._until_done, engine),
                )
            ]
            await self._stopping.wait()
            await engine.stop()
            await self._source.stop()
            await self._letters.close()
            for loop in loops:
                loop.cancel()
            exit_if_stuck(engine)
        if self._failure is not None:
            raise self._failure

    async def _poll(self, source: BoundedSource, engine: Engine) -> None:
        await source.start(engine)
        await engine.poll_forever()

    async def _until_done(self, engine: Engine) -> None:
        """End when all that is owned is done; what another redrive of the same group owns is left to that one.

        Without partitions it waits before it ends, as it may be between two epochs.
        """
        empty_looks = 0
        while empty_looks < EMPTY_LOOKS:
            await asyncio.sleep(LOOK_SECONDS)
            owned = engine.partitions
            if owned and all(each.done >= self._ends.get(key, -1) for key, each in owned.items()):
                break
            empty_looks = 0 if owned or not self.joined else empty_looks + 1
        self.complete = not self._stopping.is_set()
        self._stopping.set()

    def _remedy(self, key: TopicPartition, reason: HaltReason, next_offset: int) -> str:
        if reason is HaltReason.FUSE:
            return (
                "most letters fail again: find out why before the rest is run; or choose others, or set a higher"
                " dead_letter.limit_ratio (1: no limit)"
            )
        return remedy(self._kafka, key, reason, next_offset)

    # -- letters -------------------------------------------------------------------------------------------------

    def _choose(self, key: TopicPartition, raw: RawRecord) -> Choice | None:
        """Choose the route of one letter: the one that failed, or all that match when it came to none."""
        place = Position(*key, raw.offset)
        name = self.to_run.get(place)
        if name is None:
            return None
        return partial(self._wanted, place, name)

    def _wanted(self, place: Position, name: str, event: Any) -> list[Route]:
        if name == NO_ROUTE:
            found = matching(list(self._routes.values()), event)
        else:  # a tombstone goes to no route that would not know what to do with it
            route = self._routes[name]
            found = [route] if event is not None or route.tombstones else []
        if not found:
            self.unwanted.add(place)
        return found


def require_routes(to_run: Mapping[Position, str], names: Collection[str]) -> None:
    """Raise SettingsError when there are letters of routes that are none of ``names``."""
    unknown = sorted(set(to_run.values()) - {*names, NO_ROUTE})
    if unknown:
        raise SettingsError(
            f"routes: there are dead letters of {', '.join(map(repr, unknown))}, and the settings have no such route;"
            " add it, or choose others with --route"
        )


def republishing(letters: LetterBox, topic: str, fail: Callable[[Exception], None]) -> Route:
    """Make a route that puts the original record on another topic, whatever its event may be.

    What that topic refuses stays the letter that it is: ``fail`` is told, and the redrive ends.
    """

    async def republish(_event: Any, record: Record) -> None:
        try:
            await letters.send(Letter(topic, record.key, record.value, list(record.headers), record.timestamp_ms))
        except LetterDelayedError as delayed:
            raise Pause from delayed
        except LetterRefusedError as refused:
            place = Position(record.topic, record.partition, record.offset)
            fail(KafkaError(f"{place}: {refused}; it stays a dead letter, and so do those after it"))
            raise Retry from refused

    return Route("republish", None, Handler(republish, is_async=True, wants_record=True), tombstones=True)


def as_consumed(record: Record) -> Record:
    """Return a letter as its handler sees it: with the record's own headers, and where it was consumed first."""
    context = read_context(record.headers)
    own = tuple(split_headers(record.headers)[0])
    return msgspec.structs.replace(record, headers=own, letter_of=context.origin if context else None)


def _prepared(route: Route, pace: RateLimit | None) -> Route:
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

    prepared = msgspec.structs.replace(handler, call=call)
    if pace is not None:
        most = min(handler.max_records, pace.most)
        prepared = msgspec.structs.replace(handler, call=paced, is_async=True, max_records=most)
    return msgspec.structs.replace(route, handler=prepared)
