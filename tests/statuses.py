"""A status with the parts that a test sets, and realistic values elsewhere."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from consumer.http.history import SAMPLES, Sample
from consumer.http.status import (
    HaltStatus,
    HoldStatus,
    PartitionStatus,
    RouteStatus,
    Status,
    WaitStatus,
)
from consumer.observe.recent_failures import Failure
from consumer.observe.remedy import HOLD_ENDS, remedy, split_remedy
from consumer.outcome import HaltReason
from consumer.record import TopicPartition
from consumer.settings.listing import plain_settings
from consumer.settings.sections import Kafka, Settings

AT = 1_793_000_000.0
KINDS = ("reject", "retry", "pause", "error", "timeout")


def a_partition(number: int, topic: str = "session-events", **values: Any) -> PartitionStatus:
    usual: dict[str, Any] = {
        "state": "caught up",
        "lag_records": 0,
        "lag_seconds": 0.0,
        "in_flight_records": 0,
        "in_flight_bytes": 0,
        "committed_offset": 1_204_311 + 977 * number,
        "position": 1_204_311 + 977 * number,
        "end_offset": 1_204_311 + 977 * number + values.get("lag_records", 0),
        "end_offset_age_seconds": 1.2,
        "waits": [WaitStatus("data", AT - 3.0, None)],
    }
    return PartitionStatus(topic, number, **(usual | values))


def a_halt(number: int, reason: HaltReason = HaltReason.CORRUPT_BATCH, topic: str = "session-events") -> HaltStatus:
    offset = 88_120 + number
    said = remedy(Kafka(), TopicPartition(topic, number), reason, offset + 1)
    return HaltStatus(topic, number, offset, reason.value, "a batch has a wrong checksum", *split_remedy(said))


def a_hold(number: int, kind: str = "pause", route: str = "crm", **values: Any) -> HoldStatus:
    usual: dict[str, Any] = {"records": 1, "offset": 500 + number, "since": AT - 95.0}
    return HoldStatus("session-events", number, route, kind, **(usual | values), ends=HOLD_ENDS[kind])


def a_route(name: str, handler: str = "calls:talk_time", **values: Any) -> RouteStatus:
    usual: dict[str, Any] = {
        "match_fields": ["channel_manager_type", "is_test"],
        "options": [],
        "handled": 0,
        "skipped": 0,
        "dead_lettered": 0,
        "retries": 0,
        "abandoned": 0,
        "waiting": 0,
        "errors": dict.fromkeys(KINDS, 0) if name != "none" else {},
    }
    return RouteStatus(name, handler, **(usual | values))


def a_failure(kind: str = "error", **values: Any) -> Failure:
    usual: dict[str, Any] = {
        "first_at": AT - 120.0,
        "last_at": AT - 12.0,
        "times": 1,
        "route": "crm",
        "error": "KeyError (/srv/handlers/crm.py:41)",
        "topic": "session-events",
        "partition": 2,
        "offset": 1_204_881,
    }
    return Failure(kind=kind, **(usual | values))


def some_history(count: int = SAMPLES, at: float = AT) -> list[Sample]:
    """Make samples of a load that rises and falls, with a lag that shrinks to 0."""
    return [
        Sample(
            at - (count - 1 - each),
            18_000 + 6_000 * math.sin(each / 23) + 900 * math.sin(each * 1.7),
            5_600_000.0,
            max(0, 400_000 - 2_000 * each),
        )
        for each in range(count)
    ]


def a_status(**values: Any) -> Status:
    usual: dict[str, Any] = {
        "at": AT,
        "started_at": AT - 11_522.0,
        "client_id": "session-consumer",
        "group_id": "session-consumer",
        "topics": ["session-events"],
        "state": "running",
        "since": AT - 11_520.0,
        "stalled": None,
        "unready": None,
        "records_per_second": 18_204.0,
        "bytes_per_second": 5_914_224.0,
        "records_consumed": 207_431_002,
        "last_commit_at": AT - 0.6,
        "max_in_flight_records": 2000,
        "partitions": [a_partition(number) for number in range(4)],
        "halts": [],
        "holds": [],
        "routes": [
            a_route("voice", "consumer.handlers.jsonl:JsonLines", handled=101_002_118, options=["path", "max_bytes"]),
            a_route("crm", handled=62_114_904, match_fields=["channel_manager_type"]),
            a_route("none", "", match_fields=[], skipped=44_313_980),
        ],
        "failures": [],
        "commits": {"ok": 11_400, "failed": 0, "fenced": 0},
        "rebalances": {"assigned": 1, "revoked": 0, "lost": 0},
        "client_rebuilds": {"deaf": 0, "task_ended": 0},
        "settings": plain_settings(Settings()),
        "versions": {"session-consumer": "0.1.0", "aiokafka": "0.14.0", "python": "3.11.7"},
        "history": some_history(),
    }
    return msgspec.structs.replace(Status(**usual), **values)


def a_troubled_status() -> Status:
    """Make a status that shows everything that can be shown at once."""
    partitions = [a_partition(number) for number in range(12)]
    partitions[1] = a_partition(1, state="halted", lag_records=48_210, lag_seconds=211.0)
    partitions[2] = a_partition(2, state="holding", lag_records=1204, lag_seconds=95.0, in_flight_records=2000)
    partitions[5] = a_partition(5, state="retrying", lag_records=88, lag_seconds=2.4, in_flight_records=12)
    partitions[7] = a_partition(7, state="reading", lag_records=15_311, lag_seconds=31.0, end_offset_age_seconds=22.0)
    errors = dict.fromkeys(KINDS, 0) | {"error": 12, "pause": 431}
    return a_status(
        partitions=partitions,
        halts=[a_halt(1)],
        holds=[a_hold(2)],
        routes=[
            a_route("voice", "consumer.handlers.jsonl:JsonLines", handled=101_002_118, options=["path", "max_bytes"]),
            a_route("crm", "crm:Upsert", handled=62_114_904, dead_lettered=3, retries=440, waiting=1, errors=errors),
            a_route("none", "", match_fields=[], skipped=44_313_980, dead_lettered=17),
        ],
        failures=[
            a_failure("pause", error="ConnectionRefusedError (/srv/handlers/crm.py:33)", times=431),
            a_failure(
                "exhausted", error="the handler of route 'crm' raised KeyError (/srv/handlers/crm.py:41)", times=3
            ),
            a_failure(
                "undecodable", route="none", error="its value of 1204 bytes is not an event (ValidationError)", times=17
            ),
        ],
        settings=plain_settings(Settings(kafka=Kafka(bootstrap_servers=["kafka-1:9092", "kafka-2:9092"]))),
    )
