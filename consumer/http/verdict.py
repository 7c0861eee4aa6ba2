"""The verdicts on a status: what is wrong, since when, and what to do. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from consumer.errors import counted
from consumer.http import advice, progress, wording
from consumer.http.advice import Advice
from consumer.http.conditions import DeadLetteringStatus, HaltStatus, HoldStatus, StallStatus
from consumer.http.status import BrokersStatus, RouteStatus, Status, Verdict

MATTERS_SECONDS = 60.0
"""Lag from which growth is a warning. A burst makes every lag grow for some seconds; at a minute the records arrive
faster than they are handled, and the alerts fire at two."""
LASTING_SECONDS = 10.0
"""Age from which a retry by policy is a warning. The first attempts fail within seconds, and most of their records are
then handled."""
STALE_SECONDS = 60.0
"""Age from which an end offset is a warning: the leader of its partition has not answered for that long."""


class Finding(NamedTuple):
    """A verdict, and the part of the status that it judges."""

    verdict: Verdict
    about: StallStatus | HaltStatus | BrokersStatus | Sequence[HoldStatus] | None = None


def judge(status: Status) -> list[Verdict]:
    """Return the verdicts on a status, whose own ``verdicts`` are not read; at least one, the worst first."""
    return [each.verdict for each in findings(status)]


def findings(status: Status) -> list[Finding]:
    """Return the verdicts with what they judge: stalls, halts, warnings, what passes by itself, or that all is well."""
    found = [
        *_stall(status),
        *_halts(status),
        *_brokers(status),
        *_blocked(status),
        *_readiness(status),
        *map(Finding, progress.rebalancing(status)),
        *_dead_lettering(status),
        *hold_findings(status, _holds(status)),
        *_routes(status),
        *_growing(status),
        *_stale_ends(status),
        *map(Finding, progress.passing(status)),
    ]
    return found or [Finding(progress.calm(status))]


def _verdict(word: str, sentence: str, what: Advice, since: float, route: str = "", tone: str = "warn") -> Verdict:
    todo = what.todo.replace("{route}", route or "the handler")
    return Verdict(word, tone, sentence, todo, what.command, what.runbook, since)


def _stall(status: Status) -> Iterator[Finding]:
    stall = status.stall
    if stall is None:
        return
    at = wording.some(stall.partitions)
    if stall.offset is not None:
        others = len(stall.partitions) - 1
        at = f"{wording.some(stall.partitions[:1])} at offset {stall.offset}"
        at += f" and {counted(others, 'other partition')}" if others > 0 else ""
    place = f", in {wording.own_place(stall.places)}" if stall.places else ""
    lasting = f"for {wording.span(status.at - stall.since)}"
    if stall.kind == "loop":
        by = f" by route {stall.route}" if stall.route else ""
        what = f"The event loop has been blocked{by}{f' ({at.strip()})' if at else ''} {lasting}{place}"
    elif stall.route:
        what = f"A call of route {stall.route} has not ended {lasting}: {at.strip()}{place}"
    else:
        what = f"{wording.sentence(stall.why).removesuffix('.')}, {lasting}{place}"
    sentence = f"{what}. The process exits with 70 in {exit_in(status)}."
    what_to_do = advice.STALLS.get(stall.kind, advice.OTHER_STALL)
    yield Finding(_verdict("Stalled", sentence, what_to_do, stall.since, stall.route, "bad"), stall)


def exit_in(status: Status) -> str:
    """Return the time until a stall ends the process, as the verdict's sentence says it."""
    return wording.span(max(0.0, status.stall.exits_at - status.at)) if status.stall is not None else ""


def _halts(status: Status) -> Iterator[Finding]:
    owned = {each.topic: each.partitions for each in status.topics}
    halted = sum(len(each.partitions) for each in status.halts)
    word = "Halted" if halted >= len(status.partitions) else "Partly halted"
    for each in sorted(status.halts, key=lambda halt: -len(halt.partitions)):
        first, count = each.partitions[0], len(each.partitions)
        if count == 1:
            at = f" at offset {first.offset}" if first.offset is not None else ""
            sentence = f"{each.topic}-{first.partition} halted ({each.reason}){at}: {first.explanation.rstrip('.')}."
        else:
            of = f"{count} of {max(owned.get(each.topic, 0), count)} partitions of {each.topic}"
            sentence = f"{of} halted ({each.reason}) and wait for a person."
        todo, command = advice.way_on(each)
        yield Finding(Verdict(word, "bad", sentence, todo, command, advice.HALT, each.since), each)


