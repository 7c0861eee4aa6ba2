"""Redrive: run dead letters again, with the daemon's engine on the dead-letter topics, in a group of the redrive.

A letter runs through the route that it failed on, whatever the routes' matches are. Retries, holds, new dead letters
and commits are as in ``run``. The redrive ends at the last letter to run. So a letter that fails again is written after
that end, and waits for the next redrive.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import msgspec

from consumer.dead_letters.filter import Filter
from consumer.dead_letters.letter import Writer
from consumer.delivery.decoding import Decoder
from consumer.delivery.pipeline import Pipeline, Pipelines
from consumer.kafka.letter_box import LetterBox
from consumer.kafka.reach import CommitNotes
from consumer.kafka.source import KafkaSource
from consumer.observe.counters import Counters
from consumer.observe.remedy import remedy
from consumer.outcome import HaltReason
from consumer.process.lifecycle import Lifecycle
from consumer.process.parts import make_engine
from consumer.record import Position, TopicPartition
from consumer.redrive.bounded_run import BoundedParts, BoundedRun, classic
from consumer.redrive.bounded_source import BoundedSource
from consumer.redrive.handlers import redriven
from consumer.redrive.rate import RateLimit
from consumer.redrive.selection import Selection
from consumer.routes.topics import Topics
from consumer.settings.sections import Kafka, Settings
from schemas.formats import Plain


class Redrive(BoundedRun):
    """One redrive of selected letters; made by ``make_redrive``."""

    def __init__(self, selection: Selection, parts: BoundedParts) -> None:
        super().__init__(parts, selection.ends)
        self.selection = selection

    @property
    def done(self) -> int:
        """Outcomes so far, one per letter and route."""
        return sum(each.handled for each in self._parts.counters.routes.values()) + self.failed_again

    @property
    def failed_again(self) -> int:
        """Number of new dead letters written."""
        counters = self._parts.counters
        return sum(each.dead_lettered for each in counters.routes.values()) + counters.no_route.dead_lettered


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
        classic(settings.kafka),
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
    return Redrive(selection, BoundedParts(lifecycle, counters, letters, source, bounded, engine))


def redrive_remedy(kafka: Kafka, key: TopicPartition, reason: HaltReason, next_offset: int) -> str:
    """Return what a person can do when a redrive halts."""
    if reason is HaltReason.FUSE:
        return (
            "most letters fail again: find out why before the rest is run; or choose other letters, or set a higher"
            " dead_letter.limit_ratio (1: no limit)"
        )
    return remedy(kafka, key, reason, next_offset)
