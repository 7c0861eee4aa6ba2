"""Instructions: the exceptions by which a handler states what to do with its record.

A handler that returns has handled its record. A ConnectionError means the same as ``Pause()``. Any other exception is
an error, which is retried.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


class Instruction(Exception):  # noqa: N818 - these are not errors
    """Base class of the instructions. Their text is never shown, because it may quote the event."""


class Reject(Instruction):
    """Never call the handler with this record again; the record becomes a dead letter at once.

    A batch handler may name records by ``indexes``: those become dead letters, and the handler is called again with the
    rest. Without ``indexes`` the whole batch becomes dead letters.
    """

    indexes: list[int] | None = None  # so that a subclass need not call this constructor

    def __init__(self, text: str = "", *, indexes: Sequence[int] | None = None) -> None:
        super().__init__(text)
        self.indexes = None if indexes is None else list(indexes)


class Retry(Instruction):
    """Call the handler with the same record again after ``after`` seconds. It counts no attempt and has no limit.

    Records that must not overtake this one wait. Without ``after`` the waits grow by the settings in ``[retry]``.
    """

    after: float | None = None

    def __init__(self, text: str = "", *, after: float | None = None) -> None:
        super().__init__(text)
        self.after = _seconds(after)


class Pause(Instruction):
    """Start no call on this partition until the same record is handled: what the handler needs is down.

    The record is called again after ``after`` seconds, or by the waits of ``[retry]`` without ``after``.
    """

    after: float | None = None

    def __init__(self, text: str = "", *, after: float | None = None) -> None:
        super().__init__(text)
        self.after = _seconds(after)


def _seconds(after: float | None) -> float | None:
    if after is not None and not 0 <= after < math.inf:
        raise ValueError(f"after = {after} must be a finite number of seconds, 0 or more")
    return None if after is None else float(after)
