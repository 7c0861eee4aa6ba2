"""Batches: events of one route and one partition, in offset order, one call at a time."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine
from typing import Any

from consumer.dead_letters.cause import Cause
from consumer.delivery.calls import coroutine_of
from consumer.delivery.collecting import Collected, Collecting
from consumer.delivery.dispatch import Dispatch
from consumer.delivery.failure import FailedCall, FailureHandler
from consumer.delivery.gate import Kind, PartitionEnded
from consumer.delivery.tasks import Tasks
from consumer.delivery.turns import Turns
from consumer.errors import DecodeError, HandlerFailedError
from consumer.instructions import Reject
from consumer.observe.waiting import CallUnderWay
from consumer.partition.chunk import size_of
from consumer.partition.state import Phase
from consumer.record import RawRecord, Record
from consumer.routes.route import Route

OUTAGE_RECORDS = 10
"""Records called singly of which none succeeds: an outage, not bad records."""


class BatchCalls:
    """Calls the handler with batches of one route and one partition; as long-lived as the partition's workers.

    A batch is called after ``max_records``, ``max_seconds`` or half of the partition's room, or when the room is used
    up. While a call is under way, the next batch is collected. When that is full too, the partition takes no more
    records. The watermark is held at the first record of a batch until all of its records have an outcome.
    """

    def __init__(
        self,
        route: Route,
        collecting: Collecting,
        dispatch: Dispatch,
        failure_handler: FailureHandler,
        tasks: Tasks,
        turns: Turns,
    ) -> None:
        self.collecting = collecting
        self.calling_since = math.inf
        """Monotonic time at which the call under way began."""
        self._collecting_since = 0.0
        """Monotonic time since which events are collected, and no call is under way."""
        self._called: Collected | None = None
        """The batch of the call under way."""
        self._left = (0, 0)
        """Records of that batch without an outcome or a letter, and their bytes."""
        self.route = route
        self.dispatch = dispatch
        self._failure_handler = failure_handler
        self._gate = failure_handler.gate
        self._partition = failure_handler.partition
        self._counts = failure_handler.counters.routes[route.name]
        self._tasks = tasks
        self._turns = turns
        self._due = False
        """Whether the batch is to be called as soon as it may be, full or not."""
        self._timer: asyncio.TimerHandle | None = None
        self._gate.watch(self.look)

    @property
    def calling(self) -> CallUnderWay | None:
        """The call under way; None without one."""
        since, called = self.calling_since, self._called
        return CallUnderWay(since, self.route.name, called.first) if since < math.inf and called is not None else None

    @property
    def waiting(self) -> tuple[float, float] | None:
        """Monotonic time since which more events are waited for, and for how long; None if they are not."""
        if self._called is not None or not self.collecting.events:
            return None
        return self._collecting_since, self.route.handler.max_seconds

    @property
    def in_flight(self) -> tuple[int, int]:
        """Records and bytes without an outcome: those collected and those in the call under way."""
        records, size = self._left
        return records + len(self.collecting.events), size + self.collecting.size

    def look(self) -> None:
        """Call a batch that is full or due, if that may start; else see to it that its time will come."""
        if self.collecting.events and (self.collecting.is_full or self._due):
            self.call_now()
        elif self.collecting.events and self._timer is None and self._partition.phase is Phase.OPEN:
            seconds = self.route.handler.max_seconds
            self._collecting_since = time.monotonic()
            self._timer = asyncio.get_running_loop().call_later(seconds, self.call_now)
        if self._partition.phase is Phase.OVER:
            self._cancel_timer()

    def call_now(self) -> None:
        """Call the handler with the collected events as soon as that may start."""
        if not self.collecting.events:
            return
        if self._called is not None or not self._gate.may_start(Kind.BATCH):
            self._due = True
            return
        self._due = False
        self._cancel_timer()
        called = self._called = self.collecting.complete()
        self._left = called.length, called.size
        coroutine, failed = self.begin_call(called.events, called.raws)
        if coroutine is None and failed is None:
            self._end(called)
        else:
            self._tasks.spawn(self._finish(called, coroutine, failed))

    def abandon(self) -> None:
        """Count the call under way as left without an outcome."""
        if self.calling_since < math.inf:
            self._counts.abandoned += 1

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def begin_call(
        self, events: list[Any], raws: list[RawRecord]
    ) -> tuple[Coroutine[Any, Any, Any] | None, HandlerFailedError | None]:
        """Call the handler; return what is left to be awaited, or how it failed."""
        handler, (topic, number) = self.route.handler, self._partition.key
        count = len(events)  # taken before the call: the handler may change the list
        self._counts.batches.observe(count)
        self.calling_since = time.monotonic()
        try:
            if handler.wants_record:
                records = [Record(topic, number, r.offset, r.timestamp, r.key, r.value, tuple(r.headers)) for r in raws]
                result = handler.call(events, records)
            else:
                result = handler.call(events)
            if result is not None and (coroutine := coroutine_of(result, self.route.name)) is not None:
                return coroutine, None
        except BaseException as error:
            self._took()
            return None, HandlerFailedError.of(self.route.name, error)
        self._counts.handled += count
        self._took()
        return None, None

    async def end_call(self, coroutine: Coroutine[Any, Any, Any] | None, count: int) -> HandlerFailedError | None:
        """Await the end of a call; return how it failed, if it did."""
        if coroutine is None:
            return None
        self._counts.waiting += 1
        try:
            await coroutine
        except BaseException as error:
            if self._gate.has_cancelled(error):
                raise
            return HandlerFailedError.of(self.route.name, error)
        finally:
            self._counts.waiting -= 1
            self._took()
        self._counts.handled += count
        return None

    def _took(self) -> None:
        self._counts.seconds.observe(time.monotonic() - self.calling_since)
        self.calling_since = math.inf

    async def _finish(
        self, called: Collected, coroutine: Coroutine[Any, Any, Any] | None, failed: HandlerFailedError | None
    ) -> None:
        """Bring a called batch to its end, then call the next if that is due; raises PartitionEnded."""
        if coroutine is not None and not self._gate.may_start(Kind.BATCH):
            coroutine.close()
            self.calling_since = math.inf
            await self._gate.until_open(Kind.BATCH)
            coroutine, failed = self.begin_call(called.events, called.raws)
        failed = failed or await self.end_call(coroutine, called.length)
        if failed is None or await self._settle(called, failed):
            self._end(called)

    def _end(self, called: Collected) -> None:
        self._partition.watermark.release_batch(called.first)
        self.collecting.let_go(called)
        self._called, self._left, self._collecting_since = None, (0, 0), time.monotonic()
        self._due = self._due or self._partition.phase is not Phase.OPEN
        self._gate.changed()

    async def _settle(self, called: Collected, first: HandlerFailedError) -> bool:
        """Give every record of a failed batch an outcome; return False if the partition halted first."""
        failed: HandlerFailedError | None = first
        left = self._reread(called)
        failed_call = FailedCall(self._failure_handler, self.route.name, called.first)
        try:
            while failed is not None:
                if self._partition.phase is Phase.OVER:  # the drain's cancellation, perhaps as another error
                    raise PartitionEnded
                rejected = _rejected(failed, len(left))
                if rejected:
                    failed_call.count_reject()
                    for index in sorted(rejected):
                        if not self._dead_letter(left[index], failed_call.cause(failed, "rejected")):
                            return False
                    left = [raw for index, raw in enumerate(left) if index not in rejected]
                    if not left:
                        return True
                else:
                    seconds = failed_call.after(failed.error)
                    if seconds is None:
                        return await self._settle_singly(left, failed_call)
                    await self._wait(failed_call, seconds)
                await self._gate.until_open(Kind.RETRY, failed_call.hold)
                failed = await self._call_again(left)
        finally:
            failed_call.end()
        return True

    async def _wait(self, failed_call: FailedCall, seconds: float) -> None:
        """Wait until the handler may be called again; raise PartitionEnded if it never may."""
        try:
            await self._gate.sleep(seconds)
            await self._gate.until_open(Kind.RETRY, failed_call.hold)
        except PartitionEnded:
            failed_call.abandon()
            raise
        failed_call.call_again()

    async def _settle_singly(self, raws: list[RawRecord], failed_call: FailedCall) -> bool:
        """Call the handler with each record alone, in rounds; return False if the partition halted first.

        Only records that fail while others succeed are given up. A round of many in which none succeeds is an outage:
        it counts as an attempt only of those that failed before while later ones succeeded.
        """
        attempts = {raw.offset: self._failure_handler.attempts(self.route.name) for raw in raws}
        guilty: set[int] = set()
        left = raws
        while left:
            failures: dict[int, HandlerFailedError] = {}
            try:
                guilty |= await self._round(left, failed_call, failures)
            except PartitionEnded:
                for each in failures.values():
                    failed_call.count(each.error)
                raise
            outage = len(failures) >= OUTAGE_RECORDS and len(failures) == len(left)
            waits = []
            remaining = []
            for raw in left:
                failed = failures.get(raw.offset)
                if failed is None:
                    continue
                excused = outage and raw.offset not in guilty
                seconds = failed_call.after(failed.error, attempts[raw.offset], excused=excused)
                if seconds is None:
                    cause = failed_call.cause(failed, attempts=attempts[raw.offset])
                    if not self._dead_letter(raw, cause):
                        return False
                else:
                    waits.append(seconds)
                    remaining.append(raw)
            left = remaining
            if left:
                await self._wait(failed_call, max(waits))
        return True

    async def _round(
        self, raws: list[RawRecord], failed_call: FailedCall, failures: dict[int, HandlerFailedError]
    ) -> set[int]:
        """Call each record alone; note failures by offset, and return the offsets that failed before a success."""
        guilty: set[int] = set()
        for raw in raws:
            await self._gate.until_open(Kind.SINGLE, failed_call.hold)
            failed = await self._call_again([raw])
            if failed is None:
                guilty = set(failures)
            else:
                failures[raw.offset] = failed
            if time.monotonic() >= self._turns.end:
                await self._turns.next()
        return guilty

    async def _call_again(self, raws: list[RawRecord]) -> HandlerFailedError | None:
        """Decode records again and call the handler with them; return its failure, if any.

        The events of the call before are not used again: the handler may have changed them.
        """
        events = [raw.value if self.route.handler.wants_bytes else self.dispatch.steps_of(raw)[0] for raw in raws]
        coroutine, failed = self.begin_call(events, raws)
        return failed or await self.end_call(coroutine, len(raws))

    def _reread(self, called: Collected) -> list[RawRecord]:
        """Return the raw records of a batch, which count from now on instead of its events and what they kept."""
        raws = called.reread(self._belongs)
        called.events = []
        self.collecting.let_go(called)
        self._left = len(raws), sum(map(size_of, raws))
        return raws

    def _dead_letter(self, raw: RawRecord, cause: Cause) -> bool:
        """Begin to write a letter, which holds its record; return False if the partition halted instead."""
        if not self._failure_handler.dead_letter(raw, cause):
            return False
        records, size = self._left
        self._left = records - 1, size - size_of(raw)
        return True

    def _belongs(self, raw: RawRecord) -> bool:
        try:
            return any(step.name == self.route.name for step in self.dispatch.steps_of(raw)[1])
        except DecodeError:
            return False


def _rejected(failed: HandlerFailedError, count: int) -> set[int]:
    """Return the indexes of the records that a Reject names; empty for another error, or if no index exists."""
    if not isinstance(failed.error, Reject):
        return set()
    if failed.error.indexes is None:
        return set(range(count))
    return {int(index) for index in failed.error.indexes if index in range(count)}
