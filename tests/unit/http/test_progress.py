"""What the page says of lag, of an event loop that does not run, and of failures that have stopped."""

from __future__ import annotations

from typing import Any

import pytest

from consumer.http.progress import catch_up
from consumer.http.status import BrokersStatus, WaitStatus
from consumer.http.verdict import judge
from consumer.http.wording import MISSING
from tests.statuses import AT, a_failure, a_partition, a_route, a_status, a_topic, dead_lettering


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"lag_records": None, "lag_seconds": None, "catch_up_seconds": None}, MISSING),
        ({}, "caught up"),
        ({"lag_records": 50, "lag_seconds": 0.4, "catch_up_seconds": None}, "keeping up"),
        ({"lag_records": 50, "lag_seconds": 60.0, "catch_up_seconds": None}, "not shrinking"),
        ({"lag_records": 50, "lag_seconds": 60.0, "catch_up_seconds": 9.0}, "caught up in 9.0 s at this rate"),
        ({"lag_records": 50, "lag_seconds": 60.0, "catch_up_seconds": None, "growing_since": AT - 60}, "growing"),
    ],
)
def test_a_topic_in_words(values: dict[str, Any], text: str) -> None:
    """A lag that is not known is not kept up with; a short one is, whether or not it shrinks."""
    assert catch_up(a_topic(**values)) == text


def test_a_call_that_lasts() -> None:
    """Before a call that does not end is a stall, the verdict on the lag names the longest and since when."""
    waits = [WaitStatus("data", AT - 70, None), WaitStatus("call", AT - 31, None)]
    partitions = [
        a_partition(0, state="reading", waits=[WaitStatus("call", AT - 11, None)]),
        a_partition(1, state="reading", waits=waits),
    ]
    topics = [a_topic(lag_records=1200, lag_seconds=31.0, catch_up_seconds=None)]
    (verdict,) = judge(a_status(partitions=partitions, topics=topics))
    assert verdict.sentence.endswith("not shrinking. A call in session-events-1 has lasted 31 s.")
    assert verdict.since == AT - 31


def test_a_loop_that_is_blocked_for_less_than_the_limit() -> None:
    """A loop that has not run for half a minute is the verdict before it is a stall, and no broker is blamed."""
    status = a_status(
        brokers=BrokersStatus(["kafka-1:9092"], AT - 31, silent=False),
        loop_ran_at=AT - 31,
        partitions=[a_partition(1, end_offset_age_seconds=75.0)],
        unready="no broker answered for 30 s",
    )
    (verdict,) = judge(status)
    assert (verdict.word, verdict.tone, verdict.since) == ("Blocked", "warn", AT - 31)
    assert verdict.sentence.startswith("The event loop has not run for 31 s")
    assert verdict.runbook == "SessionConsumerLoopBlocked"
    assert "roker" not in verdict.sentence + verdict.todo


def test_failures_that_have_stopped() -> None:
    """After a repair failures count for the rest of the window, and the verdict says for how long there was none."""
    letters = a_failure("undecodable", route="none", last_at=AT - 64)
    other = a_failure("undecodable", route="none", topic="other")
    (verdict,) = judge(a_status(dead_lettering=[dead_lettering()], failures=[other, letters]))
    assert verdict.sentence.endswith("(undecodable); none for 1 min 4 s.")
    route = a_route("crm", calls=100, calls_failed=30, failing_since=AT - 90)
    (verdict,) = judge(a_status(routes=[route], failures=[a_failure(last_at=AT - 34)]))
    assert verdict.sentence.endswith("; none for 34 s.")
    (verdict,) = judge(a_status(routes=[route], failures=[a_failure(last_at=AT - 34), a_failure(last_at=AT - 1)]))
    assert "none for" not in verdict.sentence
