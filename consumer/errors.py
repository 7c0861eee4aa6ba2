"""Errors: a small tree of classes, each with its data and the exit code of the process.

A message names the setting, file, topic or record and what to do. Exceptions of libraries are translated where the
library is called.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from consumer.instructions import Pause, code_of
from consumer.record import RawRecord

MAX_CAUSES = 3
"""Maximum number of causes in the description of an exception; a chain may be a ring."""


class ConsumerError(Exception):
    """Base class of errors that are reported in one line; ``exit_code`` is the exit code of the process."""

    exit_code = 1


class SettingsError(ConsumerError):
    """A setting, an option or a handler is wrong. Raised before any connection is made."""

    exit_code = 2


class KafkaError(ConsumerError):
    """Kafka gave an answer that waiting does not change, such as a missing topic or a refusal."""


class KafkaUnreachableError(ConsumerError):
    """No broker answered within ``kafka.start_timeout_seconds``."""

    exit_code = 69


class ClientLostError(ConsumerError):
    """This Kafka client is broken and a new one may work. ``reason`` is from a closed set: it is a metric's label."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class StalledError(ConsumerError):
    """Work waits and nothing moves, and new clients did not help."""

    exit_code = 70


class StuckCallError(ConsumerError):
    """A handler's call did not end within ``delivery.drain_seconds`` of a stop."""

    exit_code = 70


class PartitionHaltedError(ConsumerError):
    """A partition halted and ``delivery.on_halt`` is ``exit``."""

    exit_code = 74


class WorkersEndedError(ConsumerError):
    """Worker processes ended otherwise than by a clean stop; the exit code is that of the first."""

    def __init__(self, exit_code: int, message: str) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class LocalKafkaError(ConsumerError):
    """The local Kafka could not be downloaded or started."""


class DecodeError(ConsumerError):
    """A record's value cannot be decoded into an event.

    ``reason`` is from a closed set (a metric's label): ``undecodable``, ``too_large`` or ``bad_header``. The message
    holds no part of the value: libraries quote what they could not read, and a value may hold personal data.
    ``record`` is the record to dead-letter if the one that was delivered cannot be read.
    """

    def __init__(self, reason: str, message: str, record: RawRecord | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.record = record


class HandlerFailedError(Exception):
    """A handler raised. The message has the class, place and causes of the exception, never its text (payload)."""

    def __init__(self, route: str, error: BaseException) -> None:
        super().__init__(f"the handler of route {route!r} raised {place_of(error)}")
        self.route = route
        self.error = error

    @classmethod
    def of(cls, route: str, error: BaseException) -> HandlerFailedError:
        """Return an exception of a route's call as a HandlerFailedError; one that is stays as it is."""
        return error if isinstance(error, cls) else cls(route, error)


class CallTimeoutError(TimeoutError):
    """A handler's call was cancelled at the end of its route's ``timeout_seconds``."""


class LetterRefusedError(ConsumerError):
    """A dead letter was refused, and would be refused again: no such topic, not allowed, too large."""


class LetterDelayedError(ConsumerError):
    """A dead letter could not be written now. Kafka may accept it later."""


class SinkError(ConsumerError, Pause):
    """A handler's file or server cannot store events now: a ``Pause``, so no record becomes a dead letter.

    The message names the file or server, never an event.
    """


class CorruptBatchError(ConsumerError):
    """A batch is corrupt or cannot be uncompressed: its records, ``offset`` to ``next_offset``, are unknown."""

    def __init__(self, offset: int, message: str, next_offset: int) -> None:
        super().__init__(message)
        self.offset = offset
        self.next_offset = next_offset


class BatchTooLargeError(CorruptBatchError):
    """A batch is larger than ``kafka.max_batch_bytes`` when uncompressed."""


def hint(name: str, known: Iterable[str]) -> str:
    """Return the end of an error message: the nearest known name, or all known names."""
    names = list(known)
    near = get_close_matches(name, names, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; the known names are {', '.join(names)}" if names else ""


def counted(count: int, noun: str, form: str = ",") -> str:
    """Return a number with its noun: ``1 letter``, ``2,000 letters``; ``form`` is the number's format."""
    return f"{count:{form}} {noun}{'' if count == 1 else 's'}"


def place_of(error: BaseException) -> str:
    """Describe an exception without its text: its class, a Reject's code, where it was raised, the classes of causes.

    Our own errors are described with their message.
    """
    if isinstance(error, ConsumerError):
        return f"{type(error).__name__}: {error}"
    code, place = code_of(error), raised_at(error)
    described = f"{type(error).__name__}{f' {code!r}' if code else ''}{f' ({place})' if place else ''}"
    return ", caused by ".join([described, *(type(cause).__name__ for cause in causes_of(error))])


def causes_of(error: BaseException) -> list[BaseException]:
    """Return the cause of an exception (``raise … from``), the cause of that, and so on, at most MAX_CAUSES."""
    causes: list[BaseException] = []
    cause = error.__cause__
    while cause is not None and len(causes) < MAX_CAUSES:
        causes.append(cause)
        cause = cause.__cause__
    return causes


def raised_at(error: BaseException) -> str:
    """Return ``file:line`` where an exception was raised; empty if it was never raised."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
