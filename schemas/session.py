"""The session event: one conversation of a person with a voice or chat agent, as the platform publishes it.

Source: the ``Session`` component of the platform's public SDK. The first ten fields are its oldest public shape;
later versions only ever added optional fields.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec

AwareDatetime = Annotated[datetime, msgspec.Meta(tz=True)]


class Session(msgspec.Struct, frozen=True, omit_defaults=True, gc=False, forbid_unknown_fields=True):
    """One session as it was known when the record was written; the same session is sent again as it fills up.

    Missing and null mean the same for every field but ``timestamp``: unknown so far. Types are strict. ``source`` and
    ``target`` are personal data.

    Read it with ``schemas.wire.session_reader()``. The Struct by itself refuses fields that it does not know: that is
    how a camelCase record is noticed at no cost to the others; the reader then ignores what is really unknown.
    """

    timestamp: AwareDatetime
    """When the session began; always with an offset."""
    session_id: str | None = None
    """Internal id: a number in a string."""
    conversation_id: str | None = None
    """One conversation has one or more sessions."""
    channel_manager_service: str | None = None
    """The service that carried it: ``hedy``, ``console``, ``twilio``, … (open text)."""
    channel_manager_type: str | None = None
    """``<mode>[_<carrier>]_v<N>``: ``voice_sip_v1``, ``web_chat_v1``, … (open text)."""
    channel_manager_sid: str | None = None
    """The carrier's id."""
    source: str | None = None
    """The caller: phone number, e-mail address or user name. Personal data."""
    target: str | None = None
    """The number or name that was reached. Personal data."""
    is_legacy: bool | None = None
    is_test: bool | None = None
    agent_id: str | None = None
    agent_name: str | None = None
    agent_type: str | None = None
    agent_timezone: str | None = None
    prompt_id: str | None = None
    prompt_name: str | None = None
    prompt_version: str | None = None
    prompt_version_number: int | None = None
    duration: float | None = None
    """Seconds; null for chats."""
    session_label_id: str | None = None
    is_outbound: bool | None = None
    user_terminated: bool | None = None
    transfer_voicemail_detected: bool | None = None
    override_timestamp: str | None = None
    """Naive by design, hence text."""
    experiment_id: str | None = None
    experiment_variant_id: str | None = None
    experiment_variant: str | None = None
    experiment_variant_is_control: bool | None = None
