"""The watermark beside a plain model with a set: both allow the same commits."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, precondition, rule

from consumer.partition.watermark import Watermark


class WatermarkMachine(RuleBasedStateMachine):
    """Deliver with gaps, finish out of order, hold twice, revoke, begin an epoch, commit."""

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
        """Deliver and hold a record, perhaps after a gap."""
        offset = self.position + gap
        self.watermark.hold(offset)
        self.watermark.advance(offset + 1)
        self.position = offset + 1
        self.unfinished.add(offset)
        self.delivered.add(offset)
        return self.epoch, offset

    @rule(gap=st.integers(0, 5))
    def deliver_and_finish_at_once(self, gap: int) -> None:
        """Deliver a record that is done at once and is never held."""
        self.position += gap + 1
        self.delivered.add(self.position - 1)
        self.watermark.advance(self.position)

    @rule(gap=st.integers(1, 9))
    def pass_markers(self, gap: int) -> None:
        """Move the position without a record: markers, aborted transactions, compacted ranges."""
        self.position += gap
        self.watermark.advance(self.position)

    @rule(record=consumes(in_flight))
    def finish(self, record: tuple[int, int]) -> None:
        """Finish a record, in any order; one of an old epoch changes nothing."""
        epoch, offset = record
        if epoch == self.epoch:
            self.watermark.release(offset)
            self.unfinished.remove(offset)

    @rule(record=in_flight)
    def hold_again_and_release(self, record: tuple[int, int]) -> None:
        """Hold a record a second time, and release that hold."""
        epoch, offset = record
        if epoch == self.epoch and offset in self.unfinished:
            self.watermark.hold(offset)
            self.watermark.release(offset)

    @rule()
    def commit(self) -> None:
        """Commit; a commit never falls within an epoch."""
        assert self.watermark.done >= self.committed
        self.committed = self.watermark.done

    @rule()
    def revoke_and_begin_again(self) -> None:
        """Begin the next epoch at the last commit; what was in flight is delivered again."""
        self.epoch += 1
        self.watermark = Watermark(self.committed)
        self.position = self.committed
        self.unfinished = set()
        self.delivered = {offset for offset in self.delivered if offset < self.committed}

    @precondition(lambda self: self.position > self.start)
    @rule(back=st.integers(1, 5))
    def never_backwards(self, back: int) -> None:
        """A position that falls is refused, because records would be handled twice."""
        with pytest.raises(ValueError, match="below"):
            self.watermark.advance(self.position - back)

    @invariant()
    def agrees_with_the_set(self) -> None:
        """``done`` is the first unfinished record, or the position without one; all records below it are finished."""
        expected = min(self.unfinished, default=self.position)
        assert self.watermark.done == expected
        assert len(self.watermark) == len(self.unfinished)
        assert not any(offset < expected for offset in self.unfinished)


WatermarkMachine.TestCase.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
TestWatermark = WatermarkMachine.TestCase


def test_a_hold_below_done_is_refused() -> None:
    """A record below ``done`` may be committed already and cannot be held."""
    watermark = Watermark(10)
    with pytest.raises(ValueError, match="committed"):
        watermark.hold(9)


def test_undone_records_are_those_held_and_those_not_delivered() -> None:
    """Records below an offset without an outcome are held, or lie at or above the position."""
    watermark = Watermark(0)
    for offset in (1, 3):
        watermark.hold(offset)
    watermark.advance(5)
    assert watermark.undone_below(3, 9) == [1]
    assert watermark.undone_below(7, 9) == [1, 3, 5, 6]
    assert watermark.undone_below(7, 3) == [1, 3, 5]
