"""The invariants of delivery, checked over a history after the run; each check returns violations in words."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from tests.chaos.history import Call, Commit

CLOCK_NS = 2_000_000
"""Commits are stamped to the millisecond."""


def lost(produced: Mapping[int, Sequence[int]], calls: Iterable[Call]) -> list[str]:
    """No loss: every acknowledged record was handled to the end."""
    handled = {(call.partition, call.offset) for call in calls if call.ended_ns is not None}
    return [f"{p}@{o} was never handled" for p, offsets in produced.items() for o in offsets if (p, o) not in handled]


def ahead(produced: Mapping[int, Sequence[int]], calls: Iterable[Call], commits: Iterable[Commit]) -> list[str]:
    """No commit ahead: when an offset was committed, every record below it had been handled to the end."""
    ended: dict[tuple[int, int], int] = {}
    for call in calls:
        if call.ended_ns is not None:
            place = call.partition, call.offset
            ended[place] = min(call.ended_ns, ended.get(place, call.ended_ns))
    never = 1 << 63
    # The time at which all below an offset had ended, offset by offset.
    in_order = {p: sorted(offsets) for p, offsets in produced.items()}
    complete = {p: _running_maximum([ended.get((p, o), never) for o in offsets]) for p, offsets in in_order.items()}
    broken = []
    for commit in commits:
        below = bisect_left(in_order.get(commit.partition, ()), commit.offset)
        if below and complete[commit.partition][below - 1] > commit.at_ns + CLOCK_NS:
            broken.append(f"{commit.partition}: {commit.offset} was committed before all below it was handled")
    return broken


def _running_maximum(numbers: Iterable[int]) -> list[int]:
    highest, found = 0, []
    for number in numbers:
        highest = max(highest, number)
        found.append(highest)
    return found


def regressions(commits: Iterable[Commit]) -> list[str]:
    """Committed offsets never fall, across all members."""
    broken, last = [], dict[int, int]()
    for commit in commits:
        if commit.offset < last.get(commit.partition, 0):
            broken.append(f"{commit.partition}: {last[commit.partition]} was followed by {commit.offset}")
        last[commit.partition] = commit.offset
    return broken


def disorder(calls: Iterable[Call], ordering: str) -> list[str]:
    """Order: no two calls of a lane overlap, in any process, and its records first end in offset order."""
    lanes: dict[tuple[int, str], list[Call]] = defaultdict(list)
    for call in calls:
        lanes[call.partition, call.key if ordering == "key" else ""].append(call)
    broken = []
    for lane, of_lane in lanes.items():
        whole = sorted((call for call in of_lane if call.ended_ns is not None), key=lambda call: call.began_ns)
        for before, after in pairwise(whole):
            if after.began_ns < (before.ended_ns or 0):
                broken.append(f"{lane}: {after.offset} began before {before.offset} had ended")
        firsts = list(dict.fromkeys(call.offset for call in whole))
        if firsts != sorted(firsts):
            broken.append(f"{lane}: first handled in the order {firsts[:50]}")
    return broken


def repeats(calls: Iterable[Call]) -> int:
    """Count the calls that were not the first of their record."""
    return sum(times - 1 for times in Counter((call.partition, call.offset) for call in calls).values())


def needless_repeats(calls: Sequence[Call], commits: Sequence[Commit]) -> list[str]:
    """A repeat lies at or above the offset that was committed when it began."""
    by_partition: dict[int, list[Commit]] = defaultdict(list)
    for commit in commits:
        by_partition[commit.partition].append(commit)
    times = {partition: [commit.at_ns for commit in found] for partition, found in by_partition.items()}
    seen: set[tuple[int, int]] = set()
    broken = []
    for call in calls:
        place = call.partition, call.offset
        if place in seen:
            known = bisect_left(times.get(call.partition, ()), call.began_ns - CLOCK_NS)
            last = by_partition[call.partition][known - 1].offset if known else 0
            if call.offset < last:
                broken.append(f"{call.partition}@{call.offset} was repeated below the commit {last}")
        seen.add(place)
    return broken
