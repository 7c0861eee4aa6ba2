"""Requests to a group's coordinator: what becomes of one that is not answered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
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
        self._request_timeout_ms = 40_000
        self.cluster = SimpleNamespace(broker_metadata=lambda _node: "a broker")

    async def coordinator_lookup(self, *_: object) -> int:
        return 1

    async def send(self, *_: object, **__: object) -> None:
        await asyncio.sleep(100)


@asynccontextmanager
async def connected(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Stuck, asyncio.Future[str]]]:
    """Run a client on a server that reads, and return how it saw the connection end."""
    monkeypatch.setattr(coordinator, "ANSWER_SECONDS", 0.01)
    ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.read()
            ended.set_result("closed")
        except ConnectionResetError:
            ended.set_result("reset")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, asyncio.timeout(5):
        _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        yield Stuck(writer), ended


async def test_a_connection_without_an_answer_is_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was sent and not delivered is dropped: an old commit must not come after newer ones."""
    async with connected(monkeypatch) as (client, ended):
        with pytest.raises(TimeoutError):
            await Coordinator(client, "g").send(cast(Any, None))
        assert await ended == "reset"
    assert client._conns == {}


async def test_the_connections_of_a_client_that_is_replaced_are_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit that was given up on must not come after those of the next client, which has the same epoch."""
    async with connected(monkeypatch) as (client, ended):
        Coordinator(client, "g").hang_up()
        assert await ended == "reset"
    assert client._conns == {}


async def test_a_connection_of_tls_that_ended_by_itself_is_reset_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its socket is gone then; the request was not answered, and no more."""
    async with connected(monkeypatch) as (client, ended):
        ((_, connection),) = client._conns.items()
        transport = connection._writer.transport
        connection._writer = SimpleNamespace(get_extra_info=lambda _name: None, transport=transport)
        with pytest.raises(TimeoutError):
            await Coordinator(client, "g").send(cast(Any, None))
        assert await ended in ("closed", "reset")


async def test_a_request_ends_before_the_client_gives_it_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The client closes the connection then, and what was sent is delivered still."""
    async with connected(monkeypatch) as (client, ended):
        monkeypatch.setattr(coordinator, "ANSWER_SECONDS", 100.0)
        client._request_timeout_ms = 10
        with pytest.raises(TimeoutError):
            await Coordinator(client, "g").send(cast(Any, None))
        assert await ended == "reset"
