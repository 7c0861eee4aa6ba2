"""The daemon as its supervisor sees it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from consumer.process import vitals
from consumer.process.vitals import DaemonVitals, Watching


async def test_a_loop_that_is_blocked_again_and_again_is_no_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Brokers are unheard for as long as the event loop ran without an answer: it hears none while it is blocked."""
    clock, source = SimpleNamespace(now=1000.0), SimpleNamespace(heard_at=1000.0)
    monkeypatch.setattr(vitals, "time", SimpleNamespace(monotonic=lambda: clock.now))
    others: Any = SimpleNamespace()
    given: Any = source
    found = DaemonVitals(given, others, others, others, Watching(others, others, others, others), 60.0)
    found.beat()
    for _ in range(5):
        clock.now += 12.0
        found.beat()
    assert 0.0 < found.unheard_seconds < 5.0
    for _ in range(48):
        clock.now += vitals.BEAT_SECONDS
        found.beat()
    assert found.unheard_seconds > 12.0
    source.heard_at = clock.now
    found.beat()
    assert found.unheard_seconds == 0.0
