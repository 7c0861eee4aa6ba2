"""Every error of a produce request is one that a repeat may cure, or one that it does not."""

from __future__ import annotations

import pytest
from aiokafka import errors

from consumer.kafka.broker_errors import OF_THE_RECORD, REFUSALS, RETRIABLE, guilt_of, refusal_of

PRODUCE = [
    *(-1, 2, 3, 5, 6, 7, 8, 9, 10, 13, 14, 15, 16, 17, 18, 19, 20, 21, 29, 31, 32, 35, 41, 42, 43, 44, 45, 46, 47, 48),
    *(49, 51, 52, 53, 56, 59, 74, 75, 76, 87, 89, 90, 100, 120),
]
"""Codes that brokers up to Kafka 4.3 give a produce request, also an idempotent or a transactional one."""


def test_every_code_is_in_one_class() -> None:
    assert sorted([*REFUSALS, *RETRIABLE]) == sorted(PRODUCE)
    assert not REFUSALS.keys() & RETRIABLE


@pytest.mark.parametrize("code", PRODUCE)
def test_refusals_are_told_from_what_may_pass(code: int) -> None:
    """An error says which it is, also where aiokafka wraps it; none loses its number."""
    error = errors.for_code(code)()
    wrapped = errors.KafkaError("wrapped")
    wrapped.__cause__ = error
    assert bool(refusal_of(error)) == bool(refusal_of(wrapped)) == (code in REFUSALS)
    unnumbered = {8, 9, 13, 41, 52} & {code}  # a repeat cures these whatever their class
    assert unnumbered or error.errno == code


@pytest.mark.parametrize("code", sorted(REFUSALS))
def test_aiokafka_gives_refusals_up(code: int) -> None:
    """aiokafka does not repeat a write that is refused: the letter box hears of it."""
    assert not errors.for_code(code).retriable


def test_an_unknown_code_is_no_refusal() -> None:
    """A code of a later Kafka holds the partition, which ends by itself when it can."""
    assert errors.for_code(9999) is errors.UnknownError
    assert refusal_of(errors.UnknownError()) is None


@pytest.mark.parametrize("code", PRODUCE)
def test_a_record_is_guilty_of_few_errors(code: int) -> None:
    assert guilt_of(errors.for_code(code)()) == OF_THE_RECORD.get(code)
    assert code in REFUSALS or code not in OF_THE_RECORD


@pytest.mark.parametrize("number", sorted(OF_THE_RECORD))
def test_an_error_of_the_network_is_no_fault_of_a_record(number: int) -> None:
    """The numbers of operating systems are others: 32 is a broken pipe."""
    assert guilt_of(OSError(number, "")) is None
