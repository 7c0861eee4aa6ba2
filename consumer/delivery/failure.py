"""Failed calls: call the record again, hold it, make it a dead letter, or halt its partition.

Records that are handled without a failure never reach this module.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import structlog

from consumer.dead_letters.cause import NO_ROUTE, Cause, class_name
from consumer.delivery.fuse import Fuse
from consumer.delivery.gate import Gate, PartitionEnded
from consumer.delivery.retry import Attempts, RoutePolicy
from consumer.delivery.tasks import Tasks
from consumer.errors import DecodeError, HandlerFailedError, LetterDelayedError, LetterRefusedError, place_of
from consumer.instructions import code_of
from consumer.logs import Sparingly
from consumer.observe.counters import Counters
from consumer.outcome import HaltReason
from consumer.partition.chunk import size_of
from consumer.partition.hold import Hold
from consumer.partition.state import Partition, Phase
from consumer.record import Position, RawRecord, TopicPartition
from consumer.settings.sections import RetrySettings

log = Sparingly(structlog.get_logger("consumer.delivery.failure"))

SLOW_LETTER_SECONDS = 2.0
"""A dead letter whose write takes longer counts as a hold. A stop gives it up when Kafka took none for as long."""


class Letters(Protocol):
    """Writer of dead letters."""

    async def write(self, key: TopicPartition, raw: RawRecord, cause: Cause) -> None:
        """Write a dead letter; return when it is acknowledged. Raise LetterRefusedError or LetterDelayedError."""

    async def look(self) -> None:
        """Find out whether the letters under way can still be written, and end their writes if not."""


Remedy = Callable[[TopicPartition, HaltReason, int], str]
"""Takes a halted partition, the reason and the offset to continue with; returns what a person can do."""


class FailurePolicy(NamedTuple):
    """The reaction to failures, common to all partitions of an engine."""

    retry: RetrySettings
    fuse: Fuse
    letters: Letters | None
    """None if ``dead_letter.topic`` is empty."""
    remedy: Remedy
    routes: Mapping[str, RoutePolicy]
    """The retry policy of each route, by name."""


class Halts(Protocol):
    """Halts partitions; implemented by the engine."""

    def halt_partition(
        self, partition: Partition, reason: HaltReason, offset: int, explanation: str, next_offset: int
    ) -> None:
        """Halt one partition at ``offset``; it could continue with ``next_offset``."""

    def halt_all(self, reason: HaltReason, explanation: str) -> None:
        """Halt every owned partition."""


class Failures(NamedTuple):
    """The policy and the engine, shared by the failure handlers of all partitions."""

    policy: FailurePolicy
    halts: Halts


class Writing:
    """One letter on its way to Kafka."""

    __slots__ = ("began", "hold")

    def __init__(self, route: str, offset: int) -> None:
        self.began = 0.0
        self.hold = Hold("dead_letter", route, offset, time.time())


class FailureHandler:
    """Gives failed records of one partition their outcome; as long-lived as the partition's workers."""

    def __init__(self, gate: Gate, failures: Failures, counters: Counters, tasks: Tasks) -> None:
        self.gate = gate
        self.partition = gate.partition
        self.counters = counters
        self.retry = failures.policy.retry
        self._policy, self._halts = failures
        self._tasks = tasks
        self._writing: dict[asyncio.Task[Any] | None, Writing] = {}
        """Letters on their way to Kafka, by their tasks, the oldest first."""
        self._look_at: asyncio.TimerHandle | None = None

    def attempts(self, route: str) -> Attempts:
        """Begin to count the calls of one route with one record or batch."""
        retry, pause_on = self._policy.routes[route]
        return Attempts(retry, pause_on=pause_on)

    def undecodable(self, raw: RawRecord, error: DecodeError) -> bool:
        """Make a record that is not an event a dead letter; return False if the partition halted instead."""
        self.counters.decode_errors[self.partition.key.topic, error.reason] += 1
        return self.dead_letter(error.record or raw, Cause(error.reason, NO_ROUTE, 0, class_name(error), str(error)))

    def dead_letter(self, raw: RawRecord, cause: Cause) -> bool:
        """Begin to write a dead letter; return False if the partition halted instead.

        The letter holds the watermark until it is acknowledged, and nothing else: other records go on beside it.
        """
        key, policy = self.partition.key, self._policy
        if policy.letters is None:
            self._halt_at(raw, f"{cause.message}; dead_letter.topic is empty, so it cannot become a dead letter")
            return False
        if policy.fuse.trips(Position(*key, raw.offset), self.counters.consumed):
            self._halts.halt_all(
                HaltReason.FUSE, f"too many records become dead letters; the last one: {cause.message}"
            )
            return False
        self.partition.hold(raw.offset, size_of(raw))
        self._tasks.spawn(self._deliver(policy.letters, raw, cause))
        return True

    async def _deliver(self, letters: Letters, raw: RawRecord, cause: Cause) -> None:
        """Write a dead letter and count it; what cannot be written keeps its hold."""
        try:
            await self._write(letters, raw, cause)
        except PartitionEnded:
            self.counters.of(cause.route).abandoned += 1
            return
        except LetterRefusedError as refused:
            self._halt_at(raw, f"{cause.message}; {refused}")
            return
        key = self.partition.key
        self.counters.of(cause.route).dead_lettered += 1
        self.counters.dead_letters[key.topic, cause.reason] += 1
        log.warning("record_dead_lettered", **self._where(raw.offset), **cause._asdict())
        where = Position(*key, raw.offset)
        self.counters.failures.note(time.time(), cause.route, cause.reason, cause.message, where)
        self.partition.release(raw.offset, size_of(raw))
        self.gate.changed()

    async def _write(self, letters: Letters, raw: RawRecord, cause: Cause) -> None:
        """Write a dead letter, however long it takes; raise PartitionEnded if the partition ended first.

        A write that was slow, or that failed, shows as a hold until it succeeds, without a gap between attempts.
        """
        attempts = Attempts(self.retry)
        task = asyncio.current_task()
        writing = Writing(cause.route, raw.offset)
        try:
            while True:
                writing.began = time.monotonic()
                self._writing[task] = writing
                if self._look_at is None:
                    self._look_at = asyncio.get_running_loop().call_later(SLOW_LETTER_SECONDS, self._look)
                try:
                    await self._write_once(letters, raw, cause)
                except LetterDelayedError as delayed:
                    why, wait = str(delayed), attempts.after(ConnectionError()).wait or 0.0
                    log.warning("dead_letter_write_failed", **self._where(raw.offset), why=why)
                else:
                    self.counters.letter_taken_at = time.monotonic()
                    return
                del self._writing[task]  # its wait ends by itself
                self.partition.holds.add(writing.hold)
                # A write calls no handler, so it does not wait for a pause. If it did, it and the record that pauses
                # the partition could wait for each other.
                writing.hold.failed(why, attempts.failed, time.time() + wait)
                await self.gate.sleep(wait)
                writing.hold.next_at = None
        finally:
            self._writing.pop(task, None)
            self.partition.holds.discard(writing.hold)

    async def _write_once(self, letters: Letters, raw: RawRecord, cause: Cause) -> None:
        try:
            await letters.write(self.partition.key, raw, cause)
        except asyncio.CancelledError:
            if self.partition.phase is Phase.OVER:
                raise
            task = asyncio.current_task()
            if task is not None and task.cancelling():  # by ``_look``
                raise PartitionEnded from None
            # Not of this task: a CancelledError here would end all work in silence.
            raise LetterDelayedError("the write was cancelled") from None

    def _look(self) -> None:
        """Show writes that are slow as holds; give them up once the partition has ended and Kafka takes no letters.

        One timer looks at all of them: a timer for each letter would cost as much as its write.
        """
        now = time.monotonic()
        stuck = self.partition.ended and now - self.counters.letter_taken_at >= SLOW_LETTER_SECONDS
        slow = False
        for task, writing in list(self._writing.items()):
            if now - writing.began < SLOW_LETTER_SECONDS:
                break  # those behind began later
            if writing.hold not in self.partition.holds:
                self.partition.holds.add(writing.hold)
                log.warning("dead_letter_write_slow", **self._where(writing.hold.offset), seconds=SLOW_LETTER_SECONDS)
                slow = True
            if stuck and task is not None and not task.cancelling():
                task.cancel()
        if slow and self._policy.letters is not None and not self.partition.ended:
            self._tasks.spawn(self._policy.letters.look())
        again = asyncio.get_running_loop().call_later(SLOW_LETTER_SECONDS / 4, self._look) if self._writing else None
        self._look_at = again

    def _halt_at(self, raw: RawRecord, why: str) -> None:
        self._halts.halt_partition(self.partition, HaltReason.NO_DEAD_LETTER, raw.offset, why, raw.offset + 1)

    def _where(self, offset: int) -> dict[str, Any]:
        key = self.partition.key
        return {"topic": key.topic, "partition": key.partition, "offset": offset}


