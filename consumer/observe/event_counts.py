"""Counts of events as plain values: what a handler that counts has to show."""

from __future__ import annotations

import msgspec


class Counts(msgspec.Struct, frozen=True):
    """Numbers of events of one hour, or of one weekday."""

    events: int
    """Events without those that are counted apart."""
    apart: int
    """Events of which a test field is true."""


class HourCounts(msgspec.Struct, frozen=True):
    """Events of one hour by their own time, not by when they were consumed."""

    begin: float
    """Begin of the hour, in UTC."""
    counts: Counts


class ValueCount(msgspec.Struct, frozen=True):
    """Number of events with one value of a field."""

    value: str
    """The value as text, at most 100 characters, without control characters; ``(null)``, ``(absent)``, ``(empty)``."""
    events: int


class FieldCounts(msgspec.Struct, frozen=True):
    """Events by the values of one field, without those that are counted apart."""

    field: str
    top: list[ValueCount]
    """The values with the most events, the first with the most."""
    other: int
    """Events with any other value."""
    exact: bool
    """False if there were more values than are kept: then each number may be too small, and ``other`` too large."""


class EventCounts(msgspec.Struct, frozen=True):
    """What one route has counted since its handler was made."""

    since: float
    events: int
    """Events without those that are counted apart."""
    apart: dict[str, int]
    """Events of which a test field is true, by the first such field."""
    without_time: int
    """Events whose time is null or no time. They are in no hour and on no weekday; so it is with the next two."""
    older: int
    """Events of a time before the hours that are kept. They are in no hour."""
    later: int
    """Events of a time that is more than an hour ahead. They are in no hour."""
    hours: list[HourCounts]
    """The last 48 hours that have events, oldest first."""
    weekdays: list[Counts]
    """Seven, from Monday on, in UTC."""
    fields: list[FieldCounts]
