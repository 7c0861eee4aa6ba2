"""The view: rows, sums and charts that the status page shows beside the status, as text where there are many. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple

from consumer.http.bars import StatsView, make_stats
from consumer.http.chart import Chart, make_chart
from consumer.http.conditions import HoldStatus
from consumer.http.partitions import rank
from consumer.http.progress import KEEPS_UP_SECONDS
from consumer.http.status import PartitionStatus, Status
from consumer.http.trouble import Trouble, make_troubles
from consumer.http.verdict import is_silent
from consumer.http.wording import MISSING, span, wait
from consumer.settings.listing import HIDDEN, plain_settings
from consumer.settings.meanings import MEANINGS
from consumer.settings.sections import Settings

SMALL_LAG = 1000
"""Minimum lag of a full bar, so that a small lag has a short bar."""
OLD_END_SECONDS = 15.0
"""Age above which the page shows how old a lag is: the partition's leader does not answer."""
FEW = 24
"""Number of partitions up to which all are shown at once."""


class Row(NamedTuple):
    """One partition, as text."""

    name: str
    state: str
    css: str
    lag: str
    old: str
    """Age of the lag if it is old, else empty."""
    bar: str
    """Length of the bar in percent; empty without one."""
    behind: str
    in_flight: str
    committed: str
    waits: str


class SettingRow(NamedTuple):
    """One setting, and whether it differs from its default."""

    name: str
    value: Any
    meaning: str
    changed: bool


class View(NamedTuple):
    """All values that the template shows beside the status."""

    troubles: list[Trouble]
    """The headline and the articles below it."""
    lag_records: int | None
    lag_seconds: float | None
    silent: bool
    """Whether no broker answers."""
    old: float | None
    """Age of the oldest end offset if it is old."""
    in_flight_records: int
    dead_letters: int
    throughput: Chart
    lag: Chart
    partitions: list[Row]
    """All, or those in trouble and behind; the worst first."""
    calm: list[Row]
    """The others if there are many."""
    stats: list[StatsView]
    """A section for each handler that counts."""


def make_view(status: Status) -> View:
    """Make the view of a status."""
    partitions = status.partitions
    lags = [each.lag_records for each in partitions if each.lag_records is not None]
    rows = _rows(status, max([SMALL_LAG, *lags]))
    behind = sum(not _is_calm(each) for each in partitions) if len(partitions) > FEW else len(partitions)
    return View(
        troubles=make_troubles(status),
        lag_records=sum(lags) if lags else None,
        lag_seconds=max((each.lag_seconds for each in partitions if each.lag_seconds is not None), default=None),
        silent=is_silent(status),
        old=_old(status),
        in_flight_records=sum(each.in_flight_records for each in partitions),
        dead_letters=sum(each.dead_lettered for each in status.routes),
        throughput=make_chart(status.history, lambda sample: sample.records_per_second),
        lag=make_chart(status.history, lambda sample: sample.lag_records),
        partitions=rows[:behind],
        calm=rows[behind:],
        stats=[make_stats(each, status.at) for each in status.stats],
    )


def _old(status: Status) -> float | None:
    """Return the age of the numbers that come from brokers, if they are old."""
    oldest = max((each.end_offset_age_seconds or 0.0 for each in status.partitions), default=0.0)
    if status.brokers.silent and status.brokers.heard_at is not None:
        oldest = max(oldest, status.at - status.brokers.heard_at)
    return oldest if oldest > OLD_END_SECONDS else None


def _is_calm(partition: PartitionStatus) -> bool:
    if partition.state == "caught up":
        return True
    return partition.state == "reading" and (partition.lag_seconds or 0.0) < KEEPS_UP_SECONDS


def _badness(partition: PartitionStatus) -> tuple[bool, int, int]:
    """Return what sorts the worst first; those without trouble keep their order, so that rows do not jump."""
    if _is_calm(partition):
        return True, 0, 0
    return False, rank(partition.state), -(partition.lag_records or 0)


def _rows(status: Status, most_lag: int) -> list[Row]:
    """Make the rows of all partitions, the worst first: in one loop without calls, because there may be hundreds."""
    nexts = {(each.topic, each.partition): each for each in reversed(status.holds)}
    rows = []
    for each in sorted(status.partitions, key=_badness):
        lag, age, behind = each.lag_records, each.end_offset_age_seconds, each.lag_seconds
        committed = each.committed_offset
        rows.append(
            Row(
                f"{each.topic}-{each.partition}",
                each.state,
                each.state.replace(" ", "-"),
                MISSING if lag is None else f"{lag:,}",
                span(age) if age is not None and age > OLD_END_SECONDS else "",
                f"{100 * lag / most_lag:.1f}" if lag else "",
                span(behind) if behind else "0 s" if behind == 0 else MISSING,
                f"{each.in_flight_records:,}",
                MISSING if committed is None else f"{committed:,}",
                _waits(each, nexts.get((each.topic, each.partition)), status.at) if each.waits else "nothing",
            )
        )
    return rows


def _waits(partition: PartitionStatus, hold: HoldStatus | None, at: float) -> str:
    text = wait(partition.waits[0], at)
    if hold is not None and hold.next_at is not None:
        text += f", next try in {span(max(0.0, hold.next_at - at))}"
    return text


def setting_groups(settings: dict[str, Any]) -> list[tuple[str, list[SettingRow]]]:
    """Group settings by section, with their meanings."""
    defaults = plain_settings(Settings())
    groups: dict[str, list[SettingRow]] = {}
    for name, value in settings.items():
        changed = value == HIDDEN or value != defaults[name]
        row = SettingRow(name.partition(".")[2] or name, value, MEANINGS[name], changed)
        groups.setdefault(name.rpartition(".")[0].partition(".")[0] or "all", []).append(row)
    return list(groups.items())
