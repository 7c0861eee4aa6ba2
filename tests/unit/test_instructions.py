"""The code of a Reject."""

from __future__ import annotations

from typing import Any

import pytest

from consumer import Reject
from consumer.errors import HandlerFailedError
from consumer.instructions import code_of

CALLER = "+4915112345678"


@pytest.mark.parametrize("code", ["unknown_agent", "a", "7", "_", "x" * 64])
def test_a_code_is_kept(code: str) -> None:
    """An identifier of 1 to 64 lowercase letters, digits and underscores is a code."""
    assert code_of(Reject("text", code=code)) == code


@pytest.mark.parametrize("code", ["", "Unknown", "unknown agent", "a-b", "é", "x" * 65, "a\n", CALLER, 7, b"a", ["a"]])
def test_a_code_of_another_form_is_refused(code: Any) -> None:
    """Any other code is an error of the handler; the error quotes neither code nor text, which may be payload."""
    with pytest.raises(ValueError, match="code must be 1 to 64 lowercase letters") as raised:
        Reject(f"text of {CALLER}", code=code)
    assert CALLER not in str(raised.value)


def test_a_reject_without_a_code() -> None:
    """A Reject without a code, and any other exception, has the code ''."""
    assert [code_of(error) for error in (Reject("text"), ValueError("text"))] == ["", ""]


def test_a_code_that_was_set_otherwise() -> None:
    """A subclass may set its code without the constructor; a code of another form counts as missing."""

    class UnknownAgent(Reject):
        code = "unknown_agent"

        def __init__(self) -> None:
            Exception.__init__(self)

    error = UnknownAgent()
    assert code_of(error) == "unknown_agent"
    error.code = CALLER
    assert code_of(error) == ""


def test_a_failure_is_described_with_its_code() -> None:
    """The message of a failed call names the code and never the text."""
    failed = HandlerFailedError("voice", Reject(f"no agent for {CALLER}", code="unknown_agent"))
    assert str(failed) == "the handler of route 'voice' raised Reject 'unknown_agent'"
