"""Positions that the brokers do not have: what was fetched is handled first; a wrong answer resets nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from consumer.instructions import Retry
from consumer.kafka.client import position_of
from consumer.kafka.offsets import ClassicOffsets
from consumer.outcome import HaltReason
from consumer.record import TopicPartition
from tests.fakes.broker import (
    FETCH,
    LIST_OFFSETS,
    OFFSET_COMMIT,
    OFFSET_FETCH,
    OFFSET_OUT_OF_RANGE,
    UNKNOWN_TOPIC,
    Answer,
    FakeBroker,
)
from tests.fakes.daemon import PATHS, Run, a_few, running

EARLIEST = 900
INVALID_COMMIT_SIZE = 28


def gone_from(broker: FakeBroker, first: int) -> Answer:
    """Answer fetches from ``first`` to below ``EARLIEST`` with "out of range", and others as usual."""

    async def answer(version: int, response: Any, request: Any) -> Any:
        await asyncio.sleep(broker.fetch_seconds)
        usual = broker.usual(FETCH, version, response, request)
        asked = {each[0]: each[2] if version >= 9 else each[1] for _topic, rows in request.topics for each in rows}
        topics = [
            (
                topic,
                [
                    (row[0], OFFSET_OUT_OF_RANGE, *row[2:-1], b"") if first <= asked[row[0]] < EARLIEST else row
                    for row in rows
                ],
            )
            for topic, rows in usual.topics
        ]
        return response(0, 0, 0, topics) if version >= 7 else response(0, topics)

    return answer


def lists(broker: FakeBroker) -> Answer:
    """Answer that the log begins at ``EARLIEST``."""

    def answer(version: int, response: Any, request: Any) -> Any:
        usual = broker.usual(LIST_OFFSETS, version, response, request)
        asked = {each[0]: each[1 if version < 4 else 2] for _topic, rows in request.topics for each in rows}
        return response(
            *([0] if version >= 2 else []),
            [
                (topic, [(*row[:3], EARLIEST if asked[row[0]] == -2 else row[3], *row[4:]) for row in rows])
                for topic, rows in usual.topics
            ],
        )

    return answer


@PATHS
@pytest.mark.parametrize(("rule", "begins"), [("earliest", EARLIEST), ("latest", 1000), ("halt", None)])
async def test_what_was_fetched_is_handled_before_a_position_is_reset(
    path: str, rule: str, begins: int | None, quick: None
) -> None:
    """Records that were fetched are handled and committed before the position behind them is reset, or halted."""
    failing = [True]

    def handle() -> None:
        if run.next[0] == 1 and failing[0]:
            raise Retry(after=0.02)

    async with FakeBroker(partitions=1, records=1000, step=10) as broker:
        broker.answers |= {FETCH: gone_from(broker, 20), LIST_OFFSETS: lists(broker)}
        broker.committed[0] = 0
        run = Run(broker, path=path, kafka={"out_of_range": rule}, handler=handle)
        async with running(run):
            await run.until(lambda: run.next.get(0) == 1)
            assert await run.stays(lambda: (run.next, run.halted, dict(broker.committed)), 0.3)
            failing[0] = False
            await run.until(lambda: run.halted if begins is None else broker.committed.get(0, 0) >= begins)
            if begins is None:
                assert run.halted == {0: HaltReason.OUT_OF_RANGE}
                assert run.next == {0: 20}
                assert await run.stays(lambda: broker.requests[FETCH], 0.3)
            elif rule == "earliest":
                await run.until(lambda: broker.committed[0] == 1000)
                assert run.gaps == ["0: 900 came instead of 20"]
            assert run.daemon.counters.offset_resets["t", "out_of_range"] == (begins is not None)
            await run.end()
    offsets = [each.offset for each in broker.commits]
    assert offsets == sorted(offsets)
    assert 20 in offsets
    assert run.rebuilds == {}


async def test_a_reset_that_cannot_be_committed_is_tried_again(quick: None) -> None:
    """While the new position is not committed the partition does not begin there."""
    async with FakeBroker(partitions=1, records=1000, step=10) as broker:
        broker.answers |= {FETCH: gone_from(broker, 20), LIST_OFFSETS: lists(broker)}
        broker.committed[0] = 0

        def refuse(version: int, response: Any, request: Any) -> Any:
            ((topic, ((number, offset, _),)),) = request.topics
            rows = [(topic, [(number, INVALID_COMMIT_SIZE if offset >= EARLIEST and refused else 0)])]
            if offset >= EARLIEST and refused:
                refused.pop()
                return response(0, rows) if version >= 3 else response(rows)
            return None

        refused = [1, 2, 3]
        broker.answers[OFFSET_COMMIT] = refuse
        async with running(Run(broker, kafka={"out_of_range": "earliest"})) as run:
            await run.until(lambda: broker.committed.get(0) == 1000)
            assert run.gaps == ["0: 900 came instead of 20"]
            assert refused == []
            await run.end()


def without_partitions(version: int, response: Any, _request: Any) -> Any:
    return offsets_answer(version, response, [])


def unknown_topic(version: int, response: Any, request: Any) -> Any:
    rows = [(topic, [(number, -1, "", UNKNOWN_TOPIC) for number in numbers]) for topic, numbers in request.topics]
    return offsets_answer(version, response, rows)


def offsets_answer(version: int, response: Any, rows: list[Any]) -> Any:
    return {1: lambda: response(rows), 2: lambda: response(rows, 0)}.get(version, lambda: response(0, rows, 0))()


@pytest.mark.parametrize("wrong", [without_partitions, unknown_topic])
@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("rule", ["earliest", "latest", "none"])
async def test_an_answer_without_the_partition_resets_nothing(
    wrong: Answer, times: int, rule: str, quick: None
) -> None:
    """An answer to OffsetFetch that lacks a partition is no reason to begin elsewhere: the group's offset is used."""
    async with FakeBroker(partitions=1, records=1000) as broker:
        broker.committed[0] = 30
        broker.answers[OFFSET_FETCH] = a_few(times, wrong)
        run = Run(broker, kafka={"offset_reset": rule})
        run.next[0] = 30
        async with running(run):
            await run.until(lambda: broker.committed[0] == 1000)
            assert run.daemon.counters.offset_resets["t", "no_offset"] == 0
            assert (run.gaps, run.halted, run.handled) == ([], {}, 970)
            await run.end()


