"""The fuse trips when too large a part of a full window of records became dead letters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.delivery.fuse import Fuse
from consumer.record import Position


def at(offset: int) -> Position:
    return Position("t", 0, offset)


def test_no_window_no_fuse() -> None:
    """The fuse cannot trip before its window is full."""
    fuse = Fuse(0.5, 1000)
    assert not any(fuse.trips(at(n), n + 1) for n in range(999))
    assert fuse.trips(at(999), 1000)


def test_it_blows_past_its_limit() -> None:
    """The fuse holds at its limit and trips with one letter more."""
    fuse = Fuse(0.5, 10)
    assert [fuse.trips(at(n), 100 + n) for n in range(6)] == [False] * 5 + [True]


def test_what_is_old_does_not_count() -> None:
    """Only letters of the last ``limit_window_records`` records count."""
    fuse = Fuse(0.5, 10)
    assert not any(fuse.trips(at(n), 100 + 2 * n) for n in range(1000))
    assert not fuse.trips(at(1000), 10_000)


def test_a_record_counts_once() -> None:
    """A record that several routes dead-lettered counts once."""
    fuse = Fuse(0.5, 10)
    assert not any(fuse.trips(at(n // 3), 100 + n // 3) for n in range(15))
    assert fuse.trips(at(5), 105)


def test_a_record_whose_first_letter_is_long_ago() -> None:
    """A record counts in the window of its last letter, however long ago its first letter was."""
    fuse = Fuse(0.5, 10)
    fuse.trips(at(1), 10)
    assert not fuse.trips(at(1), 5000)


def test_a_limit_of_all() -> None:
    """With a ratio of 1 the fuse never trips."""
    fuse = Fuse(1.0, 10)
    assert not any(fuse.trips(at(n), n + 1) for n in range(1000))


def storm(fuse: Fuse, first: int = 0) -> int:
    """Dead-letter record after record; return how many letters are written before the fuse trips."""
    written = 0
    while not fuse.trips(at(first + written), written + 1):
        written += 1
    return written


@pytest.mark.parametrize("window", [10, 100, 1000])
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_a_restart_into_the_same_storm(window: int, ratio: float) -> None:
    """A daemon that starts again and again writes at most a tenth of the window more each time."""
    fuse = Fuse(ratio, window)
    written = storm(fuse)
    before = written
    for _ in range(5):
        left = fuse.window(before + 1)
        fuse = Fuse(ratio, window)
        fuse.resume(*left)
        before = storm(fuse, written)
        assert before <= window // 10
        written += before


def test_a_restart_before_the_window_is_full() -> None:
    """A daemon that is killed before the fuse trips goes on to count where it was."""
    fuse, written = Fuse(0.5, 100), 0
    while not any(fuse.trips(at(written + n), n + 1) for n in range(7)):
        written += 7
        left = fuse.window(7)
        fuse = Fuse(0.5, 100)
        fuse.resume(*left)
        assert written < 200
    assert 50 <= written <= 110


@pytest.mark.parametrize("letters", [50, 51])
def test_a_window_at_its_limit_leaves_a_tenth(letters: int) -> None:
    """A note at the limit, as committed just before the fuse trips, does not trip it at the next bad record."""
    fuse = Fuse(0.5, 100)
    fuse.resume(letters, 100)
    assert [fuse.trips(at(number), 90 + number) for number in range(10)] == [False] * 9 + [True]


def test_good_records_after_a_restart_forget_the_storm() -> None:
    """A daemon whose cause is mended does not halt at single bad records, nor after a window of good ones."""
    fuse = Fuse(0.5, 100)
    left = fuse.window(storm(fuse) + 1)
    mended = Fuse(0.5, 100)
    mended.resume(*left)
    assert not mended.trips(at(0), 1)
    assert not any(mended.trips(at(n), 200 + n) for n in range(50))


@given(
    steps=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 8)), max_size=60),
    ratio=st.floats(0.01, 1.0),
    window=st.integers(1, 12),
)
def test_it_counts_what_is_in_the_window(steps: list[tuple[int, int]], ratio: float, window: int) -> None:
    """The fuse agrees with a count over all letters so far, with each record at its last letter."""
    fuse, consumed, last = Fuse(ratio, window), 1, dict[int, int]()
    for offset, more in steps:
        consumed += more
        last[offset] = consumed
        bad = sum(mark > consumed - window for mark in last.values())
        assert fuse.trips(at(offset), consumed) == (consumed >= window and bad > ratio * window)
