"""What the status page shows of topics, partitions, routes, failures and settings."""

from __future__ import annotations

import re
from typing import Any

import msgspec
import pytest

from consumer.http.conditions import DeadLetteringStatus, HaltStatus, HoldStatus
from consumer.http.history import Sample
from consumer.http.page import Page
from consumer.http.status import BrokersStatus, MemberStatus, PartitionStatus, RouteStatus, Status, TopicStatus
from consumer.http.view import make_view
from consumer.observe.recent_failures import Failure
from consumer.settings.listing import plain_settings
from consumer.settings.sections import Http, Kafka, Security, Settings
from tests.statuses import AT, a_failure, a_hold, a_partition, a_route, a_status, a_topic, a_troubled_status
from tests.unit.http.document import EMPTY, words


def test_partitions(page: Page) -> None:
    """Each partition has its state in words, its lag, its age, what is in flight, its offset, and what it waits for."""
    row = a_partition(7, state="reading", lag_records=1234, lag_seconds=75.0, in_flight_records=8, committed_offset=5)
    text = words(page, a_status(partitions=[a_partition(0, "other"), row]))
    assert "session-events-7 reading 1,234 1 min 15 s 8 5 data, 3.0 s other-0 caught up 0 0 s 0" in text
    assert "Partitions 2 owned, the worst first" in text


def test_the_worst_first() -> None:
    """Partitions are ordered by what is wrong with them, then by their lag; those without trouble keep their order."""
    behind: dict[str, Any] = {"state": "reading", "lag_seconds": 30.0}
    partitions = [
        a_partition(0, state="reading", lag_records=70, lag_seconds=0.2),
        a_partition(1, lag_records=10, **behind),
        a_partition(2),
        a_partition(3, state="draining"),
        a_partition(4, lag_records=900, **behind),
        a_partition(5, state="retrying"),
        a_partition(6, state="reading", lag_records=80, lag_seconds=0.2),
        a_partition(7, state="holding"),
        a_partition(8, state="halted"),
    ]
    view = make_view(a_status(partitions=partitions))
    assert [row.name.rpartition("-")[2] for row in view.partitions] == list("875341026")


def test_of_many_partitions_the_calm_ones_are_folded(page: Page) -> None:
    """Of many partitions those in trouble are shown, and the others are folded; no box scrolls within the page."""
    partitions = [a_partition(number) for number in range(256)]
    partitions[200] = a_partition(200, state="halted", lag_records=9)
    partitions[77] = a_partition(77, state="reading", lag_seconds=44.0, lag_records=8)
    status = a_status(partitions=partitions)
    view = make_view(status)
    assert [row.name for row in view.partitions] == ["session-events-200", "session-events-77"]
    assert len(view.calm) == 254
    assert "254 caught up or less than 10 s behind" in words(page, status)
    assert "tabindex" not in page.render(status)


def test_a_partition_says_when_it_is_tried_again(page: Page) -> None:
    """The row of a partition that holds says what it waits for and when it is tried again."""
    row = msgspec.structs.replace(a_troubled_status().partitions[2], waits=a_partition(0).waits)
    assert "data, 3.0 s, next try in 12 s" in words(page, a_status(partitions=[row], holds=[a_hold(2)]))


def test_topics(page: Page) -> None:
    """A topic shows its rate, its lag, and when it is caught up at the present rate."""
    topics = [
        a_topic("one", lag_records=4000, lag_seconds=40.0, catch_up_seconds=90.0),
        a_topic("two", lag_records=5000, lag_seconds=50.0, catch_up_seconds=None, growing_since=AT - 9),
        a_topic("three", lag_records=5000, lag_seconds=50.0, catch_up_seconds=None),
        a_topic("four", lag_records=5, lag_seconds=0.5, catch_up_seconds=0.1, growing_since=AT - 9),
    ]
    text = words(page, a_status(topics=topics))
    assert "one 4 18,204 4,000 40 s caught up in 1 min 30 s at this rate" in text
    assert "two 4 18,204 5,000 50 s growing" in text
    assert "three 4 18,204 5,000 50 s not shrinking" in text
    assert "four 4 18,204 5 0.5 s keeping up" in text


def test_an_old_end_offset_shows_its_age(page: Page) -> None:
    """A lag that is older than a few measurements shows its age, in the row, in the tiles and beside the chart."""
    status = a_status(partitions=[a_partition(1, lag_records=9, end_offset_age_seconds=22.0)])
    text = words(page, status)
    assert "9 22 s ago" in text
    assert "Lag 9 measured 22 s ago Behind 0 s measured 22 s ago" in text
    assert "Lag measured 22 s ago , highest 400,000" in text
    assert "as of 22 s ago" in text


