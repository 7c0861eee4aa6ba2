"""The report: writes ``RESULTS.md`` and its plot from raw results."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

from bench.contestants import BARE, OURS, PEERS, SUSPENDING, TUNED, Contestant
from bench.plot import bars
from bench.works import WORKS, Work

EVERYONE = [BARE, *OURS, *SUSPENDING, *PEERS]
HEAD = """# Results

Written by `make bench`; not edited by hand. Speeds of a shared machine vary by 2x from run to run: only what ran in
the same round is compared. Numbers are medians over the rounds, in brackets the lowest and the highest. Every run was
checked: handled = produced, and committed = produced as the brokers say; one in which they differ fails the benchmark.

- wall: first record to last record handled
- CPU: of the whole process, user and system, from the first record until the final commit is done and the group is left
- memory: peak resident size of the process
"""


def write_report(results: dict[str, Any], folder: Path) -> None:
    """Write ``RESULTS.md`` and ``results.svg`` from the parts that have results."""
    parts = results["parts"]
    lines = [HEAD, _machine(results["machine"])]
    for name, write in WRITERS.items():
        if name in parts:
            lines += [*write(parts[name]), f"\n_{_when(parts[name])}_\n"]
    (folder / "RESULTS.md").write_text("\n".join(lines).rstrip() + "\n", encoding="utf-8")
    if "table" in parts:
        (folder / "results.svg").write_text(_plot(parts["table"]["result"]), encoding="utf-8")


def _machine(found: dict[str, Any]) -> str:
    return (
        f"Machine: {found['cores']} cores of {found['cpu']}, {found['memory_gb']} GB, contestants and Kafka side by"
        f" side; Python {found['python']}, Kafka {found['kafka']}, aiokafka {found['aiokafka']},"
        f" msgspec {found['msgspec']}.\n"
    )


def _when(part: dict[str, Any]) -> str:
    what = "{date}, {events:,} events a run, {rounds} rounds".format_map(part)
    return f"{what}, commit {part['commit']}" if part.get("commit") else what


def spread(numbers: list[float], digits: int = 2) -> str:
    """Format a median with its lowest and highest value."""
    return f"{median(numbers):,.{digits}f} ({min(numbers):,.{digits}f} to {max(numbers):,.{digits}f})"


def over(lines: list[dict[str, Any]], others: list[dict[str, Any]], field: str = "per_second") -> list[float]:
    """Return one contestant's number over another's, round by round."""
    return [a[field] / b[field] for a, b in zip(lines, others, strict=True)]


def _table(part: dict[str, Any]) -> list[str]:
    found = part["result"]
    rows = [
        "## Everyone, on the same records\n",
        "lz4, 4 partitions, events of about 325 bytes, 20,000 keys. Ratios are to the first row of the same round.\n",
        "![events a second against the bare loop](results.svg)\n",
        "| consumer loop | thousand events/s | against bare | µs CPU an event | MB | notes |",
        "|---|---|---|---|---|---|",
    ]
    rows += [_row(each, found) for each in EVERYONE if found.get(each.name)]
    tuned, inline = found[TUNED.name], found["inline"]
    if "failed" not in tuned[0]:
        rows.append(f"\nCPU an event, inline over tuned confluent-kafka: {spread(over(inline, tuned, 'cpu_us'))}.")
    return rows


def _row(each, found: dict[str, Any]) -> str:
    lines, bare = found[each.name], found[BARE.name]
    if "failed" in lines[0]:
        return f"| {each.title} | | | | | not run: {lines[0]['failed'].replace('|', '/')} |"
    notes = [f"{lines[0]['events']:,} events"] if lines[0]["events"] != bare[0]["events"] else []
    notes += [] if each.commits else ["commits nothing to Kafka's group"]
    speeds = spread([line["per_second"] / 1000 for line in lines], 0 if lines[0]["per_second"] > 20_000 else 1)
    cpu, memory = spread([line["cpu_us"] for line in lines]), median(line["rss_mb"] for line in lines)
    ratio = spread(over(lines, bare))
    return f"| {each.title} | {speeds} | {ratio} | {cpu} | {memory:.0f} | {'; '.join(notes)} |"


IN_USE = """## In use

Kinds of use beside a loop written by hand for the same work, with which each group begins; ratios are to it, of the
same round. 4 partitions, 20,000 keys, up to 64 calls of a partition at once. A loop by hand commits once per poll, and
has no retries, dead letters, metrics or memory limits.

