"""What the daemon is at, as one plain value: the status page shows it, ``/status.json`` is it.

Privacy: no key, value or option's value is here, only names, counts, offsets and places in our code or the user's.
"""

from __future__ import annotations

from typing import Any

import msgspec

from consumer.http.history import Sample
from consumer.observe.recent_failures import Failure
from consumer.settings.meanings import MEANINGS
from consumer.settings.sections import SECRETS, Settings

HIDDEN_SETTINGS = SECRETS | {"kafka.security.username"}
HIDDEN = "hidden"


class PartitionStatus(msgspec.Struct, frozen=True):
    """One owned partition; None is what is not known yet."""

    topic: str
    partition: int
    state: str
    """``halted``, ``draining``, ``holding``, ``retrying``, ``starting``, ``reading`` or ``caught up``."""
    lag_records: int | None
    """Its end less the committed offset."""
    lag_seconds: float | None
    in_flight_records: int
    in_flight_bytes: int
    committed_offset: int | None
    position: int | None
    end_offset: int | None
    end_offset_age_seconds: float | None
    """Lag is as old as this."""


class HaltStatus(msgspec.Struct, frozen=True):
    """A partition that waits for a person."""

    topic: str
    partition: int
    offset: int
    reason: str
    explanation: str
    mend: str
    """What to do, so that a restart goes on."""
    command: str
    """What moves the group past it instead; empty where that would not help."""


class HoldStatus(msgspec.Struct, frozen=True):
    """Records of one partition and route that wait for the same thing, and are tried again by themselves."""

    topic: str
    partition: int
    route: str
    kind: str
    """``retry``, ``pause``, ``dead_letter`` or ``group``."""
    records: int
    offset: int
    """The lowest."""
    since: float
    """Seconds since 1970, of the one that waits longest."""
    ends: str
    """What ends it."""


class RouteStatus(msgspec.Struct, frozen=True):
    """One route; counts are since the start."""

    name: str
    handler: str
    """Empty for what came to no route."""
    match_fields: list[str]
    """Names of the event's fields that its match looks at."""
    options: list[str]
    """Names of the handler's options."""
    handled: int
    skipped: int
    dead_lettered: int
    retries: int
    abandoned: int
    waiting: int
    """Calls under way that are awaited."""
    errors: dict[str, int]
    """Calls that raised, by kind."""


class Status(msgspec.Struct, frozen=True):
    """All of it, as of one moment; times are seconds since 1970."""

    at: float
    started_at: float
    client_id: str
    group_id: str
    topics: list[str]
    state: str
    """``stalled``, or what the daemon does: ``starting``, ``running``, ``rebuilding`` or ``draining``."""
    since: float
    stalled: str | None
    """Why."""
    unready: str | None
    """Why ``/readyz`` says no."""
    records_per_second: float
    """Over the last ten seconds, as bytes."""
    bytes_per_second: float
    records_consumed: int
    last_commit_at: float | None
    max_in_flight_records: int
    """Per partition."""
    partitions: list[PartitionStatus]
    halts: list[HaltStatus]
    holds: list[HoldStatus]
    routes: list[RouteStatus]
    failures: list[Failure]
    """The last sorts of failures, the latest first."""
    commits: dict[str, int]
    rebalances: dict[str, int]
    client_rebuilds: dict[str, int]
    settings: dict[str, Any]
    """Secrets are ``hidden``; routes are among the routes."""
    versions: dict[str, str]
    history: list[Sample]
    """The oldest first."""


def plain_settings(settings: Settings) -> dict[str, Any]:
    """Return every setting's value under its name, routes left out, and secrets as ``hidden``."""
    found: dict[str, Any] = {}
    for name in MEANINGS:
        if name.startswith("routes."):
            continue
        value: Any = settings
        for part in name.split("."):
            value = getattr(value, part)
        found[name] = HIDDEN if name in HIDDEN_SETTINGS and value else value
    return found
