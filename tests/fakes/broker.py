"""A broker in this process, for faults that a real one does not produce on demand; it speaks just enough of Kafka.

It has one node, one topic, and one member per group: the one that joined last. It fences as Kafka does. It is built
from aiokafka's protocol structs. Its answer to an API can be replaced, delayed, withheld or cut off. Everything that a
real Kafka can do is tested on a real Kafka.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import io
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiokafka.protocol.admin as admin_api
import aiokafka.protocol.commit as commit_api
import aiokafka.protocol.coordination as coordination_api
import aiokafka.protocol.fetch as fetch_api
import aiokafka.protocol.group as group_api
import aiokafka.protocol.metadata as metadata_api
import aiokafka.protocol.offset as offset_api
from aiokafka.protocol.api import RequestHeader_v1, RequestStruct
from aiokafka.record.default_records import DefaultRecordBatchBuilder

METADATA, FIND_COORDINATOR, JOIN, SYNC, HEARTBEAT, LEAVE = 3, 10, 11, 14, 12, 13
OFFSET_COMMIT, OFFSET_FETCH, FETCH, LIST_OFFSETS, API_VERSIONS = 8, 9, 1, 2, 18
VERSIONS = {
    API_VERSIONS: (0, 0),
    METADATA: (0, 5),
    FIND_COORDINATOR: (0, 1),
    JOIN: (2, 5),
    SYNC: (0, 3),
    HEARTBEAT: (0, 1),
    LEAVE: (0, 1),
    OFFSET_COMMIT: (2, 3),
    OFFSET_FETCH: (1, 3),
    FETCH: (4, 11),
    LIST_OFFSETS: (1, 3),
}
REQUESTS: dict[tuple[int, int], Any] = {
    (found.API_KEY, found.API_VERSION): found
    for module in (admin_api, commit_api, coordination_api, fetch_api, group_api, metadata_api, offset_api)
    for _, found in inspect.getmembers(module, inspect.isclass)
    if issubclass(found, RequestStruct) and found is not RequestStruct
}
VALUE = b'{"timestamp":"2024-10-21T14:05:00Z","session_id":"%d"}'

UNKNOWN_TOPIC, OFFSET_OUT_OF_RANGE, ILLEGAL_GENERATION, UNKNOWN_MEMBER, REBALANCE_IN_PROGRESS = 3, 1, 22, 25, 27

Answer = Callable[[int, Any, Any], Awaitable[Any] | Any]
"""Takes the version, the response type and the request; returns a response, bytes to send instead, or None for the
usual one."""
SILENCE = object()
"""An answer that never comes; the connection is silent from then on."""


class Commit(NamedTuple):
    """One partition's offset in one commit."""

    generation: int
    member: str
    partition: int
    offset: int


def a_batch(base: int, count: int) -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1 << 24,
    )
    for index in range(count):
        builder.append(index, timestamp=1, key=None, value=VALUE % (base + index), headers=[])
    raw = bytearray(builder.build())
    raw[0:8] = base.to_bytes(8, "big")
    return bytes(raw)


