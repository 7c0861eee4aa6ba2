"""What becomes of a record whose call failed: called again, held, or made a dead letter; else its partition halts.

Nothing here is on the way of a record that goes well.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from enum import Enum
from typing import Any, NamedTuple, Protocol

import msgspec
import structlog

from consumer.dead_letters.cause import NO_ROUTE, Cause, class_name
from consumer.delivery.fuse import Fuse
from consumer.delivery.gate import Gate
from consumer.delivery.retry import Attempts
from consumer.errors import DecodeError, HandlerFailedError, LetterDelayedError, LetterRefusedError, place_of
from consumer.logs import Sparingly
from consumer.observe.counters import Counters
from consumer.outcome import HaltReason
from consumer.partition.hold import Hold
from consumer.partition.state import Partition
from consumer.record import Position, TopicPartition
from consumer.settings.sections import RetrySettings

log = Sparingly(structlog.get_logger("consumer.delivery.failure"))

SLOW_LETTER_SECONDS = 2.0
"""A letter that takes longer shows as a hold, and is given up at a stop."""


class Letters(Protocol):
    """Where dead letters are written."""

    async def write(self, key: TopicPartition, raw: Any, cause: Cause) -> None:
        """Return when it is acknowledged; raises LetterRefusedError or LetterDelayedError."""


Remedy = Callable[[TopicPartition, HaltReason, int], str]
"""Takes a halted partition, its reason and the offset with which it could go on; returns what a person may do."""


class FailurePolicy(NamedTuple):
    """What follows a failure, in every partition of an engine."""

    retry: RetrySettings
    fuse: Fuse
    letters: Letters | None
    """None: there is nowhere for dead letters to go."""
    remedy: Remedy


class Halts(Protocol):
    """Who halts partitions: the engine."""

    def halt_partition(
        self, partition: Partition, reason: HaltReason, offset: int, explanation: str, next_offset: int
    ) -> None:
        """Halt one partition at ``offset``; with ``next_offset`` it could go on."""

    def halt_all(self, reason: HaltReason, explanation: str) -> None:
        """Halt every partition that is owned."""


class Failures(NamedTuple):
    """What the engine lends to all partitions."""

    policy: FailurePolicy
    halts: Halts


class Verdict(Enum):
    """What follows a failed call."""

    CALL_AGAIN = "its wait is over"
    DEAD_LETTER = "it is not called again"
    ENDED = "the partition has ended: the record stays undone"


class FailureHandler:
    """Settles what failed in one partition; as long-lived as its lanes."""

    def __init__(
        self,
        partition: Partition,
        gate: Gate,
        failures: Failures,
        counters: Counters,
        retry: Callable[[Any, str, bool], Coroutine[Any, Any, None]],
    ) -> None:
        """``retry`` calls a record's route once more and those behind it, or only those (``dispatch.py``)."""
        self.partition = partition
        self.gate = gate
        self.counters = counters
        self.retry = failures.policy.retry
        self._policy, self._halts = failures
        self._retry = retry

    async def settle(self, raw: Any, failed: DecodeError | HandlerFailedError) -> bool:
        """Bring a record to its outcome on all its routes; False when the partition ended first."""
        failed_call: FailedCall | None = None
        try:
            while isinstance(failed, HandlerFailedError):
                if failed_call is None or failed_call.route != failed.route:
                    failed_call = (
                        failed_call.followed_by(failed.route)
                        if failed_call
                        else FailedCall(self, failed.route, raw.offset)
                    )
                verdict = await failed_call.meet(failed.error)
                over = verdict is Verdict.DEAD_LETTER
                if verdict is Verdict.ENDED or (over and not await self.bury(raw, failed_call.cause(failed))):
                    return False
                try:
                    await self._retry(raw, failed_call.route, over)
                except (DecodeError, HandlerFailedError) as following:
                    failed = following
                else:
                    return True
        finally:
            if failed_call is not None:
                failed_call.end()
        self.counters.decode_errors[self.partition.key.topic, failed.reason] += 1
        cause = Cause(failed.reason, NO_ROUTE, 0, class_name(failed), str(failed))
        return await self.bury(failed.record or raw, cause)

    async def bury(self, raw: Any, cause: Cause) -> bool:
        """Make one record a dead letter; False when it could not be: the partition has ended."""
        key, policy = self.partition.key, self._policy
        if policy.letters is None:
            self._halt_at(raw, f"{cause.message}; dead_letter.topic is empty, so there is nowhere for it to go")
            return False
        if policy.fuse.blows(Position(*key, raw.offset), sum(self.counters.records_consumed.values())):
            self._halts.halt_all(HaltReason.FUSE, f"too many records become dead letters; the last: {cause.message}")
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

    async def _write(self, letters: Letters, raw: Any, cause: Cause) -> bool:
        """Write a letter, for as long as it takes; False when the partition ended before it was taken."""
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
                if writing.cancelled():  # not by us; taken for a cancellation of ours it would end all work in silence
                    raise LetterDelayedError("its write was cancelled")
                writing.result()
            except LetterDelayedError as delayed:
                log.warning("dead_letter_write_failed", **self._where(raw), why=str(delayed))
                with self.partition.holding(hold):
                    # It calls nothing, so no pause concerns it; and what it waits for must not wait for it in turn.
                    seconds = attempts.after(ConnectionError()).wait or 0.0
                    if not await self.gate.wait(seconds, own_pause=True, place=False):
                        return False
            else:
                return True
            finally:
                writing.cancel()

    def _halt_at(self, raw: Any, why: str) -> None:
        self._halts.halt_partition(self.partition, HaltReason.NO_DEAD_LETTER, raw.offset, why, raw.offset + 1)

    def _where(self, raw: Any) -> dict[str, Any]:
        key = self.partition.key
        return {"topic": key.topic, "partition": key.partition, "offset": raw.offset}


