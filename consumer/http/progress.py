"""Progress of a daemon: whether its loop runs and failures go on, and verdicts on one without trouble. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from consumer.errors import counted
from consumer.http import advice, wording
from consumer.http.status import Status, TopicStatus, Verdict

KEEPS_UP_SECONDS = 10.0
"""Lag below which a daemon counts as keeping up: while records flow, the newest are not committed yet."""

QUIET_SECONDS = 20.0
"""Time without a failure after which a verdict on failures of the last minutes says so."""
BLOCKED_SECONDS = 10.0
"""Time without a run of the event loop from which it counts as blocked."""


def blocked_since(status: Status) -> float | None:
    """Return since when the event loop has not run; None if it runs, or if that is a stall already."""
    blocked = status.stall is None and status.at - status.loop_ran_at >= BLOCKED_SECONDS
    return status.loop_ran_at if blocked else None


def blocked(seconds: float) -> str:
    """Describe an event loop that has not run for some seconds."""
    what = f"The event loop has not run for {wording.span(seconds)}: most likely a handler blocks it"
    return f"{what}. Nothing is consumed, and lag is not measured."


def rebalancing(status: Status) -> Iterator[Verdict]:
    """Judge a group that rebalances again and again."""
    group = status.group
    if group.rebalancing_since is not None:
        drained = "what moved" if group.membership.protocol == "consumer" else "all work"
        sentence = (
            f"The group has rebalanced {group.rebalances} times in the last 2 min, and drained {drained} each time."
        )
        what = advice.REBALANCING_OFTEN
        yield Verdict("Rebalancing", "warn", sentence, what.todo, what.command, what.runbook, group.rebalancing_since)


def stopped(status: Status, route: str, kind: str = "", topic: str = "") -> str:
    """Say how long ago a route or topic failed last, unless it still fails: a repair leaves the failures counted."""
    times = [
        each.last_at
        for each in status.failures
        if each.route == route and kind in ("", each.kind) and (route != "none" or each.topic == topic)
    ]
    seconds = status.at - max(times, default=status.at)
    return f"; none for {wording.span(seconds)}" if seconds >= QUIET_SECONDS else ""


def passing(status: Status) -> Iterator[Verdict]:
    """Judge the states that end by themselves."""
    if status.state == "starting":
        sentence = wording.sentence(status.unready or "joining the group")
        yield Verdict("Starting", "busy", sentence, "", "", "", status.since)
    elif status.state == "draining":
        sentence = "Started calls end, finished records are committed, then the daemon leaves the group."
        yield Verdict("Draining", "busy", sentence, "", "", "", status.since)


def calm(status: Status) -> Verdict:
    """Judge a daemon that runs."""
    if not status.partitions:
        return Verdict("Standby", "good", _owners(status), "", "", "", status.since)
    behind = max((each for each in status.topics if each.lag_seconds is not None), key=_age, default=None)
    word, tone, since = "Running", "good", status.since
    if behind is None:
        sentence = "The lag is not known yet."
    elif all(each.state == "caught up" for each in status.partitions):
        sentence = "All partitions are caught up."
    elif _age(behind) < KEEPS_UP_SECONDS:
        sentence = f"Keeping up: {wording.span(behind.lag_seconds)} behind."
    else:
        word, tone = "Catching up", "busy"
        sentence = f"{behind.topic}: {lag(behind)}, {catch_up(behind)}."
        if behind.growing_since is not None or behind.catch_up_seconds is None:
            since = behind.growing_since or status.at - _age(behind)
            word, sentence = "Behind", f"{sentence}{_longest_wait(status)}"
    return Verdict(word, tone, sentence, "", "", "", since)


def _longest_wait(status: Status) -> str:
    """Name the longest of the calls, flushes and commits that partitions wait for."""
    waits = [
        (wait.since, wait.kind, f"{each.topic}-{each.partition}")
        for each in status.partitions
        for wait in each.waits
        if wait.kind in ("call", "flush", "commit") and status.at - wait.since >= KEEPS_UP_SECONDS
    ]
    if not waits:
        return ""
    since, kind, partition = min(waits)
    return f" A {kind} in {partition} has lasted {wording.span(status.at - since)}."


def lag(topic: TopicStatus) -> str:
    """Describe the lag of a topic in records and in time."""
    return f"{counted(topic.lag_records or 0, 'record')}, {wording.span(topic.lag_seconds)} behind"


def catch_up(topic: TopicStatus) -> str:
    """Return when a topic is caught up at its present rate."""
    if topic.lag_records is None:
        return wording.MISSING
    if topic.lag_records == 0 or topic.catch_up_seconds == 0:
        return "caught up"
    if topic.lag_seconds is not None and _age(topic) < KEEPS_UP_SECONDS:
        return "keeping up"
    if topic.growing_since is not None:
        return "growing"
    if topic.catch_up_seconds is None:
        return "not shrinking"
    return f"caught up in {wording.span(topic.catch_up_seconds)} at this rate"


def keeps_up(topic: TopicStatus) -> bool:
    """Return whether the lag of a topic is known and short; then it need not shrink."""
    return topic.lag_records is not None and _age(topic) < KEEPS_UP_SECONDS


def _age(topic: TopicStatus) -> float:
    return topic.lag_seconds or 0.0


def _owners(status: Status) -> str:
    owners = [each for each in status.group.members if each.partitions and not each.me]
    if status.group.asked_at is None:
        return "This member owns no partition; the group has not been described yet."
    if not owners:
        return f"This member owns no partition, and no other did when the group was {status.group.state}."
    named = wording.some([f"{each.host.lstrip('/')} ({each.partitions})" for each in owners])
    owned = counted(sum(each.partitions for each in owners), "partition")
    return f"This member owns no partition and takes over when another leaves. Others own {owned}: {named}."