class FakeBroker:
    """A broker that runs within its block; every fault is an attribute that a test sets while it runs."""

    def __init__(self, topic: str = "t", partitions: int = 2, records: int = 1_000_000, step: int = 5) -> None:
        self.topic = topic
        self.partitions = partitions
        self.records = records
        """Where each partition ends."""
        self.step = step
        """Records an answer to a fetch."""
        self.port = 0
        self.requests: Counter[int] = Counter()
        self.committed: dict[int, int] = {}
        self.commits: list[Commit] = []
        """Those that were taken."""
        self.refused: list[Commit] = []
        """Those that came with another generation or member than the group's."""
        self.errors: dict[int, int] = {}
        """Error codes for heartbeats (12), commits (8) and fetches (1)."""
        self.answers: dict[int, Answer] = {}
        self.silent: set[int] = set()
        """APIs whose requests are read and never answered, nor any that follow on that connection: Kafka answers in
        order."""
        self.correlated = False
        """Whether bytes that are sent instead of a response get the right length and correlation id put before them."""
        self.topic_error = 0
        self.fetch_seconds = 0.01
        self.generation = 0
        self.member = ""
        """Empty when the group is."""
        self._rebalancing = False
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()

    @property
    def bootstrap_servers(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    @property
    def connections(self) -> int:
        """Number of open connections."""
        return len(self._connections)

    def rebalance(self) -> None:
        """Make the member join again, as when another member comes or goes."""
        self._rebalancing = True

    def expel(self) -> None:
        """Remove the member from the group, as when its session has expired."""
        self.member = ""
        self.generation += 1

    async def move(self) -> None:
        """Listen on another port from now on; clients that know only the old one find no broker."""
        await self.__aexit__(None, None, None)
        self.port = 0
        await self.__aenter__()

    def cut(self) -> None:
        """Reset every connection."""
        for writer in list(self._connections):
            writer.transport.abort()

    async def away(self, seconds: float) -> None:
        """Listen nowhere for some seconds, and reset all connections."""
        await self.__aexit__(None, None, None)
        await asyncio.sleep(seconds)
        await self.__aenter__()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        muted = False
        try:
            while True:
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                frame = io.BytesIO(await reader.readexactly(size))
                header: Any = RequestHeader_v1.SCHEMA.decode(frame)
                api, version, correlation, _client = header
                kind = REQUESTS[api, version]
                request = kind.decode(frame)
                self.requests[api] += 1
                muted = muted or api in self.silent
                if muted:
                    continue
                answer = await self._answer(api, version, kind.RESPONSE_TYPE, request)
                muted = answer is SILENCE
                if muted:
                    continue
                if not isinstance(answer, bytes) or self.correlated:
                    body = struct.pack(">i", correlation)
                    body += answer if isinstance(answer, bytes) else answer.encode()
                    answer = struct.pack(">i", len(body)) + body
                writer.write(answer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client has gone, or the test is over
        finally:
            self._connections.discard(writer)
            with contextlib.suppress(Exception):
                writer.close()

    async def _answer(self, api: int, version: int, response: Any, request: Any) -> Any:
        if api in self.answers:
            answer = self.answers[api](version, response, request)
            if inspect.isawaitable(answer):
                answer = await answer
            if answer is not None:
                return answer
        if api == FETCH:
            await asyncio.sleep(self.fetch_seconds)
        return self.usual(api, version, response, request)

    def usual(self, api: int, version: int, response: Any, request: Any) -> Any:
        """Return the answer of a healthy broker, for tests that change a part of it."""
        usual = {
            API_VERSIONS: self._api_versions,
            METADATA: self._metadata,
            FIND_COORDINATOR: self._coordinator,
            JOIN: self._join,
            SYNC: self._sync,
            HEARTBEAT: self._heartbeat,
            LEAVE: self._leave,
            OFFSET_COMMIT: self._commit,
            OFFSET_FETCH: self._committed,
            LIST_OFFSETS: self._list_offsets,
            FETCH: self._fetch,
        }
        return usual[api](version, response, request)

    def _api_versions(self, _version: int, response: Any, _request: Any) -> Any:
        return response(0, [(api, low, high) for api, (low, high) in VERSIONS.items()])

    def _metadata(self, version: int, response: Any, _request: Any) -> Any:
        brokers = [(0, "127.0.0.1", self.port, None)]
        rows = [(0, number, 0, [0], [0], *(([],) if version >= 5 else ())) for number in range(self.partitions)]
        topics = [(self.topic_error, self.topic, False, rows if not self.topic_error else [])]
        if version == 0:
            return response([broker[:3] for broker in brokers], [(*topic[:2], topic[3]) for topic in topics])
        if version == 1:
            return response(brokers, 0, topics)
        return response(brokers, "c", 0, topics) if version == 2 else response(0, brokers, "c", 0, topics)

    def _coordinator(self, version: int, response: Any, _request: Any) -> Any:
        here = (0, "127.0.0.1", self.port)
        return response(0, 0, None, *here) if version == 1 else response(0, *here)

    def _join(self, version: int, response: Any, request: Any) -> Any:
        self.generation += 1
        self._rebalancing = False
        if not self.member or request.member_id != self.member:
            self.member = f"m{self.generation}"
        protocol, metadata = request.group_protocols[0][:2]
        member = (self.member, None, metadata) if version >= 5 else (self.member, metadata)
        return response(0, 0, self.generation, protocol, self.member, self.member, [member])

    def _sync(self, version: int, response: Any, request: Any) -> Any:
        assignment = request.group_assignment[0][1]
        return response(0, 0, assignment) if version >= 1 else response(0, assignment)

    def _fenced(self, generation: int, member: str) -> int:
        """Return the error for a request of another member or generation; an empty group accepts any."""
        if (generation, member) == (-1, "") and not self.member:
            return 0
        if member != self.member:
            return UNKNOWN_MEMBER
        return 0 if generation == self.generation else ILLEGAL_GENERATION

    def _heartbeat(self, version: int, response: Any, request: Any) -> Any:
        code = self.errors.get(HEARTBEAT, 0) or self._fenced(request.generation_id, request.member_id)
        code = code or (REBALANCE_IN_PROGRESS if self._rebalancing else 0)
        return response(0, code) if version >= 1 else response(code)

    def _leave(self, version: int, response: Any, request: Any) -> Any:
        if request.member_id == self.member:
            self.expel()
        return response(0, 0) if version >= 1 else response(0)

    def _commit(self, version: int, response: Any, request: Any) -> Any:
        generation, member = request.consumer_group_generation_id, request.consumer_id
        fenced = self._fenced(generation, member)
        code, rows = fenced or self.errors.get(OFFSET_COMMIT, 0), []
        for topic, partitions in request.topics:
            rows.append((topic, [(number, code) for number, _offset, _metadata in partitions]))
            for number, offset, _metadata in partitions:
                if fenced:
                    self.refused.append(Commit(generation, member, number, offset))
                elif not code:
                    self.committed[number] = offset
                    self.commits.append(Commit(generation, member, number, offset))
        return response(0, rows) if version >= 3 else response(rows)

    def _committed(self, version: int, response: Any, request: Any) -> Any:
        rows = [
            (topic, [(number, self.committed.get(number, -1), "", 0) for number in numbers])
            for topic, numbers in request.topics
        ]
        return {1: lambda: response(rows), 2: lambda: response(rows, 0)}.get(version, lambda: response(0, rows, 0))()

    def _list_offsets(self, version: int, response: Any, request: Any) -> Any:
        rows = [
            (
                topic,
                [
                    (each[0], 0, -1, 0 if each[1 if version < 4 else 2] == -2 else self.records)
                    + ((-1,) if version >= 4 else ())
                    for each in partitions
                ],
            )
            for topic, partitions in request.topics
        ]
        return response(0, rows) if version >= 2 else response(rows)

    def _fetch(self, version: int, response: Any, request: Any) -> Any:
        topics = []
        for topic, partitions in request.topics:
            rows = []
            for each in partitions:
                number, offset = each[0], each[2] if version >= 9 else each[1]
                data = a_batch(offset, min(self.step, self.records - offset)) if offset < self.records else b""
                code = self.errors.get(FETCH, 0) or (OFFSET_OUT_OF_RANGE if offset > self.records else 0)
                start = (0,) if version >= 5 else ()
                replica = (-1,) if version >= 11 else ()
                rows.append((number, code, self.records, self.records, *start, [], *replica, b"" if code else data))
            topics.append((topic, rows))
        return response(0, 0, 0, topics) if version >= 7 else response(0, topics)
