"""Several topics in one daemon, each with its own type and format, on a real Kafka."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from consumer.kafka.producer import create_topic
from tests.cluster import Cluster, a_session, eventually
from tests.process import RunningConsumer, command

HEADERS = [("ce_specversion", b"1.0"), ("ce_type", b"order.placed"), ("content-type", b"application/json")]
ORDER = b'{"order_id":7,"total":9.5,"country":"de","new_field":1}'


class Shop:
    """Topics beside the test's own, which holds sessions."""

    def __init__(self, cluster: Cluster, *names: str) -> None:
        self.cluster = cluster
        self.topics = {name: f"{cluster.topic}-{name}" for name in names}
        self.notes = cluster.folder / "notes"

    async def create(self) -> None:
        for topic in (self.cluster.topic, *self.topics.values()):
            for each in (topic, f"{topic}.dlq"):
                await create_topic(self.cluster.kafka, each, 1)

    async def put(self, name: str, *values: bytes, **options: Any) -> None:
        async with self.cluster.producer() as producer:
            for value in values:
                await producer.send_and_wait(self.topics[name], value, partition=0, **options)

    def route(self, handler: str, *topics: str, name: str = "", options: str = "", **more: str) -> str:
        wanted = [self.topics.get(each, self.cluster.topic) for each in topics]
        lines = [f"{key} = {value}" for key, value in more.items()]
        given = f'path = "{self.notes}", name = "{name or handler}"{options}'
        return "\n".join(
            [
                "[[routes]]",
                f'name = "{name or handler}"',
                f'handler = "orders:{handler}"',
                f"topics = {json.dumps(wanted)}",
                f"options = {{ {given} }}",
                *lines,
                "",
            ]
        )

    def schema(self, name: str, kind: str, form: str = "json", framing: str = "none") -> str:
        words = {"topic": self.topics[name], "type": kind, "format": form, "framing": framing}
        return "\n".join(["[[schemas]]", *(f'{key} = "{value}"' for key, value in words.items()), ""])

    @property
    def consumed(self) -> str:
        return f"kafka.topics={json.dumps([self.cluster.topic, *self.topics.values()])}"

    def run(self, *parts: str, sets: Sequence[str] = ()) -> RunningConsumer:
        return self.cluster.run(self.consumed, "retry.attempts=1", *sets, routes="\n".join(parts))

    def words(self, *sets: str) -> list[str]:
        """Return the options of other commands, for the settings that ``run`` has written."""
        servers = f"kafka.bootstrap_servers={self.cluster.bootstrap_servers}"
        given = (servers, *self.cluster.overrides, self.consumed, *sets)
        return ["-c", str(self.cluster.folder / "a.toml"), *(word for each in given for word in ("--set", each))]

    def noted(self) -> list[list[Any]]:
        return [json.loads(line) for line in self.notes.read_text().splitlines()] if self.notes.exists() else []


async def test_orders_beside_sessions(cluster: Cluster) -> None:
    """One daemon has sessions and orders, each with its own route, and dead letters of each topic go to its own."""
    shop = Shop(cluster, "orders")
    await shop.create()
    await cluster.produce([a_session(1), b"{"])
    await shop.put("orders", ORDER, a_session(2))
    parts = (
        shop.schema("orders", "orders:Order"),
        shop.route("Sessions", "sessions"),
        shop.route("Orders", "orders", match='{ country = "d*" }'),
    )
    async with shop.run(*parts) as daemon:

        async def done() -> bool:
            return len(shop.noted()) == 2 and await daemon.metric("dead_letters_total", topic=cluster.topic) >= 0

        await eventually(done)
        found = sorted((each[:3] for each in shop.noted()), key=str)
        assert found == [["Orders", shop.topics["orders"], "Order"], ["Sessions", cluster.topic, "Session"]]

        async def letters() -> list[float]:
            topics = (cluster.topic, shop.topics["orders"])
            return [await daemon.metric("dead_letters_total", topic=each, reason="undecodable") for each in topics]

        async def both() -> bool:
            return await letters() == [1.0, 1.0]

        await eventually(both)
        assert await daemon.stop() == 0


