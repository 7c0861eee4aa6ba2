"""What ``top`` says in sentences: what is wrong, since when, and what to do; then who the daemon is. Pure.

Texts of a status are only ever made into ``Text``, which has no markup.
"""

from __future__ import annotations

import textwrap
from typing import NamedTuple

from rich.text import Text

from consumer.errors import counted
from consumer.http.ask import NoStatusError
from consumer.http.conditions import HaltStatus, StallStatus
from consumer.http.status import Status, Verdict
from consumer.http.wording import clock, sentence, some, span

RANKS = {"bad": 1, "warn": 2, "busy": 3, "good": 4}
STYLES = {"good": "bold white on green", "busy": "bold white on blue", "bad": "bold white on red"}
UNKNOWN = "bold black on yellow"
"""Style of ``warn``, and of a tone that this version does not know."""
FIRST, OTHERS, WAYS, DETAILS, LINKS = range(5)
"""Weights of notes: if room lacks, those with the highest weight are left out first."""

MOST_PARTITIONS = 12
"""Halted partitions that are named; the others are counted."""


class Seen(NamedTuple):
    """What is known of one daemon: its last status, and why there is no newer one."""

    address: str
    status: Status | None = None
    answered_at: float = 0.0
    """Time of the last answer with a status, on this machine's clock, as ``failing_since``."""
    failure: NoStatusError | None = None
    failing_since: float = 0.0

    @property
    def rank(self) -> int:
        """Order of daemons: the lower the worse."""
        if self.failure is not None:
            return 0
        return RANKS.get(self.status.verdicts[0].tone, RANKS["warn"]) if self.status is not None else len(RANKS)

    @property
    def bad(self) -> bool:
        """Whether it gave no status, or one whose worst verdict is ``bad``."""
        return self.status is None or self.rank <= RANKS["bad"]


class Note(NamedTuple):
    """One paragraph, and how soon it is left out."""

    weight: int
    text: Text


def notes(seen: Seen, now: float, width: int | None) -> list[Note]:
    """Return what is wrong and what to do, the worst first; commands are wrapped at ``width``, if there is one."""
    status = seen.status
    found = [Note(FIRST, text) for text in _unanswered(seen, now)]
    if status is None:
        return found or [Note(FIRST, Text(f"Asking {seen.address} …"))]
    for place, verdict in enumerate(status.verdicts):
        first = place == 0 and not found
        found.append(Note(FIRST if first else OTHERS, _judgement(verdict, status.at, old=seen.failure is not None)))
        found += _ways(FIRST if first else WAYS, verdict.todo, verdict.command, width)
        if verdict.runbook:
            found.append(Note(LINKS, Text(f"  See docs/runbook.md#{verdict.runbook.lower()}", "dim")))
    if status.stall is not None:
        found += _stall(status.stall, status.at)
    shown = {text for verdict in status.verdicts for text in (verdict.todo, verdict.command)}
    for halt in status.halts:
        found += _halt(halt, status.at)
        todo, command = ("" if text in shown else text for text in (halt.mend, halt.command))
        found += _ways(DETAILS, todo, command, width)
    return found


def word(verdict: Verdict, *, old: bool = False) -> Text:
    """Return the word of a verdict in its colour; an ``old`` one has none."""
    if old:
        return Text(f" Was: {verdict.word} ", "reverse dim")
    return Text(f" {verdict.word} ", STYLES.get(verdict.tone, UNKNOWN))


def _unanswered(seen: Seen, now: float) -> list[Text]:
    if seen.failure is None:
        return []
    lasts = now - seen.failing_since
    since = f" For {span(lasts)}, since {clock(seen.failing_since)} UTC." if lasts > 0 else ""
    found = [
        Text.assemble((f" {seen.failure.word} ", STYLES["bad"]), f" {seen.address} {seen.failure}.{since}"),
        Text.assemble(("  Do: ", "bold"), seen.failure.todo),
    ]
    if seen.status is not None:
        age = span(max(0.0, now - seen.answered_at))
        found.append(Text(f"  All below is {age} old, from the last answer of this daemon.", "bold yellow"))
    return found


