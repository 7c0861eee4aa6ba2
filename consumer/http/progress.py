"""Verdicts on a daemon without trouble: it starts, drains, stands by, catches up or runs. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from consumer.errors import counted
from consumer.http import wording
from consumer.http.status import Status, TopicStatus, Verdict

KEEPS_UP_SECONDS = 10.0
"""Lag below which a daemon counts as keeping up: while records flow, the newest are not committed yet."""


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
    word, tone = "Running", "good"
    if behind is None:
        sentence = "The lag is not known yet."
    elif all(each.state == "caught up" for each in status.partitions):
        sentence = "All partitions are caught up."
    elif _age(behind) < KEEPS_UP_SECONDS:
        sentence = f"Keeping up: {wording.span(behind.lag_seconds)} behind."
    else:
        word, tone = "Catching up", "busy"
        sentence = f"{behind.topic}: {lag(behind)}, {catch_up(behind)}."
    return Verdict(word, tone, sentence, "", "", "", status.since)


def lag(topic: TopicStatus) -> str:
    """Describe the lag of a topic in records and in time."""
    return f"{counted(topic.lag_records or 0, 'record')}, {wording.span(topic.lag_seconds)} behind"


def catch_up(topic: TopicStatus) -> str:
    """Return when a topic is caught up at its present rate."""
    if topic.lag_records is None:
        return wording.MISSING
    if topic.lag_records == 0 or topic.catch_up_seconds == 0:
        return "caught up"
    if topic.growing_since is not None:
        return "growing"
    if keeps_up(topic):
        return "keeping up"
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
