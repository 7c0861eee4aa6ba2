"""A local Apache Kafka from Python packages; needs no Docker and no installed Java.

``async with LocalKafka() as kafka`` starts one broker (or three) in KRaft mode on 127.0.0.1 and stops it at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError as ForeignKafkaError

from consumer.errors import LocalKafkaError
from consumer.kafka.local.broker import Broker
from consumer.kafka.local.jars import find_java
from consumer.kafka.local.ports import held_ports
from consumer.kafka.local.storage import Layout, cluster_id, write_folder

START_SECONDS = 60.0
STOP_SECONDS = 10.0
LOG_LINES = 40
ERROR_LINES = 25


Lines = Mapping[str, str]
Properties = Lines | Callable[[int, Lines], Lines]


class LocalKafka:
    """A Kafka cluster that lives as long as its ``async with`` block, and never longer than this process.

    ``port`` 0 picks free ports; else broker ``i`` (from 0) listens on ``port + i``. Without ``folder`` the records are
    in temporary folders, which are removed at the end, also when this process is killed. A given folder is kept, and it
    can be used again with the same number of brokers. ``properties`` are lines for each ``server.properties``, or a
    function of the node and the default lines that returns them.
    """

    def __init__(
        self,
        *,
        brokers: int = 1,
        port: int = 0,
        folder: Path | None = None,
        properties: Properties | None = None,
        report: Callable[[str], None] = lambda _line: None,
    ) -> None:
        self._count = brokers
        self._port = port
        self._folder = folder
        self._properties = properties or {}
        self._report = report
        self._brokers: list[Broker] = []

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(f"127.0.0.1:{broker.port}" for broker in self._brokers)

    @property
    def process_ids(self) -> list[int]:
        """Process ids of the brokers' Java processes, in the order of nodes."""
        return [broker.process_id for broker in self._brokers]

    def logs(self) -> str:
        """Return the last lines of each broker's log."""
        return "\n".join(broker.log(LOG_LINES // self._count) for broker in self._brokers)

    async def wait(self) -> None:
        """Wait until a broker's process ends by itself; then raises LocalKafkaError."""
        while True:
            self._raise_if_ended()
            await asyncio.sleep(0.2)

    async def __aenter__(self) -> Self:
        """Start the brokers; returns when each answers and knows all others. Raises LocalKafkaError."""
        try:
            await self._start()
        except BaseException:  # a cancellation too
            self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._folder is not None:  # temporary records need no orderly end, which takes three brokers 5 s
                await self._end_in_order()
        finally:
            self._close()

    async def _start(self) -> None:
        if self._count not in (1, 3):
            raise LocalKafkaError(f"a local Kafka has 1 broker or 3, not {self._count}")
        with held_ports(self._port, self._count) as ports, held_ports(0, self._count) as controller_ports:
            java, jars = await find_java(self._report)
        self._report("starting Kafka…")
        with self._disk_errors():
            self._prepare(Layout(ports, controller_ports))
            for broker in self._brokers:
                broker.start(java, jars)
        try:
            async with asyncio.timeout(START_SECONDS):
                await self._all_answer()
        except TimeoutError as error:
            raise LocalKafkaError(
                f"Kafka did not answer within {START_SECONDS:.0f} s; its log ends with:\n{self.logs()}"
            ) from error
        self._report(f"Kafka answers at {self.bootstrap_servers}")

    def _prepare(self, layout: Layout) -> None:
        """Make and fill a folder for each broker, which its guard removes."""
        if self._folder is not None:
            _check_folder(self._folder, self._count)
        self._brokers = []
        for node, port in zip(layout.nodes, layout.ports, strict=True):
            self._brokers.append(Broker(node, port, self._folder_of(node), temporary=self._folder is None))
        cluster = cluster_id([broker.folder for broker in self._brokers])
        for broker in self._brokers:
            settings = layout.settings(broker.node, broker.folder / "data")
            more = self._properties(broker.node, settings) if callable(self._properties) else self._properties
            write_folder(broker.folder, {**settings, **more}, cluster)

    def _folder_of(self, node: int) -> Path:
        if self._folder is None:
            return Path(tempfile.mkdtemp(prefix="local-kafka-")).resolve()
        return self._folder.resolve() / f"node-{node}"

    async def _end_in_order(self) -> None:
        for broker in self._brokers:
            broker.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_SECONDS):
                while any(b.exit_code() is None for b in self._brokers):  # noqa: ASYNC110 - a process has no event
                    await asyncio.sleep(0.02)

    async def _all_answer(self) -> None:
        for broker in self._brokers:
            while await _brokers_seen_at(broker.port) < self._count:
                self._raise_if_ended()
                await asyncio.sleep(0.05)
            _ = broker.process_id  # read while its pipe is open, then cached

    def _raise_if_ended(self) -> None:
        for broker in self._brokers:
            code = broker.exit_code()
            if code is not None:
                raise LocalKafkaError(_why(broker, code))

    @contextlib.contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            where = error.filename or self._folder or tempfile.gettempdir()
            if error.errno == errno.ENOSPC:
                raise LocalKafkaError(_full(where)) from error
            raise LocalKafkaError(
                f"Kafka's files cannot be written to {where} ({error.strerror}): choose another folder"
            ) from error

    def _close(self) -> None:
        """End all processes at once. Blocks for some milliseconds, because it must work within a cancellation."""
        for broker in self._brokers:
            broker.hang_up()
        for broker in self._brokers:
            broker.close()


def _why(broker: Broker, code: int) -> str:
    if "No space left on device" in broker.log(1000):  # the cause of the many errors after it
        return _full(broker.folder)
    return f"Kafka's broker {broker.node} ended with exit code {code}; its log ends with:\n{broker.log(ERROR_LINES)}"


def _full(where: object) -> str:
    return f"the disk that holds {where} is full: free some space, or choose a folder on another disk"


def _check_folder(folder: Path, count: int) -> None:
    held = len(list(folder.glob("node-*")))
    if held not in (0, count):
        raise LocalKafkaError(
            f"the folder {folder} holds a Kafka of {held} broker(s), not {count}: choose another, or remove it"
        )


async def _brokers_seen_at(port: int) -> int:
    """Return the number of live brokers that the one at ``port`` knows; 0 when it does not answer."""
    try:
        # First a bare connection: aiokafka logs an error for each attempt that fails.
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return 0
    writer.close()
    untyped = cast("Any", AIOKafkaClient)
    client = untyped(bootstrap_servers=f"127.0.0.1:{port}", request_timeout_ms=5000)
    try:
        await client.bootstrap()
        return len(client.cluster.brokers())
    except ForeignKafkaError:
        return 0
    finally:
        await client.close()
