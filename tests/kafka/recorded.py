"""Calls that a recording handler noted."""

from __future__ import annotations

from pathlib import Path

from tests.cluster import Cluster

RECORDER = "recording:Recorder"


def noted(path: Path, what: str = "begin") -> list[tuple[int, int]]:
    """Return partition and offset of each noted call, in order."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [(int(line.split()[0]), int(line.split()[1])) for line in lines if line.endswith(what)]


async def cluster_caught_up(cluster: Cluster) -> bool:
    return await cluster.lag() == 0
