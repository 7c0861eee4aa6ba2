"""Why a record becomes a dead letter."""

from __future__ import annotations

from typing import NamedTuple

REASONS = ("undecodable", "too_large", "bad_header", "rejected", "exhausted")
NO_ROUTE = "none"


class Cause(NamedTuple):
    """Why a record becomes a dead letter; holds nothing of the record."""

    reason: str
    route: str
    """``none`` when it came to no route."""
    attempts: int
    """Calls that counted; 0 when it came to no call."""
    error_class: str
    message: str
    """Our own sentence: class and place in the code, never the exception's text, which may quote the event."""


def class_name(error: BaseException) -> str:
    """Name an exception's class with its module."""
    return f"{type(error).__module__}.{type(error).__qualname__}"
