"""The view: groups, sums and charts that the status page shows beside the status. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any, NamedTuple

from consumer.http.chart import Chart, make_chart
from consumer.http.status import HaltStatus, HoldStatus, PartitionStatus, Status
from consumer.http.verdict import Verdict, judge
from consumer.settings.listing import HIDDEN, plain_settings
from consumer.settings.meanings import MEANINGS
from consumer.settings.sections import Settings

SMALL_LAG = 1000
"""Minimum lag of a full bar, so that a small lag has a short bar."""


class HaltGroup(NamedTuple):
    """Halted partitions with the same reason and the same explanation."""

    reason: str
    explanation: str
    mend: str
    halts: list[HaltStatus]


class HoldGroup(NamedTuple):
    """Holds of all partitions that wait for the same thing."""

    route: str
    kind: str
    ends: str
    records: int
    since: float
    partitions: list[tuple[str, int]]


class TopicGroup(NamedTuple):
    """The partitions of one topic, with their total lag."""

    topic: str
    partitions: list[PartitionStatus]
    lag_records: int | None


class SettingRow(NamedTuple):
    """One setting, and whether it differs from its default."""

    name: str
    value: Any
    meaning: str
    changed: bool


class View(NamedTuple):
    """All values that the template shows beside the status."""

    verdict: Verdict
    lag_records: int | None
    lag_seconds: float | None
    most_lag: int
    throughput: Chart
    lag: Chart
    halts: list[HaltGroup]
    holds: list[HoldGroup]
    topics: list[TopicGroup]
    settings: list[tuple[str, list[SettingRow]]]


def make_view(status: Status) -> View:
    """Make the view of a status."""
    lags = [each.lag_records for each in status.partitions if each.lag_records is not None]
    ages = [each.lag_seconds for each in status.partitions if each.lag_seconds is not None]
    return View(
        verdict=judge(status),
        lag_records=sum(lags) if lags else None,
        lag_seconds=max(ages, default=None),
        most_lag=max([SMALL_LAG, *lags]),
        throughput=make_chart(status.history, lambda sample: sample.records_per_second),
        lag=make_chart(status.history, lambda sample: sample.lag_records),
        halts=_halt_groups(status.halts),
        holds=_hold_groups(status.holds),
        topics=_topic_groups(status.partitions),
        settings=_setting_groups(status.settings),
    )


def _halt_groups(halts: Sequence[HaltStatus]) -> list[HaltGroup]:
    groups: dict[tuple[str, str, str], list[HaltStatus]] = {}
    for each in halts:
        groups.setdefault((each.reason, each.explanation, each.mend), []).append(each)
    return [HaltGroup(*same, found) for same, found in groups.items()]


def _hold_groups(holds: Sequence[HoldStatus]) -> list[HoldGroup]:
    groups: dict[tuple[str, str, str], list[HoldStatus]] = {}
    for each in holds:
        groups.setdefault((each.route, each.kind, each.ends), []).append(each)
    return [
        HoldGroup(
            *same,
            sum(each.records for each in found),
            min(each.since for each in found),
            [(each.topic, each.partition) for each in found],
        )
        for same, found in groups.items()
    ]


def _topic_groups(partitions: Iterable[PartitionStatus]) -> list[TopicGroup]:
    groups = []
    for topic, members in groupby(partitions, lambda each: each.topic):
        found = list(members)
        lags = [each.lag_records for each in found if each.lag_records is not None]
        groups.append(TopicGroup(topic, found, sum(lags) if lags else None))
    return groups


def _setting_groups(settings: dict[str, Any]) -> list[tuple[str, list[SettingRow]]]:
    defaults = plain_settings(Settings())
    rows = [
        SettingRow(name.partition(".")[2] or name, value, MEANINGS[name], value == HIDDEN or value != defaults[name])
        for name, value in settings.items()
    ]
    sections = (name.rpartition(".")[0] for name in settings)
    groups: dict[str, list[SettingRow]] = {}
    for section, row in zip(sections, rows, strict=True):
        groups.setdefault(section.partition(".")[0] or "all", []).append(row)
    return list(groups.items())
