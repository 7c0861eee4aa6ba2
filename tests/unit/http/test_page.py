"""The status page as text: whole, escaped, with nothing from outside; the browser's part is ``tests/web``."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

import consumer.http
from consumer.http import wording
from consumer.http.chart import HEIGHT, WIDTH, make_chart, round_up
from consumer.http.history import Sample
from consumer.http.page import Page, load_page
from consumer.http.status import HaltStatus, HoldStatus, PartitionStatus, RouteStatus, Status, plain_settings
from consumer.http.verdict import judge
from consumer.observe.recent_failures import Failure
from consumer.outcome import HaltReason
from consumer.settings.sections import Http, Kafka, Security, Settings
from tests.statuses import (
    AT,
    a_failure,
    a_halt,
    a_hold,
    a_partition,
    a_route,
    a_status,
    a_troubled_status,
    some_history,
)

EMPTY = a_status(
    state="starting",
    unready="not joined yet",
    partitions=[],
    history=[],
    last_commit_at=None,
    routes=[],
    versions={},
)
MANY = a_status(
    partitions=[a_partition(number, lag_records=number, state="reading") for number in range(256)],
    halts=[a_halt(number) for number in range(256)],
    holds=[a_hold(number) for number in range(256)],
)
each_status = pytest.mark.parametrize(
    "status", [EMPTY, MANY, a_status(), a_troubled_status()], ids=["empty", "many", "calm", "troubled"]
)

VOID = {"meta", "link", "br", "path", "polygon", "polyline", "rect"}
CELLS = ("th", "td")


@pytest.fixture(scope="module")
def page() -> Page:
    return load_page()


class Document(HTMLParser):
    """Reads a document strictly: every element closed in order, every id once."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        """Each with the names of its attributes."""
        self.attributes: list[tuple[str, str, str | None]] = []
        self.said: dict[str, str] = {}
        self.rows: list[int] = []
        """Columns of each row of a table."""
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        assert len(given) == len(attrs), f"an attribute of {tag} twice"
        self.attributes += [(tag, name, value) for name, value in attrs]
        self.elements.append((tag, tuple(given)))
        if given.get("id"):
            self.ids.append(str(given["id"]))
        if tag == "tr":
            self.rows.append(0)
        if tag in CELLS:
            self.rows[-1] += int(given.get("colspan") or 1)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value) for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] not in (["style"], ["script"]):
            self.text += f" {data.strip()}" if data.strip() else ""


def words(page: Page, status: Status) -> str:
    return " ".join(Document(page.render(status)).text.split())


# -- well made ---------------------------------------------------------------------------------------------------------


@each_status
def test_it_is_well_formed(page: Page, status: Status) -> None:
    """Every element is closed in its turn, no id is there twice, and the rows of a table are of one length."""
    document = Document(page.render(status))
    assert len(set(document.ids)) == len(document.ids)
    assert set(document.rows) <= {2, 8}
    assert page.render(status).startswith("<!doctype html>\n<html lang=")


@each_status
def test_nothing_from_outside(page: Page, status: Status) -> None:
    """No address leads elsewhere, and no element carries style or script of its own: the policy forbids both."""
    for tag, name, value in Document(page.render(status)).attributes:
        assert name != "style"
        assert not name.startswith("on")
        if name in ("href", "src"):
            assert tag in ("a", "link")
            assert value in ("", "status.json", "metrics", "healthz", "readyz") or (
                tag == "link" and str(value).startswith("data:image/svg+xml,")
            )


def test_the_policy_fits(page: Page) -> None:
    """The hashes of the policy are those of the one style and the one script; anything else is forbidden."""
    text = page.render(a_status())
    for tag in ("style", "script"):
        (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}'" in page.policy
    assert "default-src 'none'" in page.policy
    assert "unsafe" not in page.policy


@each_status
def test_it_is_small(page: Page, status: Status) -> None:
    """Even 256 partitions that are all in trouble make a page of a few hundred kilobytes, without its compression."""
    assert len(page.render(status)) < 400_000


def test_what_is_refreshed_is_always_there(page: Page) -> None:
    """The script replaces the same sections, whatever there is to show."""

    def live(status: Status) -> list[str]:
        return re.findall(r'<\w+ id="([\w-]+)"[^>]* data-live', page.render(status))

    assert live(EMPTY) == live(MANY) == live(a_troubled_status())
    assert {"top", "state", "attention", "numbers", "charts", "partitions", "routes", "failures"} <= set(live(EMPTY))


# -- escaped -----------------------------------------------------------------------------------------------------------

EVIL = "<script>alert(1)</script>\"'&amp;<b>{{7*7}}</b>-->]]>"


def poisoned(value: Any, name: str = "") -> Any:
    """Replace every text in a status by one that would break out of wherever it stands."""
    if isinstance(value, str):
        return EVIL if name not in ("state", "kind") else value
    if isinstance(value, list):
        return [poisoned(each) for each in value]
    if isinstance(value, dict):
        return {key if name == "settings" else f"{EVIL}{key}": poisoned(each) for key, each in value.items()}
    if isinstance(value, msgspec.Struct):
        fields = {field: poisoned(getattr(value, field), field) for field in value.__struct_fields__}
        return type(value)(**fields)
    return value


def test_everything_is_escaped(page: Page) -> None:
    """Whatever a topic, a route, a group or a sentence holds is text: no element, attribute or script."""
    status = poisoned(a_troubled_status())
    clean, text = Document(page.render(a_troubled_status())), page.render(status)
    document = Document(text)
    assert set(document.elements) == set(clean.elements)
    assert text.count("<script>") == text.count("</script>") == 1
    assert "<b>{{7*7}}" not in text
    assert EVIL in document.text


def test_only_our_own_files_are_not_escaped() -> None:
    """The template lets two things through as they are: the style and the script that lie beside it."""
    template = (Path(consumer.http.__file__).parent / "page.html").read_text()
    assert re.findall(r"\{\{ (\w+)\|safe \}\}", template) == ["style", "script"]
    assert template.count("|safe") == 2
    assert "autoescape" not in template


# -- what it says ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "word", "tone", "sentence"),
    [
        (a_status(), "Running", "good", "All partitions are caught up."),
        (
            a_status(partitions=[a_partition(0), a_partition(1, state="reading", lag_seconds=0.4)]),
            "Running",
            "good",
            "Keeping up: 0.4 s behind.",
        ),
        (
            a_status(partitions=[a_partition(0), a_partition(1, state="reading", lag_seconds=95.0)]),
            "Running",
            "good",
            "Catching up: 1 min 35 s behind.",
        ),
        (
            a_status(partitions=[a_partition(0, state="starting", lag_seconds=None)]),
            "Running",
            "good",
            "The lag is not known yet.",
        ),
        (a_status(partitions=[]), "Running", "good", "The daemon owns no partition"),
        (a_status(halts=[a_halt(1)]), "Partly halted", "bad", "1 of 4 partitions waiting for a person."),
        (
            a_status(halts=[a_halt(0)], partitions=[a_partition(0)], unready="halted: session-events-0"),
            "Halted",
            "bad",
            "1 of 1 partition waiting for a person.",
        ),
        (a_status(holds=[a_hold(0), a_hold(1)]), "Partly holding", "warn", "2 of 4 partitions waiting"),
        (a_status(holds=[a_hold(number) for number in range(4)]), "Holding", "warn", "4 of 4 partitions"),
        (a_status(unready="no broker heard for 30 s"), "Not ready", "warn", "No broker heard for 30 s."),
        (a_status(halts=[a_halt(0)], unready="no broker heard"), "Partly halted", "bad", "No broker heard."),
        (EMPTY, "Starting", "busy", "Not joined yet."),
        (a_status(state="draining"), "Draining", "busy", "Started calls end"),
        (a_status(state="rebuilding"), "Rebuilding", "warn", "a new one joins"),
        (
            a_status(state="stalled", stalled="a handler's call does not end (t-0)", halts=[a_halt(0)]),
            "Stalled",
            "bad",
            "A handler's call does not end (t-0). The log has the stacks of all threads and tasks.",
        ),
    ],
)
def test_the_verdict(page: Page, status: Status, word: str, tone: str, sentence: str) -> None:
    """One word and one sentence say how it goes, the worst first; the title says it too."""
    verdict = judge(status)
    assert (verdict.word, verdict.tone) == (word, tone)
    assert sentence in verdict.sentence
    assert f"<title>{word}" in page.render(status)


@pytest.mark.parametrize("reason", HaltReason)
def test_a_halt_stands_with_its_command(page: Page, reason: HaltReason) -> None:
    """A halt says what to mend, and the command by itself, so that it can be taken as it is."""
    halt = a_halt(1, reason)
    text = page.render(a_status(halts=[halt]))
    assert f"<b>To go on:</b> {halt.mend}." in text
    assert ('<code class="command">' in text) == bool(halt.command)
    assert halt.command in text
    assert "session-events-1" in text


def test_halts_for_one_reason_stand_together(page: Page) -> None:
    """Of many partitions that halted for one reason three are shown, the others on demand; all have their command."""
    text = page.render(a_status(halts=[a_halt(number) for number in range(20)]))
    assert text.count('<h2><span class="word">Halted</span>') == 1
    assert text.count('<code class="command">') == 20
    assert "17 more</summary>" in text


@pytest.mark.parametrize("kind", ["retry", "pause", "dead_letter", "group"])
def test_a_hold_says_what_ends_it(page: Page, kind: str) -> None:
    """A hold says its route, for how long, where, and what ends it."""
    text = words(page, a_status(holds=[a_hold(number, kind) for number in range(14)]))
    assert f"Holding {kind} route crm 14 partitions, for 1 min 35 s" in text
    assert a_hold(0, kind).ends[1:] in text
    assert "session-events: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more" in text


def test_partitions(page: Page) -> None:
    """Each partition has its state in words, its lag, its age, what is in flight, and its offsets."""
    row = a_partition(7, state="reading", lag_records=1234, lag_seconds=75.0, in_flight_records=8, committed_offset=5)
    text = words(page, a_status(partitions=[row, a_partition(0, "other")]))
    assert "session-events 1 partition, lag 1,234 7 reading 1,234 1 min 15 s 8 5 1,212,384" in text
    assert "other 1 partition, lag 0 0 caught up 0 0 s 0" in text
    assert "Partitions 2 owned" in text


def test_an_old_end_is_said(page: Page) -> None:
    """A lag that is older than a few measurements says how old it is."""
    assert "9 22 s ago" in words(
        page, a_status(partitions=[a_partition(1, lag_records=9, end_offset_age_seconds=22.0)])
    )


def test_routes_and_outcomes(page: Page) -> None:
    """Routes have their outcomes and failed calls; those that are 0 are left out of the kinds."""
    text = words(page, a_troubled_status())
    assert "crm crm:Upsert matches on channel_manager_type, is_test 62,114,904 3 440 1 0 pause 431, error 12" in text
    assert "none no route matched, or it cannot be decoded 44,313,980 17 0" in text


def test_failures(page: Page) -> None:
    """A failure says what became of the record, why, where, how often and when, and where in the code."""
    text = words(page, a_status(failures=[a_failure("exhausted", times=3), a_failure("timeout")]))
    place = "route crm session-events-2 at offset 1204881"
    assert f"dead letter exhausted {place} 3 times , the last 07:33:08 , 12 s ago KeyError (/srv/handlers" in text
    assert f"called again timeout {place} 07:33:08 , 12 s ago KeyError (/srv/handlers/crm.py:41)" in text


def test_settings(page: Page) -> None:
    """Settings stand there with their values; secrets do not, and what is not the default is marked, also in words."""
    security = Security("SASL_SSL", username="user-7", password="hush-7")
    settings = Settings(kafka=Kafka(topics=["calls"], security=security), http=Http(port=18_000))
    text = words(page, a_status(settings=plain_settings(settings)))
    assert "hush-7" not in text
    assert "user-7" not in text
    assert "security.password hidden (not the default)" in text
    assert "topics calls (not the default)" in text
    assert "max_batch_bytes 67_108_864 " in text
    assert "drain_seconds 25 " in text
    assert "payloads false" in text


def test_an_empty_start(page: Page) -> None:
    """Before anything is known it says so, and no number is made up."""
    text = words(page, EMPTY)
    assert "Starting Not joined yet." in text
    assert "None owned yet." in text
    assert text.count("Nothing measured yet.") == 2
    assert "Lag – records not committed" in text  # noqa: RUF001 - what a missing number looks like
    assert "None since the start." in text


def test_many_partitions_scroll(page: Page) -> None:
    """256 partitions are one table in a box that scrolls, which the keyboard reaches, with their sum above."""
    text = page.render(MANY)
    assert '<div class="scroll tall" id="partitions-scroll" tabindex="0" role="region" aria-label="Partitions">' in text
    assert f"256 partitions, lag {sum(range(256)):,}" in words(page, MANY)


def test_it_can_be_used_without_the_script(page: Page) -> None:
    """Without the script everything is there, and a link loads it again."""
    text = page.render(a_status())
    assert re.search(r'<noscript>.*<a href="">Reload</a>.*</noscript>', text)


def test_every_type_is_shown() -> None:
    """The statuses of these tests fill every field of every type: what is new in a type is to be shown, and tested."""
    status = a_troubled_status()
    kinds = {type(each) for name in status.__struct_fields__ for each in _list(getattr(status, name))}
    assert {HaltStatus, HoldStatus, PartitionStatus, RouteStatus, Failure, Sample} <= kinds


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def test_a_route_without_a_handler(page: Page) -> None:
    """A route that a command added has no settings: only its counts are shown."""
    assert "count 12 0 0 0 0 –" in words(  # noqa: RUF001
        page, a_status(routes=[a_route("count", "", match_fields=[], handled=12)])
    )


# -- the chart ---------------------------------------------------------------------------------------------------------


def numbers(points: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, _, y in (pair.partition(",") for pair in points.split())]


def a_sample(at: float, rate: float, lag: int | None = None) -> Sample:
    return Sample(AT + at, rate, 0.0, lag)


def test_a_line() -> None:
    """The newest sample is at the right edge, a second is one unit, and the highest value lies below the upper edge."""
    chart = make_chart([a_sample(at, 10.0 * at) for at in range(3)], lambda sample: sample.records_per_second)
    assert chart.top == 20
    assert numbers(chart.lines[0]) == [(WIDTH - 2, HEIGHT), (WIDTH - 1, HEIGHT / 2), (WIDTH, 0)]
    assert numbers(chart.areas[0])[0] == (WIDTH - 2, HEIGHT)
    assert numbers(chart.areas[0])[-1] == (WIDTH, HEIGHT)
    assert (chart.peak, chart.last) == (20, 20)


def test_a_gap_is_not_bridged() -> None:
    """Where no sample was taken for longer the line is broken; where a value is not known it begins later."""
    times = [0, 1, 2, 60, 61, 62]
    chart = make_chart([a_sample(at, 5.0) for at in times], lambda sample: sample.records_per_second)
    assert [len(numbers(line)) for line in chart.lines] == [3, 3]
    late = make_chart([a_sample(at, 0.0, None if at < 2 else at) for at in range(4)], lambda sample: sample.lag_records)
    assert [len(numbers(line)) for line in late.lines] == [2]


def test_a_clock_that_was_set_back() -> None:
    """Nothing is drawn outside, whatever the clock does."""
    samples = [a_sample(at, 5.0) for at in (100, 101, 102, 0, 1, 2, 3)]
    chart = make_chart(samples, lambda sample: sample.records_per_second)
    assert all(0 <= x <= WIDTH and 0 <= y <= HEIGHT for line in chart.lines for x, y in numbers(line))


def test_the_same_as_a_table() -> None:
    """The table beside a chart has the mean of each quarter of a minute, the newest first."""
    chart = make_chart(some_history(), lambda sample: sample.lag_records)
    assert [at for at, _ in chart.rows] == sorted((at for at, _ in chart.rows), reverse=True)
    assert 20 <= len(chart.rows) <= 21
    assert chart.rows[0][1] == 0
    assert chart.rows[-1][1] > 380_000


@pytest.mark.parametrize(
    ("number", "top"), [(0, 4), (0.4, 4), (4, 4), (4.1, 5), (9, 10), (10, 10), (11, 15), (25_000, 30_000), (4e6, 4e6)]
)
def test_the_upper_edge(number: float, top: float) -> None:
    """The axis ends at a round number, and not far above the highest value."""
    assert round_up(number) == top


# -- wording -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (None, "–"),  # noqa: RUF001
        (0.0, "0 s"),
        (0.64, "0.6 s"),
        (12.4, "12 s"),
        (60, "1 min"),
        (95, "1 min 35 s"),
        (3600, "1 h"),
        (7_260, "2 h 1 min"),
        (86_400, "1 d"),
        (200_000, "2 d 7 h"),
        (-3, "0 s"),
    ],
)
def test_spans(seconds: float | None, said: str) -> None:
    """A span is said in its two largest units."""
    assert wording.span(seconds) == said


@pytest.mark.parametrize(
    ("given", "said"), [(0, "0"), (400, "400"), (1500, "1.5 k"), (40_000, "40 k"), (2e6, "2 M"), (5e9, "5 G")]
)
def test_axis_numbers(given: float, said: str) -> None:
    """On an axis a number is short."""
    assert wording.short(given) == said


def test_numbers() -> None:
    """Whole numbers have thousands apart, small rates a decimal, bytes their unit."""
    assert [wording.number(each) for each in (0, 1234567.0)] == ["0", "1,234,567"]
    assert [wording.rate(each) for each in (0.0, 0.04, 3.25, 9.96, 18_204.4)] == ["0", "0", "3.2", "10", "18,204"]
    assert [wording.size(each) for each in (12, 2048, 5 * 2**20, 3 * 2**30)] == [
        "12 B",
        "2.0 KiB",
        "5.0 MiB",
        "3.0 GiB",
    ]
    assert wording.places([("b", 1), ("a", 2), ("a", 0)]) == "a: 0, 2; b: 1"
