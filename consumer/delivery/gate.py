"""The gate of one partition: whether a call may start there. Every call asks it, whatever path it comes by."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from enum import Enum

from consumer.partition.hold import Hold
from consumer.partition.state import Partition, Phase


class Kind(Enum):
    """The path that a call comes by."""

    FIRST = "a record that was just pulled"
    QUEUED = "a record that was pulled and waited behind its busy key"
    NEXT_ROUTE = "the next route of a record whose last call has ended"
    RETRY = "a record, or a batch, that is called again"
    BATCH = "a batch that was collected"
    SINGLE = "one record of a failed batch"


DRAINED = frozenset({Kind.QUEUED, Kind.NEXT_ROUTE, Kind.BATCH})
STILL_STARTS: dict[Phase, frozenset[Kind]] = {
    Phase.OPEN: frozenset(Kind),
    Phase.CLOSING: DRAINED,
    Phase.HALTED: DRAINED,
    Phase.OVER: frozenset(),
}
"""What each phase still starts. A drain, and a halt is one, finishes records of several routes, those behind a busy key
and collected batches: records behind these are done, so leaving them would hold the last commit below them, and the
next owner would repeat them all. Of a lost partition nothing starts."""


class PartitionEnded(Exception):  # noqa: N818 - not an error: the way out of everything that waits in a partition
    """Nothing more may start here: raised by the gate, caught once where a task of the partition ends."""


class Gate:
    """Owned by the workers of a partition and as long-lived; the only writer of the partition's phase and pauses."""

    def __init__(self, partition: Partition) -> None:
        self.partition = partition
        self._lost = False
        self._doubt: Hold | None = None
        self._waiting: set[asyncio.Future[None]] = set()
        """What waits for any change."""
        self._staying: set[asyncio.Future[None]] = set()
        """What waits for an end: thousands of letters may, which no other change wakes."""
        self._watchers: list[Callable[[], None]] = []

    def watch(self, watcher: Callable[[], None]) -> None:
        """Have ``watcher`` called after each change."""
        self._watchers.append(watcher)

    def may_start(self, kind: Kind, pause: Hold | None = None) -> bool:
        """Whether a call may start now; ``pause`` is the caller's own, which does not stop it."""
        phase, pauses = self.partition.phase, self.partition.pauses
        if phase is not Phase.OPEN and (self._lost or kind not in STILL_STARTS[phase]):
            return False
        return not pauses or (pause in pauses and self._doubt not in pauses)

    async def until_open(self, kind: Kind, pause: Hold | None = None) -> None:
        """Return when a call may start; raise PartitionEnded when it never may."""
        while not self.may_start(kind, pause):
            if self.partition.phase is not Phase.OPEN and not self.may_start(kind):  # a drain gives up every wait
                raise PartitionEnded
            await _woken(self._waiting)

    async def sleep(self, seconds: float) -> None:
        """Wait before a call is made again; raise PartitionEnded as soon as the partition is not open."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + seconds
        while self.partition.phase is Phase.OPEN and loop.time() < deadline:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(deadline):
                    await _woken(self._staying)
        if self.partition.phase is not Phase.OPEN:
            raise PartitionEnded

    def has_cancelled(self, error: BaseException) -> bool:
        """Whether the caller's await raised ``error`` because its task is to end: by the drain, or with the loop.

        A handler that cancels its own call, or lets the cancellation of another task escape, looks the same. To take it
        for the drain would end the partition's work in silence. The drain says that it is over before it cancels. A
        GeneratorExit that a handler raised has come through the handler's frames.
        """
        if isinstance(error, GeneratorExit):
            return error.__traceback__ is not None and error.__traceback__.tb_next is None
        return isinstance(error, asyncio.CancelledError) and self.partition.phase is Phase.OVER

    def pause(self, hold: Hold) -> None:
        """Start nothing else until ``resume``."""
        if hold not in self.partition.pauses:
            self.partition.pauses.add(hold)
            self.changed()

    def resume(self, hold: Hold) -> None:
        """End a pause; harmless without one."""
        if hold in self.partition.pauses:
            self.partition.pauses.discard(hold)
            self.changed()

    def doubt(self, *, doubtful: bool) -> None:
        """Pause the partition while the group may have given it to another member."""
        if doubtful:
            self._doubt = Hold("group", "", max(0, self.partition.done), time.time())
            self.partition.holds.add(self._doubt)
            self.pause(self._doubt)
        elif self._doubt is not None:
            self.partition.holds.discard(self._doubt)
            self.resume(self._doubt)

    def close(self, *, lost: bool) -> None:
        """Begin the drain; of a lost partition nothing more starts."""
        self._lost = lost
        if self.partition.phase is Phase.OPEN:
            self.partition.phase = Phase.CLOSING
        self._ended()

    def halt(self) -> None:
        """Start nothing more; calls under way end."""
        if self.partition.phase is not Phase.OVER:
            self.partition.phase = Phase.HALTED
        self._ended()

    def end(self) -> None:
        """End the drain: what still runs may change nothing."""
        self.partition.phase = Phase.OVER
        self._ended()

    def _ended(self) -> None:
        _wake(self._staying)
        self.changed()

    def changed(self) -> None:
        """Wake what waits here: a pause or a phase has changed, or there is room again."""
        _wake(self._waiting)
        for watcher in self._watchers:
            watcher()


def _wake(waiting: set[asyncio.Future[None]]) -> None:
    for each in waiting:
        if not each.done():
            each.set_result(None)


async def _woken(waiting: set[asyncio.Future[None]]) -> None:
    woken = asyncio.get_running_loop().create_future()
    waiting.add(woken)
    try:
        await woken
    finally:
        waiting.discard(woken)
