"""The charts of the status page."""

from __future__ import annotations

import pytest

from consumer.http.chart import HEIGHT, WIDTH, make_chart, round_up
from consumer.http.history import Sample
from tests.statuses import AT, some_history


def numbers(points: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, _, y in (pair.partition(",") for pair in points.split())]


def a_sample(at: float, rate: float, lag: int | None = None) -> Sample:
    return Sample(AT + at, rate, 0.0, lag)


def test_a_line() -> None:
    """The newest sample is at the right edge, a second is one unit, and the highest value is below the upper edge."""
    chart = make_chart([a_sample(at, 10.0 * at) for at in range(3)], lambda sample: sample.records_per_second)
    assert chart.top == 20
    assert numbers(chart.lines[0]) == [(WIDTH - 2, HEIGHT), (WIDTH - 1, HEIGHT / 2), (WIDTH, 0)]
    assert numbers(chart.areas[0])[0] == (WIDTH - 2, HEIGHT)
    assert numbers(chart.areas[0])[-1] == (WIDTH, HEIGHT)
    assert (chart.peak, chart.last) == (20, 20)


def test_a_gap_is_not_bridged() -> None:
    """A line is broken where samples are missing, and begins where the value becomes known."""
    times = [0, 1, 2, 60, 61, 62]
    chart = make_chart([a_sample(at, 5.0) for at in times], lambda sample: sample.records_per_second)
    assert [len(numbers(line)) for line in chart.lines] == [3, 3]
    late = make_chart([a_sample(at, 0.0, None if at < 2 else at) for at in range(4)], lambda sample: sample.lag_records)
    assert [len(numbers(line)) for line in late.lines] == [2]


def test_a_clock_that_was_set_back() -> None:
    """Nothing is drawn outside the chart when the clock is set back."""
    samples = [a_sample(at, 5.0) for at in (100, 101, 102, 0, 1, 2, 3)]
    chart = make_chart(samples, lambda sample: sample.records_per_second)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for line in chart.lines for x, y in numbers(line))


def test_the_same_as_a_table() -> None:
    """The table beside a chart has the mean of each 15 s, the newest first."""
    chart = make_chart(some_history(), lambda sample: sample.lag_records)
    assert [at for at, _ in chart.rows] == sorted((at for at, _ in chart.rows), reverse=True)
    assert 20 <= len(chart.rows) <= 21
    assert chart.rows[0][1] == 0
    assert chart.rows[-1][1] > 380_000


@pytest.mark.parametrize(
    ("number", "top"), [(0, 4), (0.4, 4), (4, 4), (4.1, 5), (9, 10), (10, 10), (11, 15), (25_000, 30_000), (4e6, 4e6)]
)
def test_the_upper_edge(number: float, top: float) -> None:
    """The axis ends at a round number just above the highest value."""
    assert round_up(number) == top
