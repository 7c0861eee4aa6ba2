"""Entries of ``[[schemas]]``, and topics of routes: what fits the topics, and what cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.settings.loading import a_file, loaded, refusal

TOPICS = '[kafka]\ntopics = ["session-events", "orders-eu"]\n'
ROUTE = '[[routes]]\nname = "r"\nhandler = "m:f"\n'


@pytest.mark.parametrize(
    "text",
    [
        '[[schemas]]\ntopic = "orders-*"\ntype = "m:Order"\n',
        '[[schemas]]\ntopic = "orders-eu"\ntype = "m:Order"\nformat = "cloudevents"\nframing = "confluent"\n',
        f'{ROUTE}topics = ["orders-*", "session-events"]\n',
    ],
)
def test_what_fits(tmp_path: Path, text: str) -> None:
    """Names and globs that fit a topic are accepted."""
    assert loaded(file=a_file(tmp_path, TOPICS + text)).settings.kafka.topics == ["session-events", "orders-eu"]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('[[schemas]]\ntopic = "order-eu"\n', "schemas[0].topic: 'order-eu' fits none of kafka.topics"),
        ('[[schemas]]\ntopic = "order-eu"\n', "did you mean 'orders-eu'"),
        (f'{ROUTE}topics = ["x*"]\n', "routes (r): topics: 'x*' fits none of kafka.topics"),
        ('[[schemas]]\ntopic = "orders-eu"\nformat = "msgpack"\nframing = "confluent"\n', "schemas[0].framing"),
        ('[[schemas]]\ntopic = "orders-eu"\nformat = "avro"\n', "'avro' is not one of json, cloudevents, msgpack"),
        ('[[schemas]]\ntopics = ["orders-eu"]\n', "unknown setting 'schemas[0].topics'"),
        ('[[schemas]]\ntype = "m:Order"\n', "topic"),
    ],
)
def test_what_does_not_fit(tmp_path: Path, text: str, why: str) -> None:
    """Other entries are refused with their place."""
    assert why in refusal(file=a_file(tmp_path, TOPICS + text))
