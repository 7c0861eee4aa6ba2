"""Batches on random schedules: each route gets each record once, in order."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.delivery.batches import HOUR, Batches, some
from tests.unit.delivery.engines import a_route, an_engine_on
from tests.unit.delivery.log_source import LogSource, check_commits_never_fall
from tests.unit.delivery.source import KEY
from tests.unit.delivery.waiting import rounds, until


@pytest.mark.parametrize("beside", [False, True])
@given(
    count=st.integers(1, 30),
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    kinds=st.lists(st.sampled_from(["sync", "async"]), min_size=3, max_size=3),
    ordering=st.sampled_from(["partition", "key", "unordered"]),
    room_and_cut=st.tuples(st.integers(6, 12), st.integers(1, 12)),
    revokes=st.lists(st.integers(0, 40), max_size=3),
)
@settings(max_examples=100, deadline=None)
def test_batches_take_every_record_once(
    count: int,
    sizes: list[int],
    kinds: list[str],
    beside: bool,
    ordering: str,
    room_and_cut: tuple[int, int],
    revokes: list[int],
) -> None:
    """With any sizes and revokes, each route gets each record once and in order; no commit runs ahead."""

    room, cut = room_and_cut

    async def scenario() -> None:
        source = LogSource(some(count), cut)
        handlers = [Batches() for _ in sizes]
        routes = [
            each.route(kind, f"r{index}", max_records=size)
            for index, (each, kind, size) in enumerate(zip(handlers, kinds, sizes, strict=False))
        ]
        if beside:
            routes.append(a_route(lambda _event: asyncio.sleep(0), "beside"))

        def all_done() -> set[int]:
            return set.intersection(*(each.done for each in handlers))

        async with an_engine_on(
            source, *routes, ordering=ordering, max_in_flight_records=room * len(routes), commit_interval_seconds=HOUR
        ) as bench:
            bench.engine.assign([KEY])
            for after in revokes:
                await rounds(after)
                await bench.engine.revoke(lost=False)
                assert source.committed <= min(set(range(count)) - all_done(), default=source.end)
                source.rewind()
                bench.engine.assign([KEY])
            nowhere = (None, source.end)  # None when all was committed before the last revoke
            await until(
                lambda: source.position == source.end and bench.engine.partitions[KEY].position in nowhere, seconds=2
            )
            await bench.engine.revoke(lost=False)
        assert source.committed == source.end
        check_commits_never_fall(source)
        for each, size in zip(handlers, sizes, strict=True):
            assert each.offsets == list(range(count))
            assert max(map(len, each.calls)) <= size
            assert each.most_running == 1

    asyncio.run(scenario())
