"""Records of one partition that wait without a worker: for a retry's time, or for the gate to open."""

from __future__ import annotations

import asyncio
from heapq import heappop, heappush
from itertools import count
from typing import NamedTuple

from consumer.delivery.dispatch import Ongoing
from consumer.delivery.gate import Gate, Kind


class Parked(NamedTuple):
    """A record that waits."""

    due: float
    """Time of the event loop at which it may go on."""
    order: int
    kind: Kind
    ongoing: Ongoing


class Parking:
    """Owned by the workers of a partition and as long-lived; one timer for all that waits."""

    def __init__(self, gate: Gate) -> None:
        self.ready: list[Parked] = []
        """Records whose time has come, in that order."""
        self._gate = gate
        self._heap: list[Parked] = []
        self._order = count()
        self._timer: asyncio.TimerHandle | None = None

    def park(self, ongoing: Ongoing, kind: Kind, seconds: float) -> None:
        """Let a record wait, at least so long; drop it when waiting cannot help: a drain gives up every wait."""
        if self._gate.partition.ended:
            _abandon(ongoing)
            return
        due = asyncio.get_running_loop().time() + seconds
        heappush(self._heap, Parked(due, next(self._order), kind, ongoing))
        self._set_timer()

    def next_ready(self) -> Parked | None:
        """Take a record that may go on now; None if there is none."""
        for index, parked in enumerate(self.ready):
            if self._gate.may_start(parked.kind, parked.ongoing.hold):
                return self.ready.pop(index)
        return None

    def drop(self) -> None:
        """Leave everything that waits without an outcome; it comes again."""
        self._cancel_timer()
        for parked in (*self.ready, *self._heap):
            _abandon(parked.ongoing)
        self.ready, self._heap = [], []

    def _set_timer(self) -> None:
        self._cancel_timer()
        if self._heap:
            self._timer = asyncio.get_running_loop().call_at(self._heap[0].due, self._due)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _due(self) -> None:
        """Move records whose time has come to those that are ready, and have a worker look."""
        now = asyncio.get_running_loop().time()
        while self._heap and self._heap[0].due <= now:
            self.ready.append(heappop(self._heap))
        self._set_timer()
        if self.ready:
            self._gate.changed()


def _abandon(ongoing: Ongoing) -> None:
    if ongoing.failed_call is not None:
        ongoing.failed_call.abandon()
    elif ongoing.at < len(ongoing.steps):
        ongoing.steps[ongoing.at].counts.abandoned += 1
