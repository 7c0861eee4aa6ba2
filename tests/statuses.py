"""A status with the parts that a test sets, and realistic values elsewhere."""

from __future__ import annotations

import math
from typing import Any

import msgspec

from consumer.http.conditions import DeadLetteringStatus, HaltedPartition, HaltStatus, HoldStatus, StallStatus
from consumer.http.history import SAMPLES, Sample
from consumer.http.status import (
    BrokersStatus,
    GroupStatus,
    MemberStatus,
    PartitionStatus,
    ProcessStatus,
    RouteStatus,
    StatsStatus,
    Status,
    TopicStatus,
    WaitStatus,
)
from consumer.http.verdict import judge
from consumer.observe.event_counts import Counts, EventCounts, FieldCounts, HourCounts, ValueCount
from consumer.observe.recent_failures import Failure
from consumer.observe.remedy import HOLD_ENDS, joint_remedy
from consumer.outcome import HaltReason
from consumer.partition.hold import Halt
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


def a_halt(
    *numbers: int,
    reason: HaltReason = HaltReason.CORRUPT_BATCH,
    topic: str = "session-events",
    kafka: Kafka = Kafka(),  # noqa: B008 - frozen
) -> HaltStatus:
    halts = {
        number: Halt(
            reason,
            88_120 + number,
            f"the checksum of the batch at offset {88_120 + number} is wrong",
            "known",
            AT - 300.0,
            88_121 + number,
        )
        for number in numbers
    }
    mend, command = joint_remedy(kafka, topic, halts)
    partitions = [HaltedPartition(number, each.offset, each.explanation, each.since) for number, each in halts.items()]
    return HaltStatus(topic, reason.value, mend, command, AT - 300.0, partitions)


def a_hold(number: int, kind: str = "pause", route: str = "crm", **values: Any) -> HoldStatus:
    usual: dict[str, Any] = {
        "records": 1,
        "offset": 500 + number,
        "since": AT - 95.0,
        "error": "ConnectionRefusedError (/srv/handlers/crm.py:33)",
        "attempts": 7,
        "next_at": AT + 12.0,
        "ends": HOLD_ENDS.get(kind, ""),
    }
    return HoldStatus("session-events", number, route, kind, **(usual | values))


def a_stall(**values: Any) -> StallStatus:
    usual: dict[str, Any] = {
        "kind": "call",
        "why": "a handler's call does not end (session-events-3)",
        "since": AT - 75.0,
        "exits_at": AT + 585.0,
        "partitions": ["session-events-3"],
        "route": "crm",
        "offset": 1_207_242,
        "places": ["sleep (/srv/handlers/crm.py:52)", "upsert (/srv/handlers/crm.py:41)"],
    }
    return StallStatus(**(usual | values))


def dead_lettering(**values: Any) -> DeadLetteringStatus:
    usual: dict[str, Any] = {
        "topic": "session-events",
        "reason": "undecodable",
        "route": "none",
        "dead_lettered": 267,
        "records": 400,
        "since": AT - 130.0,
    }
    return DeadLetteringStatus(**(usual | values))


def a_topic(topic: str = "session-events", **values: Any) -> TopicStatus:
    usual: dict[str, Any] = {
        "partitions": 4,
        "lag_records": 0,
        "lag_seconds": 0.0,
        "records_per_second": 18_204.0,
        "catch_up_seconds": 0.0,
        "growing_since": None,
    }
    return TopicStatus(topic, **(usual | values))


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
        "allowed": 256 if name != "none" else 0,
        "errors": dict.fromkeys(KINDS, 0) if name != "none" else {},
        "records_per_second": 0.0,
        "call_seconds_p50": None,
        "call_seconds_p99": None,
        "calls": 0,
        "calls_failed": 0,
        "failing_since": None,
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


def some_stats(route: str = "counts", at: float = AT, *, exact: bool = True) -> StatsStatus:
    """Make counts of two days, with fewer events at night."""
    now = int(at // 3600)
    hours = [
        HourCounts(
            3600.0 * hour, Counts(int(40_000 * (1.2 + math.cos((hour % 24 - 14) / 3.8))), 900 + 40 * (hour % 24))
        )
        for hour in range(now - 47, now + 1)
    ]
    types = [ValueCount("voice_sip_v1", 1_204_118), ValueCount("web_chat_v1", 402_551), ValueCount("(null)", 2_114)]
    agents = [
        ValueCount(name, 800_000 // (rank + 1)) for rank, name in enumerate(("Billing", "Front desk", "After hours"))
    ]
    counts = EventCounts(
        since=at - 11_522.0,
        events=1_608_783,
        apart={"is_test": 41_002, "is_legacy": 0},
        without_time=3,
        older=1_204,
        later=0,
        hours=hours,
        weekdays=[Counts(230_000 - 21_000 * day, 6_000) for day in range(7)],
        fields=[
            FieldCounts("channel_manager_type", types, 0, exact=True),
            FieldCounts("agent_name", agents, 142_117, exact=exact),
        ],
    )
    return StatsStatus(route, counts)


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
        "process": ProcessStatus(
            "worker-7", 4211, "0.2.0", AT - 11_522.0, "session-consumer", "", "session-consumer-9d1f-4e0b"
        ),
        "group": GroupStatus(
            "session-consumer",
            "Stable",
            [
                MemberStatus("session-consumer-9d1f-4e0b", "session-consumer", "/10.0.3.7", 4, me=True),
                MemberStatus("session-consumer-1c0a-77fe", "session-consumer", "/10.0.3.8", 4, me=False),
            ],
            AT - 12.0,
        ),
        "brokers": BrokersStatus(["localhost:9092"], AT - 0.3, silent=False),
        "subscribed": ["session-events"],
        "state": "running",
        "since": AT - 11_520.0,
        "loop_ran_at": AT - 0.2,
        "unready": None,
        "stall": None,
        "records_per_second": 18_204.0,
        "bytes_per_second": 5_914_224.0,
        "records_consumed": 207_431_002,
        "last_commit_at": AT - 0.6,
        "max_in_flight_records": 2000,
        "partitions": [a_partition(number) for number in range(4)],
        "halts": [],
        "holds": [],
        "dead_lettering": [],
        "topics": [a_topic()],
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
        "versions": {"session-consumer": "0.2.0", "aiokafka": "0.14.0", "python": "3.11.7"},
        "history": some_history(),
    }
    status = Status(**(usual | values), verdicts=[])
    return msgspec.structs.replace(status, verdicts=judge(status))


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
        holds=[a_hold(2), a_hold(5, "error", since=AT - 2.0, attempts=3)],
        dead_lettering=[dead_lettering()],
        topics=[a_topic(partitions=12, lag_records=64_813, lag_seconds=211.0, growing_since=AT - 360.0)],
        routes=[
            a_route("voice", "consumer.handlers.jsonl:JsonLines", handled=101_002_118, options=["path", "max_bytes"]),
            a_route(
                "crm",
                "crm:Upsert",
                handled=62_114_904,
                dead_lettered=3,
                retries=440,
                waiting=1,
                errors=errors,
                calls=3600,
                calls_failed=431,
                failing_since=AT - 95.0,
                call_seconds_p50=0.0042,
                call_seconds_p99=0.031,
                records_per_second=12.0,
            ),
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
        stats=[some_stats(), some_stats("orders", exact=False)],
    )
