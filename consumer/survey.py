"""Which dead letters there are, and which of them are home: read from the letters and from the offsets of redrives.

A redrive runs under a consumer group of its own, one for each set of filters; the filters stand in the metadata of its
commits. So a letter is home when some redrive group that its filter lets in has committed past it. A letter that fails
again is home too, and a new one, with one redrive more, takes its place.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from consumer.letter import Context, read_context
from consumer.record import Position, TopicPartition

MAX_REDRIVES = 5


class Filter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which letters are meant; empty lists and None mean all."""

    reasons: list[str] = []
    routes: list[str] = []
    since_ms: int | None = None
    """Milliseconds since 1970, of the record's timestamp; from here on."""
    until_ms: int | None = None
    """Up to here, exclusive."""
    key_sha256: str | None = None
    """Of the record's key: a key may be personal data, and this is stored with offsets."""
    max_redrives: int = MAX_REDRIVES
    """Letters that were run again so often are left alone."""

    def lets_in(self, context: Context, raw: Any) -> bool:
        """Whether a letter is meant."""
        return (
            context.redrives < self.max_redrives
            and (not self.reasons or context.reason in self.reasons)
            and (not self.routes or context.route in self.routes)
            and (self.since_ms is None or raw.timestamp >= self.since_ms)
            and (self.until_ms is None or raw.timestamp < self.until_ms)
            and (self.key_sha256 is None or (raw.key is not None and sha256(raw.key) == self.key_sha256))
        )

    def as_text(self) -> str:
        """Write it for a commit's metadata."""
        return msgspec.json.encode(self).decode()

    def group(self, group_id: str) -> str:
        """Name the group that redrives under this filter."""
        name = f"{group_id}.redrive"
        return name if self == Filter() else f"{name}.{sha256(self.as_text().encode())[:8]}"


def sha256(text: bytes) -> str:
    """Return the digest in hexadecimal."""
    return hashlib.sha256(text).hexdigest()


class Passed(NamedTuple):
    """How far one redrive group came: offsets to read next, by partition of the dead-letter topics."""

    filter: Filter
    offsets: Mapping[TopicPartition, int]


def read_passed(metadata: str, offsets: Mapping[TopicPartition, int]) -> Passed | None:
    """Make it from what a group committed; None when that is no redrive's."""
    try:
        return Passed(msgspec.json.decode(metadata, type=Filter), offsets)
    except msgspec.DecodeError:
        return None


class Found(NamedTuple):
    """What stands for one record on one route: its newest letter."""

    place: Position
    """Of the letter."""
    context: Context
    home: bool
    meant: bool
    """Whether the filter lets it in."""


class Survey:
    """Every letter, counted once for each record and route, however often it was written.

    Letters are written at least once, so a kill may leave two of the same. Memory grows with the number of letters.
    """

    def __init__(self, chosen: Filter, passed: Sequence[Passed]) -> None:
        self.letters = 0
        """Letters read, doubles included."""
        self.foreign = 0
        """Records that do not say which record they were."""
        self._filter = chosen
        self._passed = passed
        self._found: dict[tuple[Position, str], Found] = {}

    def add(self, key: TopicPartition, raw: Any) -> None:
        """Note one record of a dead-letter topic."""
        context = read_context(raw.headers)
        if context is None:
            self.foreign += 1
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
        self._found[identity] = Found(Position(*key, raw.offset), context, home, meant)

    @property
    def found(self) -> list[Found]:
        """What the filter lets in, home or not, in the order in which it was first seen."""
        return [each for each in self._found.values() if each.meant]

    @property
    def to_run(self) -> dict[Position, str]:
        """Letters that are not home, by their place, with their route."""
        return {each.place: each.context.route for each in self.found if not each.home}

    def table(self) -> list[tuple[str, str, str, int, int]]:
        """Count by topic, route and reason: how many are left to redrive, and how many are home."""
        left: Counter[tuple[str, str, str]] = Counter()
        home: Counter[tuple[str, str, str]] = Counter()
        for each in self.found:
            kind = each.context.origin.topic, each.context.route, each.context.reason or "unknown"
            (home if each.home else left)[kind] += 1
        return [(*kind, left[kind], home[kind]) for kind in sorted(left | home)]
