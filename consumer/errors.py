"""What can go wrong, as a small tree: each class is one sentence, its data, and the exit code it ends the process with.

Messages name the thing (setting, file, topic, record) and the way out. Foreign exceptions are translated at the edges.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from consumer.record import RawRecord


class ConsumerError(Exception):
    """Anything this software reports to a person in one line; ``exit_code`` is what the process ends with."""

    exit_code = 1


class SettingsError(ConsumerError):
    """A setting, an option or a handler is wrong; found before any connection is made."""

    exit_code = 2


class KafkaError(ConsumerError):
    """Kafka answered, and the answer means that this cannot work (a missing topic, a refusal)."""


class KafkaUnreachableError(ConsumerError):
    """No broker answered within ``kafka.start_timeout_seconds``."""

    exit_code = 69


class ClientLostError(ConsumerError):
    """This Kafka client cannot go on; another one may. ``reason`` is from a closed set: a metric's label."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class StalledError(ConsumerError):
    """Work waits, nothing moves, and what was tried did not help."""

    exit_code = 70


class StuckCallError(ConsumerError):
    """A handler's call would not end within ``delivery.drain_seconds`` of a stop."""

    exit_code = 70


class PartitionHaltedError(ConsumerError):
    """A partition halted and ``delivery.on_halt`` is ``exit``."""

    exit_code = 74


class LocalKafkaError(ConsumerError):
    """The Kafka that was to run on this machine could not be downloaded or started."""


class DecodeError(ConsumerError):
    """A record's value is not an event.

    ``reason`` is from a closed set (a metric's label): ``undecodable``, ``too_large`` or ``bad_header``. The message
    holds no part of the value: libraries quote what they could not read, and a value may hold personal data.
    ``record`` is what to dead-letter instead of the record as it was delivered, if that cannot be read as it is.
    """

    def __init__(self, reason: str, message: str, record: RawRecord | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.record = record


class HandlerFailedError(Exception):
    """A handler raised; the message names the class and the place, never the text, which may quote the event."""

    def __init__(self, route: str, error: BaseException) -> None:
        super().__init__(f"the handler of route {route!r} raised {place_of(error)}")
        self.route = route
        self.error = error


class CallTimeoutError(TimeoutError):
    """A handler's call was cancelled at the end of its route's ``timeout_seconds``."""


class LetterRefusedError(ConsumerError):
    """A dead letter can never be written as things are: no such topic, not allowed, too large."""


class LetterDelayedError(ConsumerError):
    """A dead letter could not be written this time; Kafka may take it later."""


class SinkError(ConsumerError, OSError):
    """A file or a server that handled events go to cannot take them; the message names it and says nothing of them."""


class CorruptBatchError(ConsumerError):
    """A batch's checksum is wrong or it cannot be unpacked: what is from ``offset`` to ``next_offset`` is unknown."""

    def __init__(self, offset: int, message: str, next_offset: int) -> None:
        super().__init__(message)
        self.offset = offset
        self.next_offset = next_offset


class BatchTooLargeError(CorruptBatchError):
    """A batch is larger than ``kafka.max_batch_bytes`` when it is unpacked."""


def hint(name: str, known: Iterable[str]) -> str:
    """Say which known name was probably meant, or which names there are; the end of an error message."""
    names = list(known)
    near = get_close_matches(name, names, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known here: {', '.join(names)}" if names else ""


def place_of(error: BaseException) -> str:
    """Say an exception's class and the place in the code where it was raised; our own errors say what they are."""
    if isinstance(error, ConsumerError):
        return f"{type(error).__name__}: {error}"
    place = raised_at(error)
    return f"{type(error).__name__}{f' ({place})' if place else ''}"


def raised_at(error: BaseException) -> str:
    """Return ``file:line`` of where an exception was raised; empty when it never was."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else ""
