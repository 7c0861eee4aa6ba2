"""``python -m bench.workers`` measures a CPU-bound handler in one daemon and in workers, and writes ``WORKERS.md``."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from bench.data import DataSet, Topics
from bench.environment import ROOT
from bench.machine import commit, machine
from consumer.kafka.local.cluster import LocalKafka
from consumer.kafka.probe import group_offsets
from consumer.settings.sections import Kafka

DATA = DataSet(events=60_000)
ROUNDS = 3
PORT = 18_800
TURNS = 3_000
"""Turns of the handler's loop for each event."""
HANDLER = f"""
def busy(event: object) -> None:
    found = 0
    for each in range({TURNS}):
        found += each * each
"""
KINDS = {"one daemon": 0, "1 worker": 1, "2 workers": 2}
TICKS = os.sysconf("SC_CLK_TCK")


class Run(NamedTuple):
    """One run: the records from the moment at which all processes had their partitions, and what they took."""

    records: int
    wall: float
    cpu: float
    parent_cpu: float
    broker_cpu: float
    rss_mb: float
    parent_mb: float


def descendants(pid: int) -> dict[int, float]:
    """Return the CPU seconds of a process and of all below it."""
    parents, seconds = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(stat.parent.name)] = int(fields[1])
        seconds[int(stat.parent.name)] = (int(fields[11]) + int(fields[12])) / TICKS
    found, news = set(), {pid}
    while news:
        found |= news
        news = {each for each, parent in parents.items() if parent in news} - found
    return {each: seconds.get(each, 0.0) for each in found}


def rss_mb(pids: Iterable[int]) -> float:
    return sum(
        int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) for pid in pids
    ) / 1000  # fmt: skip


def get(port: int, path: str) -> Any:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return json.load(answer)


def owned(workers: int) -> list[int]:
    """Return the number of partitions of each process; empty while one does not answer."""
    ports = [PORT + number for number in range(1, workers + 1)] or [PORT]
    try:
        return [len(get(port, "/status.json")["partitions"]) for port in ports]
    except OSError:
        return []


def written(folder: Path, kafka: Kafka) -> Path:
    """Write the handler and the settings into a folder; return the settings file."""
    (folder / "busy.py").write_text(HANDLER)
    settings = folder / "settings.toml"
    settings.write_text(
        f'path = ["{folder}"]\n[kafka]\nbootstrap_servers = {json.dumps(kafka.bootstrap_servers)}\n'
        f'topics = ["{DATA.topic}"]\ngroup_id = "{kafka.group_id}"\n[delivery]\ncommit_interval_seconds = 0.2\n'
        f'[http]\nport = {PORT}\n[log]\nlevel = "error"\n[[routes]]\nname = "busy"\nhandler = "busy:busy"\n'
    )
    return settings


async def until(holds: Callable[[], Awaitable[bool]], seconds: float) -> None:
    """Ask again and again until something holds. Raises TimeoutError."""
    async with asyncio.timeout(seconds):
        while not await holds():  # noqa: ASYNC110 - other processes are asked
            await asyncio.sleep(0.1)


async def lag(kafka: Kafka) -> int:
    return sum(end - (committed or 0) for committed, end in (await group_offsets(kafka)).values())


async def run(servers: str, workers: int, number: int) -> Run:
    kafka = Kafka(bootstrap_servers=[servers], topics=[DATA.topic], group_id=f"workers-{workers}-{number}")
    with tempfile.TemporaryDirectory() as folder:
        settings = written(Path(folder), kafka)
        given = ["--workers", str(workers)] if workers else []
        daemon = await asyncio.create_subprocess_exec(
            sys.executable, "-P", "-m", "consumer", "run", "-c", str(settings), *given
        )
        try:
            processes = max(1, workers)

            async def is_shared() -> bool:
                return await asyncio.to_thread(owned, workers) == [DATA.partitions // processes] * processes

            await until(is_shared, 120)
            return await measured(kafka, daemon.pid)
        finally:
            daemon.send_signal(signal.SIGTERM)
            await daemon.wait()


async def measured(kafka: Kafka, pid: int) -> Run:
    """Measure from now until all is committed."""
    left = await lag(kafka)
    assert left > DATA.events / 2, f"only {left} records are left; produce more"
    before, began = descendants(os.getpid()), time.perf_counter()

    async def is_done() -> bool:
        return not await lag(kafka)

    await until(is_done, 300)
    wall = time.perf_counter() - began
    after, ours = descendants(os.getpid()), descendants(pid)
    spent = {each: seconds - before.get(each, 0.0) for each, seconds in after.items()}
    brokers = set(after) - set(ours) - {os.getpid()}
    return Run(
        records=left,
        wall=wall,
        cpu=sum(spent[each] for each in ours),
        parent_cpu=spent[pid] if len(ours) > 1 else 0.0,
        broker_cpu=sum(spent[each] for each in brokers),
        rss_mb=rss_mb(ours),
        parent_mb=rss_mb([pid]) if len(ours) > 1 else 0.0,
    )


def row(kind: str, runs: list[Run], first: float) -> str:
    rates = [each.records / each.wall for each in runs]
    mid = statistics.median
    cells = [
        kind,
        f"{mid(rates):,.0f} ({min(rates):,.0f} to {max(rates):,.0f})",
        f"{mid(rates) / first:.2f}",
        f"{mid(each.records / each.cpu for each in runs):,.0f}",
        f"{mid(each.cpu / each.wall for each in runs):.2f}",
        f"{mid(each.broker_cpu / each.wall for each in runs):.2f}",
        f"{mid(each.parent_cpu / each.wall for each in runs):.3f}" if runs[0].parent_mb else "",
        f"{mid(each.rss_mb for each in runs):.0f}" + (f" ({runs[0].parent_mb:.0f})" if runs[0].parent_mb else ""),
    ]
    return f"| {' | '.join(cells)} |"


async def main() -> None:
    runs: dict[str, list[Run]] = {kind: [] for kind in KINDS}
    async with LocalKafka() as local:
        await Topics(local.bootstrap_servers, print).filled(DATA)
        for number in range(ROUNDS):
            for kind, workers in KINDS.items():
                runs[kind].append(await run(local.bootstrap_servers, workers, number))
                print(kind, runs[kind][-1], flush=True)
    first = statistics.median(each.records / each.wall for each in runs["one daemon"])
    where = machine()
    lines = [
        "# Workers",
        "",
        f"Written by `python -m bench.workers` at {commit()}; not edited by hand. {DATA.events:,} sessions in",
        f"{DATA.partitions} partitions, a handler of {TURNS:,} turns of a Python loop. Measured from when every",
        "process has its partitions until all is committed. CPU is of the daemon, or of the parent and its workers;",
        f"the broker is measured apart and shares the cores. Medians of {ROUNDS} rounds in alternation.",
        "",
        f"Machine: {where['cores']} cores of {where['cpu']}, {where['memory_gb']} GB, Python {where['python']}, Kafka",
        f"{where['kafka']}; load average at the end {os.getloadavg()[0]:.1f}.",
        "",
        "| who | records/s | factor | records per CPU-second | cores used | broker's | parent's | MB (parent) |",
        "|---|---|---|---|---|---|---|---|",
        *(row(kind, found, first) for kind, found in runs.items()),
        "",
    ]
    (ROOT / "bench" / "WORKERS.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    asyncio.run(main())
