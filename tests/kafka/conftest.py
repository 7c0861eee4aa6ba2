"""Fixtures of the tests that need Kafka."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest

from tests.kafka.reader import PATHS
from tests.kafka.secure import Secure
from tests.shared_kafka import shared_kafka


@pytest.fixture(params=PATHS)
def path(request: pytest.FixtureRequest) -> str:
    """Name of the fetch path that the source takes."""
    return str(request.param)


@pytest.fixture(scope="session")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """One cluster with a listener for each way to secure a connection, for the whole run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if base.name.startswith("popen") else base) / "secure"
    folder.mkdir(exist_ok=True)
    with shared_kafka(folder, "tests.kafka.secure") as told:
        yield msgspec.json.decode(told, type=Secure)
