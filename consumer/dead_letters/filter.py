"""The filter of ``dlq`` commands: which dead letters they concern."""

from __future__ import annotations

import hashlib

import msgspec

from consumer.dead_letters.headers import Context
from consumer.record import RawRecord

MAX_REDRIVES = 5
NO_CAP = 2**31


class Filter(msgspec.Struct, frozen=True, omit_defaults=True):
    """Conditions that a letter must meet; empty lists and None are no condition."""

    reasons: list[str] = []
    routes: list[str] = []
    since_ms: int | None = None
    """Lowest timestamp of the record, in milliseconds since 1970."""
    until_ms: int | None = None
    """Timestamp that the record's must be below."""
    key_sha256: str | None = None
    """Digest of the record's key: a key may be personal data, and a filter is stored with offsets."""
    max_redrives: int = MAX_REDRIVES
    """Letters that failed again after this number of redrives are not redriven."""

    def lets_in(self, context: Context, raw: RawRecord) -> bool:
        """Whether a letter meets all conditions."""
        return (
            context.redrives < self.max_redrives
            and (not self.reasons or context.reason in self.reasons)
            and (not self.routes or context.route in self.routes)
            and (self.since_ms is None or raw.timestamp >= self.since_ms)
            and (self.until_ms is None or raw.timestamp < self.until_ms)
            and (self.key_sha256 is None or (raw.key is not None and sha256(raw.key) == self.key_sha256))
        )

    def as_text(self) -> str:
        """Return the filter as text for a commit's metadata."""
        return msgspec.json.encode(self).decode()

    def group(self, group_id: str) -> str:
        """Return the name of the consumer group that redrives with this filter."""
        name = f"{group_id}.redrive"
        return name if self == Filter() else f"{name}.{sha256(self.as_text().encode())[:8]}"


def sha256(text: bytes) -> str:
    """Return the digest in hexadecimal."""
    return hashlib.sha256(text).hexdigest()
