"""``dlq list``, ``show`` and ``redrive`` on a real Kafka: what is left, why, and that each letter comes home once."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from consumer.dead_letters.cause import Cause
from consumer.dead_letters.headers import read_context, split_headers, write_context
from consumer.dead_letters.letter import Letter, Writer
from consumer.kafka.letter_box import LetterBox
from consumer.kafka.probe import groups_offsets
from consumer.kafka.producer import create_topic
from consumer.kafka.scan import open_scan
from consumer.record import Position
from consumer.settings.sections import DeadLetterSettings
from tests.cluster import Cluster, a_route, a_session, eventually
from tests.process import command, started

NOON = 1_729_512_000_000
"""2024-10-21T12:00:00Z."""
CALLER = "+4930123456"
PLACE = "the handler of route 'all' raised ValueError (handler.py:7)"


def an_event(name: str) -> bytes:
    return b'{"timestamp":"2024-10-21T12:00:00Z","session_id":"%s","source":"%s"}' % (name.encode(), CALLER.encode())


def a_letter(
    cluster: Cluster,
    offset: int,
    value: bytes | None = an_event("good"),
    *,
    topic: str = "",
    key: bytes | None = b"key",
    headers: tuple[tuple[str, bytes | None], ...] = (("trace", b"7"),),
    timestamp: int = NOON,
    route: str = "all",
    reason: str = "exhausted",
    redrives: int = 0,
) -> Letter:
    """Make the letter of the record at ``offset`` of the test's topic, as a daemon would have written it."""
    cause = Cause(reason, route, 5, "builtins.ValueError", PLACE)
    origin = Position(topic or cluster.topic, 0, offset)
    block = write_context("connect", origin, timestamp, cluster.kafka.group_id, cause, redrives)
    return Letter(f"{cluster.topic}.dlq", key, value, [*headers, *block], timestamp)


async def put(cluster: Cluster, *letters: Letter, partition: int = 0) -> None:
    async with cluster.producer() as producer:
        for each in letters:
            await producer.send_and_wait(
                each.topic,
                each.value,
                each.key,
                partition=partition,
                timestamp_ms=each.timestamp_ms,
                headers=each.headers,
            )


async def read(cluster: Cluster, topic: str) -> list[Any]:
    async with open_scan(msgspec.structs.replace(cluster.kafka, topics=[topic])) as scan:
        return [raw async for _, raw in scan.records()]


async def letters(cluster: Cluster) -> list[Any]:
    return await read(cluster, f"{cluster.topic}.dlq")


def homing(cluster: Cluster, route: str = "all") -> str:
    return a_route("homing:Homing", route, path=notes(cluster), route=route)


def notes(cluster: Cluster) -> Path:
    return cluster.folder / "notes"


def handled(cluster: Cluster) -> list[tuple[str, int]]:
    """Read which route handled which record, by the offset of its first consumption, in the order of the calls."""
    lines = notes(cluster).read_text().split("\n")[:-1] if notes(cluster).exists() else []
    return [(route, int(offset)) for route, _topic, _partition, offset in map(str.split, lines)]


def arguments(cluster: Cluster, *words: str, routes: str = "", overrides: tuple[str, ...] = ()) -> list[str]:
    settings = ("retry.attempts=1", "kafka.session_timeout_seconds=6", "kafka.heartbeat_interval_seconds=0.5")
    daemon = cluster.run(*settings, *overrides, routes=routes or homing(cluster))
    return ["dlq", *words, *daemon.arguments[2:]]


async def dlq(cluster: Cluster, *words: str, routes: str = "", overrides: tuple[str, ...] = ()) -> tuple[int, str, str]:
    return await command(*arguments(cluster, *words, routes=routes, overrides=overrides), COLUMNS="200")


async def redriven(cluster: Cluster, *words: str, **options: Any) -> list[int]:
    """Redrive; return the offsets of the records that came home by it."""
    before = len(handled(cluster))
    code, out, err = await dlq(cluster, "redrive", *words, **options)
    assert code == 0, (out, err)
    return sorted(offset for _, offset in handled(cluster)[before:])


async def left(cluster: Cluster) -> tuple[int, int]:
    """How many letters are left, and how many home."""
    code, out, err = await dlq(cluster, "list", "--json")
    assert code == 0, err
    rows = json.loads(out)["letters"]
    return sum(row["left"] for row in rows), sum(row["home"] for row in rows)


# -- list --------------------------------------------------------------------------------------------------------------


