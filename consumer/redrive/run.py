"""Redrive: run dead letters again, with the daemon's engine on the dead-letter topics, in a group of the redrive.

A letter runs through the route that it failed on, whatever the routes' matches are. Retries, holds, new dead letters
and commits are as in ``run``. The redrive ends at the last letter to run. So a letter that fails again is written after
that end, and waits for the next redrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial

import msgspec

from consumer.dead_letters.filter import Filter
from consumer.dead_letters.letter import Writer
from consumer.delivery.decoding import Decoder
from consumer.delivery.engine import Engine
from consumer.delivery.pipeline import Pipeline, Pipelines
from consumer.kafka.letter_box import LetterBox
from consumer.kafka.source import CommitNotes, KafkaSource
from consumer.observe.counters import Counters
from consumer.observe.remedy import remedy
from consumer.outcome import HaltReason
from consumer.process.lifecycle import Lifecycle
from consumer.process.parts import make_engine
from consumer.record import Position, TopicPartition
from consumer.redrive.bounded_source import BoundedSource
from consumer.redrive.handlers import redriven
from consumer.redrive.rate import RateLimit
from consumer.redrive.selection import Selection
from consumer.routes.topics import Topics
from consumer.settings.sections import Kafka, Settings
from schemas.formats import Plain

LOOK_SECONDS = 0.1
EMPTY_LOOKS = 100


class Redrive:
    """One redrive of selected letters; made by ``make_redrive``, ended by ``stop`` or after its last letter."""

    def __init__(
        self,
        selection: Selection,
        lifecycle: Lifecycle,
        counters: Counters,
        letters: LetterBox,
        source: KafkaSource,
        bounded: BoundedSource,
        engine: Engine,
    ) -> None:
        self.selection = selection
        self.complete = False
        """Whether every letter has an outcome."""
        self._lifecycle = lifecycle
        self._counters = counters
        self._letters = letters
        self._source = source
        self._bounded = bounded
        self._engine = engine

    @property
    def group(self) -> str:
        """Consumer group of the redrive, which stores its progress."""
        return self._source.group_id

    @property
    def joined(self) -> bool:
        """Whether the redrive has joined its group."""
        return self._source.joined

    @property
    def done(self) -> int:
        """Outcomes so far, one per letter and route."""
        return sum(each.handled for each in self._counters.routes.values()) + self.failed_again

    @property
    def failed_again(self) -> int:
        """Number of new dead letters written."""
        counters = self._counters
        return sum(each.dead_lettered for each in counters.routes.values()) + counters.no_route.dead_lettered

    def stop(self) -> None:
        """Drain and end; the next redrive continues from there."""
        self._lifecycle.stop()

    async def run(self) -> None:
        """Run until all letters have an outcome. After a failure: commit what is done, and raise the failure."""
        others = [self._engine.commit_forever, self._until_done]
        await self._lifecycle.run(self._engine, self._source, self._letters, self._poll, others)
        self._lifecycle.raise_failure()

    async def _poll(self) -> None:
        await self._bounded.start(self._engine)
        await self._engine.poll_forever()

    async def _until_done(self) -> None:
        """End when all letters of the owned partitions are done; other members of the group run the rest.

        Without partitions, wait for ``EMPTY_LOOKS`` looks before the end: the member may be between two epochs.
        """
        empty_looks, ends = 0, self.selection.ends
        while empty_looks < EMPTY_LOOKS:
            await asyncio.sleep(LOOK_SECONDS)
            owned = self._engine.partitions
            if owned and all(each.done >= ends.get(key, -1) for key, each in owned.items()):
                break
            empty_looks = 0 if owned or not self.joined else empty_looks + 1
        self.complete = not self._lifecycle.stopping.is_set()
        self._lifecycle.stop()


def make_redrive(
    settings: Settings,
    topics: Topics,
    chosen: Filter,
    to_run: Mapping[Position, str],
    rate: float,
    lifecycle: Lifecycle,
) -> Redrive:
    """Make a redrive. ``to_run`` maps each letter's position to its route; ``topics`` must have all of these.

    ``rate`` is in letters a second; 0 means no limit.
    """
    rate_limit = RateLimit(rate, lifecycle.stopping) if rate else None
    topics = topics.with_routes([redriven(route, rate_limit) for route in topics.routes])
    selection = Selection(to_run, topics, settings.delivery.max_record_bytes)
    kafka = msgspec.structs.replace(
        settings.kafka,
        topics=sorted({key.topic for key in selection.ends}),
        topic_pattern="",
        group_instance_id="",
        group_id=chosen.group(settings.kafka.group_id),
        offset_reset="earliest",
        out_of_range="earliest",
    )
    delivery = msgspec.structs.replace(settings.delivery, ordering="unordered", on_halt="exit")
    counters = Counters(kafka.topics, [route.name for route in topics.routes])
    letters = LetterBox(settings.kafka, Writer(settings.dead_letter, settings.kafka.group_id, of_letters=True))
    source = KafkaSource(kafka, counters, lifecycle.fail)
    source.notes = CommitNotes(chosen.as_text)
    bounded = BoundedSource(source, selection.ends)
    engine = make_engine(
        msgspec.structs.replace(settings, kafka=kafka, delivery=delivery),
        bounded,
        Pipelines(topics.routes, lambda _topic: Pipeline(Decoder(Plain(bytes), 0), topics.routes, selection.choose)),
        counters,
        lifecycle,
        letters,
        partial(redrive_remedy, kafka),
    )
    return Redrive(selection, lifecycle, counters, letters, source, bounded, engine)


def redrive_remedy(kafka: Kafka, key: TopicPartition, reason: HaltReason, next_offset: int) -> str:
    """Return what a person can do when a redrive halts."""
    if reason is HaltReason.FUSE:
        return (
            "most letters fail again: find out why before the rest is run; or choose other letters, or set a higher"
            " dead_letter.limit_ratio (1: no limit)"
        )
    return remedy(kafka, key, reason, next_offset)
