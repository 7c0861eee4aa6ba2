"""Sample events: valid ones, and ones that must be refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SAMPLES = Path(__file__).parent.parent.parent / "samples"
VALID = [line for line in (SAMPLES / "valid.jsonl").read_bytes().split(b"\n") if line]
INVALID = [json.loads(line) for line in (SAMPLES / "invalid.jsonl").read_bytes().split(b"\n") if line]

FULL: dict[str, Any] = {
    "timestamp": "2026-08-21T14:08:00Z",
    "session_id": "831",
    "conversation_id": "611",
    "channel_manager_service": "hedy",
    "channel_manager_type": "voice_sip_v1",
    "channel_manager_sid": "CA0123456789abcdef0123456789abcdef",
    "source": "+18042221111",
    "target": "+19995551234",
    "is_legacy": False,
    "is_test": True,
    "agent_id": "12",
    "agent_name": "Front desk",
    "agent_type": "ca_v1",
    "agent_timezone": "America/New_York",
    "prompt_id": "7",
    "prompt_name": "Main",
    "prompt_version": "v4",
    "prompt_version_number": 4,
    "duration": 93.5,
    "session_label_id": "3",
    "is_outbound": False,
    "user_terminated": True,
    "transfer_voicemail_detected": False,
    "override_timestamp": "2026-08-21T09:00:00",
    "experiment_id": "e",
    "experiment_variant_id": "v",
    "experiment_variant": "b",
    "experiment_variant_is_control": False,
}