@pytest.mark.parametrize("rule", ["earliest", "latest", "none"])
async def test_a_position_found_meanwhile_stays(rule: str, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another client asks for the group's offset, aiokafka may get it and go on: nothing seeks back then."""
    asking, goes_on = asyncio.Event(), asyncio.Event()
    ask = ClassicOffsets.committed

    async def slow(offsets: ClassicOffsets, key: TopicPartition) -> int:
        offset = await ask(offsets, key)
        asking.set()
        await goes_on.wait()
        return offset

    monkeypatch.setattr(ClassicOffsets, "committed", slow)
    async with FakeBroker(partitions=1, records=1000) as broker:
        broker.committed[0] = 30
        broker.answers[OFFSET_FETCH] = a_few(1, without_partitions)
        run = Run(broker, kafka={"offset_reset": rule})
        run.next[0] = 30
        async with running(run):
            await asking.wait()
            await run.until(lambda: position_of(run.client, TopicPartition("t", 0)) is not None)
            await run.until(lambda: run.handled > 20)
            goes_on.set()
            await run.until(lambda: broker.committed[0] == 1000)
            assert (run.gaps, run.halted, run.handled) == ([], {}, 970)
            await run.end()


async def test_a_partition_halted_for_want_of_an_offset_asks_no_more(quick: None) -> None:
    """A halted partition waits for a person; it keeps no broker busy."""
    async with (
        FakeBroker(partitions=1, records=1000) as broker,
        running(Run(broker, kafka={"offset_reset": "none"})) as run,
    ):
        await run.until(lambda: run.halted)
        assert run.halted == {0: HaltReason.NO_OFFSET}
        assert await run.stays(lambda: (broker.requests[OFFSET_FETCH], broker.requests[FETCH]), 0.3)
        await run.end()
