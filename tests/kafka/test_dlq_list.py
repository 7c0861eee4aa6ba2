"""``dlq list`` and ``dlq show`` on a real Kafka, and mistakes on their command line."""

from __future__ import annotations

import asyncio
import json
import signal

import msgspec
import pytest

from tests.cluster import Cluster
from tests.kafka.dlq import CALLER, PLACE, a_letter, arguments, dlq, put, redriven
from tests.process import started


async def mixed(cluster: Cluster) -> None:
    """Put letters of three reasons and two routes, and records that do not count.

    Those are a double, one that failed again, a foreign record, a letter of another topic and one of another group.
    """
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
        a_letter(cluster, 8, reason="rejected", code="unknown_agent"),
        a_letter(cluster, 8, group="other"),
        partition=1,
    )


async def test_list_counts_each_letter_once(cluster: Cluster) -> None:
    """Letters count by topic, route, reason and code, doubles once; letters of others are counted apart."""
    await mixed(cluster)
    code, out, err = await dlq(cluster, "list")
    assert code == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines() if cluster.topic in line]
    assert rows == [
        [cluster.topic, "all", "exhausted", "", "2", "0"],
        [cluster.topic, "all", "rejected", "unknown_agent", "1", "0"],
        [cluster.topic, "none", "undecodable", "", "1", "0"],
        [cluster.topic, "other", "exhausted", "", "1", "0"],
    ]
    assert "ignored: 1 more record without the name of the original record" in err
    assert "ignored: 1 more letter of topics outside kafka.topics" in err
    assert "ignored: 1 more letter of other consumer groups" in err
    code, out, err = await dlq(cluster, "list", "--json", "--route", "all")
    row = {"topic": cluster.topic, "route": "all", "reason": "exhausted", "code": "", "left": 2, "home": 0}
    rejected = row | {"reason": "rejected", "code": "unknown_agent", "left": 1}
    assert json.loads(out) == {"letters": [row, rejected], "foreign": 1, "elsewhere": 1, "of_other_groups": 1}


async def test_list_names_letters_singly(cluster: Cluster) -> None:
    """Each letter is one line: its place, the record's, its cause; no payload."""
    await mixed(cluster)
    code, out, err = await dlq(cluster, "list", "--letters")
    assert (code, len(out.splitlines())) == (0, 5), err
    assert f"{cluster.topic}.dlq-1@4  of {cluster.topic}-0@8  rejected unknown_agent  route all" in out
    assert f"{cluster.topic}.dlq-0@3  of {cluster.topic}-0@3  exhausted  route all  builtins.ValueError" in out
    code, out, err = await dlq(cluster, "list", "--letters", "--json")
    found = {each["letter"]: each for each in map(json.loads, out.splitlines())}
    assert found[f"{cluster.topic}.dlq-0@3"] == {
        "letter": f"{cluster.topic}.dlq-0@3",
        "record": f"{cluster.topic}-0@3",
        "reason": "exhausted",
        "code": "",
        "route": "all",
        "attempts": 5,
        "redrives": 1,
        "error": "builtins.ValueError",
        "message": PLACE,
    }
    assert found[f"{cluster.topic}.dlq-1@4"]["code"] == "unknown_agent"
    assert len(found) == 5
    assert CALLER not in out + err


async def test_no_topic_for_dead_letters(cluster: Cluster) -> None:
    """A missing dead-letter topic is named and not created; without letters that is no error."""
    await cluster.create()
    for words in (["list"], ["redrive"]):
        code, _, err = await dlq(cluster, *words)
        assert code == 0, err
        assert f"there is no topic {cluster.topic}.dlq, so it has no dead letters" in err
    assert "no dead letter is left to redrive" in err
    async with cluster.admin() as admin:
        assert f"{cluster.topic}.dlq" not in await admin.list_topics()


async def test_what_others_wrote_is_payload(cluster: Cluster) -> None:
    """Kafka Connect's text of an exception may quote the event, so it is shown only with ``--payload``."""
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


async def test_show_hides_the_payload(cluster: Cluster) -> None:
    """A letter is found by its own place or the record's; key, headers and value need ``--payload``."""
    await cluster.create(dead_letters=2)
    value = b'{"tags":[null,"[/red]"],"note":"a:phone:b","esc":"\x1b[31m","source":"%s"}' % CALLER.encode()
    first = a_letter(cluster, 7, value, key=CALLER.encode(), headers=(("who", CALLER.encode()), ("empty", None)))
    first = msgspec.structs.replace(first, headers=[*first.headers, ("session-consumer.code", b"unknown_agent")])
    await put(cluster, a_letter(cluster, 6), first, partition=1)
    await put(cluster, a_letter(cluster, 7, value, redrives=1))
    code, out, err = await dlq(cluster, "show", f"{cluster.topic}.dlq-1@1")
    assert code == 0, err
    assert CALLER not in out + err
    assert dict(line.split(maxsplit=1) for line in out.splitlines()[:-2]) == {
        "letter": f"{cluster.topic}.dlq-1@1",
        "record": f"{cluster.topic}-0@7",
        "reason": "exhausted",
        "code": "unknown_agent",
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
    group = cluster.kafka.group_id
    says = f"there is no dead letter of group {group!r} at {place}, or of a record there, in {cluster.topic}.dlq;"
    assert f"session-consumer: {says}" in err


@pytest.mark.parametrize("place", ["{topic}-0@1", "{topic}.dlq-0@0"])
async def test_a_letter_of_another_group_is_not_shown(cluster: Cluster, place: str) -> None:
    """It is an error that names the other group, whether the letter or its record was asked for."""
    await cluster.create(dead_letters=1)
    await put(cluster, a_letter(cluster, 1, group="other"))
    code, out, err = await dlq(cluster, "show", place.format(topic=cluster.topic), "--payload")
    assert (code, out) == (1, "")
    assert f"in {cluster.topic}.dlq; there is one of group other;" in err


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
    """A mistake on the command line is reported before any connection, with exit code 2."""
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
    assert "session-consumer: kafka.bootstrap_servers: localhost:1 refused the connection" in err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["list"], b"stopped before all letters were read, so there are no counts"),
        (["show", "t-0@1"], b"stopped before all letters were read"),
        (["redrive"], b"stopped before all letters were read; nothing was redriven"),
    ],
)
async def test_ctrl_c_while_letters_are_read(cluster: Cluster, words: list[str], says: bytes) -> None:
    """Ctrl-C ends the command cleanly, and it reports that it is not done."""
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
