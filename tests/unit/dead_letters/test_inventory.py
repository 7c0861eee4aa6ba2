"""Which dead letters exist and which were redriven, read from the letters and from redrives' commits."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.dead_letters.cause import Cause
from consumer.dead_letters.filter import Filter, sha256
from consumer.dead_letters.headers import write_context
from consumer.dead_letters.inventory import Inventory, Passed, read_passed
from consumer.record import Position, TopicPartition

DLQ = TopicPartition("t.dlq", 0)
OTHER = TopicPartition("t.dlq", 1)
ALL = Filter()


class Raw(NamedTuple):
    """One record of a dead-letter topic."""

    offset: int
    headers: Any
    key: bytes | None = b"key"
    timestamp: int = 1000
    value: bytes | None = b"value"


def a_letter(
    place: int,
    record: int,
    *,
    route: str = "a",
    reason: str = "exhausted",
    redrives: int = 0,
    topic: str = "t",
    group: str = "g",
    code: str = "",
    **fields: Any,
) -> Raw:
    """Make a letter at offset ``place`` of the record at offset ``record``."""
    cause = Cause(reason, route, 5, "builtins.ValueError", "", code)
    return Raw(place, write_context("connect", Position(topic, 0, record), 1000, group, cause, redrives), **fields)


def a_survey(*letters: Raw | tuple[TopicPartition, Raw], chosen: Filter = ALL, passed: Any = ()) -> Inventory:
    inventory = Inventory(chosen, ["t"], "g", passed)
    for each in letters:
        key, raw = (DLQ, each) if isinstance(each, Raw) else each
        inventory.add(key, raw)
    return inventory


def to_run(inventory: Inventory) -> list[int]:
    return [place.offset for place in inventory.to_run]


def test_a_record_has_a_letter_for_each_route() -> None:
    """A record that two routes gave up has two letters, each with its own redrive."""
    inventory = a_survey(a_letter(0, 7), a_letter(1, 7, route="b"))
    assert inventory.to_run == {Position(*DLQ, 0): "a", Position(*DLQ, 1): "b"}


def test_doubles_count_once() -> None:
    """A letter that was written twice around a kill is run once, wherever the second copy went."""
    inventory = a_survey(a_letter(0, 7), a_letter(1, 7), (OTHER, a_letter(5, 7)))
    assert (inventory.letters, to_run(inventory)) == (3, [0])


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0)])
def test_the_newest_letter_counts(order: tuple[int, ...]) -> None:
    """The letter with the most redrives stands for its record, in whatever order partitions are read."""
    letters = [(TopicPartition("t.dlq", n), a_letter(9 - n, 7, redrives=n)) for n in range(3)]
    inventory = a_survey(*(letters[n] for n in order))
    assert list(inventory.to_run) == [Position("t.dlq", 2, 7)]


def test_records_that_are_not_letters() -> None:
    """Records without an origin and letters of other topics are counted and never run."""
    inventory = a_survey(Raw(0, ()), a_letter(1, 7, topic="elsewhere"), a_letter(2, 7))
    assert (inventory.foreign, inventory.elsewhere, inventory.letters, to_run(inventory)) == (1, 1, 1, [2])


def test_a_redrive_has_run_what_it_committed() -> None:
    """A group that committed 2 has run the letters at 0 and 1, of that partition only."""
    passed = [Passed(ALL, {DLQ: 2})]
    inventory = a_survey(*(a_letter(n, n) for n in range(4)), (OTHER, a_letter(0, 9)), passed=passed)
    assert list(inventory.to_run) == [Position(*DLQ, 2), Position(*DLQ, 3), Position(*OTHER, 0)]


def test_a_redrive_counts_for_its_filter_only() -> None:
    """A letter that a group's filter excludes was not redriven by it, however far that group came."""
    passed = [Passed(Filter(routes=["b"]), {DLQ: 100})]
    inventory = a_survey(a_letter(0, 1), a_letter(1, 2, route="b"), passed=passed)
    assert to_run(inventory) == [0]


