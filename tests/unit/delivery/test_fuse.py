"""The fuse trips when too large a part of a full window of records became dead letters."""

from __future__ import annotations

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
