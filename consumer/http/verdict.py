"""The verdict on a status, in one word and one sentence. Pure."""

from __future__ import annotations

from typing import NamedTuple

from consumer.http import wording
from consumer.http.status import Status

KEEPS_UP_SECONDS = 10.0
"""Lag below which a daemon counts as keeping up: while records flow, the newest are not committed yet."""


class Verdict(NamedTuple):
    """State of the daemon in one word and one sentence. ``tone`` is good, busy, warn or bad, and sets a colour."""

    word: str
    tone: str
    sentence: str


LIVES = {
    "draining": ("busy", "Started calls end, finished records are committed, then the daemon leaves the group."),
    "rebuilding": ("warn", "The Kafka client was lost; a new one joins the group."),
}


def judge(status: Status) -> Verdict:
    """Return the verdict on the worst condition of a status."""
    if status.state == "stalled":
        return Verdict(
            "Stalled",
            "bad",
            f"{wording.sentence(status.stalled or '')} The log has the stacks of all threads and tasks.",
        )
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
        return Verdict(word, "warn", f"{_of_owned(holding, status)} waiting and trying again.")
    return Verdict("Running", "good", _progress(status))


def _progress(status: Status) -> str:
    if not status.partitions:
        return "The daemon owns no partition: other members of the group own them all."
    if all(each.state == "caught up" for each in status.partitions):
        return "All partitions are caught up."
    behind = max((each.lag_seconds for each in status.partitions if each.lag_seconds is not None), default=None)
    if behind is None:
        return "The lag is not known yet."
    return f"{'Keeping up' if behind < KEEPS_UP_SECONDS else 'Catching up'}: {wording.span(behind)} behind."


def _of_owned(count: int, status: Status) -> str:
    return f"{count} of {len(status.partitions)} partition{'' if len(status.partitions) == 1 else 's'}"
