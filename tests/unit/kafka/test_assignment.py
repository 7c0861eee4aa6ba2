"""An assignment that cannot be served: the daemon says why and ends."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from consumer.errors import SettingsError
from tests.fakes.broker import FakeBroker
from tests.fakes.daemon import Run

pytestmark = pytest.mark.usefixtures("quick")


async def test_a_topic_that_no_route_fits_ends_the_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A topic that a pattern finds later may not fit a route; its partitions are not left without workers."""

    def refuse(_keys: Any) -> None:
        raise SettingsError("routes (bill): it does not fit")

    async with FakeBroker() as broker:
        run = Run(broker)
        monkeypatch.setattr(run.engine, "assign", refuse)
        run.task = asyncio.create_task(run.daemon.run())
        with pytest.raises(SettingsError, match="it does not fit"):
            async with asyncio.timeout(5):
                await run.task
