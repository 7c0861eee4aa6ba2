"""The workers of one partition: they pull records, call handlers, await those that wait, and go on pulling.

The story of a pull. A worker pulls records out of the chunk in a flat loop (``dispatch.py``). As long as no handler
waits, that worker is alone: a record is done when its calls return, nothing is registered anywhere, and a key costs
nothing. When a call waits, the record is held in the watermark, its key is marked busy, another worker is woken or
made, up to ``concurrency`` of them, and this one awaits the call. Then it releases the record, calls what queued up
behind its key, and goes on pulling by itself. Nobody pulls between a record and its call, so records are dispatched in
offset order, whichever worker pulls. In partition order there is one worker, so its record need not be held.

A record that waits (for a retry, for the end of a pause) is parked with the time at which it goes on, and its worker is
free for others. Closing drops it: it is not done, so it comes again.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Collection
from typing import Any, NamedTuple, Protocol

from consumer.delivery.batch import BatchCalls
from consumer.delivery.dispatch import Dispatch, Ongoing, Step, UnreadableError
from consumer.delivery.failure import FailedCall, FailureHandler, Halts
from consumer.delivery.gate import Gate, Kind
from consumer.delivery.parking import Parked, Parking
from consumer.delivery.tasks import Tasks, until_ended
from consumer.delivery.turns import Turns
from consumer.errors import BatchTooLargeError, CorruptBatchError, DecodeError, HandlerFailedError
from consumer.observe.waiting import CallUnderWay
from consumer.outcome import HaltReason
from consumer.partition.chunk import Chunk, size_of
from consumer.partition.state import Phase
from consumer.record import RawRecord, TopicPartition
from consumer.settings.sections import Delivery


class Intake(Protocol):
    """The source of chunks."""

    def take(self, key: TopicPartition) -> Chunk | None:
        """Return the next chunk of a partition, or None if there is none yet; raise CorruptBatchError."""

    def salvage(self, key: TopicPartition, position: int, error: Exception) -> Chunk:
        """Return what can still be read, from ``position`` on, of the last chunk, whose iterator raised ``error``.

        Raises CorruptBatchError when its records cannot be told apart.
        """


class Work(NamedTuple):
    """What the workers of a partition work with."""

    gate: Gate
    intake: Intake
    dispatch: Dispatch
    batches: list[BatchCalls]
    failure_handler: FailureHandler
    halts: Halts
    tasks: Tasks


class Workers:
    """Owns the workers of one partition in one epoch; made at its assignment, ended by ``close`` and the drain.

    Invariants:
    - records are dispatched in offset order
    - with ordering ``partition`` a record is dispatched only when the one before has its outcome; with ``key`` the same
      holds for the records of a key
    - the watermark's position passes a record only when it is done, held or collected
    - at most ``concurrency`` calls run at once, batches aside
    """

    def __init__(self, work: Work, delivery: Delivery, turns: Turns) -> None:
        self.partition = work.gate.partition
        self.work = work
        self.idle = False
        """Whether a worker would pull if there were data."""
        self.begun_at = self.idle_since = time.monotonic()
        """Monotonic times: of the assignment, and since when no worker pulls."""
        self.closed_at = 0.0
        """Monotonic time at which the drain began."""
        self.gone_since: float | None = None
        """Monotonic time since which the partition waits for another position; None if it does not."""
        self.settled_at: float | None = None
        """Monotonic time since which that waits for nothing else."""
        self.asked_to_commit = False
        """Whether a commit was asked for then."""
        self.waits_for_earlier = False
        """Whether calls of an earlier epoch still work on this partition."""
        self.gate, self._intake, self._dispatch, self._batches, self._failure_handler, self._halts, self._tasks = work
        self._delivery = delivery
        self.turns = turns
        self._limit = 1 if delivery.ordering == "partition" else delivery.concurrency
        self.serial = delivery.ordering == "partition"
        self.busy: dict[bytes | None, deque[Ongoing] | None] = {}
        self._by_key = delivery.ordering == "key"
        self._most_counts = min(len(self._batches) + 1, len(work.dispatch.counters.routes))
        """How often one record counts as in flight, at most: in each batch, and by itself."""
        self._chunk: Chunk | None = None
        self._awaiting: set[Ongoing] = set()
        self._alive = 0
        self._resting: deque[asyncio.Future[None]] = deque()
        self._parking = Parking(work.gate)
        self._underway = 0
        """Records that keep a serial lane: in a call, or parked."""
        self._pulling = 0
        """Workers in the flat loop."""
        self.partition.pulled = self
        self.gate.watch(self.wake)

    def begin(self, earlier: Collection[asyncio.Task[None]]) -> None:
        """Start pulling, once the calls of an earlier epoch that still work on this partition have ended."""
        self._alive += 1
        self._tasks.spawn(self._run(earlier))

    def close(self, *, lost: bool) -> None:
        """Begin the drain: what waits is dropped, batches that were collected are called."""
        self.gate.close(lost=lost)
        self._begin_drain()

    def halted(self) -> None:
        """Drain: what waits is dropped, batches that were collected are called."""
        self.gate.halt()
        self._begin_drain()

    def _begin_drain(self) -> None:
        self.closed_at = time.monotonic()
        self._parking.drop()
        self._call_batches()

    def _call_batches(self) -> None:
        for batch in self._batches:
            batch.call_now()

    @property
    def calls(self) -> list[CallUnderWay]:
        """The calls under way; read from any thread."""
        awaited = [
            CallUnderWay(each.began, each.steps[at].name, each.raw.offset)
            for each in list(self._awaiting)
            if (at := each.at) < len(each.steps)
        ]
        return awaited + self._dispatch.calls + [call for batch in self._batches if (call := batch.calling) is not None]

    @property
    def collecting(self) -> list[tuple[float, float]]:
        """Monotonic time of its begin, and ``max_seconds``, of each batch that waits for more records only."""
        batches = self._batches if not self.partition.pauses else []
        return [collected for batch in batches if (collected := batch.waiting) is not None]

    @property
    def in_flight(self) -> tuple[int, int]:
        """One record and the bytes of the last that was noted, while a flat loop works on a record that is not held."""
        last = self._dispatch.last
        return (1, size_of(last) if last is not None else 0) if self._pulling else (0, 0)

    @property
    def wants(self) -> bool:
        """Whether a worker waits for data."""
        return self.idle and not self.partition.ended

    def settles(self) -> bool:
        """Whether every record that was delivered has its outcome; batches that were collected are called for that."""
        self.gone_since = self.gone_since or time.monotonic()
        if self._chunk is None and not self.partition.ended:
            self._call_batches()
        settled = self._chunk is None and not self.partition.ended and len(self.partition.watermark) == 0
        self.settled_at = (self.settled_at or time.monotonic()) if settled else None
        return settled

    def abandon(self) -> None:
        """Count the calls under way as left without an outcome."""
        for ongoing in self._awaiting:
            ongoing.steps[ongoing.at].counts.abandoned += 1
        self._dispatch.abandon()
        for batch in self._batches:
            batch.abandon()

    def end(self) -> None:
        """End the drain: what still runs may change nothing."""
        self.gate.end()

    async def drained(self, seconds: float) -> None:
        """Wait until what was started has ended, but for the caller; at most ``seconds``."""
        caller = asyncio.current_task()
        await until_ended(lambda: self.tasks - {caller}, seconds)

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        """What has not ended: workers, batches, dead letters."""
        return self._tasks.running

    @property
    def overdue(self) -> int:
        """Calls under way that had begun when the drain did."""
        calls = len(self._dispatch.under_way) + sum(each.began < self.closed_at for each in self._awaiting)
        return calls + sum(batch.calling_since < self.closed_at for batch in self._batches)

    def wake(self) -> None:
        """Have a worker look again: there may be data, or room, or an end of a pause."""
        while self._resting:
            resting = self._resting.popleft()
            if not resting.done():
                resting.set_result(None)
                return
        if self._parking.ready and self._alive < self._limit and self.partition.phase is Phase.OPEN:
            self._add()

    def _add(self) -> None:
        self._alive += 1
        self._tasks.spawn(self._run())

    async def _run(self, earlier: Collection[asyncio.Task[None]] = ()) -> None:
        """Work until the partition ends."""
        try:
            if earlier:
                self.waits_for_earlier = True
                await asyncio.wait(earlier)
                self.waits_for_earlier = False
            while self.partition.phase is Phase.OPEN:
                if self._parking.ready and time.monotonic() >= self.turns.end:
                    await self.turns.next()
                    if self.partition.ended:
                        break
                parked = self._parking.next_ready()
                if parked is not None:
                    await self._go_on(parked)
                elif (chunk := self._next_chunk()) is not None:
                    await self._pull(chunk)
                elif self._resting:
                    return  # one is enough to look for work; more are made when calls wait
                else:
                    await self._rest()
        finally:
            self._alive -= 1
            if self.partition.phase is not Phase.OPEN:  # one was woken at the end: it wakes the next
                self.wake()

    async def _rest(self) -> None:
        self._note()
        self.idle_since = time.monotonic()
        resting = asyncio.get_running_loop().create_future()
        self._resting.append(resting)
        await resting

    def another(self) -> None:
        """Let another worker pull, as this one will await a call."""
        if self._resting:
            self.wake()
        elif self._alive < self._limit and self.partition.phase is Phase.OPEN:
            self._add()

    def _next_chunk(self) -> Chunk | None:
        """Return the chunk to pull from; None when there is none, no room for it, or nothing may start."""
        self.idle = False
        if not self.gate.may_start(Kind.FIRST) or not self._makes_room() or (self.serial and self._underway):
            return None
        if self._chunk is None and (chunk := self._take()) is not None:
            self._chunk = chunk
            self._begin_chunk(chunk)
        return self._chunk

    def _take(self) -> Chunk | None:
        try:
            chunk = self._intake.take(self.partition.key)
        except CorruptBatchError as corrupt:
            self._halt(corrupt)
            return None
        self.idle = chunk is None
        return chunk

    def _begin_chunk(self, chunk: Chunk) -> None:
        if not self.partition.started:
            self.partition.start(chunk.first_offset)
        for batch in self._batches:
            batch.collecting.begin_chunk(chunk)
        self.partition.begin_chunk(chunk)
        if chunk.next_offset > chunk.first_offset:
            first, last, now = chunk.first_offset, chunk.next_offset, time.monotonic()
            self.partition.lag.delivered(first, last, chunk.timestamp, now, time.time())

    def has_room(self) -> bool:
        """Whether another record may be taken. It calls nothing: the flat loop asks while it fills batches."""
        partition, limits = self.partition, self._delivery
        records, size = partition.held_records, partition.held_bytes
        if self._batches:
            if any(batch.collecting.is_full for batch in self._batches):
                return False
            records, size = partition.occupied
            records += self._most_counts - 1 if records else 0
        return records < limits.max_in_flight_records and size < limits.max_in_flight_bytes

    def _makes_room(self) -> bool:
        """Whether there is room; when batches use it up before they are full, they are called to make some."""
        if self.has_room():
            return True
        if not any(batch.collecting.is_full for batch in self._batches):
            self._call_batches()
        return self.has_room()

    async def _pull(self, chunk: Chunk) -> None:
        """Pull from a chunk until it is exhausted, or until this worker may not go on with it."""
        if time.monotonic() >= self.turns.end:
            await self.turns.next()
            if self._next_chunk() is not chunk:
                return  # another worker has pulled, or something was paused in between
        self._pulling += 1
        try:
            if await self._dispatch.pull(chunk, self):
                self._end_chunk(chunk)
        except UnreadableError as unreadable:
            self._salvage(unreadable.__cause__)
        finally:
            self._pulling -= 1
            self._note()

    async def see_to(self, ongoing: Ongoing | None) -> None:
        """Do what the flat loop stopped for: full batches, the end of a turn, a held record's way to its outcome."""
        for batch in self._batches:
            batch.look()
        if ongoing is not None:
            await self._finish(ongoing)
        if time.monotonic() >= self.turns.end and self.partition.phase is Phase.OPEN:
            self._note()
            await self.turns.next()

    def goes_on(self, chunk: Chunk) -> bool:
        """Whether this worker may go on with its chunk; the usual case is decided by a few comparisons."""
        partition, limits = self.partition, self._delivery
        if self._parking.ready or self._chunk is not chunk:
            return False
        if self._batches or partition.pauses or partition.phase is not Phase.OPEN:
            return self._next_chunk() is chunk
        if partition.held_records < limits.max_in_flight_records and partition.held_bytes < limits.max_in_flight_bytes:
            return not (self.serial and self._underway)
        return False

    def _end_chunk(self, chunk: Chunk) -> None:
        self._chunk = None
        self.partition.watermark.advance(chunk.next_offset)
        for batch in self._batches:
            batch.look()
            batch.collecting.end_chunk()
        chunk.reread = chunk.fetch = None  # workers whose calls wait still have this chunk

    def _note(self) -> None:
        """Note the age of the last record that was pulled; it stands for all that were pulled since the last time."""
        dispatch = self._dispatch
        records, last = dispatch.unaged, dispatch.last
        if records and last is not None:
            dispatch.unaged = 0
            if (last.timestamp or -1) >= 0:  # old formats have records without a timestamp (None, or -1)
                age = dispatch.seen_at - last.timestamp / 1000
                dispatch.counters.record_age[self.partition.key.topic].observe(max(0.0, age), records)
            self._note_age(last)

    def _note_age(self, raw: RawRecord, *, always: bool = False) -> None:
        now, ages = time.monotonic(), self.partition.lag.ages
        if always or now >= ages.next_at:
            ages.note(raw.offset, raw.timestamp, now)

    def _salvage(self, error: Any) -> None:
        """Go on with what can be read of a chunk whose iterator raised, or halt."""
        try:
            self._chunk = self._intake.salvage(self.partition.key, self.partition.watermark.position, error)
        except CorruptBatchError as corrupt:
            self._halt(corrupt)
        else:
            self._begin_chunk(self._chunk)

    def _halt(self, corrupt: CorruptBatchError) -> None:
        reason = HaltReason.BATCH_TOO_LARGE if isinstance(corrupt, BatchTooLargeError) else HaltReason.CORRUPT_BATCH
        self._halts.halt_partition(self.partition, reason, corrupt.offset, str(corrupt), corrupt.next_offset)

    def hold(self, raw: RawRecord, now: float) -> int:
        """Hold a record whose call waits or failed, so that others may be pulled past it; return its size."""
        size = size_of(raw)
        self.partition.hold(raw.offset, size)
        self.partition.watermark.advance(raw.offset + 1)
        if now >= self.partition.lag.ages.next_at:
            self._note_age(raw)
        self._underway += 1
        if self._by_key:
            self.busy[raw.key] = None
        return size

    def queue_behind(self, raw: RawRecord, event: Any, steps: list[Step]) -> None:
        """Keep a record until its key is free."""
        ongoing = Ongoing(raw, event, steps, size=size_of(raw))
        self.partition.hold(raw.offset, ongoing.size)
        queue = self.busy[raw.key]
        if queue is None:
            queue = self.busy[raw.key] = deque()
        queue.append(ongoing)

    async def _finish(self, ongoing: Ongoing) -> None:
        """Bring a held record to its outcome, then those behind its key; return early when one is parked."""
        current: Ongoing | None = ongoing
        while current is not None:
            if current.rest is not None:
                self.another()
                await self.await_call(current, current.rest)
            if current.failure is not None and not self._settle(current, current.failure):
                return
            if current.at < len(current.steps):
                if not self._start(current, Kind.NEXT_ROUTE if current.began else Kind.QUEUED):
                    return
                continue
            current = self.release(current.raw, current.size)
            if current is not None and time.monotonic() >= self.turns.end:
                await self.turns.next()

    async def await_call(self, ongoing: Ongoing, rest: Awaitable[Any]) -> None:
        """Await the rest of a call and count it; note how it failed."""
        step = ongoing.steps[ongoing.at]
        counts = step.counts
        counts.waiting += 1
        self._awaiting.add(ongoing)
        try:
            await rest
        except BaseException as error:
            if self.gate.has_cancelled(error):
                raise
            ongoing.failure = HandlerFailedError.of(step.name, error)
        else:
            counts.handled += 1
            ongoing.at += 1
            if ongoing.failed_call is not None:
                ongoing.failed_call.end()
                ongoing.failed_call = None
        finally:
            self._awaiting.discard(ongoing)
            counts.waiting -= 1
            counts.took(time.monotonic() - ongoing.began)
            ongoing.rest = None

    def _settle(self, ongoing: Ongoing, failure: HandlerFailedError) -> bool:
        """Decide what follows a failed call; return False when the record is parked, or left without an outcome."""
        raw = ongoing.raw
        ongoing.failure = None
        self._note_age(raw, always=True)
        step = ongoing.steps[ongoing.at]
        if ongoing.failed_call is None:
            ongoing.failed_call = FailedCall(self._failure_handler, step.name, raw.offset)
        failed_call = ongoing.failed_call
        try:
            seconds = failed_call.after(failure.error)
        except BaseException:
            failed_call.end()
            raise
        if seconds is not None:
            self._parking.park(ongoing, Kind.RETRY, seconds)
            return False
        written = self._failure_handler.dead_letter(raw, failed_call.cause(failure))
        failed_call.end()
        ongoing.failed_call = None
        ongoing.at += 1
        if written and ongoing.at < len(ongoing.steps):
            ongoing.event, _ = self._dispatch.steps_of(raw)
        return written

    def _start(self, ongoing: Ongoing, kind: Kind) -> bool:
        """Call a record's routes from where it is, if that may start; return False when it is parked or given up."""
        if not self.gate.may_start(kind, ongoing.hold) or (kind is Kind.QUEUED and self._is_behind_halt(ongoing)):
            self._parking.park(ongoing, kind, 0.0)
            return False
        steps = ongoing.steps if not self.partition.pauses else ongoing.steps[: ongoing.at + 1]
        following = self._dispatch.run(ongoing.raw, ongoing.event, steps, ongoing.at)
        failed_at = ongoing.at
        if following is None:
            ongoing.at = len(steps)
        else:
            ongoing.at, ongoing.rest = following.at, following.rest
            ongoing.began, ongoing.failure = following.began, following.failure
        if ongoing.failed_call is not None and ongoing.at != failed_at:
            ongoing.failed_call.end()
            ongoing.failed_call = None
        return True

    def _is_behind_halt(self, ongoing: Ongoing) -> bool:
        """Whether a halt will have the record repeated: the commit cannot pass the halted one."""
        halt = self.partition.halt
        return halt is not None and ongoing.raw.offset > halt.offset

    def release(self, raw: RawRecord, size: int) -> Ongoing | None:
        """Count a held record as done; return the one that waits behind its key."""
        self.partition.release(raw.offset, size)
        if self._by_key:
            queue = self.busy[raw.key]
            if queue:
                return queue.popleft()
            del self.busy[raw.key]
        self._underway -= 1
        return None

    async def _go_on(self, parked: Parked) -> None:
        """Call a parked record; one that failed is decoded again, as its handler may have changed the event."""
        ongoing = parked.ongoing
        if parked.kind is Kind.RETRY and ongoing.failed_call is not None:
            ongoing.failed_call.call_again()
            try:
                ongoing.event, _ = self._dispatch.steps_of(ongoing.raw)
            except DecodeError as error:  # it was an event before: a handler has changed what its record refers to
                ongoing.failed_call.end()
                ongoing.failed_call = None
                if not self._failure_handler.undecodable(ongoing.raw, error):
                    return
                ongoing.at = len(ongoing.steps)
        if self._parking.ready:
            self.another()
        if ongoing.at >= len(ongoing.steps) or self._start(ongoing, parked.kind):
            await self._finish(ongoing)
