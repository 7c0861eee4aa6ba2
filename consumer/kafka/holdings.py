"""What this member of a consumer group has: partitions that it has not let go of, each under its ownership."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from uuid import UUID

from consumer.kafka.membership import Place
from consumer.record import TopicPartition


class Ownership:
    """One ownership of one partition: one that is lost and comes back is under another."""

    def __init__(self, topic_id: UUID) -> None:
        self.topic_id = topic_id


class Holdings:
    """Owned by the source, one for each client; only the reconciliation changes it."""

    def __init__(self) -> None:
        self.keys: dict[Place, TopicPartition] = {}
        self._marks: dict[TopicPartition, Ownership] = {}

    @property
    def owned(self) -> AbstractSet[Place]:
        """Every partition that was not let go of, as the coordinator names it."""
        return self.keys.keys()

    def mark(self, key: TopicPartition) -> Ownership | None:
        """Return the ownership of a partition; None if this member does not own it."""
        return self._marks.get(key)

    def add(self, place: Place, key: TopicPartition) -> None:
        """Begin the ownership of a partition."""
        self.keys[place] = key
        self._marks[key] = Ownership(place.topic_id)

    def remove(self, place: Place) -> None:
        """End the ownership of a partition: nothing is committed for it any more."""
        key = self.keys.pop(place, None)
        if key is not None:
            del self._marks[key]