def test_letters_of_other_groups_are_not_ours() -> None:
    """Another group's letter of the same record and route is counted apart, and stands for no letter of ours."""
    inventory = a_survey(
        a_letter(0, 7), a_letter(1, 7, group="other", redrives=1), (OTHER, a_letter(5, 8, group="other"))
    )
    assert (inventory.letters, inventory.of_other_groups, to_run(inventory)) == (1, 2, [0])


def test_a_letter_without_a_group_is_ours() -> None:
    """Letters of other software and of earlier versions name no group."""
    letter = a_letter(0, 7)
    nameless = letter._replace(headers=[each for each in letter.headers if each[0] != "session-consumer.group"])
    assert to_run(a_survey(nameless)) == [0]
    assert to_run(a_survey(nameless, a_letter(1, 7))) == [0]


def test_letters_are_counted_by_code() -> None:
    """Rejects with different codes are different rows."""
    letters = [a_letter(n, n, reason="rejected", code=code) for n, code in enumerate(("no_agent", "", "no_agent"))]
    assert a_survey(*letters).table() == [("t", "a", "rejected", "", 1, 0), ("t", "a", "rejected", "no_agent", 2, 0)]


def test_home_by_any_of_the_groups() -> None:
    """It is enough that one of them passed it, whatever the filters asked for now are."""
    passed = [Passed(Filter(routes=["b"]), {DLQ: 100}), Passed(Filter(reasons=["exhausted"]), {DLQ: 1})]
    inventory = a_survey(a_letter(0, 1), a_letter(1, 2, route="b"), a_letter(2, 3), passed=passed)
    assert to_run(inventory) == [2]
    assert inventory.table() == [("t", "a", "exhausted", "", 1, 1), ("t", "b", "exhausted", "", 0, 1)]


@pytest.mark.parametrize("reverse", [False, True])
def test_a_double_of_a_letter_that_was_redriven(reverse: bool) -> None:
    """If one copy of a letter was redriven the other counts as redriven, in whatever order they are read."""
    letters = [a_letter(0, 7), a_letter(9, 7)]
    inventory = a_survey(*(reversed(letters) if reverse else letters), passed=[Passed(ALL, {DLQ: 5})])
    assert to_run(inventory) == []


def test_a_letter_that_failed_again_is_left() -> None:
    """If a redrive failed, its new letter stands for the record and is left to be run."""
    inventory = a_survey(a_letter(0, 7), a_letter(9, 7, redrives=1), passed=[Passed(ALL, {DLQ: 5})])
    assert to_run(inventory) == [9]
    assert inventory.table() == [("t", "a", "exhausted", "", 1, 0)]


def test_an_older_double_does_not_bring_it_back() -> None:
    """A copy of the first letter, written after the letter that failed again, does not count."""
    passed = [Passed(ALL, {DLQ: 3})]
    inventory = a_survey(a_letter(0, 7), a_letter(2, 7, redrives=1), a_letter(8, 7), passed=passed)
    assert to_run(inventory) == []


def test_a_cap() -> None:
    """Letters that reached the cap are not run, and are counted unless redriven; a higher cap runs them."""
    letters = [a_letter(n, n, redrives=n) for n in range(8)]
    inventory = a_survey(*letters)
    assert (to_run(inventory), inventory.capped) == ([0, 1, 2, 3, 4], 3)
    higher = a_survey(*letters, chosen=Filter(max_redrives=7), passed=[Passed(ALL, {DLQ: 100})])
    assert (to_run(higher), higher.capped) == ([5, 6], 1)
    assert a_survey(*letters, passed=[Passed(Filter(max_redrives=7), {DLQ: 100})]).capped == 1


