"""The group as its coordinator describes it."""

from __future__ import annotations

import asyncio
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from consumer.kafka import group
from consumer.kafka.group import Group
from consumer.kafka.source import KafkaSource

ONE_PARTITION = b"\x00\x00\x00\x00\x00\x01\x00\x01t\x00\x00\x00\x01\x00\x00\x00\x00\xff\xff\xff\xff"


async def described(monkeypatch: pytest.MonkeyPatch, *answers: Any) -> Group:
    """Return a group after its loop has asked for all answers."""
    monkeypatch.setattr(group, "log", structlog.get_logger())  # one that drops no line
    monkeypatch.setattr(group, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(group, "ASK_SECONDS", 0.0)
    left, asked = list(answers), asyncio.Event()

    async def send(*_: Any) -> Any:
        if not left:
            asked.set()
            await asyncio.Event().wait()
        return SimpleNamespace(groups=left.pop(0))

    client = SimpleNamespace(_coordinator=SimpleNamespace(coordinator_id=1), _client=SimpleNamespace(send=send))
    source: Any = SimpleNamespace(client=client, member_id="m", generation=1, group_id="g")
    source.describe = partial(KafkaSource.describe, source)
    found = Group(source)
    loop = asyncio.create_task(found.describe_forever())
    waits = asyncio.create_task(asyncio.wait_for(asked.wait(), 5))
    await asyncio.wait([loop, waits], return_when=asyncio.FIRST_COMPLETED)
    assert not loop.done(), loop
    loop.cancel()
    waits.cancel()
    return found


def a_group(assignment: bytes | None, code: int = 0) -> list[Any]:
    return [(code, "g", "Stable", "consumer", "range", [("m", "c", "/10.0.0.1", b"", assignment)])]


@pytest.mark.parametrize("answer", [a_group(b"x"), a_group(ONE_PARTITION[:12]), []])
async def test_an_answer_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch, answer: list[Any]) -> None:
    """An assignment of other software that cannot be read is logged by its class, and the next answer is read."""
    with capture_logs() as logs:
        found = await described(monkeypatch, answer, a_group(ONE_PARTITION))
    assert found.description is not None
    assert [(each.host, each.partitions) for each in found.description.members] == [("10.0.0.1", 1)]
    assert [each["event"] for each in logs] == ["group_not_described"]
    assert "\\x" not in logs[0]["why"]


async def test_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A coordinator that refuses to describe the group leaves it unknown."""
    with capture_logs() as logs:
        found = await described(monkeypatch, a_group(None, code=30))
    assert found.description is None
    assert logs[0]["why"].endswith("(error 30)")
