"""Reconciliation: brings what this member has to what its coordinator wants it to have."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Mapping
from typing import Any, NamedTuple, Protocol

import structlog

from consumer.errors import ConsumerError, KafkaError
from consumer.kafka.coordinator import UNANSWERED
from consumer.kafka.failures import described
from consumer.kafka.heartbeats import Heartbeats
from consumer.kafka.holdings import Holdings
from consumer.kafka.membership import Membership, Place
from consumer.kafka.topic_ids import TopicIds
from consumer.logs import Sparingly
from consumer.record import TopicPartition

sparing = Sparingly(structlog.get_logger("consumer.kafka"))

AGAIN_SECONDS = 0.2
"""Wait before the name of a topic is asked for again."""


class Moves(Protocol):
    """What moves partitions: the source."""

    async def let_go(self, keys: Collection[TopicPartition], *, lost: bool) -> None:
        """Drain and commit partitions, or drop them if they are lost; return when nothing of them is under way."""

    async def starts(self, keys: Collection[TopicPartition]) -> Mapping[TopicPartition, int | None]:
        """Return where partitions begin; -1 where the group has no offset, None where nothing is to be read.

        What is not known yet is left out, and asked for again.
        """

    def begin(self, starts: Mapping[TopicPartition, int], since: float) -> None:
        """Begin to consume partitions, which the group gave at ``since`` (monotonic)."""

    def acknowledged(self) -> None:
        """Note that the group knows of all partitions that were let go of."""

    def fail(self, error: Exception) -> None:
        """End the daemon."""


class Leaving(NamedTuple):
    """Partitions that are being let go."""

    places: frozenset[Place]
    keys: frozenset[TopicPartition]
    life: int


class Reconciliation:
    """Owned by the source, one for each client.

    ``step`` decides, whenever something has changed, and starts tasks that call it again when they end:
    let go of what the target lacks → acknowledge, all at once → find offsets → begin. A newer target supersedes an
    older one at every wait: each step compares what this member has with the target of that moment.
    """

    def __init__(
        self,
        member: Membership,
        heartbeats: Heartbeats,
        holdings: Holdings,
        topic_ids: TopicIds,
        moves: Moves,
    ) -> None:
        self._member = member
        self._heartbeats = heartbeats
        self._holdings = holdings
        self._topic_ids = topic_ids
        self._moves = moves
        self._life = member.life
        self._leaving: dict[asyncio.Task[None], Leaving] = {}
        self._taking: asyncio.Task[None] | None = None
        self._wanted: frozenset[Place] = frozenset()
        """What ``_taking`` takes."""
        self._stopped = False
        member.changed = self.step
        member.settled = lambda: not self._leaving

    @property
    def draining(self) -> set[TopicPartition]:
        """Partitions that are being let go."""
        return {key for each in list(self._leaving.values()) for key in each.keys}

    @property
    def unbegun(self) -> set[TopicPartition]:
        """Partitions that this member may use and that have not begun. Read from any thread."""
        places = self._member.target.difference(list(self._holdings.keys))
        return {TopicPartition(self._topic_ids.known(each.topic_id), each.partition) for each in places} - self.draining

    def step(self) -> None:
        """Start what comes next."""
        member = self._member
        if self._life != member.life:
            self._life = member.life
            self._lose()
        if self._stopped:
            return
        if not self._wanted <= member.target:
            self._give_up_taking()
        leaving = {place for each in self._leaving.values() if each.life == self._life for place in each.places}
        if gone := self._holdings.owned - member.target - leaving:
            self._start_leaving(gone, lost=False)
        elif not leaving and not member.acknowledged:
            self._heartbeats.now()
        elif not leaving:
            self._go_on()

    def _go_on(self) -> None:
        """Begin what is new: nothing is to be let go of, and the group knows."""
        self._moves.acknowledged()
        new = self._member.target - self._holdings.owned
        if not new <= self._wanted:  # what is being taken may wait for long: it is asked for again with the rest
            self._give_up_taking()
            self._wanted = new
            self._taking = self._start(self._take(new))

    def hold(self) -> None:
        """Begin nothing more: all is about to be let go of. What is lost is still dropped."""
        self._stopped = True
        self._give_up_taking()

    async def stop(self) -> None:
        """Begin nothing more, and wait for what is being let go."""
        self.hold()
        if self._leaving:
            await asyncio.wait(self._leaving)

    def _lose(self) -> None:
        """Drop everything at once: the group has given it away, and a commit would be wrong."""
        lost = set(self._holdings.owned)
        if lost:
            self._start_leaving(lost, lost=True)
        for place in lost:
            self._holdings.remove(place)

    def _start_leaving(self, places: Collection[Place], *, lost: bool) -> None:
        keys = frozenset(self._holdings.keys[place] for place in places)
        task = self._start(self._moves.let_go(keys, lost=lost))
        self._leaving[task] = Leaving(frozenset(places), keys, -1 if lost else self._life)
        task.add_done_callback(self._has_left)

    def _has_left(self, task: asyncio.Task[None]) -> None:
        leaving = self._leaving.pop(task)
        if task.cancelled() or task.exception() is not None:
            return  # the daemon ends: its calls may go on, so nothing is acknowledged
        if leaving.life == self._life:
            for place in leaving.places:
                self._holdings.remove(place)
        self.step()

    def _give_up_taking(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
        self._taking, self._wanted = None, frozenset()

    async def _take(self, wanted: Collection[Place]) -> None:
        """Find where partitions begin, and begin these; what is still drained, or not known yet, comes later."""
        found = await self._keys_of(wanted)
        draining = self.draining
        keys = {place: key for place, key in found.items() if key not in draining}
        starts = await self._moves.starts(keys.values()) if keys else {}
        for place, key in keys.items():
            if key in starts:
                self._holdings.add(place, key)
        if read := {key: offset for key, offset in starts.items() if offset is not None}:
            self._moves.begin(read, self._member.target_since)
        if len(starts) < len(wanted):
            await asyncio.sleep(AGAIN_SECONDS)

    async def _keys_of(self, wanted: Collection[Place]) -> dict[Place, TopicPartition]:
        try:
            names = await self._topic_ids.names({place.topic_id for place in wanted})
        except UNANSWERED as error:
            sparing.info("topics_delayed", why=described(error))
            return {}
        return {
            place: TopicPartition(names[place.topic_id], place.partition) for place in wanted if place.topic_id in names
        }

    def _start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start a task whose errors end the daemon."""
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        if task is self._taking:
            self._taking, self._wanted = None, frozenset()
        error = None if task.cancelled() else task.exception()
        if isinstance(error, ConsumerError):
            self._moves.fail(error)
        elif error is not None:
            self._moves.fail(KafkaError(f"a rebalance failed: {described(error)}"))
        elif task not in self._leaving and not task.cancelled():
            self.step()
