"""What the parent process knows of its workers without asking them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec


class WorkerFacts(msgspec.Struct, frozen=True):
    """One worker at one time. Times are seconds since 1970."""

    number: int
    pid: int | None
    """None while it has no process."""
    port: int | None
    """Port of its HTTP server; None until it is known."""
    state: str
    """``starting``, ``running``, ``rebuilding`` or ``draining``, as it reports; ``ended`` while it has no process."""
    serving: bool
    """Whether its HTTP server and its handlers are open."""
    since: float
    """When its process started or ended."""
    restarts: int
    exit_code: int | None
    """How its previous process ended; None if there was none."""
    starts_at: float | None
    """When a worker that ended is started again."""


class Supervised(Protocol):
    """The workers as the HTTP server of their parent sees them."""

    @property
    def stopping(self) -> bool:
        """Whether the stop has begun."""

    @property
    def facts(self) -> Sequence[WorkerFacts]:
        """The workers, by number."""
