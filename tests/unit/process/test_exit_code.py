"""The exit code of a daemon that fails more than once."""

from __future__ import annotations

import json
from pathlib import Path

from tests.cluster import a_route
from tests.fakes.broker import FakeBroker
from tests.unit.process.consumers import a_consumer


async def test_the_first_failure_decides(tmp_path: Path) -> None:
    """A halt that ends the daemon gives 74, though the handler fails when it is left; that is logged."""
    routes = a_route("recording:LeftBadly", "bad")
    halting = ("delivery.on_halt=exit", "retry.attempts=1")
    async with FakeBroker(records=1) as broker, a_consumer(broker, tmp_path, routes, *halting) as daemon:
        assert await daemon.exit_code() == 74
        failed = json.loads(await daemon.said("leaving_failed"))
        assert (failed["route"], failed["error"]) == ("bad", "SinkError: the disk is full")
    assert "the disk is full" not in daemon.errors[-1]
