"""A TCP proxy in front of one broker, for network faults: refused, reset, dropped, slow or flaky connections."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from typing import Literal, Self

Mode = Literal["pass", "refuse", "black_hole", "one_way", "slow", "flaky"]
CHUNK = 65536


class Proxy:
    """A proxy between clients and one broker; ``mode`` may change while it runs, and applies to all connections.

    ``refuse`` resets new connections and open ones. ``black_hole`` drops everything in both directions; ``one_way``
    drops only the broker's answers. A connection that lost bytes stays broken without a notice, and only new
    connections work afterwards. ``slow`` waits some 100 ms before each piece. ``flaky`` resets each connection after
    about a second.
    """

    def __init__(self, port: int, target: int, seed: int = 0) -> None:
        self.port = port
        self._target = target
        self._mode: Mode = "pass"
        self._random = random.Random(seed)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.reset()
        for task in list(self._tasks):
            task.cancel()

    @property
    def mode(self) -> Mode:
        """What the proxy does with the bytes."""
        return self._mode

    @mode.setter
    def mode(self, mode: Mode) -> None:
        if mode == "refuse":
            self.reset()
        self._mode = mode

    def reset(self) -> None:
        """Reset every connection: both sides get RST, not an orderly end."""
        for writer in list(self._writers):
            transport_socket = writer.get_extra_info("socket")
            if transport_socket is not None:
                with contextlib.suppress(OSError):
                    transport_socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.CancelledError, TimeoutError):
            if self._mode != "refuse":
                await self._join(reader, writer)
        self._writers.discard(writer)
        self._tasks.discard(task)
        writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers.add(inner_writer)
        try:
            both = [
                asyncio.create_task(self._pass_on(reader, inner_writer, answers=False)),
                asyncio.create_task(self._pass_on(inner_reader, writer, answers=True)),
            ]
            flaky = asyncio.create_task(self._end_some_time())
            _, left = await asyncio.wait([*both, flaky], return_when=asyncio.FIRST_COMPLETED)
            for task in left:
                task.cancel()
            await asyncio.wait([*both, flaky])
        finally:
            self._writers.discard(inner_writer)
            inner_writer.transport.abort()

    async def _end_some_time(self) -> None:
        while True:
            await asyncio.sleep(self._random.uniform(0.5, 1.5))
            if self._mode == "flaky":
                return

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        swallows = False
        with contextlib.suppress(OSError):
            while data := await reader.read(CHUNK):
                if self._mode == "slow":
                    await asyncio.sleep(self._random.uniform(0.05, 0.15))
                swallows |= self._mode == "black_hole" or (answers and self._mode == "one_way")
                if swallows:
                    continue
                writer.write(data)
                await writer.drain()
