"""Lag in seconds: the age of the oldest record that is not committed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consumer.partition.lag import EVERY_SECONDS, MOST, Ages
from consumer.partition.state import Partition
from consumer.record import TopicPartition

KEY = TopicPartition("t", 0)


def a_partition(committed: int, end: int, *noted: tuple[int, float], seen: float = 0.0) -> Partition:
    """Make a partition whose end was measured at ``seen``, with offsets noted at times in seconds."""
    partition = Partition(KEY, 1)
    partition.start(committed)
    partition.lag.ends_at(end, committed, 0.0, seen)
    for number, (offset, at) in enumerate(noted):
        partition.lag.ages.note(offset, round(at * 1000), number)
    return partition


def test_caught_up_is_no_lag() -> None:
    """When all is committed the lag is 0, however old the last record is."""
    assert a_partition(5, 5, (4, 10.0)).lag_seconds(1000.0) == 0.0


def test_the_oldest_uncommitted_record_counts() -> None:
    """The lag is the age of the record at the committed offset, not of an older or a newer one."""
    partition = a_partition(5, 9, (4, 10.0), (5, 60.0), (6, 70.0), (8, 95.0))
    assert partition.lag_seconds(100.0) == 40.0
    partition.commit(6)
    assert partition.lag_seconds(100.0) == 30.0


def test_a_record_between_two_notes_is_as_old_as_the_next() -> None:
    """Not every record is noted; the next noted record stands for it."""
    assert a_partition(5, 9, (3, 10.0), (7, 80.0)).lag_seconds(100.0) == 20.0


def test_nothing_fetched_yet_counts_from_when_it_was_seen() -> None:
    """Lag of a partition that was not fetched yet counts from when its records were first seen."""
    partition = Partition(KEY, 1)
    partition.lag.ends_at(9, partition.known_committed, 0.0, 50.0)
    assert partition.lag_seconds(60.0) is None  # nobody knows yet what is committed
    partition.start(5)
    partition.lag.ends_at(9, partition.known_committed, 3.0, 53.0)
    partition.lag.ends_at(10, partition.known_committed, 6.0, 56.0)
    assert (partition.lag_records, partition.lag_seconds(60.0)) == (5, 7.0)


def test_the_first_record_after_long_silence_is_not_old() -> None:
    """A new record that is not noted yet does not inherit the age of the record before it."""
    partition = a_partition(5, 5, (4, 10.0))
    partition.lag.ends_at(6, 5, 0.0, 990.0)
    assert partition.lag_seconds(1000.0) == 10.0


def test_the_clock_of_a_producer_may_be_ahead() -> None:
    """A record from the future has no negative age; one without a timestamp has none."""
    assert a_partition(5, 9, (5, 200.0)).lag_seconds(100.0) == 0.0
    partition = a_partition(5, 9, seen=90.0)
    partition.lag.ages.note(5, -1, 0.0)
    assert partition.lag_seconds(100.0) == 10.0


def test_what_was_delivered_counts_though_the_end_is_older() -> None:
    """Records that came after the last measurement of the end are lag until they are committed."""
    partition = a_partition(5, 5)
    partition.watermark.position = 8
    assert (partition.lag_records, partition.position_lag_records) == (3, 0)


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 40)), min_size=1))
def test_what_is_known_of_an_offset_brackets_it(steps: list[tuple[int, int]]) -> None:
    """The notes around the committed offset are the nearest below and above it, whatever was dropped."""
    ages, committed = Ages(), 0
    noted: list[int] = []
    for offset, ahead in steps:
        if not noted or offset > noted[-1]:
            noted.append(offset)
        ages.note(offset, offset * 1000, 0.0)
        committed = max(committed, min(noted[-1] + 1, committed + ahead))
        ages.forget_below(committed)
        below, above = ages.around(committed)
        assert above == min((each for each in noted if each >= committed), default=None)
        expected = max((each for each in noted if each <= committed), default=None)
        assert below == (above if above == committed else expected)


def test_without_commits_memory_is_bounded() -> None:
    """Without commits the notes become coarser, not longer."""
    ages, now = Ages(), 0.0
    for offset in range(50_000):
        if now >= ages.next_at:
            ages.note(offset, offset, now)
        now += EVERY_SECONDS
    assert len(ages._noted[0]) <= MOST
    below, above = ages.around(25_000)
    assert below is not None
    assert above is not None
    assert above - below < 1.0  # of 50 s


def test_a_partition_that_keeps_up_without_timestamps_is_not_behind() -> None:
    """Without timestamps, lag counts from the measurement that first saw the uncommitted records."""
    partition = a_partition(0, 0)
    for look in range(1200):
        partition.commit((look + 1) * 3000 - 1000)
        partition.lag.ends_at((look + 1) * 3000, partition.known_committed, look * 3.0, look * 3.0)
    seconds = partition.lag_seconds(3600.0)
    assert seconds is not None
    assert seconds < 10


def test_records_seen_earlier_do_not_become_young() -> None:
    """When the records of one measurement are committed, the next are as old as the measurement that showed them."""
    partition = Partition(KEY, 1)
    partition.start(0)
    for second in range(30):  # 10 records a second come, and 4 a second are done
        partition.lag.ends_at(10 * second + 10, partition.known_committed, float(second), float(second))
        partition.watermark.advance(4 * second)
        partition.commit(4 * second)
    assert partition.known_committed == 116
    assert partition.lag_seconds(30.0) == 30.0 - 11.0  # offset 116 was first below the end at second 11


def test_a_record_within_a_chunk_is_as_old_as_its_first() -> None:
    """While a chunk of old records is worked on, its records are not as young as the first measurement."""
    partition = Partition(KEY, 1)
    partition.start(0)
    partition.lag.ends_at(300, 0, 0.0, 1000.0)
    partition.lag.delivered(0, 20, 10_000, 1.0, 1001.0)
    partition.watermark.advance(5)
    partition.commit(5)
    assert partition.lag_seconds(1002.0) == 992.0
    partition.watermark.advance(20)
    partition.commit(20)
    assert partition.lag_seconds(1002.0) == 2.0  # nothing is known of the next chunk but when it was first seen
