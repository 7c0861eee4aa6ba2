"""What the status of an answer means for the records of its request. Pure: the time is an argument."""

from __future__ import annotations

from datetime import UTC
from email.utils import parsedate_to_datetime

from consumer.errors import ConsumerError, SinkError
from consumer.instructions import Reject, Retry

MAX_WAIT_SECONDS = 3600.0
"""Longest wait that a server may ask for; a longer one is cut to this."""
PASSING = (408, 425)
"""Statuses of 4xx that pass by themselves: too slow, too early."""
WAITING = (429, 503)
"""Statuses with which a server asks for a wait."""


class DeliveryError(ConsumerError):
    """A request failed, and may succeed later. The route's ``retry`` decides about its records.

    The message names the option and the status, never an event, the URL or text of the answer.
    """


class BatchRefusedError(ConsumerError):
    """A batch of several records was refused; which of them is guilty shows when they are sent singly."""


def failure_of(status: int, retry_after: str, now: float, *, alone: bool) -> Exception | None:
    """Return what to raise for a status; None if the request was accepted.

    ``retry_after`` is the header of that name, ``now`` the time in seconds since 1970. Only a record that was sent
    ``alone`` is rejected: which record of a batch is guilty shows when they are sent singly.
    """
    if 200 <= status < 300:
        return None
    wait = wait_of(retry_after, now) if status in WAITING else None
    if status == 429 or wait is not None:
        return Retry(after=wait)
    if 300 <= status < 400:
        return SinkError(
            f"options.url answers with a redirect, status {status}, which is not followed; correct options.url"
        )
    if 400 <= status < 500 and status not in PASSING:
        if alone:
            return Reject(code=f"http_{status}")
        return BatchRefusedError(f"options.url refused a batch with status {status}; its records are sent singly")
    return DeliveryError(f"options.url answered with status {status}")


def wait_of(retry_after: str, now: float) -> float | None:
    """Return the seconds that a ``Retry-After`` asks for, as seconds or as an HTTP date; None if it is neither."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(min(int(text[:10]), MAX_WAIT_SECONDS))
    try:
        date = parsedate_to_datetime(text)
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - now
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(seconds, 0.0), MAX_WAIT_SECONDS)
