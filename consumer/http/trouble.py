"""What the status page says first: the headline, and an article for each other verdict, with its details. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from consumer.errors import counted
from consumer.http import advice, wording
from consumer.http.conditions import HaltStatus, HoldStatus, StallStatus
from consumer.http.status import BrokersStatus, Status, Verdict
from consumer.http.verdict import Finding, exit_in, findings, hold_details, hold_findings, silent_for

YOUNG_SECONDS = 5.0
"""Age from which a retry by policy has an article after its first failed attempt."""


class Moving(NamedTuple):
    """A sentence with a time in it that the page's script counts on."""

    before: str
    text: str
    """The time as it was when the page was made; empty without one."""
    after: str
    seconds: float
    direction: str
    """``up`` for an age, ``down`` for a time that is left."""


class Detail(NamedTuple):
    """One line of details: a place, and what is known of it."""

    place: str
    text: str
    since: float
    next_at: float | None = None


class Trouble(NamedTuple):
    """One verdict with its details."""

    verdict: Verdict
    sentence: Moving
    title: str
    """Of the details."""
    details: list[Detail]
    code: list[str]
    """Places in the code, innermost first."""


def make_troubles(status: Status) -> list[Trouble]:
    """Return the verdicts as the page shows them, the headline first, and young retries at the end."""
    found = findings(status)
    judged = {id(each) for one in found if isinstance(one.about, list) for each in one.about}
    young = [each for each in status.holds if id(each) not in judged and _is_noticeable(each, status.at)]
    return [_trouble(each, status) for each in (*found, *hold_findings(status, young))]


def _is_noticeable(hold: HoldStatus, at: float) -> bool:
    return hold.kind not in advice.HOLDS and (hold.attempts > 1 or at - hold.since >= YOUNG_SECONDS)


def _trouble(finding: Finding, status: Status) -> Trouble:
    verdict, about = finding
    moving = Moving(verdict.sentence, "", "", 0.0, "")
    title, details = "", []
    if isinstance(about, StallStatus):
        title = "Where it stands, innermost first"
        left = max(0.0, about.exits_at - status.at)
        moving = _moving(verdict.sentence, f"exits with 70 in {exit_in(status)}", "exits with 70 in ", left, "down")
    elif isinstance(about, HaltStatus):
        title, details = "Halted partitions", list(_halted(about))
    elif isinstance(about, BrokersStatus):
        seconds = max(0.0, status.at - verdict.since)
        moving = _moving(verdict.sentence, f"heard for {silent_for(status)}", "heard for ", seconds, "up")
    elif about is not None:
        title, details = "Waiting records", [_held(each) for each in about]
        if about[0].next_at is not None:
            left = max(0.0, about[0].next_at - status.at)
            moving = _moving(verdict.sentence, f"next try in {wording.span(left)}", "next try in ", left, "down")
    if len(details) == 1:  # the sentence has it all
        details = []
    return Trouble(verdict, moving, title, details, about.places if isinstance(about, StallStatus) else [])


def _moving(sentence: str, phrase: str, words: str, seconds: float, direction: str) -> Moving:
    before, _, after = sentence.partition(phrase)
    return Moving(before + words, phrase.removeprefix(words), after, seconds, direction)


def _halted(halt: HaltStatus) -> Iterator[Detail]:
    for each in halt.partitions:
        at = f" at offset {each.offset}" if each.offset is not None else ""
        yield Detail(f"{halt.topic}-{each.partition}{at}", each.explanation, each.since)


def _held(hold: HoldStatus) -> Detail:
    text = ", ".join([counted(hold.records, "record"), *hold_details(hold)])
    return Detail(f"{hold.topic}-{hold.partition} at offset {hold.offset}", text, hold.since, hold.next_at)
