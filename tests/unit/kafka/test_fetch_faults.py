"""A batch that cannot be read halts its own partition and loses no record of another.

The ids (S13, L1, L5) number the known ways in which aiokafka 0.14 stalls or loses records.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c

from consumer.outcome import HaltReason
from tests.fakes.broker import FETCH, Answer, FakeBroker
from tests.fakes.daemon import Run, running

pytestmark = pytest.mark.usefixtures("quick")


async def test_a_header_key_that_is_no_text_stops_its_partition_only() -> None:
    """S13: aiokafka raises for this batch for ever; here records before it, and other partitions, go on."""

    def spoil(batch: bytes, base: int) -> bytes:
        return a_batch_with_header(base, b"\xff") if base == 20 else batch

    async with FakeBroker() as broker:
        broker.answers[FETCH] = with_batches(broker, 0, spoil)
        async with running(Run(broker)) as run:
            await run.until(lambda: run.halted)
            await run.consumes(1)
            assert run.halted == {0: HaltReason.NO_DEAD_LETTER}  # there is no topic for them here
            assert run.next[0] == 20
            assert run.rebuilds == {}
            await run.end()
            run.lost_nothing()


def with_batches(broker: FakeBroker, partition: int, change: Callable[[bytes, int], bytes]) -> Answer:
    """Answer fetches as usual, with the batches of one partition changed by a function of batch and first offset."""

    async def answer(version: int, response: Any, request: Any) -> Any:
        await asyncio.sleep(broker.fetch_seconds)
        usual = broker.usual(FETCH, version, response, request)
        topics = [
            (
                topic,
                [
                    (*row[:-1], change(row[-1], int.from_bytes(row[-1][:8], "big")))
                    if row[0] == partition and row[-1]
                    else row
                    for row in rows
                ],
            )
            for topic, rows in usual.topics
        ]
        return response(0, 0, 0, topics) if version >= 7 else response(0, topics)

    return answer


def a_batch_with_header(base: int, key: bytes) -> bytes:
    """Build a batch of one record that has a header with this key of one byte."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 1 << 20)
    builder.append(0, 1, None, b'{"timestamp":"2024-10-21T14:05:00Z","session_id":"x"}', [("%", b"value")])
    raw = bytearray(builder.build())
    raw[raw.rindex(b"%")] = key[0]
    struct.pack_into(">q", raw, 0, base)
    struct.pack_into(">I", raw, 17, calc_crc32c(bytes(raw[21:])))
    return bytes(raw)


def wrong_checksum(batch: bytes, base: int) -> bytes:
    return batch[:-1] + bytes([batch[-1] ^ 1]) if base >= 20 else batch


async def test_a_corrupt_batch_costs_no_other_partition_its_records() -> None:
    """L1: getmany() would drop records of other partitions; here only the corrupt one halts."""
    async with FakeBroker() as broker:
        broker.answers[FETCH] = with_batches(broker, 1, wrong_checksum)
        async with running(Run(broker)) as run:
            await run.until(lambda: run.halted)
            await run.consumes(0)
            assert run.halted == {1: HaltReason.CORRUPT_BATCH}
            assert run.next[1] == 20
            assert run.rebuilds == {}
            assert (await run.get("/healthz"))[0] == 200
            assert await run.get("/readyz") == (503, "halted: t-1\n")
            await run.end()
            run.lost_nothing()


async def test_what_getmany_drops_is_read_again() -> None:
    """L1: on the plain path a new client reads again from the committed offset."""
    async with FakeBroker() as broker:
        change = with_batches(broker, 1, wrong_checksum)

        def once(version: int, response: Any, request: Any) -> Any:
            return change(version, response, request) if not sum(run.rebuilds.values()) else None

        broker.answers[FETCH] = once
        async with running(Run(broker, path="plain")) as run:
            await run.rebuilt()
            await run.consumes()
            assert run.rebuilds == {"error": 1}
            await run.end()
            run.lost_nothing()


async def test_a_batch_cut_short_is_not_skipped() -> None:
    """L5: aiokafka skips an offset and raises; here the partition halts before it."""

    def cut(batch: bytes, base: int) -> bytes:
        return batch[: len(batch) // 2] if base >= 20 else batch

    async with FakeBroker() as broker:
        broker.answers[FETCH] = with_batches(broker, 1, cut)
        async with running(Run(broker)) as run:
            await run.until(lambda: run.halted)
            await run.consumes(0)
            assert run.halted == {1: HaltReason.CORRUPT_BATCH}
            assert run.rebuilds == {}
            await run.end()
            run.lost_nothing()
            assert broker.committed[1] == 20
