"""The session event: one conversation of a person with a voice or chat agent, as the platform publishes it.

Source: the ``Session`` component of the platform's public SDK. The first ten fields are its oldest public shape;
later versions only ever added optional fields.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar

import msgspec

AwareDatetime = Annotated[datetime, msgspec.Meta(tz=True)]


class Session(msgspec.Struct, frozen=True, omit_defaults=True, gc=False, forbid_unknown_fields=True):
    """One session, with the facts known when the record was written; it is sent again when more are known.

    Missing and null mean the same for every field but ``timestamp``: not known yet. Types are strict. ``source`` and
    ``target`` are personal data.

    Decode it with ``schemas.wire.session_reader()``. The Struct refuses unknown fields, which detects a camelCase
    record at no cost to the others; the reader then ignores fields that are unknown in either spelling.
    """

    both_spellings: ClassVar[bool] = True
    """Whether the camelCase names of the fields are accepted too (``schemas.wire``)."""

    timestamp: AwareDatetime
    """Start of the session, always with a UTC offset."""
    session_id: str | None = None
    """Internal id, a number as text."""
    conversation_id: str | None = None
    """Id of the conversation, which has one or more sessions."""
    channel_manager_service: str | None = None
    """Service that carried the session: ``hedy``, ``console``, ``twilio``, … (open text)."""
    channel_manager_type: str | None = None
    """Type as ``<mode>[_<carrier>]_v<N>``: ``voice_sip_v1``, ``web_chat_v1``, … (open text)."""
    channel_manager_sid: str | None = None
    """Id of the carrier."""
    source: str | None = None
    """Phone number, e-mail address or user name of the caller. Personal data."""
    target: str | None = None
    """Number or name that was called. Personal data."""
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
    """Duration in seconds; null for chats."""
    session_label_id: str | None = None
    is_outbound: bool | None = None
    user_terminated: bool | None = None
    transfer_voicemail_detected: bool | None = None
    override_timestamp: str | None = None
    """Time without a UTC offset, by design, and therefore text."""
    experiment_id: str | None = None
    experiment_variant_id: str | None = None
    experiment_variant: str | None = None
    experiment_variant_is_control: bool | None = None