async def mixed(cluster: Cluster) -> None:
    """Put letters of two reasons and routes, a double, one that failed again, a foreign record and one of elsewhere."""
    await cluster.create(dead_letters=2)
    await put(
        cluster,
        a_letter(cluster, 1),
        a_letter(cluster, 2, route="none", reason="undecodable", value=b"{" + CALLER.encode()),
        a_letter(cluster, 3),
        a_letter(cluster, 3, redrives=1),
    )
    await put(
        cluster,
        a_letter(cluster, 1),
        a_letter(cluster, 1, route="other"),
        msgspec.structs.replace(a_letter(cluster, 9), headers=[("trace", b"7")]),
        a_letter(cluster, 4, topic="elsewhere"),
        partition=1,
    )


async def test_list_counts_each_letter_once(cluster: Cluster) -> None:
    """By topic, route and reason; doubles and letters that failed again count once, what is not ours is said apart."""
    await mixed(cluster)
    code, out, err = await dlq(cluster, "list")
    assert code == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if cluster.topic in line]
    assert rows == [
        [cluster.topic, "all", "exhausted", "2", "0"],
        [cluster.topic, "none", "undecodable", "1", "0"],
        [cluster.topic, "other", "exhausted", "1", "0"],
    ]
    assert "1 more records do not name their original record" in err
    assert "1 more letters are of topics outside kafka.topics" in err
    code, out, err = await dlq(cluster, "list", "--json", "--route", "all")
    row = {"topic": cluster.topic, "route": "all", "reason": "exhausted", "left": 2, "home": 0}
    assert json.loads(out) == {"letters": [row], "foreign": 1, "elsewhere": 1}


async def test_list_names_letters_singly(cluster: Cluster) -> None:
    """A line a letter: its place, the record's, why; the newest letter stands for its record; no payload anywhere."""
    await mixed(cluster)
    code, out, err = await dlq(cluster, "list", "--letters")
    assert (code, len(out.splitlines())) == (0, 4), err
    assert f"{cluster.topic}.dlq-0@3  of {cluster.topic}-0@3  exhausted  route all  builtins.ValueError" in out
    code, out, err = await dlq(cluster, "list", "--letters", "--json")
    found = {each["letter"]: each for each in map(json.loads, out.splitlines())}
    assert found[f"{cluster.topic}.dlq-0@3"] == {
        "letter": f"{cluster.topic}.dlq-0@3",
        "record": f"{cluster.topic}-0@3",
        "reason": "exhausted",
        "route": "all",
        "attempts": 5,
        "redrives": 1,
        "error": "builtins.ValueError",
        "message": PLACE,
    }
    assert len(found) == 4
    assert CALLER not in out + err


async def test_no_topic_for_dead_letters(cluster: Cluster) -> None:
    """A dead-letter topic that does not exist is named, and not created; nothing was dead-lettered, so all is well."""
    await cluster.create()
    for words in (["list"], ["redrive"]):
        code, _, err = await dlq(cluster, *words)
        assert code == 0, err
        assert f"there is no topic {cluster.topic}.dlq, so it has no dead letters" in err
    assert "no dead letter is left to redrive" in err
    async with cluster.admin() as admin:
        assert f"{cluster.topic}.dlq" not in await admin.list_topics()


async def test_what_others_wrote_is_payload(cluster: Cluster) -> None:
    """What Kafka Connect says of an exception may quote the event: it is shown only to those who ask for payload."""
    await cluster.create(dead_letters=1)
    said = {
        "topic": cluster.topic.encode(),
        "partition": b"0",
        "offset": b"5",
        "exception.class.name": b"org.apache.kafka.connect.errors.DataException",
        "exception.message": f"cannot convert {CALLER}".encode(),
    }
    headers = [(f"__connect.errors.{name}", value) for name, value in said.items()]
    await put(cluster, msgspec.structs.replace(a_letter(cluster, 5), headers=headers))
    for words in (["list"], ["list", "--letters"], ["list", "--letters", "--json"], ["show", f"{cluster.topic}-0@5"]):
        code, out, err = await dlq(cluster, *words)
        assert (code, CALLER in out + err) == (0, False), (words, out, err)
    _, out, _ = await dlq(cluster, "show", f"{cluster.topic}-0@5", "--payload")
    assert f"cannot convert {CALLER}" in out
    assert await redriven(cluster) == [5]


# -- show --------------------------------------------------------------------------------------------------------------


