"""Which dead letters there are, and which of them are home: read from the letters and from the offsets of redrives.

A redrive runs under a consumer group of its own, one for each set of filters; the filters stand in the metadata of its
commits. So a letter is home when some redrive group that its filter lets in has committed past it. A letter that fails
again is home too, and a new one, with one redrive more, takes its place.
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
    """How far one redrive group came: offsets to read next, by partition of the dead-letter topics."""

    filter: Filter
    offsets: Mapping[TopicPartition, int]


def read_passed(group_id: str, name: str, committed: Mapping[TopicPartition, tuple[int, str]]) -> Passed | None:
    """Make it from what a group committed (offsets and their metadata); None when it is no redrive of ``group_id``."""
    for metadata in {metadata for _, metadata in committed.values()}:
        try:
            chosen = msgspec.json.decode(metadata, type=Filter)
        except msgspec.DecodeError:
            continue
        if chosen.group(group_id) == name:
            return Passed(chosen, {key: offset for key, (offset, said) in committed.items() if said == metadata})
    return None


class Found(NamedTuple):
    """What stands for one record on one route: its newest letter."""

    place: Position
    """Of the letter."""
    context: Context
    home: bool
    meant: bool
    """Whether the filter lets it in."""
    capped: bool
    """Whether it would, had the letter not failed so often."""


class Inventory:
    """Every letter, counted once for each record and route, however often it was written.

    Letters are written at least once, so a kill may leave two of the same. Memory grows with the number of letters.
    """

    def __init__(self, chosen: Filter, topics: Collection[str], passed: Sequence[Passed]) -> None:
        """``topics`` are those whose records are meant: others may have the same topic for their dead letters."""
        self.letters = 0
        """Letters read, doubles included."""
        self.foreign = 0
        """Records that do not say which record they were."""
        self.elsewhere = 0
        """Letters of records of other topics."""
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
        self.letters += 1
        identity = context.origin, context.route
        home = any(each.offsets.get(key, 0) > raw.offset and each.filter.lets_in(context, raw) for each in self._passed)
        before = self._found.get(identity)
        if before is not None:
            if context.redrives < before.context.redrives:
                return
            if context.redrives == before.context.redrives:  # the same letter twice
                self._found[identity] = before._replace(home=before.home or home)
                return
        meant = self._filter.lets_in(context, raw)
        capped = not meant and self._uncapped.lets_in(context, raw)
        self._found[identity] = Found(Position(*key, raw.offset), context, home, meant, capped)

    @property
    def found(self) -> list[Found]:
        """What the filter lets in, home or not, in the order in which it was first seen."""
        return [each for each in self._found.values() if each.meant]

    @property
    def to_run(self) -> dict[Position, str]:
        """Letters that are not home, by their place, with their route."""
        return {each.place: each.context.route for each in self.found if not each.home}

    @property
    def capped(self) -> int:
        """How many are left alone because they failed so often."""
        return sum(each.capped and not each.home for each in self._found.values())

    def table(self) -> list[tuple[str, str, str, int, int]]:
        """Count by topic, route and reason: how many are left to redrive, and how many are home."""
        left: Counter[tuple[str, str, str]] = Counter()
        home: Counter[tuple[str, str, str]] = Counter()
        for each in self.found:
            kind = each.context.origin.topic, each.context.route, each.context.reason or "unknown"
            (home if each.home else left)[kind] += 1
        return [(*kind, left[kind], home[kind]) for kind in sorted(left | home)]
