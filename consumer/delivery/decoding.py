"""From a record's value to an event, or to a DecodeError whose message holds nothing of the value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from consumer.errors import DecodeError


class Decoder:
    """Decodes values of one event type; owned by the engine.

    ``first`` is msgspec's own decoder, for loops that look at the size and catch what it raises themselves; ``reread``
    is for what it refused. ``decode`` is both in one, for everybody else.

    msgspec raises RecursionError on deep nesting and UnicodeDecodeError on bad UTF-8, neither of which is its own
    DecodeError; a document of 10 MB blocks the event loop for tens of milliseconds, hence the size first.
    """

    def __init__(self, first: Callable[[bytes], Any], second: Callable[[bytes], Any], max_record_bytes: int) -> None:
        self.first = first
        self.max_record_bytes = max_record_bytes
        self._second = second

    def reread(self, value: bytes) -> Any:
        """Read a value that ``first`` refused, or say why it is no event: its size, the kind of error, the field."""
        size = len(value)
        if size > self.max_record_bytes:
            limit = f"delivery.max_record_bytes = {self.max_record_bytes}"
            raise DecodeError("too_large", f"its value of {size} bytes is over {limit}")
        try:
            return self._second(value)
        except Exception as error:
            # `from None`: the cause quotes the value, and a chained exception may end in a log.
            raise DecodeError(
                "undecodable", f"its value of {size} bytes is not an event ({type(error).__name__}{_field_of(error)})"
            ) from None

    def decode(self, value: bytes) -> Any:
        """Read a value; raises DecodeError."""
        if len(value) <= self.max_record_bytes:
            try:
                return self.first(value)
            except Exception:  # noqa: S110 - the second reading says what is wrong, if anything is
                pass
        return self.reread(value)


def _field_of(error: Exception) -> str:
    """Return the field that msgspec names, if it is a plain name: a key of the value would be part of it."""
    if not isinstance(error, msgspec.ValidationError):
        return ""
    _, _, place = str(error).partition(" - at `$.")
    name = place.rstrip("`")
    return f" at {name}" if name.isidentifier() else ""
