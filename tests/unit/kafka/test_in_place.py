"""The partitions that the fetcher reads, and what its client asks the brokers for them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from consumer.kafka.in_place import InPlace


def test_a_topic_is_not_asked_for_by_name() -> None:
    """Brokers with auto.create.topics.enable would create one that was deleted: metadata of all topics is asked for."""
    asked: list[str] = []
    client = SimpleNamespace(
        cluster=SimpleNamespace(topics=lambda: {"known"}),
        force_metadata_update=lambda: asked.append("all"),
        add_topic=asked.append,
    )
    consumer: Any = SimpleNamespace(
        _client=client,
        assign=lambda _partitions: None,
        _subscription=SimpleNamespace(subscription=SimpleNamespace(assignment=None)),
    )
    in_place = InPlace(consumer)
    in_place.learn({"known"})
    assert asked == []
    in_place.learn({"known", "new"})
    assert asked == ["all"]
