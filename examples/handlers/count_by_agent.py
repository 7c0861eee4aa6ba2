"""An example handler: counts events by agent, and keeps the counts in a JSON file.

A call only counts. ``flush`` writes the counts to disk, and is awaited before offsets are committed. After a crash the
counts continue from the file, and events that were not committed are delivered again: each is counted at least once.
"""

import asyncio
import json
import os
from collections import Counter
from pathlib import Path

from schemas.session import Session


class CountByAgent:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._counts = Counter[str](json.loads(path.read_bytes()) if path.exists() else {})

    def __call__(self, session: Session) -> None:
        self._counts[session.agent_name or "unknown"] += 1

    async def flush(self) -> None:
        await asyncio.to_thread(_save, self._path, json.dumps(self._counts, indent=2))


def _save(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    with fresh.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)  # atomic
