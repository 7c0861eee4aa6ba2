"""Durations and numbers in words."""

from __future__ import annotations

import pytest

from consumer.http import wording


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "–"),  # noqa: RUF001
        (0.0, "0 s"),
        (0.64, "0.6 s"),
        (12.4, "12 s"),
        (60, "1 min"),
        (95, "1 min 35 s"),
        (3600, "1 h"),
        (7_260, "2 h 1 min"),
        (86_400, "1 d"),
        (200_000, "2 d 7 h"),
        (-3, "0 s"),
    ],
)
def test_durations(seconds: float | None, said: str) -> None:
    """A duration is written in its two largest units."""
    assert wording.span(seconds) == said


@pytest.mark.parametrize(
    ("given", "said"), [(0, "0"), (400, "400"), (1500, "1.5 k"), (40_000, "40 k"), (2e6, "2 M"), (5e9, "5 G")]
)
def test_axis_numbers(given: float, said: str) -> None:
    """Numbers on an axis are short."""
    assert wording.short(given) == said


def test_numbers() -> None:
    """Whole numbers have thousands separators, small rates a decimal, bytes a unit."""
    assert [wording.number(each) for each in (0, 1234567.0)] == ["0", "1,234,567"]
    assert [wording.rate(each) for each in (0.0, 0.04, 3.25, 9.96, 18_204.4)] == ["0", "0", "3.2", "10", "18,204"]
    assert [wording.size(each) for each in (12, 2048, 5 * 2**20, 3 * 2**30)] == [
        "12 B",
        "2.0 KiB",
        "5.0 MiB",
        "3.0 GiB",
    ]
    assert wording.places([("b", 1), ("a", 2), ("a", 0)]) == "a: 0, 2; b: 1"
