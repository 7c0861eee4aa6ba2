"""Which session a member of the consumer group protocol counts with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from consumer.kafka.coordinator import Coordinator
from consumer.kafka.group_configs import SESSION, group_session


class Answers:
    """A coordinator with one answer, which is an error code or entries; None is no answer."""

    def __init__(self, answer: list[tuple[str, str]] | int | None) -> None:
        self._answer = answer

    async def send(self, _request: Any) -> Any:
        if self._answer is None:
            raise TimeoutError
        code, entries = (self._answer, []) if isinstance(self._answer, int) else (0, self._answer)
        return SimpleNamespace(resources=[(code, None, 32, "group", entries)])


@pytest.mark.parametrize(("answer", "session"), [(None, 7.0), (15, 7.0), ([(SESSION, "6000")], 6.0), ([], 45.0)])
async def test_a_session_without_an_answer_is_the_one_known_before(
    answer: list[tuple[str, str]] | int | None, session: float
) -> None:
    """A client that is replaced in an outage must not take the default, or it doubts its membership too late."""
    assert await group_session(cast(Coordinator, Answers(answer)), "group", 7.0) == session
