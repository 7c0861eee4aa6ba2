"""The state of a running daemon for metrics, the status page and probes; safe to read from any thread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from consumer.observe.members import GroupDescription, Membership
from consumer.observe.waiting import Standing, Waiting
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

    @property
    def heard_at(self) -> float:
        """Monotonic time of a broker's last answer; -inf before the first."""

    @property
    def unheard_seconds(self) -> float:
        """Seconds for which the event loop has run since that answer; it hears brokers only while it runs."""

    @property
    def ran_at(self) -> float:
        """Monotonic time at which the event loop ran last."""

    @property
    def member_id(self) -> str:
        """Name of this member that the coordinator chose; empty until it has joined."""

    @property
    def membership(self) -> Membership:
        """This member as it knows itself."""

    @property
    def group(self) -> GroupDescription | None:
        """The coordinator's last description of the group; None before the first."""

    def standing(self) -> Standing:
        """Return where the call stands that the stall is about; empty without one."""

    def loop_seconds(self) -> Mapping[str, float]:
        """Return the seconds of the event loop by state."""
