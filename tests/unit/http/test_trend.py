"""The trend of a lag: whether it grows, and when it will be 0."""

from __future__ import annotations

import pytest

from consumer.http.trend import GROWING_SLOTS, SLOT_SAMPLES, Trend

AT = 1000.0


def a_trend(*lags: int) -> Trend:
    trend = Trend()
    for second, lag in enumerate(lags):
        trend.note(AT + second, {0: lag})
    return trend


def test_nothing_is_known_yet() -> None:
    """Without samples nothing grows, and no time is known."""
    assert (a_trend().growing_since, a_trend().catch_up_seconds) == (None, None)


def test_caught_up() -> None:
    """Without lag there is nothing to catch up."""
    assert a_trend(10, 5, 0).catch_up_seconds == 0.0


def test_the_time_to_catch_up() -> None:
    """The lag ends at the rate of the last minute: 10 fewer each second, 100 left."""
    assert a_trend(*range(1000, 99, -10)).catch_up_seconds == pytest.approx(10.0)


@pytest.mark.parametrize("lags", [[5] * 30, list(range(30))])
def test_a_lag_that_does_not_shrink(lags: list[int]) -> None:
    """A lag that stays or grows has no end."""
    assert a_trend(*lags).catch_up_seconds is None


def test_a_lag_that_grows() -> None:
    """A lag grows once several slots in a row have more than the one before, and since the first of them."""
    lags = [100] * SLOT_SAMPLES + list(range(101, 101 + SLOT_SAMPLES * GROWING_SLOTS))
    assert a_trend(*lags[:-SLOT_SAMPLES]).growing_since is None
    assert a_trend(*lags).growing_since == AT + SLOT_SAMPLES


def test_one_slot_that_does_not_grow_ends_it() -> None:
    """A pause of the growth begins the count again."""
    trend = a_trend(*range(SLOT_SAMPLES * (GROWING_SLOTS + 1)))
    assert trend.growing_since is not None
    for second in range(SLOT_SAMPLES):
        trend.note(AT + 1000 + second, {0: 0})
    assert trend.growing_since is None


def test_a_burst_is_no_growth() -> None:
    """A lag that rises for a few seconds and falls again does not count as growing."""
    assert a_trend(*([0] * 10 + [5000] * 5 + [100] * 25)).growing_since is None


def test_other_partitions_begin_another_trend() -> None:
    """A lag that falls because partitions were revoked is no rate, and one that rises with others does not grow."""
    trend = Trend()
    for second in range(60):
        trend.note(AT + second, {0: 100, 1: 900})
    trend.note(AT + 60, {0: 100})
    assert trend.catch_up_seconds is None
    trend.note(AT + 61, {0: 90})
    assert trend.catch_up_seconds == pytest.approx(9.0)
