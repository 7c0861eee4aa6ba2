"""The status page: a Status rendered as HTML, with its style and its one script inside. Rendering is pure."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from importlib.resources import files
from itertools import groupby
from typing import Any, NamedTuple

import jinja2

from consumer.http import wording
from consumer.http.chart import HEIGHT, WIDTH, Chart, make_chart
from consumer.http.status import HIDDEN, HaltStatus, HoldStatus, PartitionStatus, Status, plain_settings
from consumer.letter import REASONS
from consumer.settings import MEANINGS, Settings

OLD_END_SECONDS = 15.0
"""A lag that is older is said to be: its partition's leader does not answer."""


class Verdict(NamedTuple):
    """How it goes, in one word and one sentence; ``tone`` is good, busy, warn or bad: a colour, never alone."""

    word: str
    tone: str
    sentence: str


class HaltGroup(NamedTuple):
    """Partitions that halted for the same reason, with the same sentence."""

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
    """One topic's partitions with their sums."""

    topic: str
    partitions: list[PartitionStatus]
    lag_records: int | None


class SettingRow(NamedTuple):
    """One setting beside its default."""

    name: str
    value: Any
    meaning: str
    changed: bool


class View(NamedTuple):
    """What the template shows beside the status itself."""

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


class Page:
    """Renders statuses; made when the server starts, as long-lived."""

    def __init__(self, template: jinja2.Template, style: str, script: str) -> None:
        self._template = template
        self._style = style
        self._script = script

    @property
    def policy(self) -> str:
        """The Content-Security-Policy that lets this style and this script through, and nothing else."""
        return (
            f"default-src 'none'; script-src {_digest(self._script)}; style-src {_digest(self._style)}; img-src data:;"
            " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )

    def render(self, status: Status) -> str:
        """Return the whole document."""
        view = make_view(status)
        return self._template.render(status=status, view=view, style=self._style, script=self._script)


def load_page() -> Page:
    """Read the template, the style and the script, which lie beside this module."""
    folder = files("consumer.http")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"sentence": _sentence} | {
        each.__name__: each
        for each in (
            wording.number,
            wording.rate,
            wording.short,
            wording.size,
            wording.span,
            wording.clock,
            wording.day,
            wording.moment,
            wording.setting,
            wording.places,
        )
    }
    environment.globals |= {
        "WIDTH": WIDTH,
        "HEIGHT": HEIGHT,
        "OLD_END_SECONDS": OLD_END_SECONDS,
        "LETTER_REASONS": REASONS,
    }
    html, style, script = (folder.joinpath(f"page.{kind}").read_text("utf-8") for kind in ("html", "css", "js"))
    return Page(environment.from_string(html), style, script)


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def make_view(status: Status) -> View:
    """Put together what belongs together."""
    lags = [each.lag_records for each in status.partitions if each.lag_records is not None]
    ages = [each.lag_seconds for each in status.partitions if each.lag_seconds is not None]
    return View(
        verdict=judge(status),
        lag_records=sum(lags) if lags else None,
        lag_seconds=max(ages, default=None),
        most_lag=max(lags, default=0),
        throughput=make_chart(status.history, lambda sample: sample.records_per_second),
        lag=make_chart(status.history, lambda sample: sample.lag_records),
        halts=_halt_groups(status.halts),
        holds=_hold_groups(status.holds),
        topics=_topic_groups(status.partitions),
        settings=_setting_groups(status.settings),
    )


LIVES = {
    "draining": ("busy", "Started calls end, what is done is committed, then it leaves the group."),
    "rebuilding": ("warn", "The Kafka client could not go on; another one joins the group."),
}


def judge(status: Status) -> Verdict:
    """Say how it goes; the worst first."""
    if status.state == "stalled":
        return Verdict("Stalled", "bad", f"{_sentence(status.stalled or '')} The log holds all stacks.")
    if status.state in LIVES:
        return Verdict(status.state.capitalize(), *LIVES[status.state])
    if status.state == "starting":
        return Verdict("Starting", "busy", _sentence(status.unready or "joining the group"))
    return _judge_running(status)


def _judge_running(status: Status) -> Verdict:
    owned, halted = len(status.partitions), len(status.halts)
    holding = len({(each.topic, each.partition) for each in status.holds})
    unready = "" if status.unready is None or status.unready.startswith("halted") else _sentence(status.unready)
    if halted:
        word = "Halted" if halted == owned else "Partly halted"
        return Verdict(word, "bad", f"{_of_owned(halted, status)} waiting for a person. {unready}")
    if unready:
        return Verdict("Not ready", "warn", unready)
    if holding:
        word = "Holding" if holding == owned else "Partly holding"
        return Verdict(word, "warn", f"{_of_owned(holding, status)} waiting, and trying again.")
    return Verdict("Running", "good", _progress(status))


def _progress(status: Status) -> str:
    if not status.partitions:
        return "It owns no partition: other members of the group have them all."
    behind = sum(1 for each in status.partitions if each.state != "caught up")
    return f"{_of_owned(behind, status)} not caught up yet." if behind else "All is caught up."


def _of_owned(count: int, status: Status) -> str:
    return f"{count} of {len(status.partitions)} partition{'' if len(status.partitions) == 1 else 's'}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('.') else '.'}" if text else ""


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
