"""The group's coordinator: which broker it is, and requests to it within a time limit."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Any

from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.api import Request

from consumer.kafka.failures import ClientError
from consumer.kafka.wire import Pinned

ANSWER_SECONDS = 5.0
"""Time for one request. Heartbeats and commits are answered within milliseconds, and are safe to repeat."""
AT_ONCE = struct.pack("ii", 1, 0)
"""Value of SO_LINGER with which a close drops what is not delivered yet, and resets the connection."""
UNANSWERED = (ClientError, OSError, TimeoutError)
"""What a request raises whose answer did not come: the coordinator may have acted on it."""


class Coordinator:
    """Sends a group's requests; owned by the source and as long-lived as its client.

    All of them use one connection, whose requests Kafka answers in order: no commit overtakes the one before, and none
    comes after the heartbeat that gives its partition up.
    """

    def __init__(self, client: Any, group_id: str) -> None:
        self._client = client
        self._seconds = min(ANSWER_SECONDS, 0.8 * client._request_timeout_ms / 1000)
        """Time for one request; less than the client's, which closes the connection and goes on delivering."""
        self._group_id = group_id
        self._node: int | None = None
        self._finding = asyncio.Lock()

    async def send(self, request: Pinned | Request[Any]) -> Any:
        """Return the answer to a request. Raises UNANSWERED, after which the next request looks for the coordinator."""
        node: int | None = None
        try:
            async with asyncio.timeout(self._seconds):
                node = await self._find()
                return await self._client.send(node, request, group=ConnectionGroup.COORDINATION)
        except (*UNANSWERED, asyncio.CancelledError) as error:
            task = asyncio.current_task()
            if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
                raise
            self.moved()
            if isinstance(error, TimeoutError) and node is not None:
                self._hang_up(node)
            if isinstance(error, asyncio.CancelledError):  # by a task of the client
                raise KafkaConnectionError("the connection to the coordinator was closed") from error
            raise

    def moved(self) -> None:
        """Look for the coordinator again before the next request."""
        self._node = None

    def hang_up(self) -> None:
        """Reset all connections before the next client: nothing that is under way comes after what that sends."""
        for node, group in list(self._client._conns):
            if group is ConnectionGroup.COORDINATION:
                self._hang_up(node)

    async def versions(self) -> dict[int, tuple[int, int]]:
        """Return the requests that the coordinator takes. Raises UNANSWERED."""
        async with asyncio.timeout(self._seconds):
            node = await self._find()
            if not await self._client.ready(node, group=ConnectionGroup.COORDINATION):
                self.moved()
                raise KafkaConnectionError("no connection to the coordinator")
            found: dict[int, tuple[int, int]] = self._client._conns[node, ConnectionGroup.COORDINATION]._versions
            return found

    async def _find(self) -> int:
        async with self._finding:
            if self._node is None:
                self._node = int(await self._client.coordinator_lookup(CoordinationType.GROUP, self._group_id))
            if self._client.cluster.broker_metadata(self._node) is None:
                self._node = None
                await self._client.force_metadata_update()
                raise KafkaConnectionError("the coordinator is not among the brokers yet")
            return self._node

    def _hang_up(self, node: int) -> None:
        """Reset a connection on which an answer is due: the next request would wait behind it.

        The kernel would go on to deliver what was sent, for minutes after a close. A commit that came then, after
        newer ones over the next connection, would set offsets back.
        """
        connection = self._client._conns.pop((node, ConnectionGroup.COORDINATION), None)
        if connection is None:
            return
        if connection._writer is not None:
            found = connection._writer.get_extra_info("socket")  # None where TLS has ended by itself
            if found is not None:
                with contextlib.suppress(OSError):  # it has ended by itself
                    found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
            connection._writer.transport.abort()
        connection.close()
