"""The cause of a dead letter."""

from __future__ import annotations

from typing import NamedTuple

REASONS = ("undecodable", "too_large", "bad_header", "rejected", "exhausted")
NO_ROUTE = "none"


class Cause(NamedTuple):
    """The reason why a record becomes a dead letter; holds nothing of the record."""

    reason: str
    route: str
    """``none`` when the record reached no route."""
    attempts: int
    """Number of calls that counted as attempts; 0 without a call."""
    error_class: str
    message: str
    """Message of this software with class and place, never the exception's text, which may quote the event."""
    code: str = ""
    """Code of the handler's Reject; empty without one."""


def class_name(error: BaseException) -> str:
    """Return the name of an exception's class, with its module."""
    return f"{type(error).__module__}.{type(error).__qualname__}"