@pytest.mark.parametrize(
    ("chosen", "meant"),
    [
        (Filter(), [0, 1, 2]),
        (Filter(reasons=["rejected"]), [1]),
        (Filter(reasons=["rejected", "exhausted"], routes=["a"]), [0]),
        (Filter(routes=["b", "none"]), [1, 2]),
        (Filter(since_ms=1000), [1, 2]),
        (Filter(until_ms=1000), [0]),
        (Filter(since_ms=999, until_ms=1001), [0, 1]),
        (Filter(key_sha256=sha256(b"")), [2]),
        (Filter(key_sha256=sha256(b"k")), [0]),
        (Filter(routes=["c"]), []),
    ],
)
def test_what_a_filter_means(chosen: Filter, meant: list[int]) -> None:
    """Every part of a filter must hold; ``since`` and ``until`` are times; an empty key is a key."""
    letters = (
        a_letter(0, 0, key=b"k", timestamp=999),
        a_letter(1, 1, key=None, timestamp=1000, route="b", reason="rejected"),
        a_letter(2, 2, key=b"", timestamp=1001, route="none", reason="undecodable"),
    )
    inventory = a_survey(*letters, chosen=chosen)
    assert to_run(inventory) == meant
    assert sum(left for *_, left, _ in inventory.table()) == len(meant)


filters = st.builds(
    Filter,
    reasons=st.lists(st.sampled_from(["exhausted", "rejected"]), unique=True).map(sorted),
    routes=st.lists(st.text(max_size=5), max_size=3, unique=True).map(sorted),
    since_ms=st.none() | st.integers(0, 2**53),
    until_ms=st.none() | st.integers(0, 2**53),
    key_sha256=st.none() | st.binary().map(sha256),
    max_redrives=st.integers(1, 10),
)


@given(first=filters, second=filters)
def test_a_filter_is_kept_with_the_offsets(first: Filter, second: Filter) -> None:
    """A filter is read back from its group as it was written; each filter has its own group."""
    offsets = {DLQ: (5, first.as_text())}
    assert read_passed("g", first.group("g"), offsets) == Passed(first, {DLQ: 5})
    assert read_passed("another", first.group("g"), offsets) is None
    assert (first.group("g") == second.group("g")) == (first == second)


@pytest.mark.parametrize("metadata", ["", "{}x", "[]", '{"max_redrives":"x"}', "none"])
def test_offsets_of_others(metadata: str) -> None:
    """A group whose name only begins like a redrive's says nothing about letters."""
    assert read_passed("g", "g.redrive", {DLQ: (5, metadata)}) is None
    assert read_passed("g", "g.redrive-mine", {DLQ: (5, ALL.as_text())}) is None
    assert read_passed("g", "g.redrive", {}) is None


def test_the_plain_group_has_a_plain_name() -> None:
    """The group of a redrive without filters has a name that can be typed."""
    assert ALL.group("g") == "g.redrive"
    assert Filter(routes=["a"]).group("g").startswith("g.redrive.")


def test_no_key_is_stored() -> None:
    """A key may be a phone number, so only its digest is stored with the offsets."""
    assert "+4930123456" not in Filter(key_sha256=sha256(b"+4930123456")).as_text()


@given(
    letters=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=25),
    commit=st.integers(0, 25),
)
def test_every_record_is_run_once_or_was_redriven(letters: list[tuple[int, int]], commit: int) -> None:
    """Of a record's letters one of the newest kind is run, or its newest kind was redriven."""
    made = [a_letter(place, record, redrives=redrives) for place, (record, redrives) in enumerate(letters)]
    inventory = a_survey(*made, passed=[Passed(ALL, {DLQ: commit})])
    for record in {record for record, _ in letters}:
        newest = max(redrives for each, redrives in letters if each == record)
        places = [place for place, each in enumerate(letters) if each == (record, newest)]
        run = [place for place in places if Position(*DLQ, place) in inventory.to_run]
        assert run == ([] if places[0] < commit else [places[0]])
    assert len(inventory.to_run) == len([each for each in inventory.found if not each.redriven])
