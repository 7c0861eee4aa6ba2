"""Decoding of a record's value into an event; errors contain nothing of the value."""

from __future__ import annotations

from typing import Any

import msgspec

from consumer.errors import DecodeError, counted
from schemas.formats import FormatError, Reader


class Decoder:
    """Decodes values of one event type; owned by the engine.

    ``reader.first`` is for hot loops: they check the size and catch its exceptions themselves. ``reread`` decodes what
    it refused. ``decode`` does both, for all other callers.

    Deep nesting makes msgspec raise RecursionError and bad UTF-8 UnicodeDecodeError; neither is msgspec's DecodeError.
    A document of 10 MB blocks the event loop for tens of milliseconds, so the size is checked first.
    """

    def __init__(self, reader: Reader, max_record_bytes: int) -> None:
        self.reader = reader
        self.max_record_bytes = max_record_bytes

    def reread(self, value: bytes) -> Any:
        """Decode a value that ``reader.first`` refused; raise DecodeError with its size, kind and field."""
        size = len(value)
        if size > self.max_record_bytes:
            limit = f"delivery.max_record_bytes = {self.max_record_bytes}"
            raise DecodeError("too_large", f"its value of {size} bytes is over {limit}")
        try:
            return self.reader.reread(value)
        except Exception as error:
            what = f": {error}" if isinstance(error, FormatError) else f" ({type(error).__name__}{_field_of(error)})"
            # `from None`: the cause quotes the value, and a chained exception may be logged.
            raise DecodeError(
                "undecodable", f"its value of {counted(size, 'byte', '')} is not an event{what}"
            ) from None

    def decode(self, value: bytes) -> Any:
        """Decode a value; raise DecodeError if it is not an event."""
        if len(value) <= self.max_record_bytes:
            try:
                return self.reader.first(value)
            except Exception:  # noqa: S110 - reread() reports what is wrong, if anything is
                pass
        return self.reread(value)


def _field_of(error: Exception) -> str:
    """Return the field that msgspec names, if it is a plain identifier; a path may contain a key of the value."""
    if not isinstance(error, msgspec.ValidationError):
        return ""
    _, _, place = str(error).partition(" - at `$.")
    name = place.rstrip("`")
    return f" at {name}" if name.isidentifier() else ""
