"""What a running daemon shows to metrics, the status page and probes; safe to read from any thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from consumer.observe.watchdog import Stall
from consumer.partition.state import Partition


class Observed(Protocol):
    """A daemon as its observers see it; ``consumer/process/vitals.py`` implements it."""

    @property
    def state(self) -> str:
        """``starting``, ``running``, ``rebuilding`` or ``draining``."""

    @property
    def stall(self) -> Stall | None:
        """What the watchdog found at its last look."""

    @property
    def unhealthy(self) -> str | None:
        """Why ``/healthz`` fails; None while it does not."""

    @property
    def unready(self) -> str | None:
        """Why ``/readyz`` fails; None while it does not."""

    @property
    def partitions(self) -> list[Partition]:
        """The partitions that are owned now."""

    def loop_seconds(self) -> Mapping[str, float]:
        """Return the seconds of the event loop by state."""
