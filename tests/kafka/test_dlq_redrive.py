"""``dlq redrive`` on a real Kafka: each letter is handled once, however often it is stopped and started again."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from functools import partial

import msgspec
import pytest

from consumer.dead_letters.headers import read_context, split_headers
from consumer.dead_letters.letter import Writer
from consumer.kafka.letter_box import LetterBox
from consumer.kafka.probe import groups_offsets
from consumer.record import Position
from consumer.settings.sections import DeadLetterSettings
from tests.cluster import Cluster, a_route, eventually
from tests.kafka.dlq import (
    CALLER,
    NOON,
    a_letter,
    an_event,
    arguments,
    dlq,
    handled,
    homing,
    left,
    letters,
    notes,
    put,
    redriven,
)
from tests.process import started


async def test_a_dry_run_does_nothing(cluster: Cluster) -> None:
    """A dry run shows what would be run, calls no handler and keeps no offset."""
    await cluster.create(dead_letters=1)
    await put(cluster, a_letter(cluster, 1), a_letter(cluster, 2))
    code, out, err = await dlq(cluster, "redrive", "--dry-run")
    assert (code, "2 letters would be redriven; nothing was done" in out) == (0, True), err
    assert handled(cluster) == []
    assert await groups_offsets(cluster.kafka, cluster.kafka.group_id) == {}
    assert len(await letters(cluster)) == 2


@pytest.mark.parametrize(
    ("words", "offsets"),
    [
        (["--route", "all"], [1, 2, 6]),
        (["--route", "other", "--route", "none"], [3, 4]),
        (["--reason", "rejected"], [2]),
        (["--reason", "rejected", "--reason", "undecodable"], [2, 4]),
        (["--key", "k"], [1, 3]),
        (["--key", ""], [6]),
        (["--since", "2024-10-21T12:00:02"], [2, 3, 4]),
        (["--until", "2024-10-21T14:00:02+02:00"], [1, 6]),
        (["--since", "2024-10-21T12:00:02.000Z", "--until", "2024-10-21T12:00:04", "--route", "all"], [2]),
    ],
)
async def test_filters(cluster: Cluster, words: list[str], offsets: list[int]) -> None:
    """Filters choose letters; all others stay, and a redrive without filters still runs them."""
    await cluster.create(dead_letters=1)
    made = (
        a_letter(cluster, 1, key=b"k", timestamp=NOON + 1000),
        a_letter(cluster, 2, key=None, timestamp=NOON + 2000, reason="rejected"),
        a_letter(cluster, 3, key=b"k", timestamp=NOON + 3000, route="other"),
        a_letter(cluster, 4, timestamp=NOON + 4000, route="none", reason="undecodable"),
        a_letter(cluster, 6, key=b"", timestamp=NOON),
    )
    await put(cluster, *made)
    routes = (
        homing(cluster) + "match = { is_test = false }\n" + homing(cluster, "other") + "match = { is_test = true }\n"
    )
    assert await redriven(cluster, *words, routes=routes) == offsets
    assert await left(cluster) == (5 - len(offsets), len(offsets))
    assert sorted([*offsets, *await redriven(cluster, routes=routes)]) == [1, 2, 3, 4, 6]


async def test_letters_of_other_groups(cluster: Cluster) -> None:
    """In a shared dead-letter topic each group redrives its own letters, and those that name no group."""
    await cluster.create(dead_letters=1)
    nameless = a_letter(cluster, 3)
    headers = [each for each in nameless.headers if each[0] != "session-consumer.group"]
    await put(cluster, a_letter(cluster, 1), a_letter(cluster, 2, group="other"))
    await put(cluster, msgspec.structs.replace(nameless, headers=headers), a_letter(cluster, 4, group="other"))
    code, out, _ = await dlq(cluster, "redrive", "--dry-run")
    assert (code, "2 letters would be redriven" in out) == (0, True)
    assert await redriven(cluster) == [1, 3]
    assert await redriven(cluster, overrides=("kafka.group_id=other",)) == [2, 3, 4]


async def test_partitions_without_letters(cluster: Cluster) -> None:
    """Partitions without letters left are not waited for; only new letters are run."""
    await cluster.create(dead_letters=3)
    await put(cluster, a_letter(cluster, 1), partition=1)
    assert await redriven(cluster) == [1]
    await put(cluster, a_letter(cluster, 2), partition=2)
    assert await redriven(cluster) == [2]
    await put(cluster, a_letter(cluster, 3), partition=1)
    await put(cluster, a_letter(cluster, 1), partition=2)
    assert await redriven(cluster) == [3]
    assert await redriven(cluster) == []


async def test_rate(cluster: Cluster) -> None:
    """Letters are run evenly at ``--rate``, and a stop does not wait for the rest."""
    await cluster.create(dead_letters=1)
    await put(cluster, *(a_letter(cluster, offset) for offset in range(30)))
    began = time.monotonic()
    async with started(*arguments(cluster, "redrive", "--rate", "5")) as process:
        await eventually(lambda: len(handled(cluster)) >= 6)
        assert time.monotonic() - began >= 1.0
        process.send_signal(signal.SIGTERM)
        stopped = time.monotonic()
        _, err = await process.communicate()
        assert time.monotonic() - stopped < 5.0
    assert process.returncode == 0, err
    assert b"stopped before the end; run the same command again to go on" in err
    assert len(handled(cluster)) < 20
    code, _, _ = await dlq(cluster, "redrive", "--rate", "0.01", "--to", cluster.topic, "--dry-run")
    assert code == 0


async def test_stopped_and_started_again(cluster: Cluster) -> None:
    """A redrive that is stopped and started several times handles each letter once in all."""
    await cluster.create(dead_letters=2)
    await put(cluster, *(a_letter(cluster, offset) for offset in range(40)))
    await put(cluster, *(a_letter(cluster, offset) for offset in range(40, 80)), partition=1)
    for number in (15, 40):
        async with started(*arguments(cluster, "redrive", "--rate", "30")) as process:
            await eventually(partial(has_handled, cluster, number))
            process.send_signal(signal.SIGINT)
            _, err = await process.communicate()
        assert process.returncode == 0, err
    await redriven(cluster)
    assert sorted(handled(cluster)) == [("all", offset) for offset in range(80)]
    assert await left(cluster) == (0, 80)


def has_handled(cluster: Cluster, count: int) -> bool:
    return len(handled(cluster)) >= count


async def test_two_at_once(cluster: Cluster) -> None:
    """Two redrives with the same filters share the letters: each is handled once, and both end."""
    await cluster.create(dead_letters=2)
    await put(cluster, *(a_letter(cluster, offset) for offset in range(30)))
    await put(cluster, *(a_letter(cluster, offset) for offset in range(30, 60)), partition=1)
    words = arguments(cluster, "redrive", "--rate", "20")
    async with started(*words) as first, started(*words) as second:
        await asyncio.gather(first.communicate(), second.communicate())
        assert (first.returncode, second.returncode) == (0, 0)
    assert sorted(handled(cluster)) == [("all", offset) for offset in range(60)]


async def test_letters_written_during_a_redrive_wait(cluster: Cluster) -> None:
    """Letters written during a redrive are not run by it and not skipped: the next one runs them."""
    await cluster.create(dead_letters=1)
    await put(cluster, *(a_letter(cluster, offset) for offset in range(20)))
    async with started(*arguments(cluster, "redrive", "--rate", "10")) as process:
        await eventually(lambda: len(handled(cluster)) >= 3)
        await put(cluster, a_letter(cluster, 100), a_letter(cluster, 101))
        _, err = await process.communicate()
    assert process.returncode == 0, err
    assert {offset for _, offset in handled(cluster)} == set(range(20))
    assert await left(cluster) == (2, 20)
    assert await redriven(cluster) == [100, 101]


async def test_a_letter_that_fails_again(cluster: Cluster) -> None:
    """A failed redrive makes a new letter of the same record with one redrive more, up to ``--max-redrives``."""
    await cluster.create(dead_letters=1)
    await put(cluster, a_letter(cluster, 1, an_event("bad")), a_letter(cluster, 2))
    for number in (1, 2):
        code, out, err = await dlq(cluster, "redrive", "--max-redrives", "2")
        assert code == 1
        assert f"redriven: {2 - number} handled, 1 failed again" in out
        assert "1 letter failed again; each has a new letter with the cause: dlq list --letters" in err
        assert CALLER not in out + err
    first, _, second, third = await letters(cluster)
    origin = Position(cluster.topic, 0, 1)
    for number, each in enumerate((first, second, third)):
        context = read_context(each.headers)
        assert context is not None
        assert (context.origin, context.redrives, context.route) == (origin, number, "all")
        assert (each.key, each.value, each.timestamp) == (first.key, first.value, first.timestamp)
        assert list(split_headers(each.headers)[0]) == [("trace", b"7")]
    code, out, err = await dlq(cluster, "redrive", "--max-redrives", "2")
    assert code == 0
    assert "left out: 1 letter after 2 failed redrives; a higher --max-redrives includes more" in err
    assert "no dead letter is left to redrive" in err
    assert (await left(cluster)) == (1, 1)


async def test_a_route_that_is_gone(cluster: Cluster) -> None:
    """Letters of a route that the settings do not have are refused by name, before any other is run."""
    await cluster.create(dead_letters=1)
    await put(cluster, a_letter(cluster, 1), a_letter(cluster, 2, route="old"))
    for words in (["redrive"], ["redrive", "--dry-run"]):
        code, _, err = await dlq(cluster, *words)
        assert code == 2
        assert "routes: there are dead letters of 'old', and the settings have no such route; add it, or choose" in err
    assert handled(cluster) == []
    assert await redriven(cluster, "--route", "all") == [1]


async def test_undecodable_letters_run_through_all_that_match(cluster: Cluster) -> None:
    """A letter of no route is decoded again and given to every matching route; unmatched ones are counted."""
    await cluster.create(dead_letters=1)
    still = a_letter(cluster, 3, b"{", route="none", reason="undecodable")
    unwanted = a_letter(cluster, 2, b'{"timestamp":"2024-10-21T12:00:00Z","is_test":true}', route="none")
    await put(cluster, a_letter(cluster, 1, route="none", reason="undecodable"), unwanted, still)
    routes = "".join(homing(cluster, name) + "match = { is_test = false }\n" for name in ("one", "two"))
    code, out, err = await dlq(cluster, "redrive", routes=routes)
    assert (code, handled(cluster)) == (1, [("one", 1), ("two", 1)]), err
    assert "redriven: 2 handled, 1 failed again, 1 matched by no route" in out


async def test_tombstones(cluster: Cluster) -> None:
    """A letter without a value, or without a key too, runs through the tombstone route that gave it up."""
    await cluster.create(dead_letters=1)
    box = LetterBox(cluster.kafka, Writer(DeadLetterSettings(), cluster.kafka.group_id))
    await box.send(a_letter(cluster, 1, None))
    await box.send(a_letter(cluster, 2, None, key=None))
    await box.close()
    assert [(each.key, each.value, each.timestamp) for each in await letters(cluster)] == [
        (b"key", None, NOON),
        (None, None, NOON),
    ]
    assert await redriven(cluster, routes=homing(cluster) + "tombstones = true\n") == [1, 2]
    await put(cluster, a_letter(cluster, 3, None))
    code, out, err = await dlq(cluster, "redrive", routes=homing(cluster))
    assert (code, "redriven: 0 handled, 0 failed again, 1 matched by no route" in out) == (0, True), err


async def test_batches(cluster: Cluster) -> None:
    """A batch route gets letters in batches with their origins; rejected ones become new letters."""
    await cluster.create(dead_letters=1)
    put_letters = [a_letter(cluster, n, an_event("bad" if n % 10 == 3 else "good"), route="batch") for n in range(30)]
    await put(cluster, *put_letters)
    routes = a_route("homing:InBatches", "batch", path=notes(cluster)) + "max_records = 7\nmax_seconds = 0.1\n"
    code, out, err = await dlq(cluster, "redrive", "--rate", "100", routes=routes)
    assert code == 1, err
    assert "redriven: 27 handled, 3 failed again" in out
    assert sorted(handled(cluster)) == [("batch", n) for n in range(30) if n % 10 != 3]
    assert Counter(read_context(each.headers).redrives for each in await letters(cluster)) == {0: 30, 1: 3}  # type: ignore[union-attr]


async def test_a_call_that_would_not_end(cluster: Cluster) -> None:
    """A handler that swallows its cancellation cannot keep a redrive: it ends with 70, the letter is left."""
    await cluster.create(dead_letters=1)
    await put(cluster, a_letter(cluster, 1, route="stuck"))
    routes = a_route("homing:Stuck", "stuck", path=notes(cluster))
    async with started(
        *arguments(cluster, "redrive", routes=routes, overrides=("delivery.drain_seconds=0.3",))
    ) as process:
        await eventually(lambda: handled(cluster))
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(8):
            assert await process.wait() == 70
    assert await left(cluster) == (1, 0)


async def test_a_handler_that_the_daemon_uses(cluster: Cluster) -> None:
    """A file that the daemon holds is reported with the remedy; routes without letters are not even opened."""
    await cluster.create(dead_letters=1)
    await put(cluster, a_letter(cluster, 1))
    lines = a_route("consumer.handlers.jsonl:JsonLines", "lines", path=cluster.folder / "a.jsonl")
    async with cluster.run(routes=lines, name="daemon") as daemon:
        await daemon.said("partitions_assigned")
        assert await redriven(cluster, routes=homing(cluster) + lines) == [1]
        await put(cluster, a_letter(cluster, 2, route="lines"))
        code, _, err = await dlq(cluster, "redrive", routes=lines)
        assert code == 2
        assert "a.jsonl is already written" in err
        assert "stop the daemon if it is running" in err
        assert await daemon.stop() == 0
    assert await left(cluster) == (1, 1)


async def test_the_fuse(cluster: Cluster) -> None:
    """When most letters fail again the rest is kept, and the limit can be set for one run."""
    await cluster.create(dead_letters=1)
    await put(cluster, *(a_letter(cluster, offset, an_event("bad")) for offset in range(40)))
    small = ("dead_letter.limit_window_records=10",)
    code, out, err = await dlq(cluster, "redrive", overrides=small)
    assert code == 74
    assert "most letters fail again: find out why before the rest is run" in err
    assert "0 handled, 10 failed again" in out or "0 handled, 9 failed again" in out
    code, out, err = await dlq(cluster, "redrive", overrides=(*small, "dead_letter.limit_ratio=1.0"))
    assert (code, await left(cluster)) == (1, (40, 0)), (out, err)


async def test_past_an_aborted_transaction(cluster: Cluster) -> None:
    """Letters of an aborted transaction do not count; list and redrive end at a topic's markers."""
    await cluster.create(dead_letters=1)
    await put(cluster, a_letter(cluster, 1))
    async with cluster.producer(transactional_id=f"{cluster.topic}-t") as producer:
        for commits in (True, False):
            await producer.begin_transaction()
            made = a_letter(cluster, 2 if commits else 3)
            await producer.send_and_wait(made.topic, made.value, made.key, partition=0, headers=made.headers)
            await (producer.commit_transaction() if commits else producer.abort_transaction())
    async with asyncio.timeout(25):
        assert await left(cluster) == (2, 0)
        assert await redriven(cluster) == [1, 2]
        assert await left(cluster) == (0, 2)
