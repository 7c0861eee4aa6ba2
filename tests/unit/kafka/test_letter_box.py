"""The letter box on a broker whose topics come and go, with writes under way."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from consumer.dead_letters.letter import Letter, Writer
from consumer.errors import ConsumerError, LetterDelayedError, LetterRefusedError
from consumer.kafka.letter_box import LetterBox
from consumer.settings.sections import DeadLetterSettings, Kafka
from tests.fakes.broker import METADATA
from tests.fakes.topics import TopicsBroker

pytestmark = pytest.mark.usefixtures("producing")


def a_letter(topic: str) -> Letter:
    return Letter(topic, b"k", b"v", [], 1)


async def outcome(box: LetterBox, topic: str) -> str:
    try:
        await box.send(a_letter(topic))
    except ConsumerError as error:
        return type(error).__name__
    return "written"


@pytest.mark.parametrize("after", [0.3, 0.35, 0.4])
async def test_a_deleted_topic_beside_one_that_lacks_replicas(after: float) -> None:
    """Letters beside one whose topic was deleted are delayed and written later; nothing else ends."""
    async with TopicsBroker("a.dlq", "b.dlq") as broker:
        box = LetterBox(Kafka(bootstrap_servers=[broker.bootstrap_servers]), Writer(DeadLetterSettings(), "g"))
        assert [await outcome(box, topic) for topic in ("a.dlq", "b.dlq")] == ["written", "written"]
        broker.there, broker.lacks = {"b.dlq"}, {"b.dlq"}
        writing = [asyncio.ensure_future(outcome(box, topic)) for topic in ("a.dlq", "b.dlq")]
        await asyncio.sleep(after)
        async with asyncio.timeout(10):
            await box.look()
            assert await asyncio.gather(*writing) == [LetterDelayedError.__name__] * 2
        broker.lacks = set()
        assert [await outcome(box, topic) for topic in ("a.dlq", "b.dlq")] == [LetterRefusedError.__name__, "written"]
        await box.close()


async def test_a_look_at_what_is_only_slow() -> None:
    """A letter that Kafka does not take yet goes on, also in a redrive, whose letters go to the same topic again."""
    async with TopicsBroker("b.dlq") as broker:
        kafka = Kafka(bootstrap_servers=[broker.bootstrap_servers], topics=["b.dlq"])
        box = LetterBox(kafka, Writer(DeadLetterSettings(), "g", of_letters=True))
        broker.lacks = {"b.dlq"}
        writing = asyncio.ensure_future(outcome(box, "b.dlq"))
        await asyncio.sleep(0.3)
        await box.look()
        assert not writing.done()
        broker.lacks = set()
        async with asyncio.timeout(10):
            assert await writing == "written"
        await box.close()


async def test_a_topic_without_a_leader_is_not_missing() -> None:
    """What a topic's metadata says for a moment refuses no letter."""
    async with TopicsBroker("b.dlq") as broker:
        usual = broker.answers[METADATA]
        few_left = [3]

        def leaderless(version: int, response: Any, request: Any) -> Any:
            few_left[0] -= 1
            answer: Any = usual(version, response, request)
            if few_left[0] >= 0:
                answer.topics[:] = [(5, *row[1:]) for row in answer.topics]
            return answer

        broker.answers[METADATA] = leaderless
        box = LetterBox(Kafka(bootstrap_servers=[broker.bootstrap_servers]), Writer(DeadLetterSettings(), "g"))
        async with asyncio.timeout(10):
            assert await outcome(box, "b.dlq") == "written"
        await box.close()
