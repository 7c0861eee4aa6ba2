"""From a record's value to an event, or to a DecodeError whose message holds nothing of the value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from consumer.errors import DecodeError


def guarded_decoder(read: Callable[[bytes], Any], max_record_bytes: int) -> Callable[[bytes], Any]:
    """Wrap ``read`` so that whatever it raises becomes a DecodeError, and a value over the limit never reaches it.

    msgspec raises RecursionError on deep nesting and UnicodeDecodeError on bad UTF-8, neither of which is its own
    DecodeError; a document of 10 MB blocks the event loop for tens of milliseconds, hence the size first.
    """

    def decode(value: bytes) -> Any:
        if len(value) > max_record_bytes:
            raise DecodeError(
                "too_large", f"its value of {len(value)} bytes is over delivery.max_record_bytes = {max_record_bytes}"
            )
        try:
            return read(value)
        except Exception as error:
            name = type(error).__name__
            # `from None`: the cause quotes the value, and a chained exception may end in a log.
            raise DecodeError("undecodable", f"its value of {len(value)} bytes is not an event ({name})") from None

    return decode
