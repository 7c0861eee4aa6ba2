"""How the daemon goes, in one word and one sentence; pure."""

from __future__ import annotations

from typing import NamedTuple

from consumer.http import wording
from consumer.http.status import Status

KEEPS_UP_SECONDS = 10.0
"""While records flow some are always not committed; younger than this they are no backlog."""


class Verdict(NamedTuple):
    """How it goes, in one word and one sentence; ``tone`` is good, busy, warn or bad: a colour, never alone."""

    word: str
    tone: str
    sentence: str


LIVES = {
    "draining": ("busy", "Started calls end, what is done is committed, then it leaves the group."),
    "rebuilding": ("warn", "The Kafka client could not go on; another one joins the group."),
}


def judge(status: Status) -> Verdict:
    """Say how it goes; the worst first."""
    if status.state == "stalled":
        return Verdict("Stalled", "bad", f"{wording.sentence(status.stalled or '')} The log holds all stacks.")
    if status.state in LIVES:
        return Verdict(status.state.capitalize(), *LIVES[status.state])
    if status.state == "starting":
        return Verdict("Starting", "busy", wording.sentence(status.unready or "joining the group"))
    return _judge_running(status)


def _judge_running(status: Status) -> Verdict:
    owned, halted = len(status.partitions), len(status.halts)
    holding = len({(each.topic, each.partition) for each in status.holds})
    unready = "" if status.unready is None or status.unready.startswith("halted") else wording.sentence(status.unready)
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
    if all(each.state == "caught up" for each in status.partitions):
        return "All is caught up."
    behind = max((each.lag_seconds for each in status.partitions if each.lag_seconds is not None), default=None)
    if behind is None:
        return "Finding out where it stands."
    return f"{'Keeps up' if behind < KEEPS_UP_SECONDS else 'Works off a backlog'}: {wording.span(behind)} behind."


def _of_owned(count: int, status: Status) -> str:
    return f"{count} of {len(status.partitions)} partition{'' if len(status.partitions) == 1 else 's'}"
