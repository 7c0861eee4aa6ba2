"""Requests to a group's coordinator: what becomes of one that is not answered."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.client import ConnectionGroup

from consumer.kafka import coordinator
from consumer.kafka.coordinator import Coordinator


class Stuck:
    """A client whose only broker, node 1, takes requests and answers none."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        connection = SimpleNamespace(_writer=writer, close=writer.close)
        self._conns = {(1, ConnectionGroup.COORDINATION): connection}
        self.cluster = SimpleNamespace(broker_metadata=lambda _node: "a broker")

    async def coordinator_lookup(self, *_: object) -> int:
        return 1

    async def send(self, *_: object, **__: object) -> None:
        await asyncio.sleep(100)


async def test_a_connection_without_an_answer_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent and not delivered is dropped: an old commit must not come after newer ones."""
    monkeypatch.setattr(coordinator, "ANSWER_SECONDS", 0.01)
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
            ended.set_result("closed")
        except ConnectionResetError:
            ended.set_result("reset")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        client, request = Stuck(writer), cast(Any, None)
        with pytest.raises(TimeoutError):
            await Coordinator(client, "g").send(request)
        async with asyncio.timeout(5):
            assert await ended == "reset"
    assert client._conns == {}
