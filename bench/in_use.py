"""The works of "In use": this project beside loops written by hand, in alternating rounds."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import Any

from bench.contestants import Contestant
from bench.data import DataSet
from bench.driver import Driver, Lines, alternate
from bench.report import over
from bench.works import WORKS, Work

NAMES = [work.name for work in WORKS]


async def in_use(driver: Driver, events: int, rounds: int, only: list[str], *, peers: bool) -> Lines:
    """Run the works named in ``only``, or all, with their peers or without; return the lines of each contestant."""
    return await alternate(driver, contestants(works(only), peers=peers), DataSet(events), rounds)


def works(only: list[str]) -> list[Work]:
    return [work for work in WORKS if not only or work.name in only]


def contestants(chosen: Iterable[Work], *, peers: bool) -> list[Contestant]:
    """Return the contestants of some works, each once: works may share a loop written by hand."""
    return list(dict.fromkeys(each for work in chosen for each in work.contestants(peers=peers)))


def verdicts(lines: Lines, only: list[str]) -> dict[str, dict[str, Any]]:
    """Return for each work the medians of its ratios, its floor, and whether the floor is met."""
    return {work.name: _verdict(work, lines) for work in works(only)}


def _verdict(work: Work, lines: Lines) -> dict[str, Any]:
    found: dict[str, Any] = _ratios(lines, work.ours, work.hand)
    floor = {name: value for name, value in work.floor._asdict().items() if value is not None}
    found |= {"floor": floor, "met": work.floor.met_by(**found)}
    return found | ({"over_slot": _ratios(lines, work.ours, work.slot)} if work.slot else {})


def _ratios(lines: Lines, ours: Contestant, other: Contestant) -> dict[str, float]:
    a, b = lines[ours.name], lines[other.name]
    return {
        "events_ratio": round(median(over(a, b)), 3),
        "cpu_ratio": round(median(over(a, b, "cpu_us")), 3),
    }
