"""The tables of ``top``, from one status each: the worst row first. Pure."""

from __future__ import annotations

from rich.text import Text

from consumer.cli.top_counts import counts
from consumer.cli.top_section import Column, Row, Section
from consumer.http.conditions import HoldStatus
from consumer.http.partitions import rank
from consumer.http.progress import keeps_up
from consumer.http.status import PartitionStatus, RouteStatus, Status, TopicStatus
from consumer.http.wording import MISSING, number, rate, span, wait

STYLES = {"halted": "bold red", "draining": "yellow", "holding": "yellow", "retrying": "yellow", "caught up": "green"}
MANY_FAILED = 0.05


def sections(status: Status) -> list[Section]:
    """Return the tables of a status that have rows, the most important first."""
    made = (_holds, _dead_lettering, _topics, _routes, _partitions, _members, _failures, counts)
    return [each for make in made if (each := make(status)).rows]


def _holds(status: Status) -> Section:
    columns = (
        Column("Hold", flexible=True),
        Column("Route"),
        Column("Kind", wide=100),
        Column("Records", right=True, wide=110),
        Column("Offset", right=True, wide=100),
        Column("For", right=True),
        Column("Tries", right=True),
        Column("Next try", right=True),
        Column("Error", flexible=True),
    )

    def row(hold: HoldStatus) -> Row:
        return (
            f"{hold.topic}-{hold.partition}",
            hold.route or MISSING,
            hold.kind,
            number(hold.records),
            str(hold.offset),
            _since(status, hold.since),
            number(hold.attempts),
            "now" if hold.next_at is None else f"in {_until(status, hold.next_at)}",
            hold.error or hold.ends,
        )

    return Section("Holds", columns, [row(each) for each in sorted(status.holds, key=lambda each: each.since)], 2)


def _dead_lettering(status: Status) -> Section:
    columns = (
        Column("Dead letters", flexible=True),
        Column("Reason"),
        Column("Route", flexible=True),
        Column("Of the last records", right=True),
        Column("For", right=True),
    )
    worst = sorted(status.dead_lettering, key=lambda each: each.dead_lettered / max(each.records, 1), reverse=True)
    rows: list[Row] = [
        (
            each.topic,
            each.reason,
            each.route,
            f"{each.dead_lettered:,} of {each.records:,}",
            _since(status, each.since),
        )
        for each in worst
    ]
    return Section("Dead letters", columns, rows, 1)


def _topics(status: Status) -> Section:
    columns = (
        Column("Topic", flexible=True),
        Column("Partitions", right=True),
        Column("Records/s", right=True),
        Column("Lag", right=True),
        Column("Behind", right=True),
        Column("Catches up"),
    )

    def row(topic: TopicStatus) -> Row:
        return (
            topic.topic,
            number(topic.partitions),
            rate(topic.records_per_second),
            number(topic.lag_records),
            span(topic.lag_seconds),
            _catches_up(status, topic),
        )

    worst = sorted(status.topics, key=lambda each: each.lag_records or 0, reverse=True)
    return Section("Topics", columns, [row(each) for each in worst], 2)


def _catches_up(status: Status, topic: TopicStatus) -> Text | str:
    if topic.lag_records is None:
        return MISSING
    if topic.lag_records == 0 or topic.catch_up_seconds == 0:
        return Text("caught up", "green")
    if keeps_up(topic):
        return "keeping up"
    if topic.growing_since is not None:
        return Text(f"no: growing for {_since(status, topic.growing_since)}", "yellow")
    return (
        Text("not at this rate", "yellow") if topic.catch_up_seconds is None else f"in {span(topic.catch_up_seconds)}"
    )


def _routes(status: Status) -> Section:
    columns = (
        Column("Route", flexible=True),
        Column("Records/s", right=True),
        Column("p50", right=True),
        Column("p99", right=True),
        Column("Failed", right=True),
        Column("Calls", right=True),
        Column("Handled", right=True, wide=76),
        Column("Skipped", right=True, wide=110),
        Column("Dead", right=True),
        Column("Retries", right=True, wide=100),
        Column("Handler", wide=120, flexible=True),
    )

    def row(route: RouteStatus) -> Row:
        return (
            route.name,
            rate(route.records_per_second),
            _call_time(route.call_seconds_p50),
            _call_time(route.call_seconds_p99),
            _failed(route),
            f"{route.waiting:,} of {route.allowed:,}" if route.allowed else MISSING,
            number(route.handled),
            number(route.skipped),
            Text(number(route.dead_lettered), "yellow" if route.dead_lettered else ""),
            number(route.retries),
            route.handler,
        )

    def worst_first(route: RouteStatus) -> tuple[bool, float]:
        return route.name == "none", -route.calls_failed / max(route.calls, 1)

    return Section("Routes", columns, [row(each) for each in sorted(status.routes, key=worst_first)], 3)


def _call_time(seconds: float | None) -> str:
    if seconds is None:
        return MISSING
    return f"{seconds * 1000:.3g} ms" if seconds < 0.9995 else span(seconds)


def _failed(route: RouteStatus) -> Text | str:
    if not route.calls:
        return MISSING
    share = route.calls_failed / route.calls
    return Text(f"{share:.1%}", "bold yellow" if share >= MANY_FAILED else "")


def _partitions(status: Status) -> Section:
    columns = (
        Column("Partition", flexible=True),
        Column("State"),
        Column("Lag", right=True),
        Column("Behind", right=True),
        Column("In flight", right=True),
        Column("Committed", right=True, wide=110),
        Column("End", right=True, wide=110),
        Column("End seen", right=True, wide=110),
        Column("Waits for", flexible=True),
    )

    def row(each: PartitionStatus) -> Row:
        return (
            f"{each.topic}-{each.partition}",
            Text(each.state, STYLES.get(each.state, "")),
            number(each.lag_records),
            span(each.lag_seconds),
            number(each.in_flight_records),
            MISSING if each.committed_offset is None else str(each.committed_offset),
            MISSING if each.end_offset is None else str(each.end_offset),
            MISSING if each.end_offset_age_seconds is None else f"{span(each.end_offset_age_seconds)} ago",
            wait(each.waits[0], status.at) if each.waits else "",
        )

    def worst_first(each: PartitionStatus) -> tuple[int, int]:
        return rank(each.state), -(each.lag_records or 0)

    return Section("Partitions", columns, [row(each) for each in sorted(status.partitions, key=worst_first)], 3)


def _members(status: Status) -> Section:
    columns = (
        Column("Member", flexible=True),
        Column("Client id", flexible=True),
        Column("Partitions", right=True),
        Column("", wide=60),
        Column("Member id", wide=100, flexible=True),
    )
    rows: list[Row] = [
        (each.host, each.client_id, number(each.partitions), "this daemon" if each.me else "", each.member_id)
        for each in sorted(status.group.members, key=lambda each: not each.me)
    ]
    return Section("Members", columns, rows, 1)


def _failures(status: Status) -> Section:
    columns = (
        Column("Failure", flexible=True),
        Column("Kind"),
        Column("Times", right=True),
        Column("Last", right=True),
        Column("Record", wide=100, flexible=True),
        Column("Error", flexible=True),
    )
    rows: list[Row] = [
        (
            each.route,
            each.kind,
            number(each.times),
            f"{_since(status, each.last_at)} ago",
            f"{each.topic}-{each.partition} at {each.offset}",
            each.error,
        )
        for each in status.failures
    ]
    return Section("Failures", columns, rows, 1)


def _since(status: Status, then: float) -> str:
    return span(max(0.0, status.at - then))


def _until(status: Status, then: float) -> str:
    return span(max(0.0, then - status.at))
