"""Instructions: the exceptions by which a handler states what to do with its record.

A handler that returns has handled its record. A ConnectionError means the same as ``Pause()``, and so does a group that
holds only such. Any other exception is an error, which is retried.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

CODE = re.compile(r"[a-z0-9_]{1,64}")
"""Form of a Reject's code."""


class Instruction(Exception):  # noqa: N818 - these are not errors
    """Base class of the instructions. Their text is never shown, because it may quote the event."""


class Reject(Instruction):
    """Never call the handler with this record again; the record becomes a dead letter at once.

    ``code`` states the reason as a short identifier, ``[a-z0-9_]{1,64}``, written in the program and never made of the
    event. It is kept in the log and in the letter. The text may quote the event, so it is kept nowhere.

    A batch handler may name records by ``indexes``: those become dead letters, and the handler is called again with the
    rest. Without ``indexes`` the whole batch becomes dead letters.
    """

    # Set here too, so that a subclass need not call this constructor.
    indexes: list[int] | None = None
    code: str | None = None

    def __init__(self, text: str = "", *, indexes: Sequence[int] | None = None, code: str | None = None) -> None:
        if code is not None and not is_code(code):
            raise ValueError("code must be 1 to 64 lowercase letters, digits or underscores, and no text of an event")
        super().__init__(text)
        self.code = code
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


def is_code(code: object) -> bool:
    """Whether something may be a Reject's code."""
    return isinstance(code, str) and CODE.fullmatch(code) is not None


def code_of(error: BaseException) -> str:
    """Return the code of a Reject; empty for one without, for one of another form, and for any other exception."""
    return error.code if isinstance(error, Reject) and error.code is not None and is_code(error.code) else ""


def _seconds(after: float | None) -> float | None:
    if after is not None and not 0 <= after < math.inf:
        raise ValueError(f"after = {after} must be a finite number of seconds, 0 or more")
    return None if after is None else float(after)
