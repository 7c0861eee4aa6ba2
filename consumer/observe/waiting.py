"""What a partition waits for, since when, and until when. Pure: times are arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

Kind = Literal[
    "earlier_epoch",
    "position",
    "call",
    "batch",
    "flush",
    "commit",
    "data",
    "progress",
    "room",
    "retry",
    "pause",
    "letter",
    "group",
    "drain",
    "halt",
]


class CallUnderWay(NamedTuple):
    """A call of a handler that is under way."""

    since: float
    """Monotonic time of its begin."""
    route: str
    offset: int
    """Offset of its record; for a batch, of its first record."""


class Standing(NamedTuple):
    """Where a call stands that does not end."""

    route: str = ""
    """Empty if it is not known."""
    offset: int | None = None
    places: Sequence[str] = ()
    """Places in code, innermost first, up to where the call was made."""
    partition: str = ""
    """Topic and partition of the record; empty if it is not known."""


class Waiting(NamedTuple):
    """One thing that a partition waits for; times are monotonic."""

    kind: Kind
    since: float
    until: float | None = None
    """When a setting ends it; None if none does."""
    late_at: float = math.inf
    """When it is a stall; never for what waits for something outside this daemon."""
    call: CallUnderWay | None = None
    """The call that is waited for, if it is one."""