class FailedCall:
    """The failed calls of one route with one record or batch; lives from the first failure to the outcome.

    While the handler raises Pause, all other records of the partition wait until this record is handled.
    """

    def __init__(self, failure_handler: FailureHandler, route: str, offset: int) -> None:
        self.route = route
        self.hold = Hold("error", route, offset, time.time())
        self._attempts = failure_handler.attempts(route)
        self._failure_handler = failure_handler
        self._reason = ""
        failure_handler.partition.holds.add(self.hold)

    def end(self) -> None:
        """End the hold and the pause."""
        self._failure_handler.partition.holds.discard(self.hold)
        self._failure_handler.gate.resume(self.hold)

    def after(self, error: BaseException, attempts: Attempts | None = None, *, excused: bool = False) -> float | None:
        """Count a failed call; return the seconds until the next call, or None when there is none: a dead letter.

        ``attempts`` are those of one record of a batch; an ``excused`` failure counts no attempt and shows as a hold.

        Raises PartitionEnded when the drain is over. A handler may turn the drain's cancellation into another error:
        that is no reason for a dead letter. And a call that outlived its epoch must not start other calls.
        """
        handler, counted = self._failure_handler, attempts or self._attempts
        attempt = counted.calls
        if handler.partition.phase is Phase.OVER:
            raise PartitionEnded
        decision = counted.after(error, excused=excused)
        handler.counters.handler_errors[self.route, decision.kind] += 1
        self.hold.kind, self._reason = decision.kind, decision.reason
        if decision.kind == "pause":
            handler.gate.pause(self.hold)
        else:
            handler.gate.resume(self.hold)
        place = place_of(error)
        self.hold.failed(place, counted.failed, None if decision.wait is None else time.time() + decision.wait)
        # An exception object that is raised again and again collects a longer traceback each time, and everything that
        # its frames reference; and the failure of a batch is kept until its records have an outcome.
        BaseException.with_traceback(error, None)
        if decision.wait is None:
            return None
        log.info(
            "call_failed",
            partition=str(handler.partition.key),
            offset=self.hold.offset,
            route=self.route,
            attempt=attempt,
            kind=decision.kind,
            error=place,
            seconds=round(decision.wait, 3),
        )
        where = Position(*handler.partition.key, self.hold.offset)
        handler.counters.failures.note(time.time(), self.route, decision.kind, place, where)
        return decision.wait

    def count(self, error: BaseException) -> None:
        """Count a failed call that nothing follows."""
        kind = self._failure_handler.attempts(self.route).after(error).kind
        self._failure_handler.counters.handler_errors[self.route, kind] += 1

    def abandon(self) -> None:
        """Count a record that is left without an outcome while it waits."""
        self._failure_handler.counters.of(self.route).abandoned += 1
        self.end()

    def call_again(self) -> None:
        """Count that the handler is called again."""
        self.hold.next_at = None
        self._failure_handler.counters.of(self.route).retries += 1

    def count_reject(self) -> None:
        """Count a call that rejected records of its batch, and end its pause: what the handler needs works again."""
        self._failure_handler.counters.handler_errors[self.route, "reject"] += 1
        self.hold.kind = "reject"
        self._failure_handler.gate.resume(self.hold)

    def cause(self, failed: HandlerFailedError, reason: str | None = None, attempts: Attempts | None = None) -> Cause:
        """Return the cause for a dead letter; ``reason`` overrides that of the last failed call."""
        calls, error = (attempts or self._attempts).calls, failed.error
        return Cause(reason or self._reason, self.route, calls, class_name(error), str(failed), code_of(error))
