"""The handler that counts events: by hour, by weekday and by the values of fields; the status page shows the counts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from operator import attrgetter
from typing import Any

import msgspec

from consumer.errors import SettingsError, hint
from consumer.handlers.columns import kind_of
from consumer.handlers.top_values import ABSENT, TopValues
from consumer.observe.event_counts import Counts, EventCounts, HourCounts
from schemas.types import Member, event_type

HOUR_SECONDS = 3600
HOURS = 48
MOST_TOP = 1000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC).toordinal() * 24
"""The hour in which 1970 begins, by the count of hours here: those since the first day of the calendar, a Monday."""


class Stats:
    """Counts in memory since its start; owned by its route. The event loop counts, any thread reads.

    A number is one list item or dict value, so a reader sees each whole. A count has one slot for events, and one for
    each test field.
    """

    in_event_loop = True

    def __init__(
        self,
        time_field: str = "timestamp",
        by: list[str] = ["channel_manager_type", "agent_name"],  # noqa: B006 - never changed
        top: int = 20,
        test_fields: list[str] = ["is_test", "is_legacy"],  # noqa: B006
    ) -> None:
        """Take the route's options.

        ``by`` names fields whose values are counted, of which ``top`` are shown. An event of which one of
        ``test_fields`` is true is counted apart.
        """
        if not time_field:
            raise SettingsError("options.time_field is empty; name the field with the time of the event")
        for name, fields in (("by", by), ("test_fields", test_fields)):
            if len(set(fields)) < len(fields) or "" in fields:
                raise SettingsError(f"options.{name} must name each field once")
        if not 1 <= top <= MOST_TOP:
            raise SettingsError(f"options.top must be from 1 to {MOST_TOP}")
        self._since = time.time()
        self._time_field, self._by, self._test_fields, self._top = time_field, by, test_fields, top
        self._by_key: bool | None = None
        self._get: Callable[[Any], Sequence[Any]] = _getter([time_field, *test_fields, *by], by_key=True)
        self._end = 1 + len(test_fields)
        self._values = [TopValues(name) for name in by]
        self._counted = tuple(enumerate(self._values, self._end))
        self._hours: dict[int, list[int]] = {}
        """Counts by hours: see ``EPOCH``."""
        self._weekdays = [self._slots() for _ in range(7)]
        self._older, self._later, self._without_time = (self._slots() for _ in range(3))
        self._hour: int | None = None
        """Hour of the last event. Most events have the same, so their counts are at hand."""
        self._in_hour, self._on_weekday = self._older, self._weekdays[0]

    def _slots(self) -> list[int]:
        return [0] * (1 + len(self._test_fields))

    def expect_events(self, kind: type) -> None:
        """Take a class of the route's events. Raises SettingsError for one that lacks a field, or has another type."""
        (member,) = event_type(kind).members
        if self._by_key not in (None, member.by_key):
            raise SettingsError("the route gets dicts and objects; set topics of the route")
        self._by_key = member.by_key
        if member.fields is not None:
            self._check("time_field", [self._time_field], member, datetime, "a datetime")
            self._check("test_fields", self._test_fields, member, bool, "a boolean")
            self._check("by", self._by, member)
        self._get = _getter([self._time_field, *self._test_fields, *self._by], by_key=member.by_key)

    @staticmethod
    def _check(option: str, names: list[str], member: Member, wanted: type | None = None, called: str = "") -> None:
        fields = member.fields or {}
        for name in names:
            if name not in fields:
                others = "" if option == "time_field" else "; name others, or []"
                raise SettingsError(
                    f"options.{option}: {member.kind.__name__} has no field {name!r}{hint(name, fields)}{others}"
                )
            if wanted is not None and kind_of(msgspec.inspect.type_info(fields[name])) is not wanted:
                raise SettingsError(f"options.{option}: field {name!r} of {member.kind.__name__} is not {called}")

    def __call__(self, event: Any) -> None:
        """Count an event."""
        values = self._get(event)
        tests = values[1 : self._end]
        slot = 1 + tests.index(True) if True in tests else 0
        when = values[0]
        if type(when) is not datetime or when.tzinfo is not UTC:
            when = _in_utc(when)
        if when is None:
            self._without_time[slot] += 1
        else:
            hour = when.toordinal() * 24 + when.hour
            if hour != self._hour:
                self._hour, self._in_hour = hour, self._hours.get(hour) or self._new(hour)
                self._on_weekday = self._weekdays[(hour // 24 - 1) % 7]
            self._in_hour[slot] += 1
            self._on_weekday[slot] += 1
        if not slot:
            for index, counted in self._counted:
                try:
                    counted.found[values[index]] += 1
                except (KeyError, TypeError):
                    counted.add(values[index])

    def _new(self, hour: int) -> list[int]:
        """Return the counts of an hour that has none yet; forget those that are too old by now."""
        now = _hour_of_now()
        if hour <= now - HOURS:
            return self._older
        if hour > now + 1:
            return self._later
        for each in [each for each in self._hours if each <= now - HOURS]:
            del self._hours[each]
        found = self._hours[hour] = self._slots()
        return found

    def counted_events(self) -> EventCounts:
        """Return the counts; may be called in any thread."""
        first = _hour_of_now() - HOURS
        tops = [each.top(self._top) for each in self._values]
        # After the values, so that the rest of them is not negative.
        events, *apart = map(sum, zip(self._without_time, *self._weekdays, strict=True))
        return EventCounts(
            since=self._since,
            events=events,
            apart=dict(zip(self._test_fields, apart, strict=True)),
            without_time=sum(self._without_time),
            older=sum(self._older),
            later=sum(self._later),
            hours=[
                HourCounts(float((hour - EPOCH) * HOUR_SECONDS), _counts(found))
                for hour, found in sorted(self._hours.copy().items())
                if hour > first
            ],
            weekdays=[_counts(each) for each in self._weekdays],
            fields=[
                each.counts(self._top, top, events - shown)
                for each, (top, shown) in zip(self._values, tops, strict=True)
            ],
        )


def _hour_of_now() -> int:
    return EPOCH + int(time.time() // HOUR_SECONDS)


def _counts(slots: list[int]) -> Counts:
    events, *apart = slots
    return Counts(events, sum(apart))


def _getter(names: Sequence[str], *, by_key: bool) -> Callable[[Any], Sequence[Any]]:
    """Return a function that returns the values of an event's fields."""
    if by_key:
        return lambda event: [event.get(name, ABSENT) for name in names]
    if len(names) == 1:
        return lambda event: (getattr(event, names[0]),)
    return attrgetter(*names)


def _in_utc(value: Any) -> datetime | None:
    """Return a time in UTC, also of text in ISO 8601 and of a time without offset; None for what is no such time."""
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    try:
        return value.astimezone(UTC) if value.tzinfo is not None else value.replace(tzinfo=UTC)
    except OverflowError:  # before the first year or after the last one
        return None
