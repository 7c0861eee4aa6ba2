"""Fixtures for tests that run a daemon on a fake broker."""

from __future__ import annotations

import asyncio

import pytest

import consumer.kafka.client_source
from consumer.delivery import engine as engine_module
from consumer.process import measuring as measuring_module
from consumer.process import parts as parts_module
from consumer.process import reconnect as reconnect_module
from consumer.process import supervisor as supervisor_module


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten the daemon's constant waits to about a tenth."""
    monkeypatch.setattr(supervisor_module, "LOOK_SECONDS", 0.1)
    monkeypatch.setattr(measuring_module, "MEASURE_SECONDS", 0.2)
    monkeypatch.setattr(engine_module, "COMMIT_BUDGET_SECONDS", 0.3)
    monkeypatch.setattr(parts_module, "MEASURE_SECONDS", -0.5)
    monkeypatch.setattr(parts_module, "REQUEST_MARGIN_SECONDS", -8.0)
    monkeypatch.setattr(reconnect_module, "LONGEST_BACKOFF_SECONDS", 0.1)
    monkeypatch.setattr(consumer.kafka.client_internals, "STOP_SECONDS", 0.5)
    monkeypatch.setattr(consumer.kafka.client_internals, "CLOSE_SECONDS", 0.5)


@pytest.fixture
def uncured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch off the daemon's cures, so that only aiokafka's own behaviour is left."""

    async def go_on(_clients: reconnect_module.Reconnect, _lost: Exception) -> None:
        await asyncio.sleep(0.05)

    monkeypatch.setattr(consumer.kafka.client_source, "ended_task", lambda _consumer: None)
    monkeypatch.setattr(reconnect_module.Reconnect, "_replace", go_on)
    monkeypatch.setattr(reconnect_module.Reconnect, "lose", lambda _clients, _reason, _why: None)


@pytest.fixture
def deaf_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have it found out early that brokers answer others."""
    monkeypatch.setattr(reconnect_module, "HEARD_SECONDS", 0.5)
    monkeypatch.setattr(reconnect_module, "LISTEN_SECONDS", 0.2)
    monkeypatch.setattr(consumer.kafka.client_source, "ANSWER_SECONDS", 0.5)