async def test_formats_and_unions(cluster: Cluster) -> None:
    """MessagePack, both modes of CloudEvents, framed JSON, a union and raw bytes, each on its topic."""
    names = ("packed", "binary", "structured", "framed", "changes", "raw")
    shop = Shop(cluster, *names)
    await shop.create()
    await shop.put("packed", msgspec.msgpack.encode(msgspec.json.decode(ORDER)))
    await shop.put("binary", ORDER, headers=HEADERS)
    await shop.put("structured", b'{"specversion":"1.0","type":"order.placed","id":"1","source":"/","data":%s}' % ORDER)
    await shop.put("structured", b'[{"specversion":"1.0","data":%s}]' % ORDER)
    await shop.put("framed", b"\0\0\0\0\7" + ORDER)
    await shop.put(
        "changes", b'{"type":"placed","order_id":1}', b'{"type":"paid","order_id":1,"amount":9.5}', b'{"type":"x"}'
    )
    await shop.put("raw", b"\xff", key=b"tenant-7:1")
    await shop.put("raw", b"\xfe", key=b"tenant-8:1")
    parts = (
        shop.schema("packed", "orders:Order", "msgpack"),
        shop.schema("binary", "orders:Order"),
        shop.schema("structured", "orders:Order", "cloudevents"),
        shop.schema("framed", "orders:Order", framing="confluent"),
        shop.schema("changes", "orders:Change"),
        shop.schema("raw", "bytes"),
        shop.route("Orders", "packed", "binary", "structured", "framed"),
        shop.route("Payments", "changes", match='{ type = "paid" }'),
        shop.route("Values", "raw", match='{ key = "tenant-7:*" }'),
        shop.route("Values", "changes", name="Unknown", unknown_tags="true"),
    )
    async with shop.run(*parts) as daemon:
        await eventually(lambda: len(shop.noted()) == 7)
        by_topic: Mapping[str, list[Any]] = {each[1]: each for each in shop.noted() if each[0] != "Unknown"}
        for name in ("packed", "binary", "structured", "framed"):
            route, _, kind, event, attributes = by_topic[shop.topics[name]]
            assert (route, kind, event["order_id"], event["total"]) == ("Orders", "Order", 7, 9.5)
            assert attributes.get("type") == ("order.placed" if name in ("binary", "structured") else None)
        assert by_topic[shop.topics["changes"]][2:4] == ["Paid", {"type": "paid", "order_id": 1, "amount": 9.5}]
        assert by_topic[shop.topics["raw"]][2:4] == ["bytes", "ff"]
        (unknown,) = [each for each in shop.noted() if each[0] == "Unknown"]
        assert unknown[2:4] == ["bytes", b'{"type":"x"}'.hex()]

        async def refused() -> bool:
            return await daemon.metric("dead_letters_total", topic=shop.topics["structured"], reason="undecodable") == 1

        await eventually(refused)
        line = json.loads(await daemon.said("record_dead_lettered"))
        assert "it is a batch of CloudEvents; produce each as a record" in line["message"]
        assert await daemon.stop() == 0


async def test_letters_of_several_types_are_redriven(cluster: Cluster) -> None:
    """A letter is decoded as its own topic's records are, also where topics share a dead-letter topic."""
    shop = Shop(cluster, "orders")
    await shop.create()
    await create_topic(cluster.kafka, f"{cluster.topic}.letters", 1)
    await cluster.produce([a_session(1)])
    await shop.put("orders", ORDER)
    mended = cluster.folder / "mended"
    option = f', mended = "{mended}"'
    parts = (
        shop.schema("orders", "orders:Order"),
        shop.route("Sessions", "sessions", options=option),
        shop.route("Orders", "orders", options=option),
    )
    shared = (f"dead_letter.topic={cluster.topic}.letters", "dead_letter.limit_ratio=1")
    async with shop.run(*parts, sets=shared) as daemon:

        async def lettered() -> bool:
            topics = (cluster.topic, shop.topics["orders"])
            found = [await daemon.metric("dead_letters_total", topic=each, reason="exhausted") for each in topics]
            return found == [1.0, 1.0]

        await eventually(lettered)
        assert await daemon.stop() == 0
    mended.touch()
    code, _, err = await command("dlq", "redrive", *shop.words(*shared))
    assert code == 0, err
    assert sorted(each[2] for each in shop.noted()) == ["Order", "Session"]


async def test_check_names_what_does_not_fit(cluster: Cluster) -> None:
    """``check`` refuses a handler whose annotation is not the type of its topic, and names both."""
    shop = Shop(cluster, "orders")
    await shop.create()
    shop.run(shop.schema("orders", "orders:Order"), shop.route("Orders", "sessions"))
    code, out, _ = await command("check", *shop.words(), COLUMNS="1000")
    assert code == 2
    said = f"is annotated orders.Order, but the events of topic '{cluster.topic}' are schemas.session.Session"
    assert said in " ".join(out.split())
