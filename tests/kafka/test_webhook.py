"""The webhook of a daemon on a real Kafka, with a server that fails: each event is delivered, or refused."""

from __future__ import annotations

import signal
from collections import Counter

from aiohttp import web

from tests.cluster import Cluster, a_route, a_session, eventually
from tests.kafka.dlq import letters
from tests.process import RunningConsumer
from tests.unit.handlers.receiver import Received, Receiver, receiver

EVENTS = 800
SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZg=="
KEY = b"0123456789abcdef"
RETRY = "retry = { initial_seconds = 0.05, maximum_seconds = 0.5 }\n"
OVERRIDES = (
    "delivery.ordering=unordered",
    "kafka.session_timeout_seconds=6",
    "kafka.heartbeat_interval_seconds=1",
)
GUILTY = {number for number in range(EVENTS) if number % 50 == 7}


class Faults:
    """Refuses the guilty events with 422, and answers the first request of others with 429, 503 or a redirect."""

    def __init__(self) -> None:
        self.asked: Counter[int] = Counter()
        self.accepted: set[int] = set()

    def answer(self, request: Received) -> web.Response:
        assert request.headers["webhook-signature"] == request.signature(KEY)
        number = int(request.json["session_id"])
        self.asked[number] += 1
        if number in GUILTY:
            return web.Response(status=422)
        if self.asked[number] == 1 and number % 10 == 3:
            return web.Response(status=429, headers={"Retry-After": "0"})
        if self.asked[number] == 1 and number % 10 == 5:
            return web.Response(status=503)
        if self.asked[number] == 1 and number % 200 == 1:
            return web.Response(status=307, headers={"Location": "/other"})
        self.accepted.add(number)
        return web.Response(status=204)


async def refused(cluster: Cluster) -> set[tuple[int, int, str]]:
    """Return partition, offset and code of the records whose letters are in the dead-letter topic."""
    found = [{name: (value or b"").decode() for name, value in each.headers} for each in await letters(cluster)]
    return {
        (int(each["__connect.errors.partition"]), int(each["__connect.errors.offset"]), each["session-consumer.code"])
        for each in found
    }


async def outage(server: Receiver, daemon: RunningConsumer) -> None:
    """Stop the server until both partitions hold."""
    await server.stop()

    async def holding() -> bool:
        return all([await daemon.metric("holding", partition=str(number)) == 1 for number in range(2)])

    await eventually(holding)
    await server.start()


async def test_each_event_is_delivered_or_refused(cluster: Cluster) -> None:
    """Through 429, 503, a redirect, an outage and a kill, exactly the refused events become dead letters."""
    await cluster.create(partitions=2, dead_letters=1)
    for partition in range(2):
        await cluster.produce(map(a_session, range(partition, EVENTS, 2)), partition)
    faults = Faults()
    async with receiver() as server:
        server.answer = faults.answer
        routes = a_route("consumer.handlers.webhook:Webhook", url=server.url, secret=SECRET) + RETRY
        async with cluster.run(*OVERRIDES, "log.level=debug", routes=routes) as first:
            await eventually(lambda: faults.accepted)
            await outage(server, first)
            await eventually(lambda: len(faults.accepted) > EVENTS // 2)
            first.signal(signal.SIGKILL)
            await first.exit_code()
        async with cluster.run(*OVERRIDES, routes=routes) as second:

            async def caught_up() -> bool:
                return await cluster.lag() == 0

            await eventually(caught_up, 60.0)
            assert await second.stop() == 0
    assert faults.accepted == set(range(EVENTS)) - GUILTY
    assert await refused(cluster) == {(number % 2, number // 2, "http_422") for number in GUILTY}
    assert set(server.ids) == {f"{cluster.topic}-{number % 2}-{number // 2}" for number in range(EVENTS)}
    logged = "\n".join([*first.lines, *second.lines])
    assert not any(each in logged for each in ("hidden-token", SECRET, "session_id", str(server.port)))
