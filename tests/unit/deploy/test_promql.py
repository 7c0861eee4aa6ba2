"""The small PromQL reader of the tests of alerts and dashboard."""

from __future__ import annotations

import pytest

from tests.promql import grouped_by, series_of, unknown

EXPRESSIONS = {
    'sum by (le, route) (rate(a_bucket{job=~"x", route!="none and b"}[5m])) > 1': [("a_bucket", {"job", "route"})],
    "a / on (job) group_left b > bool 0.9": [("a", set()), ("b", set())],
    "a{} unless on (job, topic) b == 1 or vector(0)": [("a", set()), ("b", set())],
    'max_over_time(level:a:max[10m:1m] offset 5m) and b{x=~"{"}': [("level:a:max", set()), ("b", {"x"})],
}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_series_and_matchers(expression: str) -> None:
    """Series are told apart from functions, operators, labels, durations and strings."""
    assert list(series_of(expression)) == EXPRESSIONS[expression]


def test_groupings() -> None:
    """Labels in groupings and joins are found."""
    assert grouped_by("sum by (a) (x) / on (b, c) group_left (d) y") == set("abcd")


@pytest.mark.parametrize(
    ("expression", "said"),
    [("x", []), ("y", ["y"]), ('x{b="1"}', ["x by ['b']"]), ("sum by (a, c) (x)", ["c"])],
)
def test_unknown_names_are_found(expression: str, said: list[str]) -> None:
    """Series, matchers and groupings that nobody exports are named."""
    assert list(unknown(expression, {"x": {"a"}})) == said
