"""Which session a member of the consumer group protocol counts with."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from consumer.kafka import group_configs
from consumer.kafka.coordinator import Coordinator
from consumer.kafka.group_configs import SESSION, SESSION_SECONDS, group_session

Answer = list[tuple[str, str]] | int | None
SIX = [(SESSION, "6000")]


class Answers:
    """A coordinator with these answers, each an error code or entries; None is no answer, and the last one stays."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)

    async def send(self, _request: Any) -> Any:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if answer is None:
            raise TimeoutError
        code, entries = (answer, []) if isinstance(answer, int) else (0, answer)
        return SimpleNamespace(resources=[(code, None, 32, "group", entries)])


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_configs, "AGAIN_SECONDS", 0.0)


@pytest.mark.parametrize(("answer", "session"), [(None, 7.0), (15, 7.0), (SIX, 6.0), ([], 45.0)])
async def test_a_session_without_an_answer_is_the_one_known_before(answer: Answer, session: float) -> None:
    """A client that is replaced in an outage must not take the default, or it doubts its membership too late."""
    assert await group_session(cast(Coordinator, Answers(answer)), "group", 7.0) == session


async def test_the_session_is_asked_for_again() -> None:
    """One answer that is lost at the first join must not make a session of 6 s one of 45 s for the client's life."""
    assert await group_session(cast(Coordinator, Answers(None, None, SIX)), "group", SESSION_SECONDS) == 6.0
