"""The meter of a contestant, with one definition for all; standard library only, as every environment has it.

- wall: from the first record handed to the handler, or from the call (of at most 10 ms of waiting) that brings a loop
  its first records, to the last one handled
- CPU: of the whole process (all threads, user and system) from that first record until the final commit is done and
  the group is left: joining and importing are not counted, leaving is
- memory: the peak resident size of the process (VmHWM; ru_maxrss would inherit that of the driver)
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace


def read_job() -> SimpleNamespace:
    """Return the driver's job: servers, topic, group, events, mode, and a contestant's own fields."""
    return SimpleNamespace(**json.loads(sys.argv[1]))


def say(**fields) -> None:
    """Send fields to the driver, as one line."""
    sys.stdout.write("\n" + json.dumps(fields) + "\n")
    sys.stdout.flush()


class Meter:
    """Clocks of one run; call ``first`` and ``last`` once each, then ``report``."""

    def __init__(self) -> None:
        self._began = self._ended = self._cpu = 0.0

    def first(self) -> None:
        self._cpu = time.process_time()
        self._began = time.perf_counter()

    def last(self) -> None:
        self._ended = time.perf_counter()

    def report(self, handled: int, **more) -> None:
        """Send the result; called after the final commit, when the group is left."""
        cpu = time.process_time() - self._cpu
        say(handled=handled, wall=self._ended - self._began, cpu=cpu, rss_mb=peak_mb(), **more)


class Count:
    """Counts handled events, for peers that call a handler; both marks cost one comparison an event."""

    def __init__(self, meter: Meter, events: int, done) -> None:
        """``done`` is called after ``events`` handled events."""
        self.handled = 0
        self._mark = 1
        self._meter = meter
        self._events = events
        self._done = done

    def begin(self) -> None:
        """Start the clocks at the first call, for handlers that wait before they count."""
        if self._mark == 1:
            self._meter.first()
            self._mark = self._events

    def add(self, events: int = 1) -> None:
        self.handled += events
        if self.handled >= self._mark:
            self._reached()

    def _reached(self) -> None:
        self.begin()
        if self.handled >= self._events:
            self._meter.last()
            self._mark = sys.maxsize
            self._done()


def peak_mb() -> float:
    """Return the peak resident size of this process in MB."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.split("VmHWM:")[1].split()[0]) / 1000