def _brokers(status: Status) -> Iterator[Finding]:
    brokers = status.brokers
    if not is_silent(status):
        return
    since = brokers.heard_at if brokers.heard_at is not None else status.process.started_at
    servers = ", ".join(brokers.bootstrap_servers)
    what = advice.SILENT_AT_START if status.state == "starting" else advice.SILENT
    sentence = f"No broker heard for {silent_for(status)}: {servers}."
    yield Finding(_verdict("No broker answers", sentence, what, since), brokers)


def is_silent(status: Status) -> bool:
    """Return whether brokers do not answer. While the event loop is blocked nobody hears them, so that says nothing."""
    return status.brokers.silent and not _loop_is_blocked(status)


def _loop_is_blocked(status: Status) -> bool:
    return status.stall is not None and status.stall.kind == "loop"


def silent_for(status: Status) -> str:
    """Return the time since a broker's last answer, as the verdict's sentence says it."""
    heard_at = status.brokers.heard_at
    return wording.span(max(0.0, status.at - (status.process.started_at if heard_at is None else heard_at)))


def _blocked(status: Status) -> Iterator[Finding]:
    """Judge an event loop that does not run, until the watchdog calls it a stall."""
    since = progress.blocked_since(status)
    if since is not None:
        yield Finding(_verdict("Blocked", progress.blocked(status.at - since), advice.STALLS["loop"], since))


def _readiness(status: Status) -> Iterator[Finding]:
    """Judge what keeps the daemon from running, unless an earlier verdict has said it."""
    assigned = sum(each.partitions for each in status.group.members)
    if status.state == "rebuilding":
        sentence = "The Kafka client was lost, and a new one joins the group."
        yield Finding(_verdict("Rebuilding", sentence, advice.REBUILDING, status.since))
    elif status.unready and status.state == "running" and not _explained(status):
        what = advice.REBALANCING if status.unready.startswith("rebalancing") else advice.NOT_READY
        yield Finding(_verdict("Not ready", wording.sentence(status.unready), what, status.since))
    elif status.state == "running" and not status.partitions and status.group.state == "Stable" and not assigned:
        sentence = f"No member of group {status.group.group_id} owns a partition."
        yield Finding(_verdict("No partitions", sentence, advice.NO_PARTITIONS, status.since))


def _explained(status: Status) -> bool:
    """Whether an earlier verdict says why the daemon is not ready."""
    return bool(status.halts or status.stall or status.brokers.silent) or progress.blocked_since(status) is not None


def _dead_lettering(status: Status) -> Iterator[Finding]:
    for each in sorted(status.dead_lettering, key=_share, reverse=True):
        route = f" by route {each.route}" if each.route != "none" else ""
        sentence = (
            f"{each.dead_lettered:,} of the last {each.records:,} records of {each.topic}"
            f" {'was' if each.dead_lettered == 1 else 'were'}"
            f" dead-lettered{route} ({each.reason}){progress.stopped(status, each.route, each.reason, each.topic)}."
        )
        what = advice.LETTERS.get(each.reason, advice.HANDLER_LETTERS)
        of_route = f" --route {shlex.quote(each.route)}" if route else ""
        command = f"{advice.DLQ_LIST} --reason {shlex.quote(each.reason)}{of_route}"
        name = each.route if route else ""
        yield Finding(_verdict("Dead-lettering", sentence, what._replace(command=command), each.since, name))


def _share(letters: DeadLetteringStatus) -> float:
    return letters.dead_lettered / max(letters.records, 1)


