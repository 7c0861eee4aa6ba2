"""Each record is stored once, through kills and stops of processes at any call of the system."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import duckdb
import msgspec
import pytest

from tests.docs import ROOT
from tests.unit.handlers.parquet_events import COUNT, PARTITIONS, event_at

KILLS = 12


def truth() -> list[tuple[object, ...]]:
    """Compute the rows apart: each event that matches, with its position and its day."""
    positions = [(partition, offset) for partition in range(PARTITIONS) for offset in range(COUNT)]
    found = [(event_at(*each), each) for each in positions]
    return [
        (*msgspec.structs.astuple(event), "t", *position, event.timestamp.date())
        for event, position in found
        if event.keep
    ]


@pytest.mark.parametrize("ordering", ["partition", "key", "unordered"])
def test_the_folder_equals_the_truth_after_kills(tmp_path: Path, ordering: str) -> None:
    """No row is missing or there twice, also when a process that was stopped goes on beside its successor."""
    command = [sys.executable, "-m", "tests.unit.handlers.parquet_writer", str(tmp_path), ordering, str(KILLS), "1"]
    result = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True, timeout=300)
    ended = json.loads(result.stdout)
    assert ended["ended"]
    assert ended["resumed"] > 0
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found = connection.sql(f"SELECT * FROM '{tmp_path}/out/**/*.parquet' ORDER BY _partition, _offset").fetchall()
    assert found == truth()
