"""Both fetch paths on several partitions, and while members join and leave."""

from __future__ import annotations

from tests.cluster import Cluster, eventually
from tests.kafka.reader import a_reader, commit_for_the_group, produce_batches, some


async def test_a_partition_that_is_not_taken_keeps_its_records(cluster: Cluster, path: str) -> None:
    """Records that are not taken stay buffered, and arrive later from the first on."""
    await cluster.create(partitions=3)
    for partition in range(3):
        await produce_batches(cluster, *(some(at, 100) for at in range(0, 1000, 100)), partition=partition)
    async with a_reader(cluster, path, fetch_bytes=16_384) as reader:
        await reader.take_until(1000, partition=0)
        assert set(reader.taken) == {0}
        for _ in range(5):
            await reader.take(0)
        await reader.take_until(1000, partition=2)
        await reader.take_until(1000, partition=1)
    assert reader.taken == dict.fromkeys(range(3), some(0, 1000))


async def test_partitions_are_taken_in_small_portions_in_turn(cluster: Cluster, path: str) -> None:
    """Taken a few records at a time in turn, every partition stays complete and in order."""
    await cluster.create(partitions=3)
    for partition in range(3):
        await produce_batches(cluster, *(some(at, 50) for at in range(0, 300, 50)), partition=partition)
    async with a_reader(cluster, path) as reader:

        async def all_taken() -> bool:
            for turn in range(12):
                await reader.take(turn % 3, records=7 + turn)
            return all(len(reader.taken.get(partition, ())) == 300 for partition in range(3))

        await eventually(all_taken)
    assert reader.taken == dict.fromkeys(range(3), some(0, 300))


async def test_a_rebalance_in_the_middle_of_chunks(cluster: Cluster, path: str) -> None:
    """After a rebalance in the middle of chunks, delivery starts at the commit and each record comes once."""
    await cluster.create(partitions=4)
    for partition in range(4):
        await produce_batches(cluster, *(some(at, 200) for at in range(0, 1000, 200)), partition=partition)
    await commit_for_the_group(cluster, dict.fromkeys(range(4), 150))
    async with a_reader(cluster, path) as first:

        async def half_way() -> bool:
            await first.take(records=100)
            return all(len(first.taken.get(partition, ())) >= 100 for partition in range(4))

        await eventually(half_way)
        before = {partition: first.position(partition) for partition in range(4)}
        assert all(position is not None and position % 200 for position in before.values())
        async with a_reader(cluster, path) as second:
            await eventually(lambda: first.epochs >= 2 and len(first.owned) == len(second.owned) == 2)
            assert await cluster.committed() == before

            async def all_taken() -> bool:
                await first.take(records=37)
                await second.take(records=41)
                return sum(len(each) for reader in (first, second) for each in reader.taken.values()) >= 4 * 850

            await eventually(all_taken)
            assert first.starts[4:] + second.starts == [
                (key.partition, before[key.partition]) for reader in (first, second) for key in sorted(reader.owned)
            ]
    together = [
        (partition, record)
        for reader in (first, second)
        for partition, records in reader.taken.items()
        for record in records
    ]
    assert sorted(together) == [(partition, record) for partition in range(4) for record in some(0, 1000)[150:]]


async def test_a_member_that_leaves_hands_over(cluster: Cluster, path: str) -> None:
    """What a leaving member has half taken goes to the next one from the committed offset on."""
    await cluster.create()
    await produce_batches(cluster, some(0, 300), some(300, 300))
    async with a_reader(cluster, path) as first:

        async def begun() -> int:
            await first.take(records=123)
            return len(first.taken.get(0, ()))

        await eventually(begun)
        await first.revoke(lost=False)
    async with a_reader(cluster, path) as second:
        await second.take_until(600)
    assert first.taken[0] + second.taken[0] == some(0, 600)
