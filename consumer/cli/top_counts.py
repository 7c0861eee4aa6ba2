"""The table of what handlers have counted, in ``top``. Pure."""

from __future__ import annotations

from consumer.cli.top_section import Column, Row, Section
from consumer.http.status import Status
from consumer.http.wording import number, percent


def counts(status: Status) -> Section:
    """Return the values of each field that is counted, the most frequent first."""
    columns = (
        Column("Counts", flexible=True),
        Column("Field", flexible=True),
        Column("Route", flexible=True),
        Column("Events", right=True),
        Column("Share", right=True),
    )
    rows: list[Row] = [
        (name, field.field, each.route, number(events), percent(events, each.counts.events))
        for each in status.stats
        for field in each.counts.fields
        for name, events in [*((one.value, one.events) for one in field.top), ("all others", field.other)]
        if events
    ]
    return Section("Counts", columns, rows, 2)
