"""Numbers of events by the values of one field, in bounded memory. Pure."""

from __future__ import annotations

from operator import itemgetter
from typing import Any

import msgspec

from consumer.observe.event_counts import FieldCounts, ValueCount

MOST = 5000
"""Values that are kept. When there are more, the half with the fewest events is dropped."""
MOST_CHARACTERS = 100
ABSENT = msgspec.UNSET
"""Value of a field that an event does not have."""
NAMES = {ABSENT: "(absent)", None: "(null)", True: "true", False: "false", "": "(empty)"}


class TopValues:
    """Counts the values of one field; written by the event loop, read by any thread.

    A value that is dropped and comes again begins at 0, so its number may be too small, never too large. Of values that
    many events have none is dropped: more than half of the kept ones would have to be more frequent.
    """

    __slots__ = ("dropped", "field", "found")

    def __init__(self, field: str) -> None:
        self.field = field
        self.found: dict[Any, int] = {}
        """Events by value. It is replaced when values are dropped; handlers count known values in it themselves."""
        self.dropped = False

    def add(self, value: Any) -> None:
        """Count an event with any value, also one that is new."""
        key = key_of(value)
        found = self.found
        found[key] = found.get(key, 0) + 1
        if len(found) > MOST:
            self.dropped = True
            self.found = dict(sorted(found.items(), key=itemgetter(1), reverse=True)[: MOST // 2])

    def top(self, number: int) -> tuple[list[ValueCount], int]:
        """Return the values with the most events, and the number of these."""
        most = sorted(self.found.copy().items(), key=itemgetter(1), reverse=True)[:number]
        return [ValueCount(text_of(key), count) for key, count in most], sum(count for _, count in most)

    def counts(self, number: int, top: list[ValueCount], other: int) -> FieldCounts:
        """Return what there is to show."""
        return FieldCounts(self.field, top[:number], max(0, other), exact=not self.dropped)


def key_of(value: Any) -> Any:
    """Return what a value is counted under: itself, or its text, cut off so that keys are small."""
    if value is None or value is ABSENT or type(value) is bool or (type(value) is int and value.bit_length() <= 64):
        return value
    text = value
    if type(value) is not str:
        try:
            found = msgspec.to_builtins(value)
            text = found if isinstance(found, str) else msgspec.json.encode(found).decode()
        except Exception:
            text = f"({type(value).__name__})"
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"


def text_of(key: Any) -> str:
    """Return a key as text that can be shown anywhere."""
    if type(key) is not int and key in NAMES:
        return NAMES[key]
    text = str(key)
    shown = text if text.isprintable() else "".join(filter(str.isprintable, text))
    return shown or "(unprintable)"
