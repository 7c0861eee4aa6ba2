"""When a worker that ended is started again, and when that is given up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.process.workers.restarts import Pace, Restarts


def some_restarts(most: int = 5, window: float = 600.0) -> Restarts:
    return Restarts(Pace(), most, window)


def test_waits_double_up_to_half_a_minute() -> None:
    """Ends that follow each other wait 1 s, 2 s and so on, 30 s at most."""
    restarts = some_restarts(most=100)
    assert [restarts.after(0.1, float(now)) for now in range(7)] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]


def test_a_crash_loop_is_given_up() -> None:
    """The sixth end within ten minutes, each soon after its start, is the last."""
    restarts = some_restarts()
    assert None not in [restarts.after(59.9, 100.0 * now) for now in range(5)]
    assert restarts.after(59.9, 500.0) is None


def test_a_minute_of_running_begins_again() -> None:
    """A process that ran for a minute was no part of a crash loop, and the next wait is the first."""
    restarts = some_restarts()
    for now in range(5):
        restarts.after(0.1, float(now))
    assert restarts.after(60.0, 70.0) == 1.0
    assert [restarts.after(0.1, 71.0 + now) for now in range(6)] == [1.0, 2.0, 4.0, 8.0, 16.0, None]


def test_what_is_older_than_the_window_does_not_count() -> None:
    restarts = some_restarts(window=10.0)
    assert [restarts.after(0.1, 11.0 * now) for now in range(9)] == [1.0] * 9


@given(st.lists(st.tuples(st.floats(0, 59), st.floats(0, 100)), min_size=1, max_size=30), st.integers(1, 9))
def test_it_ends_at_the_first_end_above_the_limit(lives: list[tuple[float, float]], most: int) -> None:
    """It is given up exactly when more than the allowed number of short lives ended within the window."""
    restarts, now, ends = some_restarts(most, 60.0), 0.0, list[float]()
    for ran, wait in lives:
        now += ran + wait
        ends = [each for each in ends if now - each <= 60.0] + [now]
        found = restarts.after(ran, now)
        assert (found is None) == (len(ends) > most)
        if found is None:
            return
        assert found == pytest.approx(min(30.0, 2.0 ** (len(ends) - 1)))
