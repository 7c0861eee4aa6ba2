"""Measures the end offsets of the owned partitions: for lag, and to notice an outage of the brokers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping

from consumer.delivery.engine import Engine
from consumer.delivery.worker import Workers
from consumer.kafka.client_source import ClientSource
from consumer.record import TopicPartition

MEASURE_SECONDS = 3.0
"""Maximum age of an end offset before it is asked for."""
FLOWING_SECONDS = 0.2
"""The same while records of the partition are worked on."""
NOTE_SECONDS = 0.1
IDLE_SECONDS = 0.5
"""Seconds between two looks while nothing is worked on."""


class Measuring:
    """Keeps the end offsets of an engine's partitions fresh; owned by the daemon and as long-lived."""

    def __init__(self, source: ClientSource, engine: Engine) -> None:
        self._source = source
        self._engine = engine
        self._asked_at: dict[TopicPartition, float] = {}
        """Monotonic time of the last question for the end of each partition."""

    async def note_forever(self) -> None:
        """Note the ends that answers to fetches carried: those of idle partitions, and of those that are fetched."""
        while True:
            self._note(self._source.fetched_ends())
            await asyncio.sleep(NOTE_SECONDS if self._flows() else IDLE_SECONDS)

    def note_first(self) -> None:
        """Note ends that are not known yet, before records are taken: the first may keep the event loop for long."""
        if any(each.partition.lag.end_offset is None for each in self._engine.workers):
            self._note(self._source.fetched_ends())

    async def ask_forever(self) -> None:
        """Ask for the ends that no answer has carried lately.

        A partition whose buffer is full is not fetched: while its records flow, it is asked for more often.
        """
        asked_at = -MEASURE_SECONDS
        while True:
            now, workers = time.monotonic(), self._engine.workers
            stale = [each.partition.key for each in workers if self._is_stale(each, now)]
            if stale or (not workers and now - asked_at >= MEASURE_SECONDS):
                asked_at = now
                owned = {each.partition.key for each in workers}
                self._asked_at = {key: at for key, at in self._asked_at.items() if key in owned} | dict.fromkeys(
                    stale, now
                )
                ends = await self._source.end_offsets(stale)
                self._note({key: (end, time.monotonic()) for key, end in ends.items()})
            await asyncio.sleep(FLOWING_SECONDS if self._flows() else IDLE_SECONDS)

    def _flows(self) -> bool:
        return any(map(_works, self._engine.workers))

    def _is_stale(self, workers: Workers, now: float) -> bool:
        """Whether the end of a partition is to be asked for again."""
        measured_at = workers.partition.lag.measured_at
        answers = now - measured_at < MEASURE_SECONDS
        seconds = FLOWING_SECONDS if answers and _works(workers) else MEASURE_SECONDS
        return now - max(measured_at, self._asked_at.get(workers.partition.key, 0.0)) >= seconds

    def _note(self, ends: Mapping[TopicPartition, tuple[int, float]]) -> None:
        """Note end offsets, each with the monotonic time of the answer; a later answer may be known already."""
        partitions, wall_less_monotonic = self._engine.partitions, time.time() - time.monotonic()
        for key, (end, at) in ends.items():
            partition = partitions.get(key)
            if partition is not None and at > partition.lag.measured_at:
                committed, position = partition.known_committed, partition.position
                partition.lag.ends_at(end, committed, at, at + wall_less_monotonic, position)


def _works(workers: Workers) -> bool:
    """Whether records are worked on; one that is halted or paused has no worker that waits for data either."""
    return not (workers.idle or workers.partition.ended or workers.partition.pauses)
