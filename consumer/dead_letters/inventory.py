"""The inventory of dead letters: which there are, and which were redriven.

A redrive commits under a separate consumer group for each filter, and stores the filter in the metadata of its commits.
So a letter counts as redriven when a group whose filter lets it in has committed past it. A letter that fails again
counts as redriven too, and a new letter, with one redrive more, takes its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import msgspec

from consumer.dead_letters.filter import NO_CAP, Filter
from consumer.dead_letters.headers import Context, read_context
from consumer.record import Position, RawRecord, TopicPartition


class Passed(NamedTuple):
    """Progress of one redrive group: offsets to read next, by partition of the dead-letter topics."""

    filter: Filter
    offsets: Mapping[TopicPartition, int]


def read_passed(group_id: str, name: str, committed: Mapping[TopicPartition, tuple[int, str]]) -> Passed | None:
    """Read the progress from a group's committed offsets and metadata; None if it is no redrive of ``group_id``."""
    for metadata in {metadata for _, metadata in committed.values()}:
        try:
            chosen = msgspec.json.decode(metadata, type=Filter)
        except msgspec.DecodeError:
            continue
        if chosen.group(group_id) == name:
            return Passed(chosen, {key: offset for key, (offset, text) in committed.items() if text == metadata})
    return None


class Found(NamedTuple):
    """The newest letter of one record and route, which stands for all of them."""

    place: Position
    """Position of the letter."""
    context: Context
    redriven: bool
    meant: bool
    """Whether the filter lets the letter in."""
    capped: bool
    """Whether the filter would let it in without the limit of redrives."""


class Inventory:
    """All dead letters of one consumer group, each record and route counted once, however often a letter was written.

    Letters are written at least once, so a kill may leave duplicates. Memory grows with the number of letters.
    """

    def __init__(self, chosen: Filter, topics: Collection[str], group: str, passed: Sequence[Passed]) -> None:
        """``topics`` and ``group`` are those of the daemon: others may use the same dead-letter topic."""
        self.letters = 0
        """Number of letters read, duplicates included."""
        self.foreign = 0
        """Number of records without the position of their original."""
        self.elsewhere = 0
        """Number of letters whose records are of other topics."""
        self.of_other_groups = 0
        """Number of letters that name another consumer group."""
        self._group = group
        self._topics = frozenset(topics)
        self._filter = chosen
        self._uncapped = msgspec.structs.replace(chosen, max_redrives=NO_CAP)
        self._passed = passed
        self._found: dict[tuple[Position, str], Found] = {}

    def add(self, key: TopicPartition, raw: RawRecord) -> None:
        """Note one record of a dead-letter topic."""
        context = read_context(raw.headers)
        if context is None:
            self.foreign += 1
            return
        if context.origin.topic not in self._topics:
            self.elsewhere += 1
            return
        if not context.is_of(self._group):
            self.of_other_groups += 1
            return
        self.letters += 1
        identity = context.origin, context.route
        redriven = any(
            each.offsets.get(key, 0) > raw.offset and each.filter.lets_in(context, raw) for each in self._passed
        )
        before = self._found.get(identity)
        if before is not None:
            if context.redrives < before.context.redrives:
                return
            if context.redrives == before.context.redrives:  # the same letter twice
                self._found[identity] = before._replace(redriven=before.redriven or redriven)
                return
        meant = self._filter.lets_in(context, raw)
        capped = not meant and self._uncapped.lets_in(context, raw)
        self._found[identity] = Found(Position(*key, raw.offset), context, redriven, meant, capped)

    @property
    def found(self) -> list[Found]:
        """Letters that the filter lets in, redriven or not, in the order in which they were first seen."""
        return [each for each in self._found.values() if each.meant]

    @property
    def to_run(self) -> dict[Position, str]:
        """Routes of the letters that are left to redrive, by the letter's position."""
        return {each.place: each.context.route for each in self.found if not each.redriven}

    @property
    def capped(self) -> int:
        """Number of letters that are not redriven because they reached the limit of redrives."""
        return sum(1 for each in self._found.values() if each.capped and not each.redriven)

    def table(self) -> list[tuple[str, str, str, str, int, int]]:
        """Count letters by topic, route, reason and code: those left to redrive, and those redriven."""
        left: Counter[tuple[str, str, str, str]] = Counter()
        redriven: Counter[tuple[str, str, str, str]] = Counter()
        for each in self.found:
            context = each.context
            kind = context.origin.topic, context.route, context.reason or "unknown", context.code
            (redriven if each.redriven else left)[kind] += 1
        return [(*kind, left[kind], redriven[kind]) for kind in sorted(left | redriven)]