async def test_show_hides_the_payload(cluster: Cluster) -> None:
    """By the letter's place or by the record's: cause and sizes; key, headers and value only for who asks."""
    await cluster.create(dead_letters=2)
    value = b'{"tags":[null,"[/red]"],"note":"a:phone:b","esc":"\x1b[31m","source":"%s"}' % CALLER.encode()
    first = a_letter(cluster, 7, value, key=CALLER.encode(), headers=(("who", CALLER.encode()), ("empty", None)))
    await put(cluster, a_letter(cluster, 6), first, partition=1)
    await put(cluster, a_letter(cluster, 7, value, redrives=1))
    code, out, err = await dlq(cluster, "show", f"{cluster.topic}.dlq-1@1")
    assert code == 0, err
    assert CALLER not in out + err
    assert dict(line.split(maxsplit=1) for line in out.splitlines()[:-2]) == {
        "letter": f"{cluster.topic}.dlq-1@1",
        "record": f"{cluster.topic}-0@7",
        "reason": "exhausted",
        "route": "all",
        "attempts": "5",
        "redrives": "0",
        "error": "builtins.ValueError",
        "message": PLACE,
        "timestamp": "2024-10-21T12:00:00.000+00:00",
        "key": f"{len(CALLER)} bytes",
        "headers": "2",
        "value": f"{len(value)} bytes",
    }
    code, out, err = await dlq(cluster, "show", f"{cluster.topic}-0@7", "--payload")
    assert (code, out.count("\nvalue ")) == (0, 2), "both letters of the record"
    assert f"who = {CALLER}" in out
    assert "empty = null" in out
    assert value.decode().replace("\x1b", "\\x1b") in out


@pytest.mark.parametrize("place", ["{topic}-0@9", "{topic}.dlq-0@9", "{topic}.dlq-7@0", "nowhere-0@0"])
async def test_no_such_letter(cluster: Cluster, place: str) -> None:
    """A place without a letter is an error that names it and where was looked."""
    await cluster.create(dead_letters=1)
    await put(cluster, a_letter(cluster, 1))
    place = place.format(topic=cluster.topic)
    code, out, err = await dlq(cluster, "show", place)
    assert (code, out) == (1, "")
    assert f"session-consumer: there is no dead letter at {place}, or of a record there, in {cluster.topic}.dlq" in err


# -- what a person types wrong -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["show", "session-events"], "'session-events' is not TOPIC-PARTITION@OFFSET, such as session-events-0@1234"),
        (["show", "t-99999999999@1"], "is not TOPIC-PARTITION@OFFSET"),
        (["list", "--since", "yesterday"], "'yesterday' is not a time; write 2024-10-21, 2024-10-21T14:05:00"),
        (["list", "--until", "2024-13-01"], "'2024-13-01' is not a time"),
        (["list", "--since", "2024-10-22", "--until", "2024-10-21"], "--since must be before --until"),
        (["redrive", "--route", "al"], "--route: the settings have no route 'al'; did you mean 'all'?"),
        (["redrive", "--to", "{topic}.dlq"], "is a dead-letter topic"),
        (["redrive", "--rate", "-1"], "-1.0 is not in the range"),
        (["redrive", *(["--route", "none"] * 2), "--reason", "bad"], "'bad' is not one of 'undecodable'"),
        (["list", "--set", "dead_letter.topic="], "dead_letter.topic is empty, so there are no dead letters"),
    ],
)
async def test_wrong_words(cluster: Cluster, words: list[str], says: str) -> None:
    """Whatever is typed wrong is said before any connection, with exit code 2."""
    away = ("kafka.bootstrap_servers=localhost:1",)
    code, out, err = await dlq(cluster, *(word.format(topic=cluster.topic) for word in words), overrides=away)
    assert (code, out) == (2, "")
    assert says in err
    assert "Traceback" not in err


@pytest.mark.parametrize("words", [["list"], ["show", "t-0@1"], ["redrive"]])
async def test_unreachable_broker(cluster: Cluster, words: list[str]) -> None:
    """Brokers that do not answer are named, with exit code 69."""
    away = ("kafka.bootstrap_servers=localhost:1", "kafka.start_timeout_seconds=0.5")
    code, out, err = await dlq(cluster, *words, overrides=away)
    assert (code, out) == (69, "")
    assert "session-consumer: kafka.bootstrap_servers: localhost:1 did not answer within 0.5 s" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["list"], b"stopped before all letters were read, so there are no counts"),
        (["show", "t-0@1"], b"stopped before all letters were read"),
        (["redrive"], b"stopped before all letters were read; nothing was redriven"),
    ],
)
async def test_ctrl_c_while_letters_are_read(cluster: Cluster, words: list[str], says: bytes) -> None:
    """It is a clean end, and says that what was asked for was not done."""
    asked = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, "127.0.0.1") as broker:
        overrides = (f"kafka.bootstrap_servers=127.0.0.1:{broker.sockets[0].getsockname()[1]}",)
        async with started(*arguments(cluster, *words, overrides=overrides)) as process:
            await asked.wait()
            process.send_signal(signal.SIGINT)
            async with asyncio.timeout(5):
                out, err = await process.communicate()
        assert (process.returncode, out, says in err) == (0, b"", True), err


