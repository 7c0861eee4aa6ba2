"""End offsets from answers to fetches and from questions, and when a broker last answered."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import aiokafka
import pytest
from structlog.testing import capture_logs

from consumer.kafka import end_offsets
from consumer.kafka.end_offsets import EndOffsets
from consumer.record import TopicPartition
from consumer.settings.sections import Kafka

FIRST, SECOND = TopicPartition("t", 0), TopicPartition("t", 1)


class Client:
    """A client whose last answer to a fetch of ``FIRST`` came at a wall time, and which gets no other answer."""

    def __init__(self, at: float) -> None:
        self.state = SimpleNamespace(lso=5, highwater=7, timestamp=int(at * 1000))
        assignment = SimpleNamespace(_tp_state={aiokafka.TopicPartition(*FIRST): self.state})
        self._subscription = SimpleNamespace(subscription=SimpleNamespace(assignment=assignment))
        self._client = SimpleNamespace(cluster=SimpleNamespace(leader_for_partition=lambda _: 1))

    async def end_offsets(self, _: Any) -> Any:
        raise OSError


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Both clocks, as the test sets them."""
    found = SimpleNamespace(wall=1_793_000_000.0, now=1000.0)
    times = SimpleNamespace(time=lambda: found.wall, monotonic=lambda: found.now)
    monkeypatch.setattr(end_offsets, "time", times)
    return found


@pytest.mark.parametrize(("isolation", "end"), [("read_committed", 5), ("read_uncommitted", 7)])
def test_an_answer_carries_the_end(clock: Any, isolation: Any, end: int) -> None:
    """The end is the last stable offset under read_committed, as old as its answer."""
    ends = EndOffsets(Kafka(isolation_level=isolation))
    ((offset, at),) = ends.fetched(Client(clock.wall - 0.25)).values()
    assert offset == end
    assert at == pytest.approx(999.75)
    assert ends.heard_at == pytest.approx(999.75)


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_the_wall_clock_is_set(clock: Any, step: float) -> None:
    """Neither an end nor a broker's answer is from the future, and the next answer counts at its time."""
    ends, client = EndOffsets(Kafka()), Client(clock.wall)
    clock.wall += step
    ends.fetched(client)
    assert ends.heard_at <= clock.now
    clock.now, clock.wall = clock.now + 60, clock.wall + 60
    assert ends.fetched(client) == {}  # brokers have been silent since
    assert ends.heard_at <= clock.now - 60
    client.state.timestamp = int(clock.wall * 1000)
    assert list(ends.fetched(client)) == [FIRST]
    assert ends.heard_at == pytest.approx(clock.now)


async def test_one_broker_that_is_away_is_no_outage(clock: Any) -> None:
    """While another broker answers fetches, brokers are not logged as unreachable."""
    ends = EndOffsets(Kafka())
    with capture_logs() as logs:
        ends.fetched(Client(clock.wall - 1))
        assert await ends.ask(Client(0.0), [SECOND]) == {}
    assert logs == []


async def test_an_outage_is_logged_once(clock: Any) -> None:
    """Brokers of which none answers are logged as unreachable once, and as reachable with the next answer."""
    ends = EndOffsets(Kafka())
    ends.heard(clock.now - 3)
    with capture_logs() as logs:
        for _ in range(2):
            await ends.ask(Client(0.0), [SECOND])
        ends.fetched(Client(clock.wall))
    assert [each["event"] for each in logs] == ["brokers_unreachable", "brokers_reachable"]
