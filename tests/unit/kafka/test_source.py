"""The Kafka source on a broker that misbehaves: it recovers by itself and starts at the group's offsets.

The ids (S1, L3 …) number the known ways in which aiokafka 0.14 stalls or loses records.
"""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import Any

import pytest

import consumer.kafka.client_source
from consumer.kafka.dial import dial
from consumer.kafka.reach import CommitNotes
from consumer.kafka.source import KafkaSource
from consumer.outcome import HaltReason
from consumer.settings.sections import Kafka
from tests.fakes.broker import JOIN, LIST_OFFSETS, METADATA, OFFSET_FETCH, SILENCE, Commit, FakeBroker
from tests.fakes.daemon import Run, a_run_on, kill_fetcher, running

pytestmark = pytest.mark.usefixtures("quick")


async def test_an_unknown_error_of_an_offset_lookup_is_tried_again() -> None:
    """S1: an unknown error code is a KeyError in aiokafka; an offset lookup with one is repeated."""
    async with FakeBroker() as broker:
        left = 2

        def answer(version: int, response: Any, request: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                return None
            return response(0, [(topic, [(each[0], 43, -1, -1) for each in rows]) for topic, rows in request.topics])

        broker.answers[LIST_OFFSETS] = answer
        async with a_run_on(broker) as run:
            assert left < 0
            assert run.rebuilds == {}


async def test_brokers_are_heard_while_the_client_joins() -> None:
    """A group may take as long as a rebalance to answer a join; brokers are asked, and heard, until then."""
    async with FakeBroker() as broker:
        broker.silent.add(JOIN)
        run = Run(broker, kafka={"rebalance_timeout_seconds": 8.0})
        run.task = asyncio.create_task(run.daemon.run())
        try:
            await run.until(lambda: broker.requests[JOIN])
            began = run.source.heard_at
            await run.until(lambda: run.source.heard_at > began)
            assert (run.source.joined, run.rebuilds) == (False, {})
        finally:
            await run.end()


async def test_idle_detection_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """S2: aiokafka miscounts polls that raise or are cancelled; the source does not rely on that count."""
    seen: list[float] = []
    wait = KafkaSource.wait

    async def noting(source: KafkaSource, *arguments: Any) -> None:
        await wait(source, *arguments)
        seen.append(source._consumer._subscription._fetch_count)

    monkeypatch.setattr(KafkaSource, "wait", noting)
    async with FakeBroker() as broker, a_run_on(broker) as run:
        await kill_fetcher(run)
        await run.rebuilt()
        await run.consumes()
        assert set(seen) == {0}


async def test_a_raw_poll_may_be_cancelled() -> None:
    """S2: the raw path sets aiokafka's poll clock itself, so that a cancelled wait does not stop it."""
    async with FakeBroker(records=5) as broker, a_run_on(broker) as run:
        for _ in range(3):
            waiting = asyncio.create_task(run.source.wait([], 1.0))
            await asyncio.sleep(0.01)
            waiting.cancel()
            await asyncio.wait([waiting])
        assert run.client._subscription._fetch_count == 0
        assert 0 < run.client._subscription.fetcher_idle_time < 1


async def test_a_topic_missing_in_one_answer_comes_back() -> None:
    """S4: one bad metadata answer removes all partitions; the regular question for end offsets brings them back."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.topic_error = 5
        await run.client._client.force_metadata_update()
        await run.until(lambda: not run.engine.partitions)
        broker.topic_error = 0
        await run.consumes()
        assert run.rebuilds == {}
        assert broker.requests[JOIN] == 3


async def test_a_member_without_partitions_goes_on_polling() -> None:
    """S14: a member without partitions keeps polling, else the group would remove it for good."""
    async with FakeBroker(partitions=0) as broker, running(Run(broker)) as run:
        await run.until(lambda: run.source.joined)
        await asyncio.sleep(0.5)
        assert run.client._subscription.fetcher_idle_time < 0.4
        assert [(await run.get(path))[0] for path in ("/healthz", "/readyz")] == [200, 200]
        broker.partitions = 2
        await run.consumes()
        assert run.rebuilds == {}
        await run.end()


async def test_a_topic_that_became_shorter_halts() -> None:
    """L3, L8: a truncated or recreated topic halts the partition; no offset is skipped or read twice."""
    async with FakeBroker() as broker, running(Run(broker)) as run:
        await run.consumes()
        broker.records = 3
        await run.until(lambda: len(run.halted) == 2)
        assert set(run.halted.values()) == {HaltReason.OUT_OF_RANGE}
        assert run.rebuilds == {}
        assert (await run.get("/healthz"))[0] == 200
        assert (await run.get("/readyz"))[0] == 503
        await run.end()
        run.lost_nothing()


async def test_a_group_that_lost_its_offsets_begins_at_the_first() -> None:
    """L3: a group without offsets starts at the first offset, unless the settings ask for the end."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        first = [each for each in broker.commits if each.offset == 0]
        assert sorted(first) == [Commit(1, "m1", 0, 0), Commit(1, "m1", 1, 0)]
        assert run.rebuilds == {}


async def test_a_server_that_dies_after_it_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """A start goes on with another server when the one that answered is gone before the group is joined."""
    async with FakeBroker() as first, FakeBroker() as second:
        servers = [first.bootstrap_servers, second.bootstrap_servers]
        died: list[FakeBroker] = []

        async def dies(kafka: Kafka) -> Kafka:
            found = await dial(kafka)
            if not died:
                died.append(first if found.bootstrap_servers == servers[:1] else second)
                await died[0].__aexit__(None, None, None)
            return found

        monkeypatch.setattr(consumer.kafka.client_source, "dial", dies)
        other = Run(second, kafka={"bootstrap_servers": servers})
        async with running(other) as run:
            await run.until(lambda: run.source.joined)
            assert run.rebuilds == {}
            await run.until(lambda: run.handled > 0)
            run.daemon.stop()


async def test_notes_of_the_assigned_partitions_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was committed with offsets is read at the first assignment; an answer without offsets is asked for again."""
    async with FakeBroker() as broker:
        few_left = [2]

        def answer(version: int, response: Any, _request: Any) -> Any:
            few_left[0] -= 1
            loading = [] if few_left[0] >= 0 else [("t", [(0, 5, "of 0", 0), (1, 5, "of 1", 0), (2, 5, "of 2", 0)])]
            code = 14 if few_left[0] >= 0 else 0
            return response(loading, code) if version == 2 else response(0, loading, code)

        run = Run(broker)
        read: list[list[str]] = []
        run.source.notes = CommitNotes(lambda: "mine", lambda notes: read.append(list(notes)))
        broker.answers[OFFSET_FETCH] = answer
        async with running(run):
            await run.until(lambda: read)
            del broker.answers[OFFSET_FETCH]
            broker.rebalance()
            await run.until(lambda: run.daemon.counters.rebalances["assigned"] == 2)
            assert [sorted(each) for each in read] == [["of 0", "of 1"]]
            await run.end()


async def test_a_leader_that_is_away_keeps_no_daemon_from_starting() -> None:
    """Whether a topic may be read is asked of the leaders that answer; no other is waited for."""
    async with FakeBroker() as broker:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            away = closed.getsockname()[1]

        def metadata(version: int, response: Any, request: Any) -> Any:
            usual: Any = broker.usual(METADATA, version, response, request)
            usual.brokers[:] = [*usual.brokers, (7, "127.0.0.1", away, None)]
            usual.topics[:] = [
                (*topic[:3], [(0, 0, 7, [7], [7], []), *(row for row in topic[3] if row[1])]) for topic in usual.topics
            ]
            return usual

        broker.answers[METADATA] = metadata
        broker.committed = {0: 0, 1: 0}
        async with running(Run(broker)) as run:
            await run.until(lambda: run.source.joined)
            run.daemon.stop()


async def test_a_question_ends_with_its_client() -> None:
    """Nobody waits for the answer to a client that is replaced: the next one is asked at once."""
    async with FakeBroker() as broker, running(Run(broker)) as run:
        await run.consumes()
        broker.answers[LIST_OFFSETS] = lambda *_: SILENCE
        asking = asyncio.ensure_future(run.source.end_offsets(list(run.engine.partitions)))
        await asyncio.sleep(0)
        await run.source.stop()
        del broker.answers[LIST_OFFSETS]
        async with asyncio.timeout(2):
            assert await asking == {}
        run.daemon.stop()


def test_the_member_id_while_the_client_is_replaced() -> None:
    """Another thread may ask for the member's id at any time: the client is looked at once."""
    clients = iter([SimpleNamespace(_coordinator=SimpleNamespace(member_id="m-1")), None])

    class Replaced(KafkaSource):
        _consumer: Any = property(lambda _: next(clients))

    assert object.__new__(Replaced).member_id == "m-1"
