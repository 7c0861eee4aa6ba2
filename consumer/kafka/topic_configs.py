"""Settings of topics: how long they keep records, and whether a dead-letter topic keeps what it is given."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

from consumer.errors import KafkaError

Config = Mapping[str, str]
"""Settings of a topic as Kafka names them; empty when this client may not read them."""


def check_fit(topic: str, source: Config, target: str, letters: Config) -> None:
    """Raise KafkaError if a dead-letter topic does not keep what it is given."""
    if "compact" in letters.get("cleanup.policy", ""):
        raise KafkaError(
            f"dead_letter.topic: {target!r} is compacted: it refuses letters without a key and deletes others; set its"
            " cleanup.policy to delete"
        )
    largest, allowed = (int(each.get("max.message.bytes", "0")) for each in (source, letters))
    if largest and allowed and allowed < largest:
        raise KafkaError(
            f"dead_letter.topic: {target!r} takes records of {allowed} bytes, but {topic!r} of {largest}; set its"
            f" max.message.bytes to {largest + 10_000}, as letters have more headers"
        )
    if retention(letters) < retention(source):
        raise KafkaError(
            f"dead_letter.topic: {target!r} deletes records after {span(retention(letters))}, but {topic!r} after"
            f" {span(retention(source))}; set its retention.ms to at least that"
        )


def retention(config: Config) -> float:
    """Return for how many seconds a topic keeps records; infinite without a limit or when it is not known."""
    milliseconds = int(config.get("retention.ms", "-1"))
    return milliseconds / 1000 if milliseconds >= 0 else float("inf")


def span(seconds: float) -> str:
    """Return a duration as text."""
    return "ever" if seconds == float("inf") else str(timedelta(seconds=round(seconds)))