def _holds(status: Status) -> list[HoldStatus]:
    """Return what counts as a hold: neither a young retry by policy, nor heartbeats that a blocked loop cannot send."""
    return [
        each
        for each in status.holds
        if (each.kind in advice.HOLDS or status.at - each.since >= LASTING_SECONDS)
        and not (each.kind == "group" and _loop_is_blocked(status))
    ]


def hold_findings(status: Status, holds: Sequence[HoldStatus]) -> Iterator[Finding]:
    """Judge holds, those of one route and kind together; the first of each is the one that lasts longest."""
    groups: dict[tuple[bool, str, str], list[HoldStatus]] = {}
    for each in sorted(holds, key=lambda hold: hold.since):
        groups.setdefault((each.kind not in advice.HOLDS, each.route, each.kind), []).append(each)
    for (by_policy, route, kind), found in sorted(groups.items(), key=lambda item: item[0][0]):
        holding = len({(each.topic, each.partition) for each in found})
        word = "Retrying" if by_policy else "Holding" if holding >= len(status.partitions) else "Partly holding"
        who = f"Route {route} {'retries' if by_policy else 'holds'}" if route else "Waiting"
        first = found[0]
        place = f"{first.topic}-{first.partition} at offset {first.offset}"
        if holding > 1:
            place = f"{holding} of {len(status.partitions)} partitions, the longest {place}"
        details = hold_details(first)
        if first.next_at is not None:
            details.append(f"next try in {wording.span(max(0.0, first.next_at - status.at))}")
        sentence = f"{who} {place} ({kind}){': ' if details else ''}{', '.join(details)}."
        what = advice.HOLDS.get(kind, advice.POLICY_RETRY)
        yield Finding(_verdict(word, sentence, what, first.since, route), found)


def hold_details(hold: HoldStatus) -> list[str]:
    """Return what is known of a hold: class and place of the exception, and failed attempts."""
    found = [hold.error] if hold.error else []
    if hold.attempts:
        found.append(counted(hold.attempts, "failed attempt"))
    return found


def _routes(status: Status) -> Iterator[Finding]:
    held = {each.route for each in _holds(status)}
    for each in status.routes:
        if each.failing_since is None or each.name in held:  # a hold says the same, with its place
            continue
        share = f"{error_rate(each)} of the calls of route {each.name} failed in the last minutes"
        last = next((failure.error for failure in status.failures if failure.route == each.name), "")
        sentence = f"{share}, {each.calls_failed:,} of {each.calls:,}{f'; the last: {last}' if last else ''}"
        sentence += f"{progress.stopped(status, each.name)}."
        yield Finding(_verdict("Calls fail", sentence, advice.FAILING_ROUTE, each.failing_since, each.name))


def error_rate(route: RouteStatus) -> str:
    """Return the share of a route's calls of the last minutes that failed."""
    return wording.percent(route.calls_failed, route.calls)


def _growing(status: Status) -> Iterator[Finding]:
    waiting = {each.topic for each in status.halts} | {each.topic for each in _holds(status)}
    for each in sorted(status.topics, key=lambda topic: -(topic.lag_seconds or 0.0)):
        if each.growing_since is None or (each.lag_seconds or 0.0) < MATTERS_SECONDS:
            continue
        growth = f"The lag of {each.topic} has grown for {wording.span(status.at - each.growing_since)}"
        sentence = f"{growth}: {progress.lag(each)}."
        what = advice.GROWING_BY_WAITS if each.topic in waiting or status.stall is not None else advice.GROWING
        yield Finding(_verdict("Falling behind", sentence, what, each.growing_since))


def _stale_ends(status: Status) -> Iterator[Finding]:
    ages = [each.end_offset_age_seconds or 0.0 for each in status.partitions]
    stale = [each for each in ages if each >= STALE_SECONDS]
    if stale and not status.brokers.silent and status.stall is None and progress.blocked_since(status) is None:
        of = f"{len(stale)} of {counted(len(ages), 'partition')}"
        sentence = f"The leaders of {of} have not answered for {wording.span(max(stale))}: their lag is as old as that."
        what = advice.SILENT._replace(todo="Look for partitions without a leader; the command asks every broker.")
        yield Finding(_verdict("Old lag", sentence, what, status.at - max(stale)))
