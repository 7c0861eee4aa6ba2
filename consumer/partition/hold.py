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


class Hold(msgspec.Struct, eq=False):
    """A record that waits and is then tried again without a person."""

    kind: str
    """Cause of the wait: ``retry`` or ``pause`` (raised by the handler), ``error`` or ``timeout`` (retried by policy),
    ``dead_letter`` (Kafka does not accept it yet) or ``group`` (heartbeats are not answered)."""
    route: str
    offset: int
    since: float
    """Seconds since 1970."""
