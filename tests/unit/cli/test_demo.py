"""The demo's end: Ctrl-C leaves nothing running, and nothing that failed in the background is reported later."""

from __future__ import annotations

import asyncio
import gc
from types import SimpleNamespace
from typing import Any

import pytest

from consumer.cli.demo import _running, _stay
from consumer.cli.progress import Progress
from consumer.errors import KafkaError


class Producer:
    """Produces until it is cancelled, and then fails as one whose client was closed."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.ended = asyncio.Event()

    async def send_all(self, _records: Any, _rate: float) -> None:
        self.began.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise KafkaError("the client is closed") from None
        finally:
            self.ended.set()


class Failing:
    """A daemon that fails once it is stopped."""

    def __init__(self) -> None:
        self.http = SimpleNamespace(port=1)
        self._stopped = asyncio.Event()

    async def run(self) -> None:
        await self._stopped.wait()
        raise KafkaError("no broker answers any more")

    def stop(self) -> None:
        self._stopped.set()


async def test_ctrl_c_ends_the_trickle() -> None:
    """A demo that stays ends its producer when it is cancelled, and reads the producer's error."""
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: reported.append(context))
    producer: Any = Producer()
    daemon: Any = Failing()

    async def work() -> None:
        async with _running(daemon) as running:
            await _stay(daemon, producer, running, Progress())

    staying = asyncio.ensure_future(work())
    await producer.began.wait()
    staying.cancel()
    await asyncio.wait([staying])
    assert staying.cancelled()
    assert producer.ended.is_set()
    del staying
    gc.collect()
    assert reported == []


async def test_the_daemons_error_is_raised_at_the_end() -> None:
    """A daemon that fails while the demo goes on fails the demo."""
    daemon: Any = Failing()
    with pytest.raises(KafkaError, match="no broker"):
        async with _running(daemon):
            pass
