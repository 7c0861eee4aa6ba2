"""A handler that notes what it got: events, and the positions, keys and attributes of their records."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import msgspec

from consumer import Record


class Noted:
    """Appends one line of JSON for each call."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", buffering=1)

    def __call__(self, event: Any, record: Record) -> None:
        line = {
            "position": record.origin,
            "key": None if record.key is None else base64.b64encode(record.key).decode(),
            "type": type(event).__name__,
            "event": msgspec.to_builtins(event),
            "attributes": record.attributes,
        }
        self._file.write(json.dumps(line) + "\n")
