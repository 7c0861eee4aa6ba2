"""Why a partition does not go on: halted until a person acts, or holding until a wait ends by itself."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from consumer.outcome import HaltReason


class Halt(NamedTuple):
    """Why and where a partition waits for a person."""

    reason: HaltReason
    offset: int
    explanation: str
    remedy: str = ""
    """What to run, or to do, so that it goes on."""


class Hold(msgspec.Struct, eq=False):
    """A record that waits and is tried again by itself."""

    kind: str
    """What it waits for: the handler's ``retry`` or ``pause``, its policy (``error``, ``timeout``), Kafka to take its
    ``dead_letter``, or the ``group`` to hear of this member."""
    route: str
    offset: int
    since: float
    """Seconds since 1970."""