def _judgement(verdict: Verdict, at: float, *, old: bool) -> Text:
    since = f"For {span(max(0.0, at - verdict.since))}, since {clock(verdict.since)} UTC."
    return Text.assemble(word(verdict, old=old), " ", " ".join(filter(None, (_stopped(verdict.sentence), since))))


def _stopped(text: str) -> str:
    """Add a full stop if there is none; the first word may be the name of a topic, and is left as it is."""
    return f"{text.removesuffix('.')}." if text else ""


def _ways(weight: int, todo: str, command: str, width: int | None) -> list[Note]:
    found = []
    if todo:
        found.append(Note(weight, Text.assemble(("  Do: ", "bold"), sentence(todo))))
    if command:
        found.append(Note(weight, _command(command, width)))
    return found


def _command(command: str, width: int | None) -> Text:
    """Return a command that runs when its lines are copied: whole, or with a backslash where a line ends."""
    if width is not None and not set("\"'\\") & set(command):
        lines = textwrap.wrap(command, max(width - 9, 20), break_long_words=False, break_on_hyphens=False)
        command = " \\\n    ".join(lines)
    text = Text.assemble(("  Run: ", "bold"), command)
    if width is None:
        text.no_wrap, text.overflow = True, "ignore"
    return text


def _stall(stall: StallStatus, at: float) -> list[Note]:
    what = (
        f"route {stall.route}" if stall.route else "",
        ", ".join(stall.partitions[:8]),
        "" if stall.offset is None else f"offset {stall.offset}",
    )
    where = ", ".join(filter(None, what))
    lasts = span(max(0.0, at - stall.since))
    found = [Note(DETAILS, Text(f"  Stalled for {lasts}: {stall.why}{f' ({where})' if where else ''}."))]
    if stall.places:
        found.append(Note(DETAILS, Text(f"  It stands in {', called by '.join(stall.places)}.")))
    left = span(max(0.0, stall.exits_at - at))
    found.append(Note(OTHERS, Text(f"  The process exits with 70 in {left} if nothing moves.", "bold")))
    return found


def _halt(halt: HaltStatus, at: float) -> list[Note]:
    named = f"{halt.topic}: {some([str(each.partition) for each in halt.partitions], MOST_PARTITIONS)}"
    count = counted(len(halt.partitions), "partition")
    lasts = span(max(0.0, at - halt.since))
    found = [Note(DETAILS, Text(f"  Halted for {lasts} ({halt.reason}): {count}, {named}.", "bold"))]
    for each in halt.partitions[:1]:
        offset = "" if each.offset is None else f" at offset {each.offset}"
        found.append(Note(DETAILS, Text(f"  {halt.topic}-{each.partition}{offset}: {sentence(each.explanation)}")))
    return found


def identity(status: Status) -> list[Text]:
    """Say who the daemon is, in which group, and whether brokers answer."""
    process, group, brokers = status.process, status.group, status.brokers
    up = span(max(0.0, status.at - process.started_at))
    who = Text.assemble(
        (f"{process.host} pid {process.pid}", "bold"),
        f", version {process.version}, up {up}, as of {clock(status.at)} UTC",
    )
    members = counted(len(group.members), "member") if group.asked_at is not None else "members not known yet"
    names = [f"group {group.group_id}{f' ({group.state})' if group.state else ''}", members]
    heard = None if brokers.heard_at is None else span(max(0.0, status.at - brokers.heard_at))
    if heard is not None and not brokers.silent:
        names.append(f"a broker answered {heard} ago")
    names.append(f"client {process.client_id}")
    names += [f"instance {process.instance_id}"] if process.instance_id else []
    member = Text(", ".join(names))
    for text in (who, member):
        text.no_wrap, text.overflow = True, "ellipsis"
    if heard is None or brokers.silent:
        away = f"no broker has answered {f'for {heard}' if heard else 'yet'}: {', '.join(brokers.bootstrap_servers)}"
        return [who, member, Text(away, "bold red")]
    return [who, member]
