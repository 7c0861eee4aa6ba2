"""Fixtures for pytest, which a ``conftest.py`` loads by ``pytest_plugins = ["consumer.testing.fixtures"]``.

They need pytest-asyncio, in either of its modes. No entry point loads them: this software is installed as an
application, and an entry point would load them into every run of pytest in its environment.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest_asyncio

from consumer.testing.app import App
from consumer.testing.parts import consumer

StartConsumer = Callable[..., Awaitable[App]]
"""Takes what ``consumer.testing.consumer`` takes; returns the app, which is stopped after the test."""


@pytest_asyncio.fixture
async def consumer_app() -> AsyncIterator[StartConsumer]:
    """Return what starts a consumer that is stopped after the test.

    ``app = await consumer_app(handler)`` in a test.
    """
    async with contextlib.AsyncExitStack() as opened:

        async def start(handler: Any = None, **options: Any) -> App:
            return await opened.enter_async_context(consumer(handler, **options))

        yield start
