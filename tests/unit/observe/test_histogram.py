"""Histograms as plain integers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consumer.observe.histogram import Histogram

BOUNDS = (0.1, 1.0, 10.0)


@given(st.lists(st.tuples(st.sampled_from([0.0, 0.05, 0.1, 0.5, 1.0, 9.9, 10.0, 10.1, 1e9]), st.integers(1, 50))))
def test_each_bound_counts_what_is_at_or_below_it(observed: list[tuple[float, int]]) -> None:
    """A bucket holds all values up to its bound, the last bucket all values; the sum is that of the values."""
    histogram = Histogram(BOUNDS)
    for value, times in observed:
        histogram.observe(value, times)
    expected = [(str(bound), sum(n for value, n in observed if value <= bound)) for bound in BOUNDS]
    assert histogram.cumulative() == [*expected, ("+Inf", sum(n for _, n in observed))]
    assert abs(histogram.total - sum(value * n for value, n in observed)) < 1e-3
