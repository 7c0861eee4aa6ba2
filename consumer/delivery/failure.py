"""Failed calls: call the record again, hold it, make it a dead letter, or halt its partition.

Records that are handled without a failure never reach this module.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping
from enum import Enum
from typing import Any, NamedTuple, Protocol

import msgspec
import structlog

from consumer.dead_letters.cause import NO_ROUTE, Cause, class_name
from consumer.delivery.fuse import Fuse
from consumer.delivery.gate import Gate
from consumer.delivery.retry import Attempts, RoutePolicy
from consumer.errors import DecodeError, HandlerFailedError, LetterDelayedError, LetterRefusedError, place_of
from consumer.instructions import code_of
from consumer.logs import Sparingly
from consumer.observe.counters import Counters
from consumer.outcome import HaltReason
from consumer.partition.hold import Hold
from consumer.partition.state import Partition
from consumer.record import Position, RawRecord, TopicPartition
from consumer.settings.sections import RetrySettings

log = Sparingly(structlog.get_logger("consumer.delivery.failure"))

SLOW_LETTER_SECONDS = 2.0
"""A dead letter whose write takes longer counts as a hold; a stop gives it up."""


class Letters(Protocol):
    """Writer of dead letters."""

    async def write(self, key: TopicPartition, raw: RawRecord, cause: Cause) -> None:
        """Write a dead letter; return when it is acknowledged. Raise LetterRefusedError or LetterDelayedError."""


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


class Verdict(Enum):
    """The next step after a failed call."""

    CALL_AGAIN = "the wait is over: call the handler again"
    DEAD_LETTER = "do not call the handler again: make the record a dead letter"
    ENDED = "the partition has ended: the record stays without an outcome"


class FailureHandler:
    """Gives failed records of one partition their outcome; as long-lived as the partition's lanes."""

    def __init__(
        self,
        partition: Partition,
        gate: Gate,
        failures: Failures,
        counters: Counters,
        retry: Callable[[RawRecord, str, bool], Coroutine[Any, Any, None]],
    ) -> None:
        """``retry`` calls one route of a record again and the routes after it, or only those (``dispatch.py``)."""
        self.partition = partition
        self.gate = gate
        self.counters = counters
        self.retry = failures.policy.retry
        self.policies = failures.policy.routes
        self._policy, self._halts = failures
        self._retry = retry

    async def settle(self, raw: RawRecord, failed: DecodeError | HandlerFailedError) -> bool:
        """Give a record its outcome on all its routes; return False if the partition ended first."""
        failed_call: FailedCall | None = None
        try:
            while isinstance(failed, HandlerFailedError):
                if failed_call is None or failed_call.route != failed.route:
                    failed_call = (
                        failed_call.followed_by(failed.route)
                        if failed_call
                        else FailedCall(self, failed.route, raw.offset)
                    )
                verdict = await failed_call.wait_for_verdict(failed.error)
                given_up = verdict is Verdict.DEAD_LETTER
                if verdict is Verdict.ENDED or (
                    given_up and not await self.dead_letter(raw, failed_call.cause(failed))
                ):
                    return False
                try:
                    await self._retry(raw, failed_call.route, given_up)
                except (DecodeError, HandlerFailedError) as following:
                    failed = following
                else:
                    return True
        finally:
            if failed_call is not None:
                failed_call.end()
        self.counters.decode_errors[self.partition.key.topic, failed.reason] += 1
        cause = Cause(failed.reason, NO_ROUTE, 0, class_name(failed), str(failed))
        return await self.dead_letter(failed.record or raw, cause)

    async def dead_letter(self, raw: RawRecord, cause: Cause) -> bool:
        """Make one record a dead letter; return False if the partition halted or ended instead."""
        key, policy = self.partition.key, self._policy
        if policy.letters is None:
            self._halt_at(raw, f"{cause.message}; dead_letter.topic is empty, so it cannot become a dead letter")
            return False
        if policy.fuse.trips(Position(*key, raw.offset), sum(self.counters.records_consumed.values())):
            self._halts.halt_all(
                HaltReason.FUSE, f"too many records become dead letters; the last one: {cause.message}"
            )
            return False
        try:
            if not await self._write(policy.letters, raw, cause):
                self.counters.of(cause.route).abandoned += 1
                return False
        except LetterRefusedError as refused:
            self._halt_at(raw, f"{cause.message}; {refused}")
            return False
        self.counters.of(cause.route).dead_lettered += 1
        self.counters.dead_letters[key.topic, cause.reason] += 1
        log.warning("record_dead_lettered", **self._where(raw), **cause._asdict())
        where = Position(*key, raw.offset)
        self.counters.failures.note(time.time(), cause.route, cause.reason, cause.message, where)
        return True

    async def _write(self, letters: Letters, raw: RawRecord, cause: Cause) -> bool:
        """Write a dead letter, however long it takes; return False if the partition ended first."""
        attempts, hold = Attempts(self.retry), Hold("dead_letter", cause.route, raw.offset, time.time())
        while True:
            writing = asyncio.ensure_future(letters.write(self.partition.key, raw, cause))
            try:
                await asyncio.wait([writing], timeout=SLOW_LETTER_SECONDS)
                if not writing.done():
                    log.warning("dead_letter_write_slow", **self._where(raw), seconds=SLOW_LETTER_SECONDS)
                    with self.partition.holding(hold):
                        if await self.gate.ended_before(writing):
                            return False
                if writing.cancelled():  # not by this task: a CancelledError here would end all work in silence
                    raise LetterDelayedError("the write was cancelled")
                writing.result()
            except LetterDelayedError as delayed:
                log.warning("dead_letter_write_failed", **self._where(raw), why=str(delayed))
                with self.partition.holding(hold):
                    # A write calls no handler, so it does not wait for a pause. If it did, it and the record that
                    # pauses the partition could wait for each other.
                    seconds = attempts.after(ConnectionError()).wait or 0.0
                    if not await self.gate.wait(seconds, own_pause=True, has_slot=False):
                        return False
            else:
                return True
            finally:
                writing.cancel()

    def _halt_at(self, raw: RawRecord, why: str) -> None:
        self._halts.halt_partition(self.partition, HaltReason.NO_DEAD_LETTER, raw.offset, why, raw.offset + 1)

    def _where(self, raw: RawRecord) -> dict[str, Any]:
        key = self.partition.key
        return {"topic": key.topic, "partition": key.partition, "offset": raw.offset}


