"""Fixtures of the tests that need Kafka."""

from __future__ import annotations

import pytest

from tests.kafka.reader import PATHS


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> str:
    """Name of the fetch path that the source takes."""
    return str(request.param)
