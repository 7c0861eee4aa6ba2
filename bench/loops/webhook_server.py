"""A server that accepts every signed POST with 204, at as little cost as Python allows.

It says its port, and when its stdin ends the number of requests.
"""

from __future__ import annotations

import asyncio
import re
import sys

from bench.meter import say

LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
ANSWER = b"HTTP/1.1 204 No Content\r\n\r\n"


class Accepting(asyncio.Protocol):
    """One connection; answers each request when all of its body is there."""

    requests = 0
    """Number of signed requests of all connections."""

    def __init__(self) -> None:
        self._data = b""

    def connection_made(self, transport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._data += data
        while (end := self._data.find(b"\r\n\r\n") + 4) > 3:
            found = LENGTH.search(self._data, 0, end)
            end += int(found[1]) if found else 0
            if len(self._data) < end:
                return
            Accepting.requests += b"\r\nwebhook-signature: v1," in self._data[:end]
            self._data = self._data[end:]
            self._transport.write(ANSWER)


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Accepting, "127.0.0.1", 0)
    say(port=server.sockets[0].getsockname()[1])
    await loop.run_in_executor(None, sys.stdin.read)
    server.close()
    say(requests=Accepting.requests)


if __name__ == "__main__":
    asyncio.run(main())