class FailedCall:
    """A failed call of one route with one record or batch; lives from its first failure to its outcome.

    While the handler raises Pause, all other records of the partition wait until this record is handled.
    """

    def __init__(
        self,
        failure_handler: FailureHandler,
        route: str,
        offset: int,
        *,
        of_batch: bool = False,
        attempts: int | None = None,
    ) -> None:
        """Begin the hold; ``attempts`` overrides the setting. A batch has no slot to free while it waits."""
        self.route = route
        retry, pause_on = failure_handler.policies[route]
        retry = retry if attempts is None else msgspec.structs.replace(retry, attempts=attempts)
        self._attempts = Attempts(retry, pause_on=pause_on)
        self._failure_handler = failure_handler
        self._has_slot = not of_batch
        self._hold = Hold("error", route, offset, time.time())
        self._pausing = False
        self._reason = ""
        failure_handler.partition.holds.add(self._hold)

    def end(self) -> None:
        """End the hold and the pause."""
        self._failure_handler.partition.holds.discard(self._hold)
        self._pause(on=False)

    def followed_by(self, route: str) -> FailedCall:
        """End this one; return a new one for another route of the same record."""
        self.end()
        return FailedCall(self._failure_handler, route, self._hold.offset)

    async def wait_for_verdict(self, error: BaseException) -> Verdict:
        """Count a failed call, wait as long as its error or the policy demands, and return the next step."""
        failure_handler, attempt = self._failure_handler, self._attempts.calls
        # A handler may turn the drain's cancellation into another error: that is no reason for a dead letter. And a
        # call that outlived its epoch must not start other calls.
        if failure_handler.partition.over:
            return Verdict.ENDED
        decision = self._attempts.after(error)
        failure_handler.counters.handler_errors[self.route, decision.kind] += 1
        self._hold.kind, self._reason = decision.kind, decision.reason
        self._pause(on=decision.kind == "pause")
        if decision.wait is None:
            return Verdict.DEAD_LETTER
        place = place_of(error)
        log.info(
            "call_failed",
            partition=str(failure_handler.partition.key),
            offset=self._hold.offset,
            route=self.route,
            attempt=attempt,
            kind=decision.kind,
            error=place,
            seconds=round(decision.wait, 3),
        )
        where = Position(*failure_handler.partition.key, self._hold.offset)
        failure_handler.counters.failures.note(time.time(), self.route, decision.kind, place, where)
        # An exception object that is raised again and again collects a longer traceback each time, and everything that
        # its frames reference.
        BaseException.with_traceback(error, None)
        if not await failure_handler.gate.wait(decision.wait, own_pause=self._pausing, has_slot=self._has_slot):
            failure_handler.counters.of(self.route).abandoned += 1
            return Verdict.ENDED
        failure_handler.counters.of(self.route).retries += 1
        return Verdict.CALL_AGAIN

    def count_reject(self) -> None:
        """Count a call that rejected records of its batch, and end its pause: what the handler needs works again."""
        self._failure_handler.counters.handler_errors[self.route, "reject"] += 1
        self._hold.kind = "reject"
        self._pause(on=False)

    def cause(self, failed: HandlerFailedError, reason: str | None = None) -> Cause:
        """Return the cause for a dead letter; ``reason`` overrides that of the last failed call."""
        calls, error = self._attempts.calls, failed.error
        return Cause(reason or self._reason, self.route, calls, class_name(error), str(failed), code_of(error))

    def _pause(self, *, on: bool) -> None:
        if on != self._pausing:
            self._pausing = on
            self._failure_handler.partition.pausing += 1 if on else -1
            if not on:
                self._failure_handler.gate.unpaused()
