"""Calls and dead letters of the last minutes."""

from __future__ import annotations

import pytest

from consumer.http.recent import KEPT_SECONDS, SLOT_SECONDS, WINDOW_SECONDS, Recent, quantile
from consumer.observe.counters import Counters
from consumer.record import Position

TOPIC = "t"


class Scene:
    """Counters of a daemon, and the seconds that pass."""

    def __init__(self) -> None:
        self.counters = Counters([TOPIC, "other"], ["r", "s"])
        self.recent = Recent(self.counters)
        self.now = 1000.0
        self.recent.note(self.now)

    def consume(self, records: int, letters: int = 0, reason: str = "undecodable") -> None:
        self.counters.records_consumed[TOPIC] += records
        self.counters.dead_letters[TOPIC, reason] += letters
        self.counters.routes["r"].handled += records - letters

    def pass_seconds(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.now += 1
            self.recent.note(self.now)


def test_a_share_of_dead_letters() -> None:
    """Dead letters show with the number of records among which they are, since when they were first seen."""
    scene = Scene()
    scene.consume(400, 267)
    scene.pass_seconds(1)
    (found,) = scene.recent.letters()
    assert found == (TOPIC, "undecodable", "none", 267, 400)
    assert scene.recent.since("topic", TOPIC) == 1001.0
    scene.pass_seconds(30)
    assert scene.recent.since("topic", TOPIC) == 1001.0


def test_a_record_with_two_letters() -> None:
    """A record that two routes gave up is one of the last records, and letters of earlier records show too."""
    scene = Scene()
    scene.consume(200, 400, "exhausted")
    assert [each[3:] for each in scene.recent.letters()] == [(200, 200)]
    scene = Scene()
    scene.consume(0, 5, "exhausted")
    assert [each[3:] for each in scene.recent.letters()] == [(5, 5)]


def test_few_dead_letters_are_no_trouble() -> None:
    """Fewer than 1 % are counted and no trouble."""
    scene = Scene()
    scene.consume(1000, 9)
    assert scene.recent.letters() == []
    scene.consume(0, 1)
    assert [each.dead_lettered for each in scene.recent.letters()] == [10]


def test_silence_does_not_heal() -> None:
    """Dead letters that nothing has followed still show, for an hour."""
    scene = Scene()
    scene.consume(400, 400)
    scene.pass_seconds(KEPT_SECONDS / 2)
    assert [each.dead_lettered for each in scene.recent.letters()] == [400]
    scene.pass_seconds(KEPT_SECONDS / 2 + WINDOW_SECONDS)
    assert scene.recent.letters() == []
    assert scene.recent.since("topic", TOPIC) is None


def test_a_bad_record_after_an_idle_hour() -> None:
    """A dead letter shows for an hour, however long no record came before it."""
    scene = Scene()
    scene.pass_seconds(KEPT_SECONDS + 60)
    scene.consume(1, 1)
    scene.pass_seconds(KEPT_SECONDS / 2)
    assert [each.dead_lettered for each in scene.recent.letters()] == [1]
    scene.pass_seconds(KEPT_SECONDS / 2 + WINDOW_SECONDS)
    assert scene.recent.letters() == []


def test_a_quiet_topic_beside_a_busy_one() -> None:
    """A topic of which each record is dead-lettered shows without a break, however many records others have."""
    scene = Scene()
    scene.consume(1, 1)
    scene.pass_seconds(1)
    for _ in range(3):
        scene.counters.records_consumed["other"] += 1000
        scene.pass_seconds(2 * WINDOW_SECONDS)
        scene.consume(1, 1)
    assert [(each.topic, each.dead_lettered, each.records) for each in scene.recent.letters()] == [(TOPIC, 4, 4)]
    assert scene.recent.since("topic", TOPIC) == 1001.0


def test_calls_are_those_of_the_last_minutes() -> None:
    """Failed calls of a quiet route are forgotten after minutes."""
    scene = Scene()
    scene.counters.handler_errors["r", "error"] = 2
    scene.pass_seconds(WINDOW_SECONDS + 2 * SLOT_SECONDS)
    assert scene.recent.since("route", "r") is None
    assert scene.recent.calls("r").calls == 0


def test_good_records_heal() -> None:
    """Dead letters show no more when they have left the window."""
    scene = Scene()
    scene.consume(400, 400)
    for _ in range(int(WINDOW_SECONDS + 2 * SLOT_SECONDS)):
        scene.consume(10)
        scene.pass_seconds(1)
    assert scene.recent.letters() == []


@pytest.mark.parametrize("reason", ["rejected", "exhausted"])
def test_the_route_with_most_dead_letters(reason: str) -> None:
    """Dead letters of a handler name the route that made most of them."""
    scene = Scene()
    scene.consume(10, 5, reason)
    scene.counters.routes["r"].dead_lettered, scene.counters.routes["s"].dead_lettered = 1, 4
    assert [each.route for each in scene.recent.letters()] == ["s"]


def test_each_topic_names_its_route() -> None:
    """Of two topics with dead letters each names the route that its own failures name."""
    scene = Scene()
    counters = scene.counters
    for topic, route, letters in ((TOPIC, "r", 10), ("other", "s", 100)):
        counters.records_consumed[topic] = counters.dead_letters[topic, "exhausted"] = letters
        counters.routes[route].dead_lettered = letters
        counters.failures.note(1.0, route, "exhausted", "ValueError (calls.py:7)", Position(topic, 0, 1))
    assert [(each.topic, each.route) for each in scene.recent.letters()] == [(TOPIC, "r"), ("other", "s")]


def test_calls_and_failures() -> None:
    """Calls are those that handled a record and those that failed; a Reject is no failure of the call."""
    scene = Scene()
    scene.consume(90)
    scene.counters.handler_errors["r", "error"] = 8
    scene.counters.handler_errors["r", "reject"] = 2
    calls = scene.recent.calls("r")
    assert (calls.calls, calls.failed) == (100, 8)
    scene.pass_seconds(1)
    assert scene.recent.since("route", "r") == 1001.0
    assert scene.recent.since("route", "s") is None


def test_one_failed_call_is_no_failing_route() -> None:
    """A route fails once a share of its calls has failed, and more than one."""
    scene = Scene()
    scene.counters.handler_errors["r", "timeout"] = 1
    scene.pass_seconds(1)
    assert scene.recent.since("route", "r") is None
    scene.counters.handler_errors["r", "timeout"] = 2
    scene.pass_seconds(1)
    assert scene.recent.since("route", "r") == 1002.0


def test_calls_of_a_batch_route() -> None:
    """A call of a batch counts once, however many records it handled."""
    scene = Scene()
    counts = scene.counters.routes["r"]
    counts.handled = 500
    counts.batches.observe(250, times=2)
    counts.seconds.observe(0.02, times=2)
    calls = scene.recent.calls("r")
    assert (calls.calls, calls.failed) == (2, 0)
    assert calls.p50 is not None
    assert 0.01 < calls.p50 <= 0.025


def test_inline_calls_count_with_their_mean() -> None:
    """Calls that did not wait count with their mean; the 99th percentile is that of the slow ones."""
    scene = Scene()
    counts = scene.counters.routes["r"]
    counts.handled, counts.inline_seconds = 100, 100 * 0.00002
    counts.seconds.observe(0.2, times=5)
    calls = scene.recent.calls("r")
    assert calls.p50 == pytest.approx(0.00002)
    assert calls.p99 is not None
    assert 0.1 < calls.p99 <= 0.25


def test_few_inline_calls_among_many_that_waited() -> None:
    """The first steps of calls that waited are not the time of the few that did not."""
    scene = Scene()
    counts = scene.counters.routes["r"]
    counts.handled, counts.inline_seconds = 1000, 1.0
    counts.seconds.observe(0.004, times=980)
    calls = scene.recent.calls("r")
    assert calls.p99 is not None
    assert calls.p99 <= 0.005


def test_skipped_records_are_no_time_of_calls() -> None:
    """The only route's calls do not get longer with each record that it does not match."""
    counters = Counters([TOPIC], ["r"])
    recent = Recent(counters)
    recent.note(1000.0)
    counters.routes["r"].handled, counters.skipped = 5, 4995
    counters.routes["r"].inline_seconds = 5000 * 0.000002
    assert recent.calls("r").p50 == pytest.approx(0.000002)


def test_without_calls() -> None:
    """Without calls there are no durations."""
    assert Scene().recent.calls("r") == (0, 0, None, None)
    assert quantile([], 0.5) is None


def test_calls_of_one_duration() -> None:
    """Calls that all last 0.1 s have about that as median and p99, although their bucket reaches to 0.25 s."""
    scene = Scene()
    counts = scene.counters.routes["r"]
    counts.handled = 400
    for _ in range(400):
        counts.seconds.observe(0.1004)
    calls = scene.recent.calls("r")
    assert calls.p50 == pytest.approx(0.1004, rel=0.01)
    assert calls.p99 == pytest.approx(0.1004, rel=0.01)


def test_slow_calls_among_fast_ones() -> None:
    """A few slow calls are the p99, and the median stays that of the fast ones."""
    scene = Scene()
    counts = scene.counters.routes["r"]
    counts.handled = 1000
    counts.seconds.observe(0.02, times=970)
    counts.seconds.observe(2.0, times=30)
    calls = scene.recent.calls("r")
    assert calls.p50 is not None
    assert calls.p99 is not None
    assert 0.01 < calls.p50 <= 0.025
    assert 1.0 < calls.p99 <= 2.5


def test_calls_above_the_last_bound() -> None:
    """Calls longer than the last bound count with it, whatever they add up to."""
    scene = Scene()
    counts = scene.counters.routes["r"]
    counts.handled = 10
    counts.seconds.observe(1000.0, times=10)
    calls = scene.recent.calls("r")
    assert (calls.p50, calls.p99) == (counts.seconds.bounds[-1], counts.seconds.bounds[-1])
