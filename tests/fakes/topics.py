"""A broker whose topics take records of idempotent producers, with one partition each, and refuse what a test says."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import aiokafka.protocol.produce as produce_api
import aiokafka.protocol.transaction as transaction_api
import pytest
from aiokafka.protocol.api import RequestStruct
from aiokafka.record.default_records import DefaultRecordBatch

import tests.fakes.broker
from tests.fakes.broker import METADATA, FakeBroker

PRODUCE, INIT_PRODUCER_ID = 0, 22
UNKNOWN_TOPIC, NOT_ENOUGH_REPLICAS, OUT_OF_ORDER = 3, 19, 45


class TopicsBroker(FakeBroker):
    """A broker that takes records of the topics that are ``there``, but those that ``lack`` replicas.

    As Kafka does, it refuses what a producer sends behind a batch that it has refused.
    """

    def __init__(self, *there: str) -> None:
        super().__init__()
        self.there = set(there)
        self.lacks: set[str] = set()
        self.written: list[Any] = []
        """Every record that was taken, in order, as aiokafka reads it."""
        self.refuses: Callable[[str, Sequence[Any]], int] = lambda _topic, _records: 0
        """Takes a topic and the records of a batch; returns the code of an error, or 0."""
        self.producers = 0
        self._next: dict[tuple[int, str], int] = {}
        """The next sequence number, by producer and topic."""
        self.answers[INIT_PRODUCER_ID] = self._identified
        self.answers[METADATA] = self._topics
        self.answers[PRODUCE] = self.produced

    @property
    def values(self) -> list[Any]:
        """The values of the records that were taken."""
        return [each.value for each in self.written]

    def _identified(self, _version: int, response: Any, _request: Any) -> Any:
        self.producers += 1
        return response(0, 0, 1000 + self.producers, 0)

    def _topics(self, version: int, response: Any, request: Any) -> Any:
        brokers = [(0, "127.0.0.1", self.port, None)]
        rows: list[Any] = [
            (0, topic, False, [(0, 0, 0, [0], [0], *(([],) if version >= 5 else ()))])
            if topic in self.there
            else (UNKNOWN_TOPIC, topic, False, [])
            for topic in (request.topics or sorted(self.there))
        ]
        return response(0, brokers, "c", 0, rows)

    def produced(self, version: int, response: Any, request: Any) -> Any:
        """Return the usual answer to a write, and take its records."""
        rows: list[Any] = []
        for topic, partitions in request.topics:
            more = (-1,) if version >= 5 else ()
            rows.append((topic, [(number, self._take(topic, data), 0, -1, *more) for number, data in partitions]))
        return response(rows, 0)

    def _take(self, topic: str, data: bytes) -> int:
        if topic not in self.there or topic in self.lacks:
            return NOT_ENOUGH_REPLICAS if topic in self.there else UNKNOWN_TOPIC
        batch = DefaultRecordBatch(bytes(data))
        records, key = list(batch), (batch.producer_id, topic)
        if batch.base_sequence != self._next.get(key, 0):
            return OUT_OF_ORDER
        if code := self.refuses(topic, records):
            return code
        self._next[key] = batch.base_sequence + len(records)
        self.written += records
        return 0


@pytest.fixture
def producing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the fake broker speak what a producer needs."""
    found = [
        each
        for module in (produce_api, transaction_api)
        for _, each in inspect.getmembers(module, inspect.isclass)
        if issubclass(each, RequestStruct) and each is not RequestStruct
    ]
    requests = {(each.API_KEY, each.API_VERSION): each for each in found}
    versions = {PRODUCE: (3, 7), INIT_PRODUCER_ID: (0, 0)}
    monkeypatch.setattr(tests.fakes.broker, "REQUESTS", tests.fakes.broker.REQUESTS | requests)
    monkeypatch.setattr(tests.fakes.broker, "VERSIONS", tests.fakes.broker.VERSIONS | versions)
