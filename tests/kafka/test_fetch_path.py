"""Which fetch path the source takes, by the version and internals of aiokafka."""

from __future__ import annotations

import aiokafka
import pytest
from aiokafka.consumer import fetcher as aiokafka_fetcher
from structlog.testing import capture_logs

from consumer.errors import KafkaError
from consumer.kafka import fetch_raw
from consumer.kafka.fetch_plain import PlainFetch
from consumer.kafka.fetch_raw import RawFetch, supported
from tests.cluster import Cluster
from tests.kafka.reader import Reader, a_reader, produce_batches, some


def test_the_raw_path_is_supported_here() -> None:
    """The pinned aiokafka supports the raw path."""
    assert supported()


@pytest.fixture(params=["version", "records", "module", "fetcher", "compiled"])
def changed(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Change one thing in aiokafka that the raw path relies on."""
    if request.param == "version":
        monkeypatch.setattr(aiokafka, "__version__", "0.15.0")
    elif request.param == "records":
        monkeypatch.delattr(aiokafka_fetcher.PartitionRecords, "_contains_abort_marker")
    elif request.param == "module":
        monkeypatch.delattr(aiokafka_fetcher, "FetchError")
    elif request.param == "fetcher":
        monkeypatch.setattr(fetch_raw, "FETCHER_ATTRIBUTES", (*fetch_raw.FETCHER_ATTRIBUTES, "_no_such_attribute"))
    else:
        interpreted = type("MemoryRecords", (), {"__module__": "aiokafka.record.memory_records"})
        monkeypatch.setattr(fetch_raw, "MemoryRecords", interpreted)
    return str(request.param)


def test_a_changed_aiokafka_is_not_supported(changed: str) -> None:
    """Another version, a missing private name, or a parser that is not compiled switches off the raw path."""
    assert not supported(), changed


def test_a_changed_aiokafka_is_read_the_plain_way(cluster: Cluster, changed: str) -> None:
    """By default the source then takes the plain path and logs it; told to take the raw one it refuses."""
    with capture_logs() as logs:
        assert Reader(cluster, "auto").source._choose_fetch() is PlainFetch
    assert [(line["log_level"], line["event"]) for line in logs] == [("warning", "raw_fetch_unsupported")], changed
    with pytest.raises(KafkaError):
        Reader(cluster, "raw").source._choose_fetch()


async def test_the_fallback_works(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another version of aiokafka the source reads everything on the plain path."""
    await cluster.create()
    await produce_batches(cluster, some(0, 100))
    async with a_reader(cluster, "auto") as reader:
        assert isinstance(reader.source._fetch, RawFetch)
        await reader.take_until(100)
        await reader.revoke(lost=False)
    monkeypatch.setattr(aiokafka, "__version__", "0.15.0")
    await produce_batches(cluster, some(100, 100))
    async with a_reader(cluster, "auto") as reader:
        assert isinstance(reader.source._fetch, PlainFetch)
        await reader.take_until(200)
    assert reader.taken[0] == some(100, 100)
