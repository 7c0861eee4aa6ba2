"""The fuse's window is committed with offsets, and read at the next start."""

from __future__ import annotations

import pytest

from consumer.delivery.fuse import Fuse
from consumer.observe.counters import Counters
from consumer.process.fuse_note import FuseNote
from consumer.record import Position


def a_note(consumed: int = 0) -> FuseNote:
    counters = Counters(["t"], [])
    counters.records_consumed["t"] = consumed
    return FuseNote(Fuse(0.5, 100), counters)


def test_what_is_written_is_read() -> None:
    counters = Counters(["t"], [])
    counters.records_consumed["t"] = 30
    fuse = Fuse(0.5, 100)
    for number in range(20):
        fuse.trips(Position("t", 0, number), number)
    written = FuseNote(fuse, counters).write()
    again = a_note()
    again.read([written])
    assert again.write().split()[2] == written.split()[2] == "20/30"


@pytest.mark.parametrize(
    ("notes", "window"),
    [
        (["", "fuse 5 40/100", "fuse 9 1/100", "fuse x 3/4", "made by another tool"], "1/100"),
        (["fuse 99999999999999999999 40/100"], "0/0"),
        ([], "0/0"),
    ],
)
def test_the_newest_note_counts_and_other_texts_do_not(notes: list[str], window: str) -> None:
    again = a_note()
    again.read(notes)
    assert again.write().split()[2] == window
