"""Sample sessions for the demo, the tests and the benchmarks; the same seed gives the same sessions."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random

import msgspec

from schemas.session import Session
from schemas.wire import camel_case

TYPES = ["voice_sip_v1", "voice_twilio_v1", "web_chat_v1", "sms_chat_v1", "email_v1"]
WEIGHTS = [35, 20, 30, 10, 5]
AGENTS = ["Front desk", "Billing", "After hours"]
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
CAMEL_CASE_RATIO = 0.05
TEST_RATIO = 0.1


def sessions(seed: int = 0) -> Iterator[Session]:
    """Yield sessions without end, numbered from 1, a few seconds apart."""
    random = Random(seed)  # noqa: S311 - sample data
    number = 0
    while True:
        number += 1
        kind = random.choices(TYPES, WEIGHTS)[0]
        voice = kind.startswith("voice_")
        agent = random.randrange(len(AGENTS))
        yield Session(
            timestamp=BEGIN + timedelta(seconds=7 * number),
            session_id=str(number),
            conversation_id=str(number * 2 // 3),
            channel_manager_service=random.choice(["hedy", "console", "twilio"]),
            channel_manager_type=kind,
            channel_manager_sid=f"CA{random.getrandbits(128):032x}" if voice else f"chat-{number}",
            source=f"+1804555{number % 10_000:04d}" if voice else f"user{number % 5_000}@example.com",
            target="+19995551234" if voice else "chat-1-org-3",
            is_legacy=False,
            is_test=True if random.random() < TEST_RATIO else None,
            agent_id=str(agent),
            agent_name=AGENTS[agent],
            duration=round(random.uniform(5, 900), 1) if voice else None,
        )


def encoded(session: Session, *, camel: bool = False) -> bytes:
    """Encode a session as JSON, in snake_case, or in camelCase as producers that serialise the SDK's object do."""
    if not camel:
        return msgspec.json.encode(session)
    return msgspec.json.encode({camel_case(name): value for name, value in msgspec.to_builtins(session).items()})


def keyed_values(seed: int = 0) -> Iterator[tuple[bytes, bytes]]:
    """Yield the key (the session's id) and the value of each session; one in twenty is in camelCase."""
    random = Random(seed)  # noqa: S311 - sample data
    for session in sessions(seed):
        assert session.session_id is not None
        yield session.session_id.encode(), encoded(session, camel=random.random() < CAMEL_CASE_RATIO)
