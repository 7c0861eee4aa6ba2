"""A handler that takes its time."""

from __future__ import annotations

import asyncio
from typing import Any


class Waiting:
    """Awaits ``seconds`` at each event; 0 returns at once."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def __call__(self, _event: Any) -> None:
        if self.seconds:
            await asyncio.sleep(self.seconds)
