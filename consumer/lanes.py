"""The work on one partition in one epoch: records pulled in place, and calls that may overlap as the ordering allows.

The story of a pull. One runner at a time pulls records from the chunk and dispatches each. As long as handlers do not
wait, that runner is alone: a record is done when its dispatch returns, nothing is registered anywhere, and a key costs
what no key costs. When a handler does wait, the event loop goes on to ``_after_yield``, which was put behind the
runner at the start of its stretch: only then is the record held in the watermark and its key marked as busy, and
another runner takes over pulling, up to ``concurrency`` of them. A runner that comes back from its wait releases its
record, does what queued up behind its key meanwhile, and ends if another pulls by now.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Collection, Coroutine
from typing import Any, Protocol

from consumer.batch import RouteBatch
from consumer.dispatch import Dispatch, HandlerFailedError
from consumer.errors import CorruptBatchError, DecodeError, place_of
from consumer.outcome import HaltReason
from consumer.partition import Chunk, Partition
from consumer.record import TopicPartition
from consumer.settings import Delivery
from consumer.tally import Tally
from consumer.turns import Turns


class Intake(Protocol):
    """Where chunks are taken from."""

    def take(self, key: TopicPartition) -> Chunk | None:
        """Return what comes next in a partition, or None when nothing is there yet; raises CorruptBatchError."""


Halt = Callable[[Partition, HaltReason, int, str], None]
Tasks = set[asyncio.Task[None]]


class Lanes:
    """Owns the runners and batches of one partition; made at its assignment, ended by ``close`` and the drain.

    Invariants:
    - at most one runner pulls, so records are dispatched in offset order
    - with ordering ``partition`` a record is dispatched only when the one before is done; with ``key`` the same holds
      for the records of a key
    - the watermark's position passes a record only when it is done or held
    """

    def __init__(
        self,
        partition: Partition,
        intake: Intake,
        delivery: Delivery,
        turns: Turns,
        tally: Tally,
        begin_task: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        halt: Halt,
    ) -> None:
        self.partition = partition
        self.tasks: Tasks = set()
        self.idle = False
        """Whether pulling waits for data; ``wake`` ends that."""
        self._intake = intake
        self._delivery = delivery
        self._turns = turns
        self._tally = tally
        self._begin_task = begin_task
        self._halt = halt
        self._concurrency = 1 if delivery.ordering == "partition" else delivery.concurrency
        self._busy: dict[bytes | None, deque[Any]] | None = {} if delivery.ordering == "key" else None
        self._batches: list[RouteBatch] = []
        self._dispatch: Dispatch
        self._chunk: Chunk | None = None
        self._runners = 0
        self._puller: object | None = None
        self._current: Any = None
        """The record that the puller has in dispatch; None while it waits of its own accord."""
        self._armed = False
        self._wake = asyncio.Event()

    def begin(self, dispatch: Dispatch, batches: list[RouteBatch], earlier: Collection[asyncio.Task[None]]) -> None:
        """Start pulling, after whatever still works on this partition from an epoch before."""
        self._dispatch = dispatch
        self._batches = batches
        self.spawn(self._run_after(earlier))

    def wake(self) -> None:
        """Say that there may be data, or room, or an end."""
        self._wake.set()

    def close(self) -> None:
        """Start nothing more, but for batches in the making, which are called at once."""
        self.partition.closing = True
        for batch in self._batches:
            batch.call_now()
        self._wake.set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run something as a task that the drain waits for."""
        task = self._begin_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def batch_done(self, offset: int, failed: HandlerFailedError | None) -> None:
        """Go on after a batch, or halt at its first record."""
        if failed is not None:
            self._fail(offset, failed)
        self._wake.set()

    # -- runners -------------------------------------------------------------------------------------------------

    async def _run_after(self, earlier: Collection[asyncio.Task[None]]) -> None:
        if earlier:
            await asyncio.wait(earlier)
        await self._run()

    async def _run(self) -> None:
        """Pull while nobody else does; end when another took over, or there is nothing more to start."""
        self._runners += 1
        try:
            while self._puller is None and not self.partition.ended:
                me = self._puller = object()
                await self._pull(me)
                if self._puller is me:
                    self._puller = None
        finally:
            self._runners -= 1
            # The puller may be waiting in a call, and had nobody to hand over to until now.
            self._after_yield()

    async def _pull(self, me: object) -> None:
        while True:
            try:
                chunk = self._chunk or self._intake.take(self.partition.key)
            except CorruptBatchError as corrupt:
                self._halt(self.partition, HaltReason.CORRUPT_BATCH, corrupt.offset, str(corrupt))
                return
            if chunk is None:
                if not await self._data():
                    return
                continue
            if self._chunk is None:
                self._chunk = chunk
                if self.partition.watermark is None:
                    self.partition.start(chunk.first_offset)
            if not await self._pull_chunk(me, chunk):
                return

    async def _pull_chunk(self, me: object, chunk: Chunk) -> bool:  # noqa: C901, PLR0911, PLR0912, PLR0915 - the hot loop
        """Dispatch a chunk's records in place; False when pulling is over for this runner."""
        partition, busy, dispatch, turns = self.partition, self._busy, self._dispatch, self._turns
        watermark, monotonic = partition.watermark, time.monotonic
        assert watermark is not None
        overlapping = self._concurrency > 1
        limited = overlapping or bool(self._batches)
        max_records, max_bytes = self._delivery.max_in_flight_records, self._delivery.max_in_flight_bytes
        count = 0
        self._arm()
        try:
            for raw in chunk.records:
                count += 1
                if busy and raw.key in busy:
                    partition.hold(raw.offset, raw)
                    busy[raw.key].append(raw)
                    watermark.position = raw.offset + 1
                else:
                    self._current = raw
                    rest = dispatch(raw)
                    if rest is not None:
                        await rest
                        if self._puller is not me:
                            await self._finish_held(raw)
                            return False
                        if overlapping:
                            self._arm()
                    watermark.position = raw.offset + 1
                    if partition.ended:
                        return False
                if monotonic() >= turns.end:
                    self._current = None
                    self._count(count)
                    count = 0
                    await turns.next()
                    if partition.ended:
                        return False
                    self._arm()
                while limited and (
                    partition.blocked
                    or partition.in_flight_records >= max_records
                    or partition.in_flight_bytes >= max_bytes
                ):
                    self._current = None
                    if not await self._room():
                        return False
        except (DecodeError, HandlerFailedError) as failed:
            self._fail(raw.offset, failed)
            return False
        except asyncio.CancelledError:
            raise
        except Exception as error:
            # Dispatch raises nothing else, so this is from pulling: the batch cannot be unpacked, and the records
            # behind this place cannot be told apart.
            reason = f"the batch at or behind offset {watermark.position} cannot be read: {place_of(error)}"
            self._halt(partition, HaltReason.CORRUPT_BATCH, watermark.position, reason)
            return False
        finally:
            self._count(count)
            if self._puller is me:
                self._current = None
        self._chunk = None
        watermark.position = chunk.next_offset
        return True

    def _count(self, records: int) -> None:
        self._tally.records_consumed[self.partition.key.topic] += records

    async def _data(self) -> bool:
        """Wait until something can be taken; False at the end."""
        self.idle = True
        await self._woken()
        self.idle = False
        return not self.partition.ended

    async def _room(self) -> bool:
        """Wait until something in flight is done; False at the end."""
        await self._woken()
        if self.partition.ended:
            return False
        self._arm()
        return True

    async def _woken(self) -> None:
        self._wake.clear()
        if not self.partition.ended:
            await self._wake.wait()

    # -- calls that wait -----------------------------------------------------------------------------------------

    def _arm(self) -> None:
        """Have ``_after_yield`` run when this runner gives the event loop back, however that comes."""
        if self._concurrency > 1 and not self._armed:
            self._armed = True
            asyncio.get_running_loop().call_soon(self._yielded)

    def _yielded(self) -> None:
        self._armed = False
        self._after_yield()

    def _after_yield(self) -> None:
        """Hand pulling to another runner if the puller waits in a call and there is room for one more."""
        raw, partition = self._current, self.partition
        if raw is None or self._runners >= self._concurrency or partition.ended:
            return
        assert partition.watermark is not None
        partition.hold(raw.offset, raw)
        partition.watermark.position = raw.offset + 1
        if self._busy is not None:
            self._busy[raw.key] = deque()
        self._puller = self._current = None
        self.spawn(self._run())

    async def _finish_held(self, raw: Any) -> None:
        """End a record that was held while its call waited, and do what came behind its key meanwhile."""
        partition = self.partition
        partition.release(raw.offset, raw)
        self._wake.set()
        if self._busy is None:
            return
        queue = self._busy[raw.key]
        # Also when the partition is closing: what queued up here was delivered, and records of other keys behind it are
        # done. Left undone it would hold the last commit below them, and the next owner would repeat them all.
        while queue and partition.halt is None:
            following = queue.popleft()
            try:
                rest = self._dispatch(following)
                if rest is not None:
                    await rest
            except (DecodeError, HandlerFailedError) as failed:
                self._fail(following.offset, failed)
                return
            partition.release(following.offset, following)
            self._wake.set()
            if time.monotonic() >= self._turns.end:
                await self._turns.next()
        if not queue:
            del self._busy[raw.key]

    def _fail(self, offset: int, failed: DecodeError | HandlerFailedError) -> None:
        if isinstance(failed, DecodeError):
            self._tally.decode_errors[self.partition.key.topic, failed.reason] += 1
        else:
            self._tally.handler_errors[failed.route, "timeout" if failed.timed_out else "error"] += 1
        self._halt(self.partition, HaltReason.NO_DEAD_LETTER, offset, str(failed))
        self._wake.set()
