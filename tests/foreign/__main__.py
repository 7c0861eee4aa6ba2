"""``python -m tests.foreign``: clients of other languages produce, one daemon consumes, and every record is compared.

The producers are built with go, mvn with a JDK, and npm, which download their libraries. Each sends sessions and orders
as plain JSON, as CloudEvents in both modes and framed, well-formed and not. Exits 1 on any difference.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from consumer.kafka.local.cluster import LocalKafka
from consumer.kafka.probe import group_offsets
from consumer.kafka.producer import create_topic
from consumer.kafka.scan import open_scan
from consumer.record import Position, RawRecord, TopicPartition
from consumer.settings.sections import Kafka
from tests.cluster import eventually
from tests.foreign.plan import CODECS, FORMS, PARTITIONS, Planned, plan, topics
from tests.foreign.producers import PRODUCERS, Producer, build, send
from tests.foreign.verify import Seen, by_letter, codecs, differences
from tests.process import RunningConsumer

HANDLERS = Path(__file__).parent.parent / "handlers"
SCHEMAS = {
    "plain": ("json", "none"),
    "binary": ("json", "none"),
    "structured": ("cloudevents", "none"),
    "framed": ("json", "confluent"),
}
"""Format and framing of the topics of each form."""
KINDS = {"sessions": "schemas.session:Session", "orders": "orders:Order"}
CONSUME_SECONDS = 180.0
ROW = "{:<8} {:<11} {:>6} {:>8} {:>11} {:>8} {:>14} {:>12}"
SHOWN = 20
"""Differences that are printed for each producer, at most."""


class Result(NamedTuple):
    """One producer's records, and what is wrong with them."""

    planned: Sequence[Planned]
    sent: Mapping[int, Position]
    seen: Seen
    codecs: Counter[str]
    wrong: list[tuple[Planned, str]]


def settings(folder: Path) -> Path:
    """Write the daemon's settings: one schema for all topics of a type and form, and one route for each type."""
    lines = [f'path = ["{HANDLERS}"]']
    for kind, name in KINDS.items():
        for form in FORMS:
            how, framing = SCHEMAS[form]
            lines += ["[[schemas]]", f'topic = "*-{kind}-{form}"', f'type = "{name}"']
            lines += [f'format = "{how}"', f'framing = "{framing}"']
        lines += ["[[routes]]", f'name = "{kind}"', 'handler = "noted:Noted"', f'topics = ["*-{kind}-*"]']
        lines += [f'options = {{ path = "{folder / kind}.jsonl" }}', f"tombstones = {str(kind == 'sessions').lower()}"]
    path = folder / "settings.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


async def consume(kafka: Kafka, folder: Path) -> None:
    """Run one daemon until everything on the topics is committed."""
    given = [
        f"kafka.bootstrap_servers={json.dumps(kafka.bootstrap_servers)}",
        f"kafka.topics={json.dumps(kafka.topics)}",
    ]
    given += [f"kafka.group_id={kafka.group_id}", "http.port=0", "log.format=json"]
    given += ["dead_letter.limit_ratio=1"]  # a fault must end as a table, not as a halt
    async with RunningConsumer(settings(folder), given) as daemon:

        async def done() -> bool:
            assert not daemon.ended, "\n".join(["the daemon ended:", *daemon.lines[-20:]])
            return all((committed or 0) == end for committed, end in (await group_offsets(kafka)).values())

        await eventually(done, CONSUME_SECONDS)
        code = await daemon.stop()
        assert code == 0, "\n".join([f"the daemon ended with {code}:", *daemon.lines[-20:]])


async def read(kafka: Kafka, wanted: Sequence[str]) -> list[tuple[TopicPartition, RawRecord]]:
    """Read topics with a plain client."""
    async with open_scan(msgspec.structs.replace(kafka, topics=list(wanted))) as scan:
        return [each async for each in scan.records()]


def calls_in(folder: Path) -> dict[Position, list[dict[str, Any]]]:
    found: dict[Position, list[dict[str, Any]]] = {}
    for kind in KINDS:
        for line in (folder / f"{kind}.jsonl").read_text().split("\n")[:-1]:
            call = json.loads(line)
            found.setdefault(Position(*call["position"]), []).append(call)
    return found


