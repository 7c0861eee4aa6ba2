"""Brokers that answer with frames that cannot be read: consuming resumes by itself."""

from __future__ import annotations

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fakes.broker import (
    FETCH,
    FIND_COORDINATOR,
    HEARTBEAT,
    JOIN,
    LIST_OFFSETS,
    METADATA,
    OFFSET_COMMIT,
    OFFSET_FETCH,
    SYNC,
    FakeBroker,
)
from tests.fakes.daemon import Run, a_few, a_run_on

pytestmark = pytest.mark.usefixtures("quick")

APIS = [FETCH, HEARTBEAT, OFFSET_COMMIT, METADATA, LIST_OFFSETS, FIND_COORDINATOR, JOIN, SYNC, OFFSET_FETCH]
FRAMES = {
    "another correlation id": struct.pack(">ii", 8, 12345) + b"\0\0\0\0",
    "an empty frame": struct.pack(">i", 0),
    "a negative length": struct.pack(">i", -5),
}


async def meet(run: Run, api: int, frame: bytes) -> None:
    """Answer one request of this kind with this frame; wait until consuming and heartbeats resume."""
    broker = run.broker
    broker.answers[api] = a_few(1, frame)
    asked = broker.requests[api]
    if api == METADATA:
        run.client._client.force_metadata_update()
    elif api == LIST_OFFSETS:  # answers to fetches carry the end offsets, so that the daemon asks only without them
        await run.source.end_offsets(list(run.engine.partitions))
    elif api == FIND_COORDINATOR:
        run.client._coordinator.coordinator_dead()
    elif api in (JOIN, SYNC, OFFSET_FETCH):
        broker.rebalance()
    await run.until(lambda: broker.requests[api] > asked)
    await run.consumes()
    heartbeats = broker.requests[HEARTBEAT]
    await run.until(lambda: broker.requests[HEARTBEAT] > heartbeats)
    await run.until(lambda: run.daemon._parts.vitals.unhealthy is None)
    broker.answers.clear()


@pytest.mark.parametrize("frame", FRAMES)
async def test_a_wrong_frame_ends_in_recovery(frame: str) -> None:
    """After a wrong frame the connection or the client is replaced, and consuming resumes."""
    async with FakeBroker() as broker, a_run_on(broker, watchdog={"rebuilds": len(APIS)}) as run:
        for api in APIS:
            await meet(run, api, FRAMES[frame])


async def test_a_frame_that_never_ends_is_found(deaf_soon: None) -> None:
    """A frame that never ends blocks aiokafka for as long as a request may last; the client is replaced earlier."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        await meet(run, FETCH, struct.pack(">ii", 2**31 - 1, 1) + b"x" * 100)


@settings(max_examples=5, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(api=st.sampled_from(APIS), body=st.binary(max_size=60), fits=st.booleans())
async def test_random_bytes_end_in_recovery(api: int, body: bytes, fits: bool, deaf_soon: None) -> None:
    """After random bytes, with or without the right correlation id, consuming resumes."""
    async with FakeBroker() as broker, a_run_on(broker) as run:
        broker.correlated = fits
        await meet(run, api, body if fits else struct.pack(">i", len(body)) + body)
