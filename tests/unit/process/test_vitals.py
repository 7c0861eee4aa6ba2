"""The daemon as its supervisor sees it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from consumer.observe.members import Membership
from consumer.process import vitals
from consumer.process.parts import wait_limits
from consumer.process.vitals import DaemonVitals, Watching
from consumer.process.waits import Waits
from consumer.record import TopicPartition
from consumer.settings.sections import Settings


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


async def test_a_partition_that_has_not_begun_is_watched() -> None:
    """The group gave it, and the engine does not know it yet: the watchdog does."""
    key = TopicPartition("t", 0)
    source: Any = SimpleNamespace(
        joined=True,
        heard_at=1000.0,
        rebuilds=0,
        group_since=lambda _beat: None,
        membership=Membership("consumer", 5, 0.0, (), {key: 100.0}),
    )
    engine: Any = SimpleNamespace(workers=[])
    others: Any = SimpleNamespace(draining=False, state="running")
    waits = Waits(engine, (), wait_limits(Settings()))
    found = DaemonVitals(source, engine, others, others, Watching(others, waits, others, others), 60.0)
    assert [(each.key, [wait.kind for wait in each.waits]) for each in found.read().partitions] == [(key, ["position"])]
