"""A real HTTP server on this machine that receives events, and servers that fail."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NamedTuple

from aiohttp import web

HOST = "127.0.0.1"


class Received(NamedTuple):
    """One request that arrived."""

    headers: dict[str, str]
    """With names in lower case."""
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    def signature(self, key: bytes) -> str:
        """The signature that this request must have, computed as the receiver does."""
        signed = f"{self.headers['webhook-id']}.{self.headers['webhook-timestamp']}.".encode() + self.body
        return "v1," + base64.b64encode(hmac.new(key, signed, "sha256").digest()).decode()


Answer = Callable[[Received], web.Response | Awaitable[web.Response]]


class Receiver:
    """Answers with what ``answers`` holds, one after the other, then with what ``answer`` returns: 204."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.answers: list[web.Response] = []
        self.answer: Answer = lambda _: web.Response(status=204)
        self.connections: set[Any] = set()
        self.port = 0
        self._runner: web.ServerRunner | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}/hook?token=hidden-token"

    @property
    def ids(self) -> list[str]:
        return [each.headers["webhook-id"] for each in self.received]

    async def start(self) -> None:
        """Listen, at the same port as before if there was one."""
        self._runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        self.connections.add(request.transport)
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.received.append(found := Received(headers, await request.content.read()))
        answer = self.answers.pop(0) if self.answers else self.answer(found)
        return answer if isinstance(answer, web.Response) else await answer


@contextlib.asynccontextmanager
async def receiver() -> AsyncIterator[Receiver]:
    server = Receiver()
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


@contextlib.asynccontextmanager
async def raw_server(answer: bytes, *, read: int = 65_536, stay: bool = False) -> AsyncIterator[str]:
    """Read some bytes of each connection, write an answer, and close it, or ``stay`` until the end; yield the URL."""
    over = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await reader.read(read)
            writer.write(answer)
            await writer.drain()
            if stay:
                await over.wait()
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    try:
        yield f"http://{HOST}:{server.sockets[0].getsockname()[1]}/"
    finally:
        over.set()
        server.close()
        await server.wait_closed()
