"""What a partition waits for, since when, and until when. Pure: times are arguments."""

from __future__ import annotations

import math
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


class Waiting(NamedTuple):
    """One thing that a partition waits for; times are monotonic."""

    kind: Kind
    since: float
    until: float | None = None
    """When a setting ends it; None if none does."""
    late_at: float = math.inf
    """When it is a stall; never for what waits for something outside this daemon."""
