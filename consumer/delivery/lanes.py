"""The work on one partition in one epoch: records pulled in place, and calls that may overlap as the ordering allows.

The story of a pull. One runner at a time pulls records from the chunk and dispatches each. As long as handlers do not
wait, that runner is alone: a record is done when its dispatch returns, nothing is registered anywhere, and a key costs
what no key costs. When a handler does wait, the event loop goes on to ``_after_yield``, which was put behind the
runner when it began to pull: only then is the record held in the watermark and its key marked as busy, and
another runner takes over pulling, up to ``concurrency`` of them. A runner that comes back from its wait releases its
record, does what queued up behind its key meanwhile, and ends if another pulls by now.
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
from consumer.record import TopicPartition
from consumer.routes.route import Route
from consumer.settings.sections import Delivery


class Intake(Protocol):
    """Where chunks are taken from."""

    def take(self, key: TopicPartition) -> Chunk | None:
        """Return what comes next in a partition, or None when nothing is there yet; raises CorruptBatchError."""

    def salvage(self, key: TopicPartition, position: int, error: Exception) -> Chunk:
        """Return what can still be read, from ``position`` on, of the chunk taken last, out of which pulling raised.

        Raises CorruptBatchError when its records cannot be told apart.
        """


Tasks = set[asyncio.Task[None]]
Queue = deque[tuple[Any, Callable[[], Awaitable[Any] | None]]]
"""Raw records behind a busy key, each with what calls its handlers."""


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
        """Whether pulling waits for data; ``wake`` ends that."""
        self._intake = intake
        self._delivery = delivery
        self._turns = turns
        self._counters = counters
        self._begin_task = begin_task
        self._failures = failures
        self._concurrency = 1 if delivery.ordering == "partition" else delivery.concurrency
        # A place that becomes free: the puller may be waiting in a call, and had nobody to hand over to until now.
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
        """The record that the puller has in dispatch; None while it waits of its own accord."""
        self._armed = False
        self._step = 1
        """Records between two looks at the clock: fewer when handlers are slow."""

    def begin(
        self,
        calls: Calls,
        fast_loop: FastLoop | None,
        batches: list[RouteBatch],
        only: tuple[str, RouteCounters] | None,
        earlier: Collection[asyncio.Task[None]],
    ) -> None:
        """Start pulling, after whatever still works on this partition from an epoch before.

        ``only`` is the single route that there is, whose awaited calls are counted here.
        """
        if only is not None:
            self._route, self._counts = only
        self._calls = calls
        self._fast_loop = fast_loop
        self._batches = self.partition.batches = batches
        self.gate.runners += 1
        self.spawn(self._run_after(earlier))

    def _retry(self, raw: Any, route: str, behind: bool) -> Coroutine[Any, Any, None]:
        return self._calls.retry(raw, route, behind)

    def chosen(self, raw: Any) -> tuple[Any, Sequence[Route]]:
        """Return a raw record's event and the routes that get it."""
        return self._calls.chosen(raw)

    def close(self) -> None:
        """Start nothing more, but for batches in the making, which are called at once."""
        self.partition.close()
        for batch in self._batches:
            batch.call_now()
        self.gate.wake()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """FastLoop something as a task that the drain waits for."""
        task = self._begin_task(work)
        if task is not None:
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    # -- runners -------------------------------------------------------------------------------------------------

    async def _run_after(self, earlier: Collection[asyncio.Task[None]]) -> None:
        if earlier:
            await asyncio.wait(earlier)
        await self._run()

    async def _run(self) -> None:
        """Pull while nobody else does; end when another took over, or there is nothing more to start.

        Its place is counted where it is spawned: until it runs nobody else may take that.
        """
        try:
            while self._puller is None and not self.partition.ended:
                me = self._puller = object()
                await self._pull(me)
                if self._puller is me:
                    self._puller = None
        finally:
            self.gate.leave()

    async def _pull(self, me: object) -> None:
        while self._puller is me:
            try:
                chunk = self._chunk or self._intake.take(self.partition.key)
            except CorruptBatchError as corrupt:
                self._halt(corrupt)
                return
            if chunk is None:
                if not await self._data():
                    return
                continue
            if self._chunk is None:
                if not await self._set_back(chunk):
                    return
                self._begin_chunk(chunk)
            if (self._crowded() or time.monotonic() >= self._turns.end) and not await self._next_turn():
                return
            # While a key is busy the flat loop would overtake it.
            fast_loop = None if self._busy else self._fast_loop
            if not await (self._pull_fast(me, chunk, fast_loop) if fast_loop else self._pull_chunk(me, chunk)):
                return

    async def _set_back(self, chunk: Chunk) -> bool:
        """Begin anew where the log has become shorter than what was done, and ``out_of_range`` says to go on there.

        What is in work was of the longer log: it ends first. False when the partition ended meanwhile.
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
            batch.reads_from(chunk)

    def _end_chunk(self, chunk: Chunk) -> None:
        self._chunk = None
        self.partition.watermark.advance(chunk.next_offset)
        for batch in self._batches:
            batch.chunk_ended()

    async def _pull_fast(self, me: object, chunk: Chunk, fast_loop: FastLoop) -> bool:
        """Handle a chunk's records by the flat loop, a turn at a time; False when pulling is over."""
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
        """Bring the record at which the fast loop broke off to its outcome; False when this runner pulls no more."""
        if self._concurrency > 1:
            if done.rest is not None:  # it returned a coroutine: it is no plain function after all
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
        """Dispatch a chunk's records in place; False when pulling is over for this runner."""
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
                    busy[raw.key].append((raw, self._later(raw)))
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
                            if count == 1:  # what waits first may wait for long
                                self._note(raw)
                            await rest
                            counts.handled += 1
                            if loop.rounds != rounds:  # it has waited, or may have
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
        """Whether what is in flight leaves no room for more."""
        partition, limits = self.partition, self._delivery
        return (
            partition.blocked > 0
            or partition.pausing > 0
            or partition.held_records >= limits.max_in_flight_records
            or partition.held_bytes >= limits.max_in_flight_bytes
        )

    def _later(self, raw: Any) -> Callable[[], Awaitable[Any] | None]:
        """Prepare the call of a record that must wait; what cannot be read fails when its turn comes."""
        try:
            return self._calls.early(raw)
        except DecodeError as error:
            failed = error

            def fail() -> None:
                raise failed

            return fail

    async def _outcome(self, raw: Any, rest: Awaitable[Any] | None, failed: BaseException | None) -> bool:
        """Bring a record that waits, or failed, to its outcome; False when the partition ended first."""
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

    async def _settle(self, raw: Any, error: BaseException) -> bool:
        failed = error if isinstance(error, DecodeError) else failure_of(error, self._route, self.partition)
        if not isinstance(failed, DecodeError | HandlerFailedError):
            raise failed from None
        if isinstance(failed, HandlerFailedError) and not failed.route:  # a match raised, before any handler
            failed = DecodeError("undecodable", f"no route can be found for it: {place_of(failed.error)}")
        # Others may go on meanwhile, if the ordering lets them.
        self._arm()
        self._note(raw, always=True)
        return await self.failure_handler.settle(raw, failed)

    def _salvage(self, error: Exception) -> bool:
        """Go on with what can be read of a batch out of which pulling raised, or halt."""
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

    def _count(self, records: int, last: Any, seconds: float) -> None:
        """Count what was pulled within so many seconds; the age of the last, when its work began, stands for all.

        Formats of old have records without a timestamp (None, or -1).
        """
        topic = self.partition.key.topic
        self._counters.records_consumed[topic] += records
        if (last.timestamp or -1) >= 0:
            age = time.time() - seconds - last.timestamp / 1000
            self._counters.record_age[topic].observe(max(0.0, age), records)
        self._note(last)

    def _note(self, raw: Any, *, always: bool = False) -> None:
        """Note a record that is in work, at most so often."""
        now, ages = time.monotonic(), self.partition.lag.ages
        if always or now >= ages.next_at:
            ages.note(raw.offset, raw.timestamp, now)

    def _end_slice(self, records: int, last: Any, began: float, waited: float) -> None:
        """Count a slice of pulled records, and the time that their calls kept the loop; an ended one has no records."""
        if records:
            seconds = time.monotonic() - began
            self._counts.inline_seconds += max(0.0, seconds - waited)
            self._count(records, last, seconds)

    async def _data(self) -> bool:
        """Wait until something can be taken; False at the end."""
        self.idle = True
        await self.gate.woken()
        self.idle = False
        return not self.partition.ended

    async def _room(self) -> bool:
        """Wait until there is room again; False at the end."""
        while self._crowded():
            await self.gate.woken()
            if self.partition.ended:
                return False
        return True

    async def _next_turn(self) -> bool:
        """Give the loop back, and go on when there is room too; False at the end."""
        while not self.partition.ended:
            if self._crowded() and not await self._room():
                return False
            await self._turns.next()
            if not self._crowded():  # somebody may have said Pause while this one waited for its turn
                return not self.partition.ended
        return False

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
        if raw is None or self.gate.runners >= self.gate.places or partition.ended:
            return
        self._hold_current(raw)
        self._puller = self._current = None
        self.gate.runners += 1
        self.spawn(self._run())

    def _hold_current(self, raw: Any) -> None:
        """Register a record whose call waits, so that others may be pulled past it."""
        partition = self.partition
        partition.hold(raw.offset, raw)
        self._note(raw)
        partition.watermark.advance(raw.offset + 1)
        if self._busy is not None:
            self._busy[raw.key] = deque()

    async def _finish_held(self, raw: Any) -> None:
        """End a record that was held while its call waited, and do what came behind its key meanwhile."""
        partition = self.partition
        partition.release(raw.offset, raw)
        self.gate.wake()
        if self._busy is None:
            return
        queue = self._busy[raw.key]
        # Also when the partition is closing: what queued up here was delivered, and records of other keys behind it are
        # done. Left undone it would hold the last commit below them, and the next owner would repeat them all.
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
        """Wait for pauses to end; False when nothing more may be started, not even what was delivered."""
        partition = self.partition
        if partition.pausing and not partition.ended:
            await self.gate.unpaused_before_end()
        return partition.halt is None and not partition.over and not partition.pausing
