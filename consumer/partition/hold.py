"""Halts, which end when a person acts, and holds, which end by themselves."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from consumer.outcome import HaltReason


class Halt(NamedTuple):
    """The reason and the offset of a halted partition, which waits for a person."""

    reason: HaltReason
    offset: int
    explanation: str
    remedy: str = ""
    """What to do, and the command to run, so that the partition goes on."""
    since: float = 0.0
    """Seconds since 1970."""
    next_offset: int = -1
    """Offset to go on with after the cause; -1 for the beginning."""
    undone: tuple[int, ...] = ()
    """Lowest offsets below the cause without an outcome, as far as the remedy names them, and one more."""


class Hold(msgspec.Struct, eq=False):
    """A record that waits and is then tried again without a person."""

    kind: str
    """Cause of the wait: ``retry`` or ``pause`` (raised by the handler), ``error`` or ``timeout`` (retried by policy),
    ``dead_letter`` (Kafka does not accept it yet) or ``group`` (heartbeats are not answered)."""
    route: str
    offset: int
    since: float
    """Seconds since 1970."""
    error: str = ""
    """Class and place of the last exception, or a message of this software."""
    attempts: int = 0
    """Failed attempts of the record whose attempt failed last."""
    next_at: float | None = None
    """Time of the next attempt, in seconds since 1970; None while one is under way, or none is planned."""

    def failed(self, error: str, attempts: int, next_at: float | None) -> None:
        """Note a failed attempt, and when the next one follows."""
        self.error, self.attempts, self.next_at = error, attempts, next_at
