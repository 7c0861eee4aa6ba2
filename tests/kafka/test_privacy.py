"""Personal data leaves the process only through handlers and dead letters."""

from __future__ import annotations

import json
import re
from pathlib import Path

import aiohttp
import aiokafka
import pytest
from aiokafka.record.util import calc_crc32c

from consumer.dead_letters.headers import split_headers
from tests.cluster import Cluster, a_route, eventually
from tests.kafka.test_letters import is_committed, written
from tests.process import command

NUMBER = "4915112345678"
CALLER = f"+{NUMBER}"
HEADERS = [("caller", CALLER.encode()), (CALLER, b"1"), ("traceparent", CALLER.encode())]
FAILING = ["error", "group", "reject", "timeout", "inline"]
KINDS = ["good", "retry", "pause", "down", "says", *FAILING]


def an_event(how: str) -> bytes:
    return json.dumps({"timestamp": "2024-10-21T14:05:00Z", "session_id": how, "source": CALLER}).encode()


BAD = [
    an_event("cut")[:-3],
    b'{"timestamp":"%b","source":"%b"}' % (CALLER.encode(), CALLER.encode()),
    b'{"duration":"%b"}' % CALLER.encode(),
    b'"%b"' % CALLER.encode(),
    CALLER.encode() + b"\xff",
    b'{"source":"%b","pad":"%b"}' % (CALLER.encode(), b"x" * 3000),
    b"[" * 5000 + CALLER.encode(),
]


@pytest.mark.parametrize(("dialect", "log_format"), [("connect", "json"), ("spring", "console")])
async def test_a_callers_number_appears_nowhere(
    cluster: Cluster, tmp_path: Path, dialect: str, log_format: str
) -> None:
    """With every kind of failure a caller's number is in no log, metric, page, context header or command output."""
    await cluster.create(dead_letters=1)
    said: dict[str, str] = {}
    async with cluster.producer(enable_idempotence=False) as producer:
        for value in [*map(an_event, KINDS), *BAD, None]:
            await producer.send_and_wait(cluster.topic, value, key=CALLER.encode(), partition=0, headers=HEADERS)
        await produce_bad_header(producer, cluster.topic)
    routes = (
        a_route("leaking:Leaking", name="all", folder=tmp_path)
        + "timeout_seconds = 0.2\n"
        + '[[routes]]\nname = "inline"\nhandler = "leaking:matching"\n'
    )
    (tmp_path / "broken").write_text(CALLER)
    settings = (
        f"dead_letter.headers={dialect}",
        "dead_letter.limit_ratio=1.0",
        "delivery.max_record_bytes=2000",
        "retry.attempts=2",
        "retry.initial_seconds=0.01",
        "log.level=debug",
        f"log.format={log_format}",
        "http.port=0",
    )
    async with cluster.run(*settings, routes=routes) as daemon:
        await daemon.said("flush_failed")
        (tmp_path / "broken").unlink()
        end = len(KINDS) + len(BAD) + 2
        await eventually(lambda: is_committed(cluster, {0: end}), seconds=40)
        address = re.search(r"http://127\.0\.0\.1:\d+", "\n".join(daemon.lines))
        assert address is not None
        async with aiohttp.ClientSession() as client:
            for path in ("/metrics", "/", "/status.json", "/healthz", "/readyz", f"/?{CALLER}"):
                async with client.get(address[0] + path) as answer:
                    said[path] = await answer.text()
        assert await daemon.stop() == 0
        said["log"] = "\n".join(daemon.lines)
    letters = [raw for _, raw in await written(cluster)]
    assert len(letters) == len(FAILING) + len(BAD) + 1
    for number, each in enumerate(letters):
        said[f"context of letter {number}"] = str(split_headers(list(each.headers))[1])
        assert each.key == CALLER.encode()  # the record itself is as it was
    given = [f"kafka.bootstrap_servers={cluster.bootstrap_servers}", f"kafka.topics={cluster.topic}"]
    given.append(f"kafka.group_id={cluster.kafka.group_id}")
    options = [part for each in given for part in ("--set", each)]
    for arguments in (("list",), ("list", "--json"), ("list", "--letters"), ("show", f"{cluster.topic}-0@5")):
        code, out, err = await command("dlq", *arguments, *options)
        assert code == 0, err
        said[f"dlq {arguments}"] = out + err
    for where in ("log", "/", "/status.json"):
        assert "ValueError" in said[where]  # it is told what failed, only not with whom
    told = {where: text[max(0, text.index(NUMBER) - 200) :][:400] for where, text in said.items() if NUMBER in text}
    assert told == {}


async def produce_bad_header(producer: aiokafka.AIOKafkaProducer, topic: str) -> None:
    """Produce a record whose header key is not UTF-8 and holds the number."""
    name = f"bad-{CALLER}"
    batch = producer.create_batch()
    batch.append(timestamp=1, key=CALLER.encode(), value=an_event("good"), headers=[(name, CALLER.encode())])
    built = bytearray(batch._build())
    built[built.index(name.encode())] = 0xFF
    built[17:21] = calc_crc32c(bytes(built[21:])).to_bytes(4, "big")
    batch._buffer = built
    await (await producer.send_batch(batch, topic, partition=0))
