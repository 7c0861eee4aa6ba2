"""Two hundred tests of a handler: ``pytest tests/unit/testing/test_many.py --durations=5`` says how long they take."""

from __future__ import annotations

import pytest

from consumer import Reject, testing
from tests.unit.testing.events import ORDERS, Order


async def bill_even(event: Order) -> None:
    if event.order_id % 2:
        raise Reject("odd", code="odd")


@pytest.mark.parametrize("number", range(200))
async def test_one_of_many(number: int) -> None:
    """An even order is handled, an odd one becomes a dead letter."""
    async with testing.consumer(bill_even, schemas=ORDERS) as app:
        await app.give(Order(number))
        assert app.outcomes == [("bill_even", "dead_lettered" if number % 2 else "handled")]
