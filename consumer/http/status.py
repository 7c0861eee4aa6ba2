"""The daemon's status as one plain value, which the status page shows and ``/status.json`` returns.

Privacy: it holds no key, no value and no option's value, only names, counts, offsets and places in code.
"""

from __future__ import annotations

from typing import Any

import msgspec

from consumer.http.history import Sample
from consumer.observe.recent_failures import Failure


class WaitStatus(msgspec.Struct, frozen=True):
    """One thing that a partition waits for; times are seconds since 1970."""

    kind: str
    """``halt``, ``drain``, ``earlier_epoch``, ``position``, ``call``, ``batch``, ``retry``, ``pause``, ``letter``,
    ``group``, ``data``, ``room``, ``flush`` or ``commit``."""
    since: float
    until: float | None
    """When a setting ends it; None if none does."""


class PartitionStatus(msgspec.Struct, frozen=True):
    """One owned partition. None means that a value is not known yet."""

    topic: str
    partition: int
    state: str
    """``halted``, ``draining``, ``holding``, ``retrying``, ``starting``, ``reading`` or ``caught up``."""
    lag_records: int | None
    """End offset minus committed offset."""
    lag_seconds: float | None
    in_flight_records: int
    in_flight_bytes: int
    committed_offset: int | None
    position: int | None
    end_offset: int | None
    end_offset_age_seconds: float | None
    """Seconds since the end offset was measured, which is the age of the lag."""
    waits: list[WaitStatus]
    """What it waits for, what keeps its records first; empty while it works."""


class HaltStatus(msgspec.Struct, frozen=True):
    """A halted partition, which waits for a person."""

    topic: str
    partition: int
    offset: int
    reason: str
    explanation: str
    mend: str
    """What to do before a restart."""
    command: str
    """Command that moves the group past the cause instead; empty if that would not help."""


class HoldStatus(msgspec.Struct, frozen=True):
    """Records of one partition and route that wait for the same thing, and are then tried again."""

    topic: str
    partition: int
    route: str
    kind: str
    """``retry``, ``pause``, ``dead_letter`` or ``group``."""
    records: int
    offset: int
    """Lowest offset of the records."""
    since: float
    """Start of the longest wait, in seconds since 1970."""
    ends: str
    """What ends the hold."""


class RouteStatus(msgspec.Struct, frozen=True):
    """One route, with its counts since the start."""

    name: str
    handler: str
    """Empty for the route ``none``."""
    match_fields: list[str]
    """Names of the fields that its match tests."""
    options: list[str]
    """Names of the handler's options, without their values."""
    handled: int
    skipped: int
    dead_lettered: int
    retries: int
    abandoned: int
    waiting: int
    """Awaited calls that are under way."""
    errors: dict[str, int]
    """Number of calls that raised, by kind."""


class Status(msgspec.Struct, frozen=True):
    """Status of the whole daemon at one time; times are seconds since 1970."""

    at: float
    started_at: float
    client_id: str
    group_id: str
    topics: list[str]
    state: str
    """``stalled``, or the state of the daemon: ``starting``, ``running``, ``rebuilding`` or ``draining``."""
    since: float
    stalled: str | None
    """Reason, if the daemon is stalled."""
    unready: str | None
    """Reason, if ``/readyz`` returns 503."""
    records_per_second: float
    """Mean of the last ten seconds, as is the rate of bytes."""
    bytes_per_second: float
    records_consumed: int
    last_commit_at: float | None
    max_in_flight_records: int
    """Limit per partition."""
    partitions: list[PartitionStatus]
    halts: list[HaltStatus]
    holds: list[HoldStatus]
    routes: list[RouteStatus]
    failures: list[Failure]
    """The last groups of failures, the latest first."""
    commits: dict[str, int]
    rebalances: dict[str, int]
    client_rebuilds: dict[str, int]
    settings: dict[str, Any]
    """Values by setting; secrets are ``hidden``, and routes are in ``routes``."""
    versions: dict[str, str]
    history: list[Sample]
    """Samples, oldest first."""
