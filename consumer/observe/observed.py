"""The state of a running daemon for metrics, the status page and probes; safe to read from any thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from consumer.observe.waiting import Waiting
from consumer.observe.watchdog import Stall
from consumer.partition.state import Partition
from consumer.record import TopicPartition


class Observed(Protocol):
    """Protocol of a daemon for its observers; implemented in ``consumer/process/vitals.py``."""

    @property
    def state(self) -> str:
        """``starting``, ``running``, ``rebuilding`` or ``draining``."""

    @property
    def stall(self) -> Stall | None:
        """The stall that the watchdog found at its last look; None without one."""

    @property
    def unhealthy(self) -> str | None:
        """Why ``/healthz`` fails; None if it does not fail."""

    @property
    def unready(self) -> str | None:
        """Why ``/readyz`` fails; None if it does not fail."""

    @property
    def partitions(self) -> list[Partition]:
        """The partitions owned now."""

    def waits(self) -> Mapping[TopicPartition, Sequence[Waiting]]:
        """Return what each owned partition waits for."""

    def loop_seconds(self) -> Mapping[str, float]:
        """Return the seconds of the event loop by state."""