# -- redrive -----------------------------------------------------------------------------------------------------------


async def test_a_dry_run_does_nothing(cluster: Cluster) -> None:
    """It says what would be run; nothing is called, and no offset is kept."""
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
    """Filters choose letters; all else stays, and is still there for a redrive without any."""
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


async def test_partitions_without_letters(cluster: Cluster) -> None:
    """Where there are no letters, or none that are left, nothing is waited for; new ones are run, and only they."""
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
    """So many a second, evenly, and a stop does not wait for the rest."""
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
    assert b"stopped before the end; run the same command again to continue" in err
    assert len(handled(cluster)) < 20
    code, _, _ = await dlq(cluster, "redrive", "--rate", "0.01", "--to", cluster.topic, "--dry-run")
    assert code == 0


async def test_stopped_and_begun_again(cluster: Cluster) -> None:
    """Stopped in the middle and begun again, several times: each letter is handled once in all."""
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


async def test_letters_that_come_meanwhile_wait(cluster: Cluster) -> None:
    """What is written while a redrive runs is not run by it, and is not passed over: the next one runs it."""
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


async def test_what_fails_again(cluster: Cluster) -> None:
    """It becomes a new letter of the same record with one redrive more, until --max-redrives leaves it alone."""
    await cluster.create(dead_letters=1)
    await put(cluster, a_letter(cluster, 1, an_event("bad")), a_letter(cluster, 2))
    for number in (1, 2):
        code, out, err = await dlq(cluster, "redrive", "--max-redrives", "2")
        assert code == 1
        assert f"redriven: {2 - number} handled, 1 failed again" in out
        assert "1 letters failed again; each has a new letter with the cause: dlq list --letters" in err
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
    assert "1 letters failed 2 redrives; a higher --max-redrives includes them" in err
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
    """A letter of no route is decoded anew and given to every route that matches; what none wants is counted."""
    await cluster.create(dead_letters=1)
    still = a_letter(cluster, 3, b"{", route="none", reason="undecodable")
    unwanted = a_letter(cluster, 2, b'{"timestamp":"2024-10-21T12:00:00Z","is_test":true}', route="none")
    await put(cluster, a_letter(cluster, 1, route="none", reason="undecodable"), unwanted, still)
    routes = "".join(homing(cluster, name) + "match = { is_test = false }\n" for name in ("one", "two"))
    code, out, err = await dlq(cluster, "redrive", routes=routes)
    assert (code, handled(cluster)) == (1, [("one", 1), ("two", 1)]), err
    assert "redriven: 2 handled, 1 failed again, 1 matched by no route" in out


async def test_tombstones(cluster: Cluster) -> None:
    """A letter without a value, and one without a key either, runs through the tombstone route that gave it up."""
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
    """A batch route gets letters in batches, with their origins; those it rejects again become new letters."""
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
    """A handler that swallows its cancellation does not keep a redrive alive: it ends with 70, the letter is left."""
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
    """What only one process may own is said with the way out; routes without letters are not even entered."""
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
    """When most letters fail again the rest is kept for when it is known why; the limit can be set for a run."""
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
    """Letters that were never committed are none; what ends a topic with markers ends list and redrive too."""
    await cluster.create(dead_letters=1)
    await put(cluster, a_letter(cluster, 1))
    async with cluster.producer(transactional_id=f"{cluster.topic}-t") as producer:
        for commits in (True, False):
            await producer.begin_transaction()
            made = a_letter(cluster, 2 if commits else 3)
            await producer.send_and_wait(made.topic, made.value, made.key, partition=0, headers=made.headers)
            await (producer.commit_transaction() if commits else producer.abort_transaction())
    async with asyncio.timeout(10):
        assert await left(cluster) == (2, 0)
        assert await redriven(cluster) == [1, 2]
        assert await left(cluster) == (0, 2)


# -- republish ---------------------------------------------------------------------------------------------------------


