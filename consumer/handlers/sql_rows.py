"""Rows of events: the values of their columns, their key, and the merge of rows with one key. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from typing import Any

import msgspec

from consumer.handlers.columns import CONVERTERS, OFFSET, PARTITION, POSITION, TOPIC, getter
from consumer.instructions import Reject
from consumer.record import Record
from schemas.types import Member

KEY = "_key"
OWN_COLUMNS = (KEY, *POSITION)
"""Columns that are no fields."""
SESSION_KEYS = (("session_id",), ("channel_manager_service", "channel_manager_sid"))
"""Fields that identify a session; the first whose fields are all known count."""

Row = dict[str, Any]


class Rows:
    """Makes the rows of events of one class.

    With ``key`` these fields identify a row. Without it the row has a column for a key in text, made of the first of
    ``keys`` whose fields are all known, or of the record's position.
    """

    def __init__(
        self, member: Member, kinds: Mapping[str, type], key: Sequence[str], keys: Sequence[Sequence[str]]
    ) -> None:
        self._names = tuple(kinds)
        self._values = getter(self._names, by_key=member.by_key)
        self._converters = [(name, CONVERTERS[kind]) for name, kind in kinds.items() if kind in CONVERTERS]
        self.key = tuple(key) or (KEY,)
        self._own_key = not key
        self._keys = keys

    def row(self, event: Any, record: Record) -> Row:
        """Return the row of an event. Raises Reject for one without a key, or with a time that UTC cannot express."""
        row = dict(zip(self._names, self._values(event), strict=True))
        for name, convert in self._converters:
            if (value := row[name]) is not None:
                row[name] = None if value is msgspec.UNSET else convert(value)
        row[TOPIC], row[PARTITION], row[OFFSET] = record.origin
        if self._own_key:
            row[KEY] = self._text_key(row)
        elif any(row[name] is None for name in self.key):
            raise Reject("a field of options.key is null", code="no_key")
        return row

    def _text_key(self, row: Row) -> str:
        for names in self._keys:
            values = [row[name] for name in names]
            if None not in values:
                return _text(names, values)
        return _text(POSITION, [row[name] for name in POSITION])

    def merged(self, rows: Sequence[Row], *, erase: bool) -> list[Row]:
        """Return one row for each key, in the order of keys, so that transactions lock rows in the same order."""
        found: dict[Any, Row] = {}
        of = itemgetter(*self.key)
        for row in rows:
            key = of(row)
            found[key] = merge(found[key], row, erase=erase) if key in found else row
        return [found[key] for key in sorted(found)]


def merge(first: Row, second: Row, *, erase: bool) -> Row:
    """Return what two rows of one key are together: the newer one, with what only the older one knows.

    Of one partition the higher offset is newer. Of several the second is, because Kafka has no order between them.
    """
    same = first[TOPIC] == second[TOPIC] and first[PARTITION] == second[PARTITION]
    older, newer = (second, first) if same and first[OFFSET] >= second[OFFSET] else (first, second)
    return newer if erase else {name: older[name] if value is None else value for name, value in newer.items()}


def _text(names: Sequence[str], values: Sequence[Any]) -> str:
    return msgspec.json.encode(dict(zip(names, values, strict=True))).decode()
