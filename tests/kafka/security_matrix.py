"""Run every cell of the security matrix and note what happened, for ``docs/security.md``: ``python -m`` this module.

Arguments are the names of the cells to run again; without any all are run.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from consumer.kafka.local.jars import KAFKA_VERSION
from tests.kafka.secure import Secure, secure_kafka
from tests.kafka.security_cells import CELLS, Look, look

NOTES = Path(__file__).parent.parent.parent / "docs" / "security-matrix.json"
FAILED = re.compile(r"failed\s*│\s*(.*?)\s*│")
WORKS = "consumes and commits"


def message_of(checked: Look, ran: Look) -> str:
    """Return what the commands printed, without the names of this run; what only ``check`` finds is said by it."""
    lines = [line for line in ran.text.splitlines() if line.startswith("session-consumer: ")]
    found = [line.removeprefix("session-consumer: ") for line in lines[:1]] or FAILED.findall(checked.text)[:1]
    text = re.sub(r"localhost:\d{4,5}\b(?!/)", "localhost:9092", found[0] if found else WORKS)
    return re.sub(r" \(tried for \d+ s\)", "", text)


async def measure(names: list[str]) -> dict[str, Any]:
    """Run the cells one after the other."""
    cells: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        async with secure_kafka(folder) as told:
            secure = msgspec.json.decode(told, type=Secure)
            for number, name in enumerate(names):
                own = folder / f"cell-{number}"
                own.mkdir()
                checked, ran = await look(secure, CELLS[name], own)
                cells[name] = {
                    "check": {"code": checked.code, "seconds": round(checked.seconds, 1)},
                    "run": {"code": ran.code, "seconds": round(ran.seconds, 1)},
                    "connections": ran.connections,
                    "message": message_of(checked, ran).replace(temporary, ""),
                }
                sys.stderr.write(f"{name}: {cells[name]}\n")
    return {"date": dt.datetime.now(dt.UTC).date().isoformat(), "kafka": KAFKA_VERSION, "cells": cells}


if __name__ == "__main__":
    before = json.loads(NOTES.read_text(encoding="utf-8"))["cells"] if sys.argv[1:] else {}
    found = asyncio.run(measure(sys.argv[1:] or list(CELLS)))
    cells = before | found["cells"]
    found["cells"] = {name: cells[name] for name in CELLS if name in cells}
    NOTES.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
