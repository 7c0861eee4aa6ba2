"""A run of the daemon's engine on a source that ends: in a group that stores its progress, to its last record."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from consumer.delivery.engine import Engine
from consumer.kafka.client_source import ClientSource
from consumer.kafka.letter_box import LetterBox
from consumer.observe.counters import Counters
from consumer.process.lifecycle import Lifecycle
from consumer.record import TopicPartition
from consumer.redrive.bounded_source import BoundedSource
from consumer.settings.sections import Kafka

LOOK_SECONDS = 0.1
EMPTY_LOOKS = 100


def classic(kafka: Kafka) -> Kafka:
    """Return the settings for a group of one member that ends by itself: the classic protocol does."""
    return msgspec.structs.replace(
        kafka,
        group_protocol="classic",
        group_remote_assignor="",
        request_timeout_seconds=max(kafka.request_timeout_seconds, kafka.rebalance_timeout_seconds + 10),
    )


class BoundedParts(NamedTuple):
    """The parts of a bounded run."""

    lifecycle: Lifecycle
    counters: Counters
    letters: LetterBox | None
    source: ClientSource
    bounded: BoundedSource
    engine: Engine


class BoundedRun:
    """One run; ended by ``stop`` or after its last record."""

    def __init__(self, parts: BoundedParts, ends: Mapping[TopicPartition, int]) -> None:
        """Take the offset after the last record of each partition; of one that is not in ``ends`` nothing is read."""
        self.complete = False
        """Whether every record of the partitions that it had at its end has an outcome, and that is committed."""
        self.shared = False
        """Whether other members of the group had partitions at its end."""
        self._parts = parts
        self._ends = ends

    @property
    def group(self) -> str:
        """Consumer group of the run, which stores its progress."""
        return self._parts.source.group_id

    @property
    def joined(self) -> bool:
        """Whether the run has joined its group."""
        return self._parts.source.joined

    @property
    def done(self) -> int:
        """How much is done, of the total that a progress bar shows."""
        raise NotImplementedError

    def stop(self) -> None:
        """Drain and end; the next run continues from there."""
        self._parts.lifecycle.stop()

    def look(self) -> None:
        """Note what is done of the owned partitions; called at intervals, and once when all of it is done."""

    async def run(self) -> None:
        """Run until all records have an outcome, and that is committed.

        After a failure: commit what is done, and raise the failure.
        """
        parts = self._parts
        others = [parts.engine.commit_forever, self._until_done]
        await parts.lifecycle.run(parts.engine, parts.source, parts.letters, self._poll, others)
        parts.lifecycle.raise_failure()

    async def _poll(self) -> None:
        await self._parts.bounded.start(self._parts.engine)
        await self._parts.engine.poll_forever()

    async def _until_done(self) -> None:
        """End when all records of the owned partitions are done; other members of the group run the rest.

        Without partitions, wait for ``EMPTY_LOOKS`` looks before the end: the member may be between two epochs.
        """
        empty_looks, owned = 0, self._parts.engine.partitions
        while empty_looks < EMPTY_LOOKS:
            await asyncio.sleep(LOOK_SECONDS)
            self.look()
            owned = self._parts.engine.partitions
            undone = [key for key in owned if not self._is_done(key)]  # each is asked, which makes it settle
            if owned and not undone:
                break
            waits = not self.joined or self._parts.source.rebalancing
            empty_looks = 0 if owned or waits else empty_looks + 1
        self.look()
        self.complete = not self._parts.lifecycle.stopping.is_set()
        self.shared = self.complete and not self._ends.keys() <= owned.keys()
        self._parts.lifecycle.stop()

    def _is_done(self, key: TopicPartition) -> bool:
        """Whether a partition is read to its end, and all of that is committed.

        A handler may keep records until its flush, which fails while its disk is full: the run goes on until it has
        succeeded. Batches are called at the end, however long they would wait for more records.
        """
        if key not in self._ends:
            return True
        return self._parts.bounded.is_read(key) and self._parts.engine.settles(key)
