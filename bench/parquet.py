"""``python -m bench.parquet`` measures ``Parquet`` beside pyarrow by hand, and writes ``PARQUET.md``."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from itertools import islice
from pathlib import Path

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from bench.environment import ROOT
from bench.machine import machine
from consumer.handlers.parquet import Parquet
from consumer.handlers.parquet_rows import ArrowRows
from consumer.record import Record
from schemas.samples import sessions
from schemas.session import Session
from schemas.types import event_type

EVENTS, BATCH, FLUSH, ROUNDS = 100_000, 500, 20_000, 7


async def ours(folder: Path, events: list[Session], records: list[Record]) -> None:
    handler = Parquet(folder)
    handler.expect_events(Session)
    async with handler:
        for begin in range(0, EVENTS, BATCH):
            await handler(events[begin : begin + BATCH], records[begin : begin + BATCH])
            if (begin + BATCH) % FLUSH == 0:
                await handler.flush()


async def by_hand(folder: Path, events: list[Session], records: list[Record]) -> None:
    schema = ArrowRows(event_type(Session).members[0], "timestamp").schema
    for begin in range(0, EVENTS, FLUSH):
        by_day: dict[str, list[tuple[object, ...]]] = {}
        for event, record in zip(events[begin : begin + FLUSH], records[begin : begin + FLUSH], strict=True):
            row = (*msgspec.structs.astuple(event), record.topic, record.partition, record.offset)
            by_day.setdefault(event.timestamp.date().isoformat(), []).append(row)
        for day, rows in by_day.items():
            arrays = [pa.array(each, kind) for each, kind in zip(zip(*rows, strict=True), schema.types, strict=True)]
            path = folder / f"date={day}" / f"{begin}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.with_suffix(".tmp").open("wb") as file:
                pq.write_table(pa.Table.from_arrays(arrays, schema=schema), file, compression="zstd")
                file.flush()
                os.fsync(file.fileno())
            path.with_suffix(".tmp").rename(path)


def main() -> None:
    events = list(islice(sessions(0), EVENTS))
    records = [Record("t", 0, offset, 0, None, b"{}") for offset in range(EVENTS)]
    rates: dict[str, list[float]] = {"this project": [], "by hand": []}
    for _ in range(ROUNDS):
        for who, write in (("this project", ours), ("by hand", by_hand)):
            with tempfile.TemporaryDirectory(dir=str(ROOT / "bench")) as folder:
                begun = time.perf_counter()
                asyncio.run(write(Path(folder), events, records))
                rates[who].append(EVENTS / (time.perf_counter() - begun))
    where = machine()
    days = len({each.timestamp.date() for each in events})
    rows = [
        f"| {who} | {statistics.median(found):,.0f} ({min(found):,.0f} to {max(found):,.0f}) |"
        for who, found in rates.items()
    ]
    lines = [
        "# The Parquet handler",
        "",
        "Written by `python -m bench.parquet`; not edited by hand. Sessions of 28 fields of one partition and",
        f"{days} days, {EVENTS:,} a round, zstd, one synced file for each day in each flush of {FLUSH:,}. By hand:",
        "rows by day, `pyarrow.parquet.write_table`, sync and rename, without a look at what is stored. Medians of",
        f"{ROUNDS} rounds in alternation, in brackets the lowest and the highest.",
        "",
        f"Machine: {where['cores']} cores of {where['cpu']}, {where['memory_gb']} GB, Python {where['python']}.",
        "",
        "| who | rows/s |",
        "|---|---|",
        *rows,
        "",
    ]
    (ROOT / "bench" / "PARQUET.md").write_text("\n".join(lines))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