async def test_republish(cluster: Cluster) -> None:
    """--to puts the originals on a topic byte for byte, with their timestamps and without what the letter said."""
    await cluster.create(dead_letters=1)
    await create_topic(cluster.kafka, f"{cluster.topic}.again", 1)
    originals = [
        (b"k", b"\xff not even JSON", (("trace", b"7"), ("trace", None)), NOON, "undecodable", "none"),
        (b"k", None, (), NOON + 1, "exhausted", "gone"),
        (None, None, (), NOON + 2, "rejected", "all"),
        (b"", b"", (("__connect.errors.offset", b"mine"),), 0, "rejected", "all"),
    ]
    box = LetterBox(cluster.kafka, Writer(DeadLetterSettings(), cluster.kafka.group_id))
    for offset, (key, value, headers, timestamp, reason, route) in enumerate(originals):
        made = a_letter(
            cluster, offset, value, key=key, headers=headers, timestamp=timestamp, reason=reason, route=route
        )
        await box.send(made)
    await box.close()
    code, out, err = await dlq(cluster, "redrive", "--to", f"{cluster.topic}.again")
    assert (code, "redriven: 4 handled, 0 failed again" in out) == (0, True), err
    found = await read(cluster, f"{cluster.topic}.again")
    assert sorted((each.timestamp, each.key, each.value, tuple(each.headers)) for each in found) == sorted(
        (timestamp, key, value, headers) for key, value, headers, timestamp, *_ in originals
    )
    assert await left(cluster) == (0, 4)
    assert handled(cluster) == []


async def test_republish_that_is_refused(cluster: Cluster) -> None:
    """What the topic refuses stays the letter that it was, and those behind it too; a missing topic is said at once."""
    await cluster.create(dead_letters=1)
    await create_small_topic(cluster, f"{cluster.topic}.small")
    large = an_event("a" * 2000)
    await put(cluster, a_letter(cluster, 1), a_letter(cluster, 2, large), a_letter(cluster, 3))
    code, _, err = await dlq(cluster, "redrive", "--to", f"{cluster.topic}.small", "--rate", "10")
    assert code == 1
    assert f"{cluster.topic}.dlq-0@1: topic '{cluster.topic}.small' does not accept it: MessageSizeTooLarge" in err
    assert "it stays a dead letter" in err
    assert len(await letters(cluster)) == 3
    assert await left(cluster) == (2, 1)
    code, _, err = await dlq(cluster, "redrive", "--to", f"{cluster.topic}.missing")
    assert code == 1
    assert f"--to: no topic '{cluster.topic}.missing' that this client may read; create it first" in err


async def create_small_topic(cluster: Cluster, topic: str) -> None:
    from aiokafka.admin import NewTopic  # noqa: PLC0415

    async with cluster.admin() as admin:
        await admin.create_topics([NewTopic(topic, 1, 1, topic_configs={"max.message.bytes": "1000"})])
    await eventually(lambda: exists(cluster, topic))


async def exists(cluster: Cluster, topic: str) -> bool:
    async with cluster.admin() as admin:
        return topic in await admin.list_topics()


# -- from end to end ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dialect", ["connect", "spring"])
async def test_from_failure_to_home(cluster: Cluster, dialect: str) -> None:
    """In either dialect: a daemon gives records up, list and show say why, a redrive brings them home."""
    await cluster.create(dead_letters=2)
    settings = (f"dead_letter.headers={dialect}", "retry.attempts=2", "retry.initial_seconds=0.01")
    await cluster.produce([an_event("bad"), a_session(1), b"{"])
    async with cluster.run(*settings, routes=homing(cluster)) as daemon:
        await eventually(lambda: is_committed(cluster, 3))
        assert await daemon.stop() == 0
    assert handled(cluster) == [("all", 1)]
    code, out, err = await dlq(cluster, "show", f"{cluster.topic}-0@0", overrides=settings)
    assert code == 0, err
    assert "builtins.ValueError" in out
    assert "homing.py:" in out
    code, out, err = await dlq(cluster, "redrive", overrides=settings)
    assert (code, "0 handled, 2 failed again" in out) == (1, True), err
    mended = a_route("recording:Recorder", "all", path=cluster.folder / "mended")
    code, out, err = await dlq(cluster, "redrive", "--reason", "exhausted", routes=mended, overrides=settings)
    assert (code, "1 handled, 0 failed again" in out) == (0, True), err
    names = {name for each in await letters(cluster) for name, _ in each.headers}
    assert all(
        name.startswith(("session-consumer.", "kafka_dlt-" if dialect == "spring" else "__connect.")) for name in names
    )
    assert await left(cluster) == (1, 1)


async def is_committed(cluster: Cluster, offset: int) -> bool:
    return await cluster.committed() == {0: offset}
