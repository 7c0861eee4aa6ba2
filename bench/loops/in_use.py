"""What all contestants of the works of "In use" share; standard library only, as every environment has it."""

from __future__ import annotations

SECONDS = {"wait0": 0.0, "wait1": 0.001, "wait10": 0.01, "wait0_partition": 0.0}
"""Argument of ``asyncio.sleep`` in each call, by work."""

CALLS = 64
"""Calls of one partition that run at once; also the default of ``delivery.concurrency``."""

ALL_CALLS = CALLS * 4
"""The same for a whole process, for peers that have no limit by partition; the topics have 4 partitions."""

FILES = {"voice.jsonl": "voice_*", "chat.jsonl": "*_chat_*"}
"""Files of the work with three routes, and the channel types whose events each has."""

SECRET = "a-secret-that-signs-each-request"
"""Key of the signatures of webhooks."""
