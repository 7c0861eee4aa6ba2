"""What the status page shows of partitions, routes, failures and settings."""

from __future__ import annotations

import re
from typing import Any

from consumer.http.history import Sample
from consumer.http.page import Page
from consumer.http.status import HaltStatus, HoldStatus, PartitionStatus, RouteStatus
from consumer.observe.recent_failures import Failure
from consumer.settings.listing import plain_settings
from consumer.settings.sections import Http, Kafka, Security, Settings
from tests.statuses import a_failure, a_partition, a_route, a_status, a_troubled_status
from tests.unit.http.document import EMPTY, MANY, words


def test_partitions(page: Page) -> None:
    """Each partition has its state in words, its lag, its age, what is in flight, and its offsets."""
    row = a_partition(7, state="reading", lag_records=1234, lag_seconds=75.0, in_flight_records=8, committed_offset=5)
    text = words(page, a_status(partitions=[row, a_partition(0, "other")]))
    assert "session-events 1 partition, lag 1,234 7 reading 1,234 1 min 15 s 8 5 1,212,384" in text
    assert "other 1 partition, lag 0 0 caught up 0 0 s 0" in text
    assert "Partitions 2 owned" in text


def test_an_old_end_offset_shows_its_age(page: Page) -> None:
    """A lag that is older than a few measurements shows its age."""
    assert "9 22 s ago" in words(
        page, a_status(partitions=[a_partition(1, lag_records=9, end_offset_age_seconds=22.0)])
    )


def test_routes_and_outcomes(page: Page) -> None:
    """Routes show outcomes and failed calls; kinds that are 0 are left out."""
    text = words(page, a_troubled_status())
    assert "crm crm:Upsert matches on channel_manager_type, is_test 62,114,904 3 440 1 0 pause 431, error 12" in text
    assert "none no route matched, or it cannot be decoded 44,313,980 17 0" in text


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
    assert "Starting Not joined yet." in text
    assert "None owned yet." in text
    assert text.count("Nothing measured yet.") == 2
    assert "Lag – records not committed" in text  # noqa: RUF001 - what a missing number looks like
    assert "None since the start." in text


def test_many_partitions_scroll(page: Page) -> None:
    """256 partitions are one table in a scrolling box that the keyboard reaches, with their sum above."""
    text = page.render(MANY)
    assert '<div class="scroll tall" id="partitions-scroll" tabindex="0" role="region" aria-label="Partitions">' in text
    assert f"256 partitions, lag {sum(range(256)):,}" in words(page, MANY)


def test_it_can_be_used_without_the_script(page: Page) -> None:
    """Without the script everything is shown, and a link reloads the page."""
    text = page.render(a_status())
    assert re.search(r'<noscript>.*<a href="">Reload</a>.*</noscript>', text)


def test_every_type_is_shown() -> None:
    """The statuses of these tests fill every field of every type, so that a new field must be shown."""
    status = a_troubled_status()
    kinds = {type(each) for name in status.__struct_fields__ for each in _list(getattr(status, name))}
    assert {HaltStatus, HoldStatus, PartitionStatus, RouteStatus, Failure, Sample} <= kinds


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def test_a_route_without_a_handler(page: Page) -> None:
    """A route that a command added has no settings: only its counts are shown."""
    assert "count 12 0 0 0 0 –" in words(  # noqa: RUF001
        page, a_status(routes=[a_route("count", "", match_fields=[], handled=12)])
    )
