"""The partitions that aiokafka's fetcher reads, changed one by one: the others are fetched on.

``assign`` of aiokafka ends the whole assignment: every fetch is cancelled and everything that was fetched is dropped.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Any

import aiokafka
from aiokafka.consumer.subscription_state import TopicPartitionState

from consumer.record import TopicPartition


class InPlace:
    """One manual assignment of a client, made empty; owned by the source and as long-lived as the client.

    Invariants:
    - a partition has its position before the fetcher sees it
    - one that was removed keeps its state, without a position: the answer to a fetch that is under way looks it up
    - nothing that was fetched of it stays in the fetcher's buffer
    """

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        consumer.assign([])
        self._assignment = consumer._subscription.subscription.assignment

    def __contains__(self, key: TopicPartition) -> bool:
        """Whether the fetcher reads a partition."""
        return aiokafka.TopicPartition(*key) in self._assignment._topic_partitions

    def learn(self, topics: AbstractSet[str]) -> None:
        """Have the client ask for metadata when it lacks a topic.

        It does not ask for the name: brokers with ``auto.create.topics.enable`` create a deleted topic that is asked
        for. The topics of ``kafka.topics`` are asked for by name; under a pattern all are asked for.
        """
        client = self._consumer._client
        if not topics <= client.cluster.topics():
            client.force_metadata_update()

    def know(self, key: TopicPartition) -> None:
        """Give a partition a state without a position; it is not fetched."""
        self._assignment._tp_state.setdefault(aiokafka.TopicPartition(*key), TopicPartitionState(self._assignment))

    def show(self, key: TopicPartition, offset: int) -> None:
        """Have a partition fetched from an offset on."""
        partition = aiokafka.TopicPartition(*key)
        self.know(key)
        self._assignment._tp_state[partition].seek(offset)
        self._assignment._topic_partitions |= {partition}
        self._wake()

    def hide(self, key: TopicPartition) -> None:
        """Have a partition fetched no more, and drop what was fetched of it."""
        partition = aiokafka.TopicPartition(*key)
        self._assignment._topic_partitions -= {partition}
        state = self._assignment._tp_state.get(partition)
        if state is not None:
            state._position = state.highwater = state.lso = state.timestamp = None
            if state.paused:
                state.resume()
        self._consumer._fetcher._records.pop(partition, None)
        self._wake()

    def _wake(self) -> None:
        """Have the fetcher look again at what it reads."""
        fetcher = self._consumer._fetcher
        fetcher._notify(fetcher._wait_consume_future)
