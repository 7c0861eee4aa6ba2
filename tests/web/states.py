"""Eight states of a daemon as an operator meets them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from consumer.http.history import SAMPLES, Sample
from consumer.http.status import BrokersStatus, GroupStatus, MemberStatus, PartitionStatus, Status, WaitStatus
from consumer.settings.sections import Kafka
from tests.statuses import (
    AT,
    KINDS,
    a_failure,
    a_halt,
    a_hold,
    a_partition,
    a_route,
    a_stall,
    a_status,
    a_topic,
    dead_lettering,
    some_stats,
)

SERVERS = ["kafka-1.internal:9092", "kafka-2.internal:9092", "kafka-3.internal:9092"]


def routes(voice_per_second: float = 9_871.0, **crm: Any) -> dict[str, Any]:
    """Routes of a daemon that works; ``crm`` changes the second."""
    usual = {
        "handled": 62_114_904,
        "waiting": 11,
        "records_per_second": 6_102.0,
        "call_seconds_p50": 0.0042,
        "call_seconds_p99": 0.031,
        "calls": 1_098_360,
        "calls_failed": 212,
        "match_fields": ["channel_manager_type"],
        "errors": dict.fromkeys(KINDS, 0) | {"error": 4_410},
        "retries": 4_408,
    }
    return {
        "routes": [
            a_route(
                "voice",
                "consumer.handlers.jsonl:JsonLines",
                handled=101_002_118,
                options=["path", "max_bytes"],
                records_per_second=voice_per_second,
                call_seconds_p50=0.000021,
                call_seconds_p99=0.00018,
                calls=1_776_780,
            ),
            a_route("crm", "crm:Upsert", **(usual | crm)),
            a_route("none", "", match_fields=[], skipped=44_313_980),
        ]
    }


def reading(number: int, lag: int = 412, **values: Any) -> PartitionStatus:
    usual: dict[str, Any] = {
        "state": "reading",
        "lag_records": lag,
        "lag_seconds": 0.4,
        "in_flight_records": 120 + number,
        "waits": [WaitStatus("call", AT - 0.1, None)],
    }
    return a_partition(number, **(usual | values))


def owning(partitions: list[PartitionStatus], **topic: Any) -> dict[str, Any]:
    """Partitions of session-events, and their topic."""
    lag = sum(each.lag_records or 0 for each in partitions)
    age = max(each.lag_seconds or 0.0 for each in partitions)
    usual: dict[str, Any] = {"partitions": len(partitions), "lag_records": lag, "lag_seconds": age}
    return {"partitions": partitions, "topics": [a_topic(**(usual | topic))]}


def history(records_per_second: Callable[[float], float], lag_records: Callable[[float], float | None]) -> list[Sample]:
    """Five minutes of samples, from functions of the seconds before now."""
    ages = [float(age) for age in reversed(range(SAMPLES))]
    return [Sample(AT - age, records_per_second(age), 5_600_000.0, _whole(lag_records(age))) for age in ages]


def _whole(number: float | None) -> int | None:
    return None if number is None else round(number)


def load(age: float) -> float:
    """A load that rises and falls, in records a second."""
    return 17_500 + 2_400 * math.sin(age / 40) + 500 * math.sin(age / 3)


def little(age: float) -> float:
    """The lag of a daemon that keeps up."""
    return 1_500 + 150 * math.sin(age / 4)


def running() -> Status:
    return a_status(
        history=history(load, little),
        **routes(),
        **owning([reading(number, 300 + 70 * number) for number in range(4)], catch_up_seconds=0.2),
        failures=[a_failure(times=212)],
    )


def counts() -> Status:
    """A route counts its events, beside others."""
    return replace(running(), stats=[some_stats()])


def all_dead_lettered() -> Status:
    """Every record is undecodable: fast, without lag, and useless."""
    return a_status(
        routes=[
            a_route("voice", "consumer.handlers.jsonl:JsonLines", options=["path", "max_bytes"]),
            a_route("crm", "crm:Upsert", match_fields=["channel_manager_type"]),
            a_route("none", "", match_fields=[], dead_lettered=267),
        ],
        dead_lettering=[dead_lettering()],
        records_consumed=400,
        records_per_second=3.1,
        bytes_per_second=0.0,
        history=history(lambda age: 3.1 if age < 130 else 0.0, lambda _: 0),
        topics=[a_topic(records_per_second=3.1)],
        failures=[
            a_failure(
                "undecodable",
                route="none",
                error="its value of 1204 bytes is not an event (ValidationError)",
                times=267,
            )
        ],
    )


def hold() -> Status:
    holding = [
        reading(
            number,
            18_204 + 977 * number,
            state="holding",
            lag_seconds=95.0,
            in_flight_records=2000,
            waits=[WaitStatus("pause", AT - 95.0, None)],
        )
        for number in (1, 2)
    ]
    return a_status(
        **routes(
            waiting=0,
            calls_failed=14,
            calls=410_220,
            records_per_second=0.0,
            errors=dict.fromkeys(KINDS, 0) | {"pause": 14},
        ),
        **owning(
            [reading(0), *holding, reading(3)],
            catch_up_seconds=None,
            records_per_second=9_204.0,
            growing_since=AT - 95.0,
        ),
        records_per_second=9_204.0,
        bytes_per_second=2_951_004.0,
        history=history(
            lambda age: load(age) / (2 if age < 95 else 1), lambda age: little(age) + 407 * max(0, 95 - age)
        ),
        holds=[a_hold(1, offset=1_205_288, next_at=AT + 8.0), a_hold(2, offset=1_206_265, since=AT - 91.0)],
        failures=[a_failure("pause", error="ConnectionRefusedError (/srv/handlers/crm.py:33)", times=14)],
    )


def halt() -> Status:
    """Nine partitions of 64 have a corrupt batch, and one command passes them all."""
    numbers = (3, 7, 12, 19, 20, 33, 41, 52, 60)
    halted = a_halt(*numbers, kafka=Kafka(bootstrap_servers=SERVERS))
    partitions = [
        reading(
            number,
            48_210 + number,
            state="halted",
            lag_seconds=301.0,
            in_flight_records=0,
            waits=[WaitStatus("halt", AT - 300.0, None)],
        )
        if number in numbers
        else reading(number)
        for number in range(64)
    ]
    return a_status(
        **routes(),
        **owning(partitions, catch_up_seconds=None),
        halts=[halted],
        history=history(load, lambda age: 22_795 + 1_447 * max(0, 300 - age)),
        unready="halted: session-events-3",
    )


def stall() -> Status:
    blocked = reading(3, 1_204, lag_seconds=75.0, in_flight_records=1, waits=[WaitStatus("call", AT - 75.0, None)])
    return a_status(
        **routes(waiting=1, records_per_second=0.0),
        state="stalled",
        since=AT - 75.0,
        stall=a_stall(),
        **owning([reading(0), reading(1), reading(2), blocked], records_per_second=13_604.0, catch_up_seconds=None),
        records_per_second=13_604.0,
        bytes_per_second=4_406_212.0,
        history=history(
            lambda age: load(age) * (0.75 if age < 75 else 1), lambda age: little(age) + 16 * max(0, 75 - age)
        ),
        unready="a handler's call does not end (session-events-3)",
    )


def brokers_away() -> Status:
    return a_status(
        **routes(voice_per_second=0.0, waiting=0, records_per_second=0.0),
        brokers=BrokersStatus(SERVERS, AT - 42.0, silent=True),
        records_per_second=0.0,
        bytes_per_second=0.0,
        last_commit_at=AT - 43.0,
        **owning(
            [
                reading(number, 1_300 + 70 * number, end_offset_age_seconds=42.0 + number, lag_seconds=44.0)
                for number in range(4)
            ],
            catch_up_seconds=None,
            records_per_second=0.0,
        ),
        unready="no broker heard for 42 s",
        history=history(lambda age: 0.0 if age < 42 else load(age), lambda age: 4_100 + little(max(age, 42))),
    )


def standby() -> Status:
    members = [
        MemberStatus("session-consumer-9d1f-4e0b", "session-consumer", "/10.0.3.7", 0, me=True),
        MemberStatus("session-consumer-1c0a-77fe", "session-consumer", "/10.0.3.8", 2, me=False),
        MemberStatus("session-consumer-e2b4-03a9", "session-consumer", "/10.0.3.9", 2, me=False),
    ]
    return a_status(
        group=GroupStatus("session-consumer", "Stable", members, AT - 12.0),
        partitions=[],
        topics=[],
        records_per_second=0.0,
        bytes_per_second=0.0,
        records_consumed=0,
        last_commit_at=None,
        history=history(lambda _: 0.0, lambda _: None),
        routes=[
            a_route("voice", "consumer.handlers.jsonl:JsonLines", options=["path"]),
            a_route("none", "", match_fields=[]),
        ],
    )


def many_partitions() -> Status:
    """256 partitions of two topics: one retries, some are behind, most keep up."""
    partitions = [
        *(a_partition(number, "session-audits") for number in range(64)),
        *(reading(number, 40 + 7 * number % 500) for number in range(192)),
    ]
    partitions[64 + 17] = reading(
        17,
        18_870,
        state="retrying",
        lag_seconds=14.0,
        in_flight_records=1,
        waits=[WaitStatus("retry", AT - 14.0, None)],
    )
    for number in (5, 80, 81, 150):
        partitions[64 + number] = reading(number, 9_000 + 31 * number, lag_seconds=11.0 + number / 20)
    return a_status(
        **routes(),
        partitions=partitions,
        history=history(load, lambda age: 115_667 + 90 * age),
        holds=[a_hold(17, "error", since=AT - 14.0, attempts=4, next_at=AT + 1.6, offset=1_221_920)],
        topics=[
            a_topic("session-audits", partitions=64, records_per_second=12.0),
            a_topic(
                partitions=192,
                lag_records=sum(each.lag_records or 0 for each in partitions),
                lag_seconds=18.5,
                catch_up_seconds=64.0,
            ),
        ],
        subscribed=["session-events", "session-audits"],
        group=GroupStatus(
            "session-consumer",
            "Stable",
            [MemberStatus("session-consumer-9d1f-4e0b", "session-consumer", "/10.0.3.7", 256, me=True)],
            AT - 12.0,
        ),
    )


STATES = {
    "running": running,
    "all-dead-lettered": all_dead_lettered,
    "hold": hold,
    "halt": halt,
    "stall": stall,
    "brokers-away": brokers_away,
    "standby": standby,
    "256-partitions": many_partitions,
}
