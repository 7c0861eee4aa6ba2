"""What a handler has counted, as the status page shows it."""

from __future__ import annotations

import msgspec

from consumer.http.bars import HOURS, make_stats
from consumer.http.page import Page
from consumer.http.status import StatsStatus
from consumer.observe.event_counts import Counts, EventCounts, FieldCounts, HourCounts, ValueCount
from tests.statuses import AT, a_status, some_stats
from tests.unit.http.document import words
from tests.unit.http.scene import Scene

HOUR = int(AT // 3600) * 3600.0
NOTHING = EventCounts(AT, 0, {}, 0, 0, 0, [], [Counts(0, 0)] * 7, [])


def shown(**values: object) -> StatsStatus:
    return StatsStatus("r", msgspec.structs.replace(NOTHING, **values))


def test_bars_stand_at_their_hours() -> None:
    """The last bar is the hour of now; an hour that began already elsewhere moves all."""
    hours = [HourCounts(HOUR - 47 * 3600, Counts(5, 0)), HourCounts(HOUR, Counts(6, 4))]
    found = make_stats(shown(hours=hours), AT)
    assert [(each.x, each.height, each.apart_height) for each in found.bars] == [
        (0, "50.0", "0.0"),
        (HOURS - 1, "60.0", "40.0"),
    ]
    assert found.bars[1].apart_y == "0.0"
    later = make_stats(shown(hours=[*hours, HourCounts(HOUR + 3600, Counts(1, 0))]), AT)
    assert [each.x for each in later.bars] == [HOURS - 2, HOURS - 1]


def test_rows_have_their_share() -> None:
    fields = [FieldCounts("f", [ValueCount("a", 6), ValueCount("b", 2)], 2, exact=False)]
    (found,) = make_stats(shown(events=10, fields=fields), AT).fields
    assert [(each.name, each.events, each.share, each.bar) for each in found.rows] == [
        ("a", 6, "60 %", "100.0"),
        ("b", 2, "20 %", "33.3"),
        ("all others", 2, "20 %", "33.3"),
    ]
    assert found.note == "at least: rare values were dropped"


def test_nothing_counted_yet(page: Page) -> None:
    status = a_status(stats=[shown(fields=[FieldCounts("f", [], 0, exact=True)])])
    assert "Counts of route r 0 events, since" in words(page, status)


def test_values_are_escaped(page: Page) -> None:
    """The value of a field is text on the page, whatever is in it."""
    fields = [FieldCounts("f", [ValueCount("<script>alert(1)</script>", 6)], 0, exact=True)]
    text = page.render(a_status(stats=[shown(events=6, fields=fields)]))
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<script>alert" not in text


def test_the_page_says_what_was_counted(page: Page) -> None:
    text = words(page, a_status(stats=[some_stats(exact=False)]))
    for each in (
        "1,608,783 events, 41,002 is_test apart, 1,204 older than 48 hours, 3 without time, since",
        "voice_sip_v1 1,204,118 75 %",
        "agent_name at least: rare values were dropped",
        "Mon 230,000 20 %",
    ):
        assert each in text


def test_a_daemon_without_counts_shows_nothing(page: Page) -> None:
    assert "Counts of route" not in words(page, a_status())
    assert Scene().read().stats == []
