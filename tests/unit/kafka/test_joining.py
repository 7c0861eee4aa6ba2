"""What a member of the consumer protocol needs before it joins."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka.errors import GroupAuthorizationFailedError, GroupCoordinatorNotAvailableError

from consumer.errors import KafkaError
from consumer.kafka import joining
from consumer.kafka.joining import NEEDED, require_spoken
from consumer.settings.sections import Kafka

KAFKA = Kafka(group_id="g", topics=["t"], group_protocol="consumer")
ALL = {each.STRUCT.API_KEY: (0, 99) for each in NEEDED}


class Answers:
    """A coordinator that raises, or answers, in turn."""

    def __init__(self, *answers: Any) -> None:
        self.left = list(answers)

    async def versions(self) -> Any:
        answer = self.left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


async def test_a_coordinator_that_does_not_answer_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first group of a cluster has none for a while."""
    monkeypatch.setattr(joining, "AGAIN_SECONDS", 0.0)
    coordinator: Any = Answers(GroupCoordinatorNotAvailableError(), TimeoutError(), ALL)
    await require_spoken(coordinator, KAFKA)
    assert coordinator.left == []


async def test_a_group_without_a_right_is_named() -> None:
    """Brokers refuse to say where its coordinator is; a repeat would change nothing, and would say nothing."""
    coordinator: Any = Answers(GroupAuthorizationFailedError(), ALL)
    with pytest.raises(KafkaError, match="permission denied on the group; grant READ on group 'g'"):
        await require_spoken(coordinator, KAFKA)


async def test_brokers_that_are_too_old_are_named() -> None:
    """The first request would name it too, as a version."""
    coordinator: Any = Answers({**ALL, 68: (0, 0)})
    with pytest.raises(KafkaError, match=r"not supported by these brokers.*they lack HeartbeatRequest"):
        await require_spoken(coordinator, KAFKA)
