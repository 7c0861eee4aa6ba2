"""Values of a field are counted in bounded memory, and shown as text that is safe anywhere."""

from __future__ import annotations

import enum
import itertools
import random
import tracemalloc
from typing import Any

import msgspec
import pytest

from consumer.handlers.top_values import ABSENT, MOST, TopValues, key_of, text_of


class Colour(enum.Enum):
    RED = "red"


class Point(msgspec.Struct):
    x: int


def shown(value: Any) -> str:
    return text_of(key_of(value))


def test_a_million_values_stay_bounded() -> None:
    """Values that many events have are found among a million others, and memory does not grow."""
    top, numbers = TopValues("f"), random.Random(7)
    tracemalloc.start()
    try:
        for number in range(1_000_000):
            top.add("often" if number % 50 == 0 else f"{numbers.random():.16f}" * 10)
            if number % 100_000 == 0:
                assert len(top.found) <= MOST
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 4_000_000
    (first, *_), _ = top.top(3)
    assert (first.value, first.events) == ("often", 20_000)
    assert top.counts(3, [], 7).exact is False


def test_numbers_are_exact_below_the_bound() -> None:
    top = TopValues("f")
    for number in range(MOST):
        for _ in range(1 + number % 3):
            top.add(f"{number}")
    found, events = top.top(2)
    assert [each.events for each in found] == [3, 3]
    assert (events, sum(top.found.values())) == (6, sum(1 + each % 3 for each in range(MOST)))
    assert top.counts(2, found, 5).exact


def test_a_number_is_never_too_large() -> None:
    """A value that was dropped begins again at 0: its number is at most the true one."""
    top = TopValues("f")
    top.add("seldom")
    for number in range(MOST):
        for _ in range(2):
            top.add(f"{number}")
    assert "seldom" not in top.found
    top.add("seldom")
    assert top.found["seldom"] == 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("web", "web"),
        (None, "(null)"),
        (ABSENT, "(absent)"),
        ("", "(empty)"),
        (True, "true"),
        (False, "false"),
        (1, "1"),
        (0, "0"),
        (1.5, "1.5"),
        (Colour.RED, "red"),
        ([1, {"a": 2}], '[1,{"a":2}]'),
        (Point(3), '{"x":3}'),
        (2**70, f"{2**70}"),
        (object(), "(object)"),
        ("a\x1b[31mb\nc\u202e", "a[31mbc"),
        ("\x00\x01", "(unprintable)"),
        ("x" * 1000, "x" * 99 + "…"),
        ("<b>&", "<b>&"),
    ],
)
def test_any_value_has_a_text(value: Any, text: str) -> None:
    assert shown(value) == text


def test_a_number_that_python_does_not_print() -> None:
    assert shown(2**20_000) == "(int)"


def test_keys_are_small() -> None:
    for value in ("x" * 10_000, [0] * 10_000, b"x" * 10_000, {"a": "b" * 10_000}):
        assert len(str(key_of(value))) <= 100


def test_numbers_and_booleans_of_one_field_are_few() -> None:
    top = TopValues("f")
    for value in itertools.chain([2] * 3, ["2"] * 2, [None]):
        top.add(value)
    assert [(each.value, each.events) for each in top.top(9)[0]] == [("2", 3), ("2", 2), ("(null)", 1)]
