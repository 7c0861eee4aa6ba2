"""The status of one partition, read from its state and from what it waits for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from consumer.http.status import PartitionStatus, WaitStatus
from consumer.observe.remedy import HOLD_ENDS
from consumer.observe.waiting import Waiting
from consumer.partition.state import Partition, Phase

WORST_FIRST = ("halted", "holding", "retrying", "draining", "starting", "reading", "caught up")
RANKS = {state: place for place, state in enumerate(WORST_FIRST)}


class Moment(NamedTuple):
    """One time, by both clocks."""

    wall: float
    """Seconds since 1970."""
    monotonic: float

    def wall_of(self, monotonic: float) -> float:
        """Return a monotonic time in seconds since 1970."""
        return self.wall - (self.monotonic - monotonic)


def partition_status(partition: Partition, waits: Sequence[Waiting], now: Moment) -> PartitionStatus:
    in_flight_records, in_flight_bytes = partition.in_flight
    end, position, lag_records = partition.lag.end_offset, partition.position, partition.lag_records
    return PartitionStatus(
        topic=partition.key.topic,
        partition=partition.key.partition,
        state=_state_of(partition, lag_records),
        lag_records=lag_records,
        lag_seconds=partition.lag_seconds(now.wall),
        in_flight_records=in_flight_records,
        in_flight_bytes=in_flight_bytes,
        committed_offset=partition.known_committed,
        position=position,
        end_offset=max(end, position or 0) if end is not None else None,
        end_offset_age_seconds=now.monotonic - partition.lag.measured_at if end is not None else None,
        waits=[
            WaitStatus(each.kind, now.wall_of(each.since), None if each.until is None else now.wall_of(each.until))
            for each in waits
        ],
    )


def rank(state: str) -> int:
    """Return the place of a partition's state, the worst first; one that this version does not know is the worst."""
    return RANKS.get(state, 0)


def _state_of(partition: Partition, lag_records: int | None) -> str:
    if partition.halt is not None:
        return "halted"
    if partition.phase in (Phase.CLOSING, Phase.OVER):
        return "draining"
    holds = list(partition.holds)
    if holds:
        return "holding" if any(hold.kind in HOLD_ENDS for hold in holds) else "retrying"
    if lag_records is None:
        return "starting"
    return "reading" if lag_records else "caught up"
