"""Each way to secure a connection, right and wrong, against a real Kafka."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kafka.secure import Secure
from tests.kafka.security_cells import CELLS, leaked, look

ATTEMPTS = 4
"""Connections that a command may make before it gives up; aiokafka makes ten a second."""


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
