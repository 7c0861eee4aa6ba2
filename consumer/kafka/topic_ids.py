"""Names of topics by their ids, which is how a coordinator names them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any
from uuid import UUID

from aiokafka.errors import NoBrokersAvailable

from consumer.kafka.coordinator import ANSWER_SECONDS
from consumer.kafka.wire import tagged
from consumer.kafka.wire_questions import TopicsRequest


class TopicIds:
    """Looks names up, and keeps them: an id never changes its name. Owned by the source, one for each client."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self._names: dict[UUID, str] = {}

    def known(self, topic_id: UUID) -> str:
        """Return the name of a topic, or its id as text where no broker has named it yet."""
        return self._names.get(topic_id, str(topic_id))

    async def names(self, ids: Collection[UUID]) -> dict[UUID, str]:
        """Return the names of those ids that a broker knows: a topic that was just made, or deleted, is missing.

        Raises UNANSWERED.
        """
        unknown = [each for each in ids if each not in self._names]
        if unknown:
            node = self._client.get_random_node()
            if node is None:
                raise NoBrokersAvailable
            request = TopicsRequest([tagged(each, None) for each in unknown], False, False)
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await self._client.send(node, request)
            self._names |= {topic_id: name for code, name, topic_id, *_ in answer.topics if not code and name}
        return {each: self._names[each] for each in ids if each in self._names}
