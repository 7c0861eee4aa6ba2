"""The verdict at the top of the status page, and its advice about halts and holds."""

from __future__ import annotations

import pytest

from consumer.http.page import Page
from consumer.http.status import Status
from consumer.http.verdict import judge
from consumer.outcome import HaltReason
from tests.statuses import a_halt, a_hold, a_partition, a_status
from tests.unit.http.document import EMPTY, words


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
    """One word and one sentence state the worst condition; the title repeats it."""
    verdict = judge(status)
    assert (verdict.word, verdict.tone) == (word, tone)
    assert sentence in verdict.sentence
    assert f"<title>{word}" in page.render(status)


@pytest.mark.parametrize("reason", HaltReason)
def test_a_halt_stands_with_its_command(page: Page, reason: HaltReason) -> None:
    """A halt shows what to repair, and the command alone, so that it can be copied."""
    halt = a_halt(1, reason)
    text = page.render(a_status(halts=[halt]))
    assert f"<b>To go on:</b> {halt.mend}." in text
    assert ('<code class="command">' in text) == bool(halt.command)
    assert halt.command in text
    assert "session-events-1" in text


def test_halts_for_one_reason_stand_together(page: Page) -> None:
    """Of many partitions halted for one reason three are shown and the others folded; all have their command."""
    text = page.render(a_status(halts=[a_halt(number) for number in range(20)]))
    assert text.count('<h2><span class="word">Halted</span>') == 1
    assert text.count('<code class="command">') == 20
    assert "17 more</summary>" in text


@pytest.mark.parametrize("kind", ["retry", "pause", "dead_letter", "group"])
def test_a_hold_says_what_ends_it(page: Page, kind: str) -> None:
    """A hold shows its route, its duration, its place, and what ends it."""
    text = words(page, a_status(holds=[a_hold(number, kind) for number in range(14)]))
    assert f"Holding {kind} route crm 14 partitions, for 1 min 35 s" in text
    assert a_hold(0, kind).ends[1:] in text
    assert "session-events: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more" in text
