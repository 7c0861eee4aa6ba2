"""Which session a member of the consumer group protocol counts with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from consumer.kafka.coordinator import Coordinator
from consumer.kafka.group_configs import SESSION, group_session


class Answers:
    """A coordinator with one answer; None is no answer."""

    def __init__(self, entries: list[tuple[str, str]] | None) -> None:
        self._entries = entries

    async def send(self, _request: Any) -> Any:
        if self._entries is None:
            raise TimeoutError
        return SimpleNamespace(resources=[(0, None, 32, "group", self._entries)])


@pytest.mark.parametrize(("entries", "session"), [(None, 7.0), ([(SESSION, "6000")], 6.0), ([], 45.0)])
async def test_a_session_without_an_answer_is_the_one_known_before(
    entries: list[tuple[str, str]] | None, session: float
) -> None:
    """A client that is replaced in an outage must not take the default, or it doubts its membership too late."""
    assert await group_session(cast(Coordinator, Answers(entries)), "group", 7.0) == session