def test_an_outage_makes_numbers_old(page: Page) -> None:
    """While no broker is heard, every number from brokers shows its age, and the rate says why it is 0."""
    status = a_status(
        brokers=BrokersStatus(["kafka-1:9092"], AT - 42, silent=True), records_per_second=0.0, bytes_per_second=0.0
    )
    text = words(page, status)
    assert "Records a second 0 no broker heard for 42 s" in text
    assert "Lag 0 measured 42 s ago Behind 0 s measured 42 s ago" in text
    assert page.render(status).count('class="stale"') == 3
    assert 'class="stale"' not in page.render(a_status())


@pytest.mark.parametrize(
    ("size", "shown"), [(0.0, "18,204 mean of ten seconds"), (2048.0, "18,204 2.0 KiB/s, as fetched")]
)
def test_no_bytes_beside_records(page: Page, size: float, shown: str) -> None:
    """Bytes are counted as they were fetched; a rate of 0 beside records that flow is left out."""
    text = words(page, a_status(bytes_per_second=size))
    assert f"Records a second {shown}" in text
    assert "0 B" not in text


def test_routes_and_outcomes(page: Page) -> None:
    """A route shows its rate, the duration and failures of its calls, what is under way of what may be, and counts."""
    text = words(page, a_troubled_status())
    calls = "12 4.2 ms 31 ms 12 % 431 of 3,600 1 of 256 62,114,904 3"
    counts = "retries 440, pause 431, error 12"
    assert f"crm crm:Upsert matches on channel_manager_type, is_test {calls} {counts}" in text
    assert "none no route matched, or it cannot be decoded 17 skipped 44,313,980" in text


def test_failures(page: Page) -> None:
    """A failure shows its outcome, reason, place, count, time, and the line of code."""
    text = words(page, a_status(failures=[a_failure("exhausted", times=3), a_failure("timeout")]))
    place = "route crm session-events-2 at offset 1204881"
    assert f"dead letter exhausted {place} 3 times , the last 07:33:08 , 12 s ago KeyError (/srv/handlers" in text
    assert f"called again timeout {place} 07:33:08 , 12 s ago KeyError (/srv/handlers/crm.py:41)" in text


def test_settings(page: Page) -> None:
    """Settings are shown with their values, secrets without; changed ones are marked, also in words."""
    security = Security("SASL_SSL", username="user-7", password="hush-7")
    settings = Settings(kafka=Kafka(topics=["calls"], security=security), http=Http(port=18_000))
    text = words(page, a_status(settings=plain_settings(settings)))
    assert "hush-7" not in text
    assert "user-7" not in text
    assert "security.password hidden (not the default)" in text
    assert "topics calls (not the default)" in text
    assert "max_batch_bytes 67_108_864 " in text
    assert "drain_seconds 25 " in text
    assert "payloads false" in text


def test_an_empty_start(page: Page) -> None:
    """Before anything is known the page says so, and shows no invented number."""
    text = words(page, EMPTY)
    assert "Starting since 04:21:20 UTC, for 3 h 12 min Not joined yet." in text
    assert "None owned yet." in text
    assert text.count("Nothing measured yet.") == 2
    assert "Lag – records not committed" in text  # noqa: RUF001 - what a missing number looks like
    assert "None since the start." in text


def test_it_can_be_used_without_the_script(page: Page) -> None:
    """Without the script everything is shown, a link reloads the page, and the filter is not there."""
    text = page.render(a_status())
    assert re.search(r'<noscript>.*<a href="">Reload</a>.*</noscript>', text)
    assert '<label id="filter-box" hidden>' in text


def test_every_type_is_shown() -> None:
    """The statuses of these tests fill every field of every type, so that a new field must be shown."""
    status = a_troubled_status()
    kinds = {type(each) for name in status.__struct_fields__ for each in _list(getattr(status, name))}
    assert {HaltStatus, HoldStatus, PartitionStatus, TopicStatus, RouteStatus, DeadLetteringStatus} <= kinds
    assert {Failure, Sample} <= kinds
    assert {type(each) for each in status.group.members} == {MemberStatus}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def test_a_route_without_calls(page: Page) -> None:
    """A route that a command added has no settings, and one without calls has no durations."""
    status: Status = a_status(routes=[a_route("count", "", match_fields=[], handled=12)])
    assert "count 0 – – – 0 of 256 12 0" in words(page, status)  # noqa: RUF001
