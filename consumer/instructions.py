"""What a handler may raise to say what is to be done with its record; anything else it raises is an error.

A ConnectionError says the same as ``Pause()``: what the handler needs is down. Returning means handled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


class Instruction(Exception):  # noqa: N818 - these are not errors
    """Base of the three; what their text says is never shown, as it may quote the event."""


class Reject(Instruction):
    """Never again: the record becomes a dead letter, now.

    A handler of batches may say which of them by ``indexes``: those become dead letters, and it is called again with
    the rest. Without indexes the whole batch does.
    """

    indexes: list[int] | None = None  # also of a subclass that leaves out this constructor

    def __init__(self, text: str = "", *, indexes: Sequence[int] | None = None) -> None:
        super().__init__(text)
        self.indexes = None if indexes is None else list(indexes)


class Retry(Instruction):
    """Later: the same record again after so many seconds, as often as the handler says so; it counts no attempt.

    Its lane waits: what must not overtake it does not. Without ``after`` the waits grow as the settings say.
    """

    after: float | None = None

    def __init__(self, text: str = "", *, after: float | None = None) -> None:
        super().__init__(text)
        self.after = _seconds(after)


class Pause(Instruction):
    """What I need is down: nothing is started on this partition until the same record, called again, gets through."""

    after: float | None = None

    def __init__(self, text: str = "", *, after: float | None = None) -> None:
        super().__init__(text)
        self.after = _seconds(after)


def _seconds(after: float | None) -> float | None:
    if after is not None and not 0 <= after < math.inf:
        raise ValueError(f"after = {after} must be a number of seconds from 0")
    return None if after is None else float(after)
