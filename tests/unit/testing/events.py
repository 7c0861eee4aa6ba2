"""Events and handlers for the tests of ``consumer.testing``."""

from __future__ import annotations

import msgspec

from consumer import Pause, Record, Reject, Retry


class Order(msgspec.Struct):
    order_id: int
    total: float = 0.0


class Refund(msgspec.Struct, tag=True):
    order_id: int


class Payment(msgspec.Struct, tag=True):
    order_id: int


ORDERS = {"orders": Order}


class Doing:
    """A handler that does with each order what ``does`` says, and else returns; ``does`` may change between calls."""

    def __init__(self, **does: BaseException) -> None:
        self.does = {int(name.removeprefix("order")): error for name, error in does.items()}
        self.orders: list[int] = []

    async def __call__(self, event: Order) -> None:
        self.orders.append(event.order_id)
        if event.order_id in self.does:
            raise self.does[event.order_id]


def reject(event: Order, record: Record) -> None:
    raise Reject("no such order", code="unknown_order")


def retry(event: Order) -> None:
    raise Retry(after=10)


def pause(event: Order) -> None:
    raise Pause(after=10)


async def bill(event: Order) -> None:
    """Handle every order."""
