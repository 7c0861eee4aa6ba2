"""The fuse's window as text that is committed with offsets, so that a restart goes on from it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable

from consumer.delivery.fuse import Fuse
from consumer.observe.counters import Counters

WINDOW = re.compile(r"fuse (\d{1,12}) (\d{1,9})/(\d{1,9})", re.ASCII)
"""Unix time of the note, dead-lettered records, consumed records."""


class FuseNote:
    """Owned by the daemon; ``write`` and ``read`` are the notes of its commits."""

    def __init__(self, fuse: Fuse, counters: Counters) -> None:
        self._fuse = fuse
        self._counters = counters

    def write(self) -> str:
        """Describe the window of now."""
        letters, consumed = self._fuse.window(self._counters.consumed)
        return f"fuse {time.time():.0f} {letters}/{consumed}"

    def read(self, notes: Iterable[str]) -> None:
        """Go on from the newest of the notes; those that are not of a fuse are passed over."""
        found = [tuple(map(int, match.groups())) for note in notes if (match := WINDOW.fullmatch(note or ""))]
        if found:
            self._fuse.resume(*max(found)[1:])
