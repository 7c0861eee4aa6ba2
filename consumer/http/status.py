"""The daemon's status as one plain value, which the status page and ``top`` show and ``/status.json`` returns.

Times are seconds since 1970. Privacy: it holds no key, no value and no option's value, only names, counts, offsets and
places in code; but values of the fields that ``by`` of a handler named Stats asks for.
"""

from __future__ import annotations

from typing import Any

import msgspec

from consumer.http.conditions import DeadLetteringStatus, HaltStatus, HoldStatus, StallStatus
from consumer.http.history import Sample
from consumer.observe.event_counts import EventCounts
from consumer.observe.recent_failures import Failure


class Verdict(msgspec.Struct, frozen=True):
    """One judgement of the daemon: what is wrong and what to do."""

    word: str
    """One or two words: ``Running``, ``Halted``, ``Holding`` and so on."""
    tone: str
    """``good``, ``busy``, ``warn`` or ``bad``."""
    sentence: str
    """What is the case."""
    todo: str
    """One sentence of what to do; empty if there is nothing to do."""
    command: str
    """A command that shows or ends it; empty without one."""
    runbook: str
    """Name of the alert whose heading in the runbook says more; empty without one."""
    since: float


class WaitStatus(msgspec.Struct, frozen=True):
    """One thing that a partition waits for."""

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
    """Age of the oldest record that is not committed; 0 when caught up."""
    in_flight_records: int
    in_flight_bytes: int
    committed_offset: int | None
    position: int | None
    end_offset: int | None
    end_offset_age_seconds: float | None
    """Seconds since the end offset was measured, which is the age of the lag."""
    waits: list[WaitStatus]
    """What it waits for, what keeps its records first; empty while it works."""


class TopicStatus(msgspec.Struct, frozen=True):
    """The owned partitions of one topic."""

    topic: str
    partitions: int
    lag_records: int | None
    lag_seconds: float | None
    """Age of the oldest record that is not committed."""
    records_per_second: float
    """Records consumed, mean of the last ten seconds."""
    catch_up_seconds: float | None
    """Time until the lag is 0 at the rate of the last minute; 0 when caught up, None if the lag does not shrink."""
    growing_since: float | None
    """Time since which the lag has grown without a break; None if it does not grow."""


class RouteStatus(msgspec.Struct, frozen=True):
    """One route: its counts since the start, and its calls of the last minutes."""

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
    allowed: int
    """Calls that may be under way at once, in all owned partitions."""
    errors: dict[str, int]
    """Number of calls that raised, by kind."""
    records_per_second: float
    """Records handled, mean of the last ten seconds."""
    call_seconds_p50: float | None
    """Median duration of the calls of the last minutes; None without calls. Calls that did not wait count with their
    mean. A value is interpolated between the bounds of ``handler_seconds``."""
    call_seconds_p99: float | None
    calls: int
    """Calls of the last minutes."""
    calls_failed: int
    """Those of them that raised or passed their time limit; a Reject is no failure of the call."""
    failing_since: float | None
    """Time since which at least 5 % of the calls of the last minutes have failed; None if fewer did."""


class ProcessStatus(msgspec.Struct, frozen=True):
    """The process, so that replicas can be told apart."""

    host: str
    pid: int
    version: str
    started_at: float
    client_id: str
    instance_id: str
    """``kafka.group_instance_id``; empty without one."""
    member_id: str
    """Name of this member that the coordinator chose; empty until it has joined."""


class MemberStatus(msgspec.Struct, frozen=True):
    """One member of the group as the coordinator describes it."""

    member_id: str
    client_id: str
    host: str
    partitions: int
    me: bool


class MembershipStatus(msgspec.Struct, frozen=True):
    """This member as it knows itself."""

    protocol: str = "classic"
    """The group protocol of this member: ``classic`` or ``consumer``."""
    epoch: int = 0
    """Epoch, or generation, of this member; 0 while it is in no group."""
    epochs_behind: int = 0
    """Epochs by which this member is behind its group."""
    answered_at: float | None = None
    """Time of the last answer to a heartbeat; None before the first."""
    revoking: list[str] = []
    """Partitions that this member lets go of now."""


class GroupStatus(msgspec.Struct, frozen=True):
    """The group as its coordinator described it last; it is asked every 30 seconds."""

    group_id: str
    state: str
    """As the coordinator names it: ``Stable``, ``PreparingRebalance`` and so on; empty until it has answered."""
    members: list[MemberStatus]
    asked_at: float | None
    """Time of that answer; None until there is one."""
    rebalances: int = 0
    """Times that partitions of this member were taken away in the last two minutes."""
    rebalancing_since: float | None = None
    """Time since which they have been taken away again and again; None if they have not."""
    membership: MembershipStatus = MembershipStatus()
    """This member as it knows itself."""


class BrokersStatus(msgspec.Struct, frozen=True):
    """Whether brokers answer."""

    bootstrap_servers: list[str]
    heard_at: float | None
    """Time of a broker's last answer; None before the first."""
    silent: bool
    """Whether an answer has been missing for long enough that all numbers from brokers are old."""


class StatsStatus(msgspec.Struct, frozen=True):
    """What the handler of one route has counted: it shows values of fields, because its settings name these."""

    route: str
    counts: EventCounts


class Status(msgspec.Struct, frozen=True):
    """Status of the whole daemon at one time."""

    at: float
    verdicts: list[Verdict]
    """At least one, the worst first."""
    process: ProcessStatus
    group: GroupStatus
    brokers: BrokersStatus
    subscribed: list[str]
    """The topics of the settings, or the pattern."""
    state: str
    """``stalled``, or the state of the daemon: ``starting``, ``running``, ``rebuilding`` or ``draining``."""
    since: float
    loop_ran_at: float
    """Time at which the event loop ran last. It runs several times a second, unless something blocks it."""
    unready: str | None
    """Reason, if ``/readyz`` returns 503."""
    stall: StallStatus | None
    halts: list[HaltStatus]
    holds: list[HoldStatus]
    """Retries by policy included."""
    dead_lettering: list[DeadLetteringStatus]
    records_per_second: float
    """Mean of the last ten seconds."""
    bytes_per_second: float
    """Bytes of the batches that held those records, as they were fetched: compressed if the producer compressed."""
    records_consumed: int
    last_commit_at: float | None
    max_in_flight_records: int
    """Limit per partition."""
    topics: list[TopicStatus]
    partitions: list[PartitionStatus]
    """By topic and number."""
    routes: list[RouteStatus]
    """In file order; ``none`` is the last."""
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
    stats: list[StatsStatus] = []
    """Of each route whose handler counts events, in file order."""
