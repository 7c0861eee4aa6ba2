"""Descriptions of exceptions: what is kept of them, and what is not."""

from __future__ import annotations

import pytest

from consumer.errors import HandlerFailedError, SinkError, place_of

CALLER = "+4915112345678"


def raised(error: Exception, *causes: Exception) -> Exception:
    """Return an exception that was raised, with a chain of causes."""
    above = error
    for cause in causes:
        above.__cause__ = cause
        above = cause
    with pytest.raises(type(error)):
        raise error
    return error


def test_a_class_and_its_place() -> None:
    """An exception is described by its class and the line that raised it, without its text."""
    described = place_of(raised(ValueError(CALLER)))
    assert described.startswith("ValueError (")
    assert "test_errors.py:" in described
    assert CALLER not in described


def test_causes_are_named_by_class() -> None:
    """The classes of an exception's causes follow, outermost first, without their text."""
    failed = HandlerFailedError("voice", raised(RuntimeError(CALLER), KeyError(CALLER), OSError(CALLER)))
    assert str(failed).startswith("the handler of route 'voice' raised RuntimeError (")
    assert str(failed).endswith("), caused by KeyError, caused by OSError")
    assert CALLER not in str(failed)


def test_a_chain_of_causes_is_bounded() -> None:
    """Only the first three causes are named, also when the chain is a ring."""
    long = raised(RuntimeError(), KeyError(), OSError(), ValueError(), LookupError())
    assert place_of(long).endswith("), caused by KeyError, caused by OSError, caused by ValueError")
    ring = KeyError()
    ring.__cause__ = RuntimeError()
    ring.__cause__.__cause__ = ring
    assert place_of(ring) == "KeyError, caused by RuntimeError, caused by KeyError, caused by RuntimeError"


def test_what_was_being_handled_is_no_cause() -> None:
    """An exception that was raised while another was handled, without ``from``, has no cause."""

    def fail() -> None:
        try:
            raise KeyError
        except KeyError:
            raise RuntimeError  # noqa: B904 - without `from` on purpose

    with pytest.raises(RuntimeError) as found:
        fail()
    assert place_of(found.value).endswith(")")


def test_errors_of_ours_keep_their_message() -> None:
    """Messages of this software hold no payload, so they are kept."""
    assert place_of(raised(SinkError("calls.jsonl is full"), OSError())) == "SinkError: calls.jsonl is full"
