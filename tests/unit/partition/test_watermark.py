"""The watermark against a set: what may be committed is exactly what a plain model says."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from consumer.partition.watermark import Watermark


class WatermarkMachine(RuleBasedStateMachine):
    """Deliver with gaps, finish out of order, hold twice, revoke, begin a new epoch, commit."""

    in_flight: Bundle[tuple[int, int]] = Bundle("in_flight")

    def __init__(self) -> None:
        super().__init__()
        self.epoch = 0
        self.committed = 0
        self.high = 0

    @initialize(start=st.integers(0, 50))
    def begin(self, start: int) -> None:
        self.watermark = Watermark(start)
        self.unfinished: set[int] = set()
        self.delivered: set[int] = set()
        self.position = start
        self.start = self.committed = start

    @rule(target=in_flight, gap=st.integers(0, 5))
    def deliver(self, gap: int) -> tuple[int, int]:
        """A record arrives, perhaps behind a gap, and is held."""
        offset = self.position + gap
        self.watermark.hold(offset)
        self.watermark.advance(offset + 1)
        self.position = offset + 1
        self.unfinished.add(offset)
        self.delivered.add(offset)
        return self.epoch, offset

    @rule(gap=st.integers(0, 5))
    def deliver_and_finish_at_once(self, gap: int) -> None:
        """A record that is done before anybody looks is never held."""
        self.position += gap + 1
        self.delivered.add(self.position - 1)
        self.watermark.advance(self.position)

    @rule(gap=st.integers(1, 9))
    def pass_markers(self, gap: int) -> None:
        """The position moves without a record: markers, aborted transactions, compacted ranges."""
        self.position += gap
        self.watermark.advance(self.position)

    @rule(record=consumes(in_flight))
    def finish(self, record: tuple[int, int]) -> None:
        """A record is done, in any order; one of an old epoch changes nothing."""
        epoch, offset = record
        if epoch == self.epoch:
            self.watermark.release(offset)
            self.unfinished.remove(offset)

    @rule(record=in_flight)
    def hold_again_and_release(self, record: tuple[int, int]) -> None:
        """A second hold on a record keeps it and gives it back."""
        epoch, offset = record
        if epoch == self.epoch and offset in self.unfinished:
            self.watermark.hold(offset)
            self.watermark.release(offset)

    @rule()
    def commit(self) -> None:
        """A commit never falls within an epoch."""
        assert self.watermark.done >= self.committed
        self.committed = self.watermark.done

    @rule()
    def revoke_and_begin_again(self) -> None:
        """The next epoch starts where the last commit was; what was in flight is delivered again."""
        self.epoch += 1
        self.watermark = Watermark(self.committed)
        self.position = self.committed
        self.unfinished = set()
        self.delivered = {offset for offset in self.delivered if offset < self.committed}

    @precondition(lambda self: self.position > self.start)
    @rule(back=st.integers(1, 5))
    def never_backwards(self, back: int) -> None:
        """A position that falls would handle records twice and is refused."""
        with pytest.raises(ValueError, match="below"):
            self.watermark.advance(self.position - back)

    @invariant()
    def agrees_with_the_set(self) -> None:
        """Done is the first unfinished record, or the position when there is none; all below it is finished."""
        expected = min(self.unfinished, default=self.position)
        assert self.watermark.done == expected
        assert len(self.watermark) == len(self.unfinished)
        assert not any(offset < expected for offset in self.unfinished)


WatermarkMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
TestWatermark = WatermarkMachine.TestCase


def test_a_hold_below_done_is_refused() -> None:
    """What may be committed already cannot become unfinished."""
    watermark = Watermark(10)
    with pytest.raises(ValueError, match="committed"):
        watermark.hold(9)
