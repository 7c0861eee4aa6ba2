"""The files of a daemon on a real Kafka: rotated by others, and on a disk that is full."""

from __future__ import annotations

import gzip
import json
import resource
from pathlib import Path

from tests.cluster import Cluster, a_route, a_session, eventually
from tests.kafka.recorded import cluster_caught_up

LINES = "consumer.handlers.jsonl:JsonLines"


def numbers(*files: bytes) -> list[int]:
    """Return the numbers of the sessions in the contents of files."""
    return [int(json.loads(line)["session_id"]) for file in files for line in file.splitlines()]


async def test_a_rotator_that_compresses_at_once(cluster: Cluster, tmp_path: Path) -> None:
    """A file that is moved, made anew and compressed without a signal: every record is in one of the two."""
    path = tmp_path / "out" / "lines.jsonl"
    await cluster.create()
    async with cluster.run(routes=a_route(LINES, path=path)) as daemon:
        await cluster.produce(map(a_session, range(5)))
        await eventually(lambda: cluster_caught_up(cluster))
        path.rename(path.with_suffix(".1"))
        path.touch()
        packed = gzip.compress(path.with_suffix(".1").read_bytes())
        path.with_suffix(".1").unlink()
        await cluster.produce(map(a_session, range(5, 10)))
        await eventually(lambda: cluster_caught_up(cluster))
        assert numbers(gzip.decompress(packed), path.read_bytes()) == list(range(10))
        assert await daemon.stop() == 0


async def test_a_disk_that_is_full_for_a_while(cluster: Cluster, tmp_path: Path) -> None:
    """While the file cannot grow the partition holds and nothing is dead-lettered; then all records are in it."""
    path, count = tmp_path / "lines.jsonl", 20_000  # more than the buffer takes
    await cluster.create(dead_letters=1)
    async with cluster.run("retry.maximum_seconds=0.2", routes=a_route(LINES, path=path)) as daemon:
        await daemon.said("daemon_started")
        limit_files(daemon.pid, 1000)
        await cluster.produce(map(a_session, range(count)))

        async def holds() -> bool:
            return await daemon.metric("holding", partition="0") == 1

        await eventually(holds)
        assert whole_lines(path.read_bytes())
        assert await cluster.lag() == count - len(path.read_bytes().splitlines())
        limit_files(daemon.pid, resource.RLIM_INFINITY)
        await eventually(lambda: cluster_caught_up(cluster))
        assert numbers(path.read_bytes()) == list(range(count))
        assert await daemon.metric("dead_letters_total", reason="exhausted") == 0
        assert await daemon.metric("handler_errors_total", kind="pause") > 0
        assert await daemon.stop() == 0


def limit_files(pid: int, size: int) -> None:
    """Make writes of a process fail that would make a file longer, as on a full disk."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


def whole_lines(content: bytes) -> bool:
    """Whether a file is empty or ends with a line end."""
    return content == b"" or content.endswith(b"\n")
