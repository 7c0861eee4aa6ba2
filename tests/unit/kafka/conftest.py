"""Fixtures of the tests of Kafka batches, and of a fake broker that takes records."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from aiokafka.record._crecords import default_records, legacy_records

from tests.fakes.topics import producing

__all__ = ["producing"]

MODULES = (default_records, legacy_records)
NAMES = ("gzip_decode", "snappy_decode", "lz4_decode", "zstd_decode")


@pytest.fixture
def decoders() -> Iterator[None]:
    """Restore aiokafka's decoders after the test; the limit holds for the whole process."""
    found = [(module, name, getattr(module, name)) for module in MODULES for name in NAMES if hasattr(module, name)]
    yield
    for module, name, decoder in found:
        setattr(module, name, decoder)
