"""Durations and numbers in words."""

from __future__ import annotations

import pytest

from consumer.http import wording
from tests.statuses import AT


@pytest.mark.parametrize(
    ("seconds", "text"),
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
def test_durations(seconds: float | None, text: str) -> None:
    """A duration is written in its two largest units."""
    assert wording.span(seconds) == text


@pytest.mark.parametrize(
    ("given", "text"), [(0, "0"), (400, "400"), (1500, "1.5 k"), (40_000, "40 k"), (2e6, "2 M"), (5e9, "5 G")]
)
def test_axis_numbers(given: float, text: str) -> None:
    """Numbers on an axis are short."""
    assert wording.short(given) == text


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


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),  # noqa: RUF001
        (0.0, "0 µs"),
        (0.000021, "21 µs"),
        (0.0042, "4.2 ms"),
        (0.0314, "31.4 ms"),
        (0.9999, "1 s"),
        (1.25, "1.25 s"),
        (75.0, "1 min 15 s"),
    ],
)
def test_durations_of_calls(seconds: float | None, text: str) -> None:
    """A call's duration has three digits at most, from microseconds up."""
    assert wording.duration(seconds) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0, 0, "0 %"),
        (0, 9, "0 %"),
        (1, 100_000, "under 0.1 %"),
        (1, 300, "0.3 %"),
        (431, 3600, "12 %"),
        (9, 9, "100 %"),
    ],
)
def test_shares(part: int, whole: int, text: str) -> None:
    """A share that is not 0 never looks like 0."""
    assert wording.percent(part, whole) == text


def test_a_time_of_another_day() -> None:
    """A time has its date when it is older than most of a day."""
    assert wording.when(AT - 60, AT) == "07:32:20"
    assert wording.when(AT - 90_000, AT) == "2026-10-25 06:33:20"


def test_some_names() -> None:
    """Of many names the first are written and the others counted."""
    assert wording.some([]) == ""
    assert wording.some(["a", "b"]) == "a, b"
    assert wording.some(list("abcde")) == "a, b, c and 2 more"
