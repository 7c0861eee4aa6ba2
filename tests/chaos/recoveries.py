"""All recoveries that chaos runs have measured: ``bench/recovery.json``, shown as a table."""

from __future__ import annotations

import statistics
from pathlib import Path

import msgspec

from tests.chaos.storm import FAULTS, Recovery

BENCH = Path(__file__).parent.parent.parent / "bench"
HEAD = """\
# How soon it flows again

Written by `make chaos`; not edited by hand. Three brokers and two workers on one machine, records flowing all the time;
seconds until everything that was there is handled and committed, counted from the fault's end, or from its begin where
it lasts until then. The workers' session is 6 s and a request's time 20 s here: the bounds of kills and of black holes
follow from these. Every run was checked: no loss, no commit ahead, none that falls, order, repeats only of what was not
committed, and no rebalance where the group has no reason for one ({calm}).

| fault | times | median | longest | bound | over the bound |
|---|---|---|---|---|---|
"""


class Covered(msgspec.Struct):
    """All recoveries of one fault."""

    seconds: list[float] = []


def keep(recoveries: list[Recovery], folder: Path = BENCH) -> None:
    """Add recoveries to the file and write the table again."""
    file = folder / "recovery.json"
    kept = msgspec.json.decode(file.read_bytes(), type=dict[str, Covered]) if file.exists() else {}
    for each in recoveries:
        kept.setdefault(each.fault, Covered([])).seconds.append(each.seconds)
    file.write_bytes(msgspec.json.format(msgspec.json.encode(dict(sorted(kept.items()))), indent=1) + b"\n")
    (folder / "RECOVERY.md").write_text(
        HEAD.format(calm=", ".join(each.name for each in FAULTS if each.calm))
        + "".join(_row(fault.name, fault.bound, kept) for fault in FAULTS)
    )


def _row(name: str, bound: float, kept: dict[str, Covered]) -> str:
    seconds = kept[name].seconds if name in kept else []
    if not seconds:
        return f"| {name} | 0 | | | {bound:g} | |\n"
    late = sum(1 for each in seconds if each > bound)
    median = statistics.median(seconds)
    return f"| {name} | {len(seconds)} | {median:.1f} | {max(seconds):.1f} | {bound:g} | {late} |\n"
