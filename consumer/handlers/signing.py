"""Signatures of requests as Standard Webhooks defines them (https://www.standardwebhooks.com). Pure: no clock."""

from __future__ import annotations

import base64
import binascii
import hmac

PREFIX = "whsec_"
"""What a secret begins with that is base64."""


def key_of(secret: str) -> bytes:
    """Return the key of a secret: base64 behind ``whsec_``, or plain text. Raises ValueError without its text."""
    if not secret.startswith(PREFIX):
        key = secret.encode()
    else:
        try:
            key = base64.b64decode(secret.removeprefix(PREFIX), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("is not base64 after whsec_") from None
    if not key:
        raise ValueError("is empty")
    return key


def signed_headers(key: bytes | None, name: str, seconds: int, body: bytes) -> dict[str, str]:
    """Return the headers with the id of a request, its time in seconds since 1970, and its signature if there is a key.

    The signature is that of ``id.timestamp.body``.
    """
    headers = {"webhook-id": name, "webhook-timestamp": str(seconds)}
    if key is not None:
        digest = hmac.digest(key, f"{name}.{seconds}.".encode() + body, "sha256")
        headers["webhook-signature"] = f"v1,{base64.b64encode(digest).decode()}"
    return headers
