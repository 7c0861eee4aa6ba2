"""The state of a running daemon as the watchdog, metrics, probes and the status page read it."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from consumer.delivery.engine import Engine
from consumer.kafka.client_source import ClientSource
from consumer.kafka.group import Group
from consumer.observe.loop_time import EveryRound, LoopTime
from consumer.observe.members import GroupDescription, Membership
from consumer.observe.waiting import Standing, Waiting
from consumer.observe.watchdog import Stall, Vitals, Watchdog
from consumer.partition.state import Partition
from consumer.process.lifecycle import Lifecycle
from consumer.process.reconnect import Reconnect
from consumer.process.stacks import awaited_call, blocking_call
from consumer.process.waits import Waits
from consumer.record import TopicPartition

BEAT_SECONDS = 0.25
BLOCKED_SECONDS = 2.0
"""Time without a beat after which missing answers are laid to the event loop, which does not read them."""


class Watching(NamedTuple):
    """What looks at the daemon while it runs."""

    watchdog: Watchdog
    waits: Waits
    loop_time: LoopTime | EveryRound
    group: Group


class DaemonVitals:
    """Reads the daemon's parts, from any thread; implements ``Observed`` and lives as long as the daemon."""

    def __init__(
        self,
        source: ClientSource,
        engine: Engine,
        reconnect: Reconnect,
        lifecycle: Lifecycle,
        watching: Watching,
        rebalance_timeout_seconds: float,
    ) -> None:
        self._source = source
        self._engine = engine
        self._reconnect = reconnect
        self._lifecycle = lifecycle
        self._watchdog, self._waits, self._loop_time, self._group = watching
        self._rebalance_timeout_seconds = rebalance_timeout_seconds
        self._beat = time.monotonic()
        self._heard_at, self._unheard = -math.inf, 0.0
        """A broker's last answer, as of the last beat, and for how long the event loop has run since."""
        self._thread, self._watched = threading.get_ident(), asyncio.get_running_loop()

    def beat(self) -> None:
        """Note that the event loop is running, and for how long it has without an answer of a broker."""
        self._unheard = self.unheard_seconds
        self._beat, self._heard_at = time.monotonic(), self._source.heard_at

    async def beat_forever(self) -> None:
        """Call ``beat`` at intervals, and pause the engine while the group may have removed this member."""
        while True:
            self.beat()
            self._engine.doubt(doubtful=self._source.doubtful(self._beat))
            await asyncio.sleep(BEAT_SECONDS)

    def read(self) -> Vitals:
        """Return the state that the watchdog compares with the previous one."""
        joined = self._source.joined and self.state != "rebuilding"
        waits = self._waits.read(time.monotonic(), time.time()) if joined else []
        if joined:
            waits += self._waits.unbegun(self._source.membership.unbegun)
        return Vitals(
            beat=self._beat,
            heard_at=self._source.heard_at if joined else -math.inf,
            group_since=self._source.group_since(self._beat),
            partitions=waits,
            client=self._source.rebuilds,
        )

    @property
    def state(self) -> str:
        """``starting``, ``running``, ``rebuilding`` or ``draining``."""
        return "draining" if self._lifecycle.draining else self._reconnect.state

    @property
    def partitions(self) -> list[Partition]:
        """The partitions owned now."""
        return list(self._engine.partitions.values())

    def waits(self) -> Mapping[TopicPartition, Sequence[Waiting]]:
        """Return what each owned partition waits for."""
        return {vital.key: vital.waits for vital in self._waits.read(time.monotonic(), time.time())}

    @property
    def heard_at(self) -> float:
        """Monotonic time of a broker's last answer; -inf before the first."""
        return self._source.heard_at

    @property
    def unheard_seconds(self) -> float:
        """Seconds for which the event loop has run without an answer of a broker; it hears none while it is blocked."""
        if self._source.heard_at != self._heard_at:
            return 0.0
        return self._unheard + min(time.monotonic() - self._beat, 2 * BEAT_SECONDS)

    @property
    def ran_at(self) -> float:
        """Monotonic time at which the event loop ran last."""
        return self._beat

    @property
    def member_id(self) -> str:
        """Name of this member that the coordinator chose; empty until it has joined."""
        return self._source.member_id

    @property
    def membership(self) -> Membership:
        """This member as it knows itself."""
        return self._source.membership

    @property
    def group(self) -> GroupDescription | None:
        """The coordinator's last description of the group; None before the first."""
        return self._group.description

    def standing(self) -> Standing:
        """Return where the call stands that the stall is about; empty without one."""
        stall = self._watchdog.stall
        if stall is None or (stall.kind != "loop" and stall.call is None):
            return Standing()
        if stall.call is None or stall.call_of is None:
            return blocking_call(self._thread)
        return awaited_call(self._watched, stall.call, stall.call_of)

    def loop_seconds(self) -> Mapping[str, float]:
        """Return the seconds of the event loop by state."""
        return self._loop_time.seconds()

    @property
    def stall(self) -> Stall | None:
        """The stall that the watchdog found at its last look; None without one."""
        return self._watchdog.stall

    @property
    def unhealthy(self) -> str | None:
        """Why ``/healthz`` fails: the stall; None if it does not fail."""
        stall = self._watchdog.stall
        return f"stalled: {stall}" if stall is not None else None

    def _silence(self) -> str | None:
        """Message that no broker has answered for long, or that nobody heard it because the event loop is blocked."""
        now = time.monotonic()
        if now - self._beat < BLOCKED_SECONDS:
            return self._reconnect.silence(self.unheard_seconds)
        silent = self._reconnect.silence(now - self._source.heard_at) is not None
        return f"the event loop has not run for {now - self._beat:.0f} s" if silent else None

    @property
    def unready(self) -> str | None:
        """Why ``/readyz`` fails: the first reason that applies; None if it does not fail."""
        if self._lifecycle.stopping.is_set():
            return "stopping"
        if not self._source.joined:
            return "not joined yet"
        rebalancing = self._source.rebalancing_for(time.monotonic())
        if rebalancing <= self._rebalance_timeout_seconds:
            rebalancing = 0.0
        halted = ", ".join(str(each.key) for each in self.partitions if each.halt is not None)
        return (
            self._silence()
            or self.unhealthy
            or (f"rebalancing for {rebalancing:.0f} s" if rebalancing else None)
            or (f"halted: {halted}" if halted else None)
        )