class FailedCall:
    """The failures of one route with one record or batch, from its first failed call to its outcome.

    While a handler says Pause, everything else of the partition waits for the same record to get through.
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
        """Begin; ``attempts`` replaces the setting's, and a batch has no runner's place to leave while it waits."""
        self.route = route
        policy = failure_handler.retry
        self._attempts = Attempts(policy if attempts is None else msgspec.structs.replace(policy, attempts=attempts))
        self._failure_handler = failure_handler
        self._place = not of_batch
        self._hold = Hold("error", route, offset, time.time())
        self._pausing = False
        self._reason = ""
        failure_handler.partition.holds.add(self._hold)

    def end(self) -> None:
        """Hold nothing up any more."""
        self._failure_handler.partition.holds.discard(self._hold)
        self._pause(on=False)

    def followed_by(self, route: str) -> FailedCall:
        """End, and begin the same for the record's next route."""
        self.end()
        return FailedCall(self._failure_handler, route, self._hold.offset)

    async def meet(self, error: BaseException) -> Verdict:
        """Count a failed call, and wait as long as it asks for."""
        failure_handler, attempt = self._failure_handler, self._attempts.calls
        # A call that the drain cancelled may say so with an error of its own: that is no reason for a letter, nor may
        # one that outlived its epoch bring others after it.
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
        # One that is raised again and again collects a longer traceback each time, and all that its frames hold.
        BaseException.with_traceback(error, None)
        if not await failure_handler.gate.wait(decision.wait, own_pause=self._pausing, place=self._place):
            failure_handler.counters.of(self.route).abandoned += 1
            return Verdict.ENDED
        failure_handler.counters.of(self.route).retries += 1
        return Verdict.CALL_AGAIN

    def rejects(self) -> None:
        """Count a call that rejected some records of its batch: whatever it paused for is there again."""
        self._failure_handler.counters.handler_errors[self.route, "reject"] += 1
        self._hold.kind = "reject"
        self._pause(on=False)

    def cause(self, failed: HandlerFailedError, reason: str | None = None) -> Cause:
        """Say why the record becomes a dead letter; ``reason`` when it is another than that of the last failed call."""
        calls = self._attempts.calls
        return Cause(reason or self._reason, self.route, calls, class_name(failed.error), str(failed))

    def _pause(self, *, on: bool) -> None:
        if on != self._pausing:
            self._pausing = on
            self._failure_handler.partition.pausing += 1 if on else -1
            if not on:
                self._failure_handler.gate.unpaused()
