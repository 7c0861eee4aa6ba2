"""The work on one partition in one epoch: records are pulled in place, and calls overlap as the ordering allows.

How a pull works: one runner at a time pulls records from the chunk and dispatches each. As long as handlers do not
wait, it is the only runner: a record is done when its dispatch returns, nothing is registered, and ordering by key
costs nothing. When a handler waits, the event loop runs ``_after_yield``, which the runner scheduled before it began to
pull. Only then is the record held in the watermark and its key marked as busy, and another runner takes over pulling,
up to ``concurrency`` of them. A runner whose wait is over releases its record, handles the records that queued behind
its key, and ends if another runner pulls by then.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Sequence
from typing import Any, Protocol

from consumer.delivery.batch import RouteBatch
from consumer.delivery.dispatch import Calls, failure_of
from consumer.delivery.failure import FailureHandler, Failures
from consumer.delivery.fast_loop import LOOK_EVERY, SLOW_SECONDS, FastLoop, FastLoopResult
from consumer.delivery.gate import Gate
from consumer.delivery.turns import Turns
from consumer.errors import BatchTooLargeError, CorruptBatchError, DecodeError, HandlerFailedError, place_of
from consumer.observe.counters import Counters, RouteCounters
from consumer.outcome import HaltReason
from consumer.partition.chunk import Chunk
from consumer.partition.state import Partition
from consumer.record import RawRecord, TopicPartition
from consumer.routes.route import Route
from consumer.settings.sections import Delivery


class Intake(Protocol):
    """Origin of chunks."""

    def take(self, key: TopicPartition) -> Chunk | None:
        """Return the next chunk of a partition, or None if there is none yet; raise CorruptBatchError."""

    def salvage(self, key: TopicPartition, position: int, error: Exception) -> Chunk:
        """Return the readable records, from ``position`` on, of the chunk taken last, which raised ``error``.

        Raise CorruptBatchError if its records cannot be told apart.
        """


Tasks = set[asyncio.Task[None]]
Queue = deque[tuple[RawRecord, Callable[[], Awaitable[Any] | None]]]
"""Raw records behind a busy key, each with the function that calls its handlers."""


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
        counters: Counters,
        begin_task: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None] | None],
        failures: Failures,
    ) -> None:
        self.partition = partition
        self.tasks: Tasks = set()
        self.idle = False
        """Whether the puller waits for data; ``gate.wake`` ends that."""
        self._intake = intake
        self._delivery = delivery
        self._turns = turns
        self._counters = counters
        self._begin_task = begin_task
        self._failures = failures
        self._concurrency = 1 if delivery.ordering == "partition" else delivery.concurrency
        # When a slot becomes free, the puller may be waiting in a call, without a slot for a runner to take over.
        self.gate = Gate(partition, self._concurrency, self._after_yield)
        self.failure_handler = FailureHandler(partition, self.gate, failures, counters, self._retry)
        self._busy: dict[bytes | None, Queue] | None = {} if delivery.ordering == "key" else None
        self._batches: list[RouteBatch] = []
        self._calls: Calls
        self._fast_loop: FastLoop | None = None
        self._route, self._counts = "", RouteCounters()
        self._chunk: Chunk | None = None
        self._puller: object | None = None
        self._current: Any = None
        """The record that the puller dispatches; None while the puller waits for data, room or a turn."""
        self._armed = False
        self._step = 1
        """Records between two reads of the clock: fewer if handlers are slow."""

    def begin(
        self,
        calls: Calls,
        fast_loop: FastLoop | None,
        batches: list[RouteBatch],
        only: tuple[str, RouteCounters] | None,
        earlier: Collection[asyncio.Task[None]],
    ) -> None:
        """Start pulling, after the tasks of an earlier epoch that still work on this partition.

        ``only`` is the single route, if there is only one; its awaited calls are counted here.
        """
        if only is not None:
            self._route, self._counts = only
        self._calls = calls
        self._fast_loop = fast_loop
        self._batches = self.partition.batches = batches
        self.gate.runners += 1
        self.spawn(self._run_after(earlier))

    def _retry(self, raw: RawRecord, route: str, only_following: bool) -> Coroutine[Any, Any, None]:
        return self._calls.retry(raw, route, only_following)

    def decode_and_route(self, raw: RawRecord) -> tuple[Any, Sequence[Route]]:
        """Return a raw record's event and the routes that get it."""
        return self._calls.decode_and_route(raw)

    def close(self) -> None:
        """Start nothing more, except batches already collected, which are called at once."""
        self.partition.close()
        for batch in self._batches:
            batch.call_now()
        self.gate.wake()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine as a task that the drain waits for."""
        task = self._begin_task(work)
        if task is not None:
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def _run_after(self, earlier: Collection[asyncio.Task[None]]) -> None:
        if earlier:
            await asyncio.wait(earlier)
        await self._run()

    async def _run(self) -> None:
        """Pull until another runner takes over or nothing more may be started.

        The caller that spawns a runner counts its slot, so that no other runner takes the slot before this one runs.
        """
        try:
            while self._puller is None and not self.partition.ended:
                me = self._puller = object()
                await self._pull(me)
                if self._puller is me:
                    self._puller = None
        finally:
            self.gate.free_slot()

    async def _pull(self, me: object) -> None:
        while self._puller is me:
            try:
                chunk = self._chunk or self._intake.take(self.partition.key)
            except CorruptBatchError as corrupt:
                self._halt(corrupt)
                return
            if chunk is None:
                if not await self._wait_for_data():
                    return
                continue
            if self._chunk is None:
                if not await self._follow_truncation(chunk):
                    return
                self._begin_chunk(chunk)
            if (self._crowded() or time.monotonic() >= self._turns.end) and not await self._next_turn():
                return
            # While a key is busy, the fast loop would overtake the records queued behind it.
            fast_loop = None if self._busy else self._fast_loop
            if not await (self._pull_fast(me, chunk, fast_loop) if fast_loop else self._pull_chunk(me, chunk)):
                return

    async def _follow_truncation(self, chunk: Chunk) -> bool:
        """Restart the epoch at a chunk below the position: the log was truncated, and ``out_of_range`` chose an offset.

        Records in flight belong to the log before its truncation and are finished first. Return False if the partition
        ended first.
        """
        watermark = self.partition.watermark
        if chunk.first_offset >= watermark.position:
            return True
        for batch in self._batches:
            batch.call_now()
        while len(watermark):
            if self.partition.ended:
                return False
            await self.gate.woken()
        self.partition.restart(chunk.first_offset)
        return True

    def _begin_chunk(self, chunk: Chunk) -> None:
        self._chunk = chunk
        if not self.partition.started:
            self.partition.start(chunk.first_offset)
        for batch in self._batches:
            batch.begin_chunk(chunk)

    def _end_chunk(self, chunk: Chunk) -> None:
        self._chunk = None
        self.partition.watermark.advance(chunk.next_offset)
        for batch in self._batches:
            batch.end_chunk()

    async def _pull_fast(self, me: object, chunk: Chunk, fast_loop: FastLoop) -> bool:
        """Handle a chunk's records in the fast loop, one turn at a time; return False if this runner pulls no more."""
        partition, turns = self.partition, self._turns
        watermark = partition.watermark
        while not partition.ended:
            done = fast_loop(chunk.records, turns)
            if done.records:
                self._count(done.records, done.last, 0.0)
            if done.position is not None:
                watermark.advance(done.position)
            if done.raw is not None:
                if not await self._finish_fast(me, done):
                    return False
                watermark.advance(done.raw.offset + 1)
            elif done.failed is not None:
                return self._salvage(done.failed)
            elif done.exhausted:
                self._end_chunk(chunk)
                return True
            if not await self._next_turn():
                return False
        return False

    async def _finish_fast(self, me: object, done: FastLoopResult) -> bool:
        """Give the record at which the fast loop stopped its outcome; return False if this runner pulls no more."""
        if self._concurrency > 1:
            if done.rest is not None:  # the handler is no plain function after all: it returned an awaitable
                self._fast_loop = None
            self._current = done.raw
            self._arm()
        if not await self._outcome(done.raw, done.rest, done.failed):
            return False
        if self._puller is not me:
            await self._finish_held(done.raw)
            return False
        self._current = None
        return True

    async def _pull_chunk(self, me: object, chunk: Chunk) -> bool:  # noqa: C901, PLR0912, PLR0915 - the hot loop
        """Dispatch a chunk's records in place; return False if this runner pulls no more."""
        partition, busy, dispatch, turns = self.partition, self._busy, self._calls.dispatch, self._turns
        watermark, monotonic, counts = partition.watermark, time.monotonic, self._counts
        overlapping, batches = self._concurrency > 1, bool(self._batches)
        count, look_at, looked = 0, self._step, monotonic()
        raw: Any = None
        sliced = ended = looked
        waiting, loop, rounds = 0.0, turns.loop, turns.loop.rounds
        pulling = True
        must_wait = False
        self._arm()
        try:
            for raw in chunk.records:
                count += 1
                pulling = False
                if busy and raw.key in busy:
                    partition.hold(raw.offset, raw)
                    busy[raw.key].append((raw, self._prepare(raw)))
                    watermark.position = raw.offset + 1
                    must_wait = self._crowded()
                else:
                    if overlapping:
                        self._current = raw
                    waited = False
                    try:
                        rest = dispatch(raw)
                        if rest is not None:
                            waited = True
                            if count == 1:  # the first call may take long: note the record's age before it
                                self._note_age(raw)
                            await rest
                            counts.handled += 1
                            if loop.rounds != rounds:  # the call has waited, or may have
                                rounds, now = loop.rounds, monotonic()
                                counts.took(now - ended)
                                waiting += now - ended
                                ended = now
                    except BaseException as error:
                        failed = failure_of(error, self._route, partition) if waited else error
                        now = monotonic()
                        if waited and loop.rounds != rounds:
                            counts.took(now - ended)
                            waiting += now - ended
                        waited = True
                        self._end_slice(count, raw, sliced, waiting)
                        count, look_at, waiting = 0, 0, 0.0
                        if not await self._settle(raw, failed):
                            return False
                        rounds, sliced = loop.rounds, monotonic()
                        ended = sliced
                    if waited:
                        must_wait = partition.pausing > 0
                        if overlapping:
                            if self._puller is not me:
                                self._end_slice(count, raw, sliced, waiting)
                                count = 0
                                await self._finish_held(raw)
                                return False
                            if not self._armed:
                                self._arm()
                        if partition.ended:
                            watermark.position = raw.offset + 1
                            return False
                    watermark.position = raw.offset + 1
                    if batches:
                        must_wait = self._crowded() or partition.ended
                pulling = True
                if count < look_at and not must_wait:
                    continue
                now = monotonic()
                self._step = LOOK_EVERY if now - looked < SLOW_SECONDS else 1
                look_at, looked = count + self._step, now
                ended = now
                if must_wait or now >= turns.end:
                    self._current = None
                    self._end_slice(count, raw, sliced, waiting)
                    count, waiting, must_wait = 0, 0.0, False
                    if not await self._next_turn():
                        return False
                    self._arm()
                    look_at, looked = self._step, monotonic()
                    sliced = ended = looked
                    rounds = loop.rounds
        except Exception as error:
            if not pulling:
                raise
            return self._salvage(error)
        finally:
            self._end_slice(count, raw, sliced, waiting)
            if self._puller is me:
                self._current = None
        self._end_chunk(chunk)
        return True

    def _crowded(self) -> bool:
        """Whether the partition may take no record now: its room is used, a batch is full, or a record pauses it."""
        partition, limits = self.partition, self._delivery
        return (
            partition.blocked > 0
            or partition.pausing > 0
            or partition.held_records >= limits.max_in_flight_records
            or partition.held_bytes >= limits.max_in_flight_bytes
        )

    def _prepare(self, raw: RawRecord) -> Callable[[], Awaitable[Any] | None]:
        """Prepare the call of a record that must wait; a record that cannot be decoded fails when it is called."""
        try:
            return self._calls.prepare(raw)
        except DecodeError as error:
            failed = error

            def fail() -> None:
                raise failed

            return fail

    async def _outcome(self, raw: RawRecord, rest: Awaitable[Any] | None, failed: BaseException | None) -> bool:
        """Give a record whose call waits, or failed, its outcome; return False if the partition ended first."""
        if rest is not None:
            began = time.monotonic()
            try:
                await rest
            except BaseException as error:
                failed = failure_of(error, self._route, self.partition)
            else:
                self._counts.handled += 1
            finally:
                self._counts.took(time.monotonic() - began)
        return failed is None or await self._settle(raw, failed)

    async def _settle(self, raw: RawRecord, error: BaseException) -> bool:
        failed = error if isinstance(error, DecodeError) else failure_of(error, self._route, self.partition)
        if not isinstance(failed, DecodeError | HandlerFailedError):
            raise failed from None
        if isinstance(failed, HandlerFailedError) and not failed.route:  # a match raised, before any handler
            failed = DecodeError("undecodable", f"the match of a route raised {place_of(failed.error)}")
        # Other records go on during the wait, if the ordering allows it.
        self._arm()
        self._note_age(raw, always=True)
        return await self.failure_handler.settle(raw, failed)

    def _salvage(self, error: Exception) -> bool:
        """Continue with the readable records of a chunk that raised ``error``, or halt; return False if halted."""
        try:
            chunk = self._intake.salvage(self.partition.key, self.partition.watermark.position, error)
        except CorruptBatchError as corrupt:
            self._halt(corrupt)
            return False
        self._begin_chunk(chunk)
        return True

    def _halt(self, corrupt: CorruptBatchError) -> None:
        reason = HaltReason.BATCH_TOO_LARGE if isinstance(corrupt, BatchTooLargeError) else HaltReason.CORRUPT_BATCH
        self._failures.halts.halt_partition(self.partition, reason, corrupt.offset, str(corrupt), corrupt.next_offset)

    def _count(self, records: int, last: RawRecord, seconds: float) -> None:
        """Count records pulled within ``seconds``; all get the age that the last one had at their begin.

        Old message formats have records without a timestamp (None, or -1).
        """
        topic = self.partition.key.topic
        self._counters.records_consumed[topic] += records
        if (last.timestamp or -1) >= 0:
            age = time.time() - seconds - last.timestamp / 1000
            self._counters.record_age[topic].observe(max(0.0, age), records)
        self._note_age(last)

    def _note_age(self, raw: RawRecord, *, always: bool = False) -> None:
        """Note a record's offset and timestamp for lag in seconds; at most one per interval, unless ``always``."""
        now, ages = time.monotonic(), self.partition.lag.ages
        if always or now >= ages.next_at:
            ages.note(raw.offset, raw.timestamp, now)

    def _end_slice(self, records: int, last: Any, began: float, waited: float) -> None:
        """Count a slice of pulled records and the time that their calls kept the event loop; nothing for 0 records."""
        if records:
            seconds = time.monotonic() - began
            self._counts.inline_seconds += max(0.0, seconds - waited)
            self._count(records, last, seconds)

    async def _wait_for_data(self) -> bool:
        """Wait until there may be a chunk to take; return False if the partition ended."""
        self.idle = True
        await self.gate.woken()
        self.idle = False
        return not self.partition.ended

    async def _wait_for_room(self) -> bool:
        """Wait until there is room; return False if the partition ended."""
        while self._crowded():
            await self.gate.woken()
            if self.partition.ended:
                return False
        return True

    async def _next_turn(self) -> bool:
        """Give the event loop back; return True at the next turn with room, False if the partition ended."""
        while not self.partition.ended:
            if self._crowded() and not await self._wait_for_room():
                return False
            await self._turns.next()
            if not self._crowded():  # a record may have raised Pause during the wait for the turn
                return not self.partition.ended
        return False

    def _arm(self) -> None:
        """Schedule ``_after_yield`` to run as soon as this runner gives the event loop back, for whatever reason."""
        if self._concurrency > 1 and not self._armed:
            self._armed = True
            asyncio.get_running_loop().call_soon(self._yielded)

    def _yielded(self) -> None:
        self._armed = False
        self._after_yield()

    def _after_yield(self) -> None:
        """Hand pulling to another runner if the puller waits in a call and a slot is free."""
        raw, partition = self._current, self.partition
        if raw is None or self.gate.runners >= self.gate.slots or partition.ended:
            return
        self._hold_current(raw)
        self._puller = self._current = None
        self.gate.runners += 1
        self.spawn(self._run())

    def _hold_current(self, raw: RawRecord) -> None:
        """Hold a record whose call waits, so that records behind it may be pulled."""
        partition = self.partition
        partition.hold(raw.offset, raw)
        self._note_age(raw)
        partition.watermark.advance(raw.offset + 1)
        if self._busy is not None:
            self._busy[raw.key] = deque()

    async def _finish_held(self, raw: RawRecord) -> None:
        """Release a record that was held while its call waited, and handle the records that queued behind its key."""
        partition = self.partition
        partition.release(raw.offset, raw)
        self.gate.wake()
        if self._busy is None:
            return
        queue = self._busy[raw.key]
        # Also when the partition is closing: records that queued here were delivered, and later records of other keys
        # may be done. Left undone, the queued ones would hold the last commit below those, and the next owner would
        # repeat them all.
        while queue and await self._may_start():
            following, begin = queue.popleft()
            rest: Awaitable[Any] | None = None
            failed: Exception | None = None
            try:
                rest = begin()
            except Exception as error:
                failed = error
            if (rest is not None or failed is not None) and not await self._outcome(following, rest, failed):
                return
            partition.release(following.offset, following)
            self.gate.wake()
            if time.monotonic() >= self._turns.end:
                await self._turns.next()
        if not queue:
            del self._busy[raw.key]

    async def _may_start(self) -> bool:
        """Wait until the pauses end; return whether a delivered record may still be started."""
        partition = self.partition
        if partition.pausing and not partition.ended:
            await self.gate.unpaused_before_end()
        return partition.halt is None and not partition.over and not partition.pausing
