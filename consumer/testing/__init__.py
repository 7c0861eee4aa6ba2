"""Tests of handlers without Kafka, with the daemon's own engine and a clock that the test moves.

::

    async def test_orders_are_billed():
        async with testing.consumer(bill, schemas={"orders": Order}) as app:
            await app.give(Order(order_id=1, total=9.5))
            assert app.outcomes == [("bill", "handled")]
"""

from consumer.testing.app import App
from consumer.testing.calls import Call, NotEndedError
from consumer.testing.parts import consumer, run
from consumer.testing.source import DeadLetter

__all__ = ["App", "Call", "DeadLetter", "NotEndedError", "consumer", "run"]