async def go(producers: Sequence[Producer], seed: int, folder: Path) -> dict[str, Result]:
    """Build the producers, let them send, run the daemon, and compare."""
    for producer in producers:
        report(f"building the producer in {producer.language}")
        await build(producer, folder / producer.language)
    plans = {each.language: plan(each.language, seed) for each in producers}
    consumed = [topic for language in plans for topic in topics(language)]
    async with LocalKafka(folder=folder / "kafka", report=report) as local:
        kafka = Kafka(bootstrap_servers=[local.bootstrap_servers], topics=consumed, group_id="foreign")
        for topic in consumed:
            await create_topic(kafka, topic, PARTITIONS)
            await create_topic(kafka, f"{topic}.dlq", PARTITIONS)
        sent = {}
        for producer in producers:
            report(f"sending from {producer.language}")
            orders = [each.order for each in plans[producer.language]]
            sent[producer.language] = await send(producer, folder / producer.language, local.bootstrap_servers, orders)
        report("consuming")
        await consume(kafka, folder)
        records = {Position(*key, record.offset): record for key, record in await read(kafka, consumed)}
        letters = by_letter(await read(kafka, [f"{topic}.dlq" for topic in consumed]))
        compressed = {each: codecs(folder / "kafka" / "node-1" / "data", topics(each)) for each in plans}
    seen = Seen(records, calls_in(folder), letters)
    return {
        each: Result(planned, sent[each], seen, compressed[each], list(differences(planned, sent[each], seen)))
        for each, planned in plans.items()
    }


def show(language: str, result: Result) -> None:
    """Print one producer's rows and differences."""
    for form in FORMS:
        mine = [each for each in result.planned if each.topic.endswith(f"-{form}")]
        places = [place for each in mine if (place := result.sent.get(each.order["number"]))]
        calls = [call for place in places for call in result.seen.calls.get(place, ())]
        letters = sum(len(result.seen.letters.get(place, ())) for place in places)
        handled = sum(call["event"] is not None for call in calls)
        skipped = sum(place not in result.seen.calls and place not in result.seen.letters for place in places)
        wrong = sum(each.topic.endswith(f"-{form}") for each, _ in result.wrong)
        print(ROW.format(language, form, len(places), handled, len(calls) - handled, skipped, letters, wrong))
    print(f"{'':8} records by codec: {', '.join(f'{name} {result.codecs[name]}' for name in CODECS)}")
    for each, what in result.wrong[:SHOWN]:
        print(f"  {each.topic}, {each.case}, number {each.order['number']}: {what}")
    if len(result.wrong) > SHOWN:
        cases = Counter(f"{each.topic}, {each.case}" for each, _ in result.wrong)
        print(f"  and {len(result.wrong) - SHOWN} more; all: {dict(cases)}")


def strangers(results: Mapping[str, Result]) -> int:
    """Count records, calls and dead letters of positions that no producer knows."""
    known = {place for result in results.values() for place in result.sent.values()}
    seen = next(iter(results.values())).seen
    return len(({*seen.records} | {*seen.calls} | {*seen.letters}) - known)


def main() -> None:
    """Parse the command line, run, print the table, and exit 1 on any difference."""
    parser = argparse.ArgumentParser(prog="python -m tests.foreign", description=__doc__)
    names = [each.language for each in PRODUCERS]
    parser.add_argument("--only", action="append", choices=names, help="a producer's language; repeatable")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    chosen = [each for each in PRODUCERS if each.language in (options.only or names)]
    with tempfile.TemporaryDirectory() as folder:
        results = asyncio.run(go(chosen, options.seed, Path(folder)))
    print(ROW.format("producer", "topics", "sent", "handled", "tombstones", "skipped", "dead-lettered", "differences"))
    for language, result in results.items():
        show(language, result)
    unknown = strangers(results)
    if unknown:
        print(f"{unknown} positions that no producer sent to")
    unused = [name for result in results.values() for name in CODECS if not result.codecs[name]]
    if unused:
        print(f"codecs that a producer did not use: {', '.join(unused)}")
    sys.exit(1 if unknown or unused or any(result.wrong for result in results.values()) else 0)


def report(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
