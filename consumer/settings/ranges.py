"""Ranges of all settings that are numbers."""

from __future__ import annotations

import re
from typing import NamedTuple

import msgspec

from consumer.errors import SettingsError

MAX_INT32 = 2**31 - 1
"""Largest size and count, as Kafka's protocol has them."""


class Range(NamedTuple):
    """Numbers from ``low`` to ``high``; no others are finite and useful."""

    low: float
    high: float

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int | float) and self.low <= number <= self.high

    def __str__(self) -> str:
        return f"from {_plain(self.low)} to {_plain(self.high)}"


SECONDS = Range(0.001, MAX_INT32 // 1000)
"""Times are whole milliseconds in Kafka's protocol, at most 24 days."""
SIZE = Range(1, MAX_INT32)

INDEX = re.compile(r"\[\d+\]")
"""What names one entry of a list, as in ``routes[0].max_records``."""

RANGES = {
    "kafka.fetch_bytes": SIZE,
    "kafka.max_batch_bytes": SIZE,
    "kafka.start_timeout_seconds": SECONDS,
    "kafka.session_timeout_seconds": SECONDS,
    "kafka.heartbeat_interval_seconds": SECONDS,
    "kafka.rebalance_timeout_seconds": SECONDS,
    "kafka.request_timeout_seconds": SECONDS,
    "delivery.concurrency": Range(1, 100_000),
    "delivery.threads": Range(1, 10_000),
    "delivery.max_in_flight_records": SIZE,
    "delivery.max_in_flight_bytes": SIZE,
    "delivery.max_record_bytes": SIZE,
    "delivery.commit_interval_seconds": SECONDS,
    "delivery.drain_seconds": SECONDS,
    "retry.attempts": Range(1, 1_000_000),
    "retry.initial_seconds": SECONDS,
    "retry.maximum_seconds": SECONDS,
    "retry.multiplier": Range(1, 1000),
    "retry.jitter": Range(0, 1),
    "dead_letter.limit_ratio": Range(0.000_001, 1),
    "dead_letter.limit_window_records": Range(1, 10_000_000),
    "watchdog.stalled_seconds": SECONDS,
    "watchdog.rebuilds": Range(1, 1_000_000),
    "watchdog.window_seconds": SECONDS,
    "http.port": Range(0, 65535),
    "routes.timeout_seconds": SECONDS,
    "routes.max_records": SIZE,
    "routes.max_seconds": SECONDS,
    "routes.flush_seconds": SECONDS,
}


def check_ranges(section: msgspec.Struct, name: str, where: str) -> None:
    """Raise SettingsError for a number of a section that is outside its range.

    ``name`` is the section's in RANGES, ``where`` stands before the field in the message.
    """
    for field, value in msgspec.structs.asdict(section).items():
        allowed = RANGES.get(f"{name}.{field}")
        if allowed is not None and value is not None and value not in allowed:
            raise SettingsError(f"{where}{field} = {value!r:.40} must be {allowed}")


def range_of(name: str) -> str:
    """Return the end of a message about a setting of the wrong type: its range, if it is a number."""
    allowed = RANGES.get(INDEX.sub("", name))
    return f"; it must be {allowed}" if allowed is not None else ""


def _plain(number: float) -> str:
    if isinstance(number, int):
        return f"{number:_}" if number >= 100_000 else f"{number}"
    return f"{number:.6f}".rstrip("0")
