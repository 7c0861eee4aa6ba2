"""Retry policy: whether and when a failed call is repeated; counted per record and route, in memory. Pure: no clock."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Literal, NamedTuple

from consumer.errors import CallTimeoutError
from consumer.instructions import Pause, Reject, Retry
from consumer.settings.sections import RetrySettings

MINIMUM_SECONDS = 0.01
"""Minimum delay between two calls: ``Retry(after=0)`` must not keep the event loop busy."""


class Decision(NamedTuple):
    """The consequence of a failed call."""

    kind: Literal["reject", "retry", "pause", "error", "timeout"]
    """The label of ``handler_errors``."""
    wait: float | None
    """Seconds until the next call; None for a dead letter."""

    @property
    def reason(self) -> str:
        """Reason of the dead letter."""
        return "rejected" if self.kind == "reject" else "exhausted"


class RoutePolicy(NamedTuple):
    """Retry policy of one route."""

    retry: RetrySettings
    pause_on: tuple[type[Exception], ...] = ()
    """Exceptions that mean the same as ``Pause()``, besides ConnectionError."""


class Attempts:
    """Counts the calls of one route with one record or batch; lives until its outcome."""

    def __init__(
        self,
        policy: RetrySettings,
        chance: Callable[[], float] = random.random,
        pause_on: tuple[type[Exception], ...] = (),
    ) -> None:
        """``pause_on`` holds exceptions that mean the same as ``Pause()``, besides ConnectionError."""
        self.calls = 1
        """Calls that count as attempts, the first included."""
        self.failed = 0
        """Calls that failed, those that count no attempt included."""
        self._waits = 0
        """Retry and Pause so far; they count no attempt."""
        self._policy = policy
        self._chance = chance
        self._outages = (ConnectionError, Pause, *pause_on)

    def after(self, error: BaseException, *, excused: bool = False) -> Decision:
        """Return what follows a call that raised ``error``; an ``excused`` error counts no attempt."""
        self.failed += 1
        match error:
            case Reject():
                return Decision("reject", None)
            case Retry():
                return Decision("retry", self._wait(error.after))
            case Pause():
                return Decision("pause", self._wait(error.after))
        if self._is_outage(error):
            return Decision("pause", self._wait(None))
        return Decision("retry", self._wait(None)) if excused else self._count(error)

    def _count(self, error: BaseException) -> Decision:
        kind: Literal["error", "timeout"] = "timeout" if isinstance(error, CallTimeoutError) else "error"
        if self.calls >= self._policy.attempts:
            return Decision(kind, None)
        self.calls += 1
        return Decision(kind, self._delay(self.calls - 1))

    def _is_outage(self, error: BaseException) -> bool:
        """Whether what the handler needs is down; a group says so if all of its exceptions do.

        A call past its time limit counts as an attempt, whatever ``pause_on`` holds.
        """
        left = [error]
        while left:
            each = left.pop()
            if isinstance(each, Reject | Retry | CallTimeoutError):
                return False
            if isinstance(each, self._outages):
                continue
            if not isinstance(each, BaseExceptionGroup):
                return False
            left += each.exceptions
        return True

    def _wait(self, seconds: float | None) -> float:
        self._waits += 1
        return self._delay(self._waits) if seconds is None else max(seconds, MINIMUM_SECONDS)

    def _delay(self, number: int) -> float:
        policy = self._policy
        try:
            seconds = min(policy.maximum_seconds, policy.initial_seconds * policy.multiplier ** (number - 1))
        except OverflowError:
            seconds = policy.maximum_seconds
        return max(seconds * (1 + policy.jitter * (2 * self._chance() - 1)), MINIMUM_SECONDS)
