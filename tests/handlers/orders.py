"""Events of another team: orders, in several types and forms, and handlers that note what they got."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from consumer import Record
from schemas.session import Session


class Order(msgspec.Struct):
    """One order, as the shop publishes it."""

    order_id: int
    total: float
    country: str = ""


class Placed(msgspec.Struct, tag="placed"):
    order_id: int


class Paid(msgspec.Struct, tag="paid"):
    order_id: int
    amount: float


Change = Placed | Paid


class Noting:
    """Appends the route's name, the topic, the type of the event and the event as JSON, and the record's attributes."""

    def __init__(self, path: Path, name: str, *, mended: Path | None = None) -> None:
        self._path = path
        self._name = name
        self._mended = mended

    def note(self, event: Any, record: Record) -> None:
        if self._mended is not None and not self._mended.exists():
            raise LookupError
        shown = event.hex() if isinstance(event, bytes) else msgspec.to_builtins(event)
        with self._path.open("a") as file:
            file.write(json.dumps([self._name, record.topic, type(event).__name__, shown, record.attributes]) + "\n")


class Sessions(Noting):
    def __call__(self, event: Session, record: Record) -> None:
        self.note(event, record)


class Orders(Noting):
    def __call__(self, event: Order, record: Record) -> None:
        self.note(event, record)


class Payments(Noting):
    def __call__(self, event: Paid, record: Record) -> None:
        self.note(event, record)


class Values(Noting):
    def __call__(self, event: bytes, record: Record) -> None:
        self.note(event, record)
