"""The fixture ``consumer_app``, in both modes of pytest-asyncio."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.testing.own_pytest import pytest_in

TEST = """
import asyncio, pytest
from consumer import testing

pytestmark = pytest.mark.asyncio
left = []

class Sink:
    async def __aenter__(self): ...
    async def __aexit__(self, *_): left.append(1)
    async def __call__(self, event): ...

async def test_first(consumer_app):
    app = await consumer_app(Sink())
    await app.give({"timestamp": "2026-01-01T00:00:00Z"})
    assert app.outcomes == [("Sink", "handled")]
    assert not left

async def test_second(consumer_app):
    assert left == [1]
    assert "time" not in vars(asyncio.get_running_loop())
    app = await consumer_app(routes={"a": Sink(), "b": Sink()})
"""


@pytest.mark.parametrize("mode", ["strict", "auto"])
def test_an_app_is_stopped_after_its_test(tmp_path: Path, mode: str) -> None:
    """The fixture starts apps in the loop of the test, and stops them at its end."""
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["consumer.testing.fixtures"]')
    (tmp_path / "test_it.py").write_text(TEST)
    ended = pytest_in(tmp_path, f"--asyncio-mode={mode}")
    assert ended.returncode == 0, ended.stdout
    assert "2 passed" in ended.stdout