| work | thousand events/s | against by hand | µs CPU an event | CPU against by hand | MB | notes |
|---|---|---|---|---|---|---|"""


def _in_use(part: dict[str, Any]) -> list[str]:
    found, rows = part["result"], {}
    for work in WORKS:
        for each in work.contestants(peers=True):
            if found.get(each.name):
                rows.setdefault(each.name, _use(each, work, found))
    return [IN_USE, *rows.values()]


def _use(each: Contestant, work: Work, found: dict[str, Any]) -> str:
    lines, hand = found[each.name], found[work.hand.name]
    if "failed" in lines[0]:
        return f"| {each.title} | | | | | | not run: {lines[0]['failed'].replace('|', '/')} |"
    events, cpu = over(lines, hand), over(lines, hand, "cpu_us")
    notes = [f"{lines[0]['events']:,} events", *([each.note] if each.note else [])]
    if each is work.ours:
        met = work.floor.met_by(median(events), median(cpu))
        notes.append(f"floor: {work.floor}: {'met' if met else 'not met'}")
    columns = [
        spread([line["per_second"] / 1000 for line in lines], 1),
        spread(events),
        spread([line["cpu_us"] for line in lines]),
        spread(cpu),
        f"{median(line['rss_mb'] for line in lines):.0f}",
    ]
    return f"| {each.title} | {' | '.join(columns)} | {'; '.join(notes)} |"


def _by(title: str, what: str, extra=lambda _found: []):
    head = (
        f"| {what} | bare, thousand/s | inline, thousand/s | inline against bare | inline, µs CPU | MB |"
        " CPU of tuned confluent over inline |"
    )

    def write(part: dict[str, Any]) -> list[str]:
        rows = [f"## {title}\n", head, "|---|---|---|---|---|---|---|"]
        rows += [_trio(value, found) for value, found in part["result"].items()]
        return rows + extra(part["result"])

    return write


def _trio(value: str, found: dict[str, Any]) -> str:
    bare, inline, tuned = found["bare"], found["inline"], found[TUNED.name]
    speeds = [spread([line["per_second"] / 1000 for line in lines], 0) for lines in (bare, inline)]
    cpu = spread([line["cpu_us"] for line in inline])
    beside = "" if "failed" in tuned[0] else spread(over(tuned, inline, "cpu_us"))
    memory = median(line["rss_mb"] for line in inline)
    return f"| {value} | {' | '.join(speeds)} | {spread(over(inline, bare))} | {cpu} | {memory:.0f} | {beside} |"


def _many_against_few(found: dict[str, Any]) -> list[str]:
    ratio = over(found["256"]["inline"], found["4"]["inline"])
    return [f"\n256 partitions against 4, inline, events a second of the same round: {spread(ratio)}."]


METRICS = """## What metrics cost

CPU an event, inline, with a scrape of `/metrics` a second over none: there is no switch that turns counting off.
"""


def _metrics(part: dict[str, Any]) -> list[str]:
    found = part["result"]
    low, high = found["interval_95"]
    interval = f"95 % interval of the median {low:+.1%} to {high:+.1%}"
    scrapes = "; ".join(
        f"{each['partitions']:.0f} partitions {each['cpu_ms']:.1f} ms, {each['bytes'] / 1000:.0f} kB"
        for each in found.get("scrapes", [])
    )
    return [
        METRICS,
        f"{found['overhead']:+.1%}, {interval}, {len(found['pairs'])} pairs.",
        f"CPU of one scrape, compressed: {scrapes}." if scrapes else "",
    ]


LATENCY = """## Latency, produce to handled

From before a record is given to the producer until the handler has its event; 5 s a round, the first does not count.

| events/s | | p50 ms | p99 ms |
|---|---|---|---|"""


def _latency(part: dict[str, Any]) -> list[str]:
    rows = [LATENCY]
    for rate, found in part["result"].items():
        for name, title in (("inline", "this project"), ("getone", "aiokafka `getone`")):
            lines = found[name]["rounds"]
            p50, p99 = (spread([line[field] for line in lines]) for field in ("p50_ms", "p99_ms"))
            rows.append(f"| {int(rate):,} | {title} | {p50} | {p99} |")
    return rows


def _processes(part: dict[str, Any]) -> list[str]:
    rounds = part["result"]["rounds"]
    columns = [spread([each[field] for each in rounds]) for field in ("one_cpu_us", "two_cpu_us", "ratio")]
    return [
        "## Two processes of one group\n",
        "Summed CPU an event, each ending when nothing came for a second.\n",
        "| one, µs | two, µs | ratio |",
        "|---|---|---|",
        f"| {' | '.join(columns)} |",
    ]


def _plot(found: dict[str, Any]) -> str:
    rows = []
    for each in EVERYONE:
        lines = found.get(each.name) or [{"failed": ""}]
        if "failed" not in lines[0]:
            rows.append((each.title.replace("`", ""), over(lines, found[BARE.name]), each.module == "ours"))
    return bars("Events a second, as a multiple of the bare aiokafka loop", rows)


WRITERS = {
    "table": _table,
    "in_use": _in_use,
    "codecs": _by("By codec", "codec"),
    "sizes": _by("By size of event", "bytes"),
    "partitions": _by("By number of partitions", "partitions", _many_against_few),
    "metrics": _metrics,
    "latency": _latency,
    "processes": _processes,
}
