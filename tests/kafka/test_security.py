"""Each way to secure a connection, right and wrong, against a real Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.kafka.secure import Secure
from tests.kafka.security_cells import CELLS, leaked, look
from tests.shared_kafka import shared_kafka

ATTEMPTS = 4
"""Connections that a command may make before it gives up; aiokafka makes ten a second."""


@pytest.fixture(scope="session")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    """One cluster for the whole run."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if base.name.startswith("popen") else base) / "secure"
    folder.mkdir(exist_ok=True)
    with shared_kafka(folder, "tests.kafka.secure") as told:
        yield msgspec.json.decode(told, type=Secure)


@pytest.mark.parametrize("name", CELLS)
async def test_the_matrix(secure: Secure, name: str, tmp_path: Path) -> None:
    """Right credentials consume and commit; what is wrong is named, at once, once, and without a secret."""
    cell = CELLS[name]
    checked, ran = await look(secure, cell, tmp_path)
    run_code = cell.code if cell.run_code is None else cell.run_code
    assert (checked.code, ran.code) == (cell.code, run_code), f"{checked.text}\n{ran.text}"
    assert cell.says in checked.text
    assert cell.says in ran.text or not run_code
    assert "Traceback" not in checked.text + ("" if run_code else ran.text)
    assert leaked(checked.text + ran.text) == []
    for each in (checked, ran):
        assert each.code == 0 or cell.grants or each.connections <= ATTEMPTS
