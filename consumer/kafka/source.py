"""The source: chunks from aiokafka's consumer, commits to its group, and its rebalances told to the engine."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Literal, Protocol

import aiokafka
import structlog
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import CommitFailedError, IllegalStateError, NoOffsetForPartitionError, OffsetOutOfRangeError

from consumer.errors import ConsumerError, KafkaError
from consumer.kafka.client import ClientError, described, make_admin, make_consumer, require_topics, unreachable
from consumer.kafka.codecs import limit_decompression
from consumer.kafka.fetch_plain import PlainFetch
from consumer.kafka.fetch_raw import RawFetch, supported
from consumer.outcome import HaltReason
from consumer.partition import Chunk
from consumer.record import TopicPartition
from consumer.settings import Kafka
from consumer.tally import Tally

log = structlog.get_logger("consumer.kafka")

STOP_SECONDS = 3.0
ANSWER_SECONDS = 5.0
SAY_SECONDS = 10.0


class Listener(Protocol):
    """Who is told of the group's decisions; the engine."""

    def assign(self, keys: Collection[TopicPartition]) -> None: ...
    async def revoke(self, *, lost: bool) -> None: ...
    def halt(self, key: TopicPartition, reason: HaltReason, offset: int, explanation: str) -> None: ...


class KafkaSource:
    """One membership in the group; made with the daemon, connected by ``start`` and left by ``stop``.

    Records are taken only from partitions that the caller names, and never twice within an epoch. They come by one of
    two paths behind the same three calls (``fetch_raw.py``, ``fetch_plain.py``), chosen at start.
    """

    def __init__(self, kafka: Kafka, tally: Tally, fail: Callable[[Exception], None], metadata: str = "") -> None:
        """``metadata`` stands beside every offset that is committed."""
        self.joined = False
        self.heard_at = float("-inf")
        """Monotonic time at which a broker last answered."""
        self._silent = False
        self._kafka = kafka
        self._tally = tally
        self._fail = fail
        self._metadata = metadata
        self._consumer: Any = None
        self._listener: Listener | None = None
        self._fetch: RawFetch | PlainFetch | None = None

    # -- life ----------------------------------------------------------------------------------------------------

    async def start(self, listener: Listener) -> None:
        """Find the brokers and the topics, then join the group; returns after the first assignment.

        Raises KafkaUnreachableError when no broker answers within ``start_timeout_seconds``, KafkaError when a topic
        does not exist.
        """
        self._listener = listener
        await self._until_reachable(self._check_topics)
        self.heard_at = time.monotonic()
        limit_decompression(self._kafka.max_batch_bytes)
        fetch = self._choose_fetch()
        self._consumer = make_consumer(self._kafka, fetch.fetches_per_partition)
        self._consumer.subscribe(self._kafka.topics, listener=_Rebalances(self))
        try:
            await self._consumer.start()
        except ClientError as error:
            raise KafkaError(f"joining group {self._kafka.group_id!r} failed: {described(error)}") from error
        self._fetch = fetch(self._consumer, self._tally.bytes_consumed)
        self.joined = True

    def _choose_fetch(self) -> type[RawFetch | PlainFetch]:
        if self._kafka.fetch_path == "plain":
            return PlainFetch
        if supported():
            return RawFetch
        if self._kafka.fetch_path == "raw":
            raise KafkaError('kafka.fetch_path is "raw", and this aiokafka is not the one it was written for')
        log.warning("this aiokafka is not the one that the raw fetch path was written for: three times slower without")
        return PlainFetch

    async def _until_reachable(self, attempt: Callable[[], Awaitable[None]]) -> None:
        timeout = self._kafka.start_timeout_seconds
        deadline = time.monotonic() + timeout
        said_at = float("-inf")
        while True:
            try:
                async with asyncio.timeout(max(0.1, deadline - time.monotonic())):
                    return await attempt()
            except (ClientError, OSError, TimeoutError) as error:
                now = time.monotonic()
                if now + 0.5 >= deadline:
                    raise unreachable(self._kafka) from error
                if now - said_at > SAY_SECONDS:
                    said_at = now
                    log.warning("no broker answers yet", servers=", ".join(self._kafka.bootstrap_servers))
                await asyncio.sleep(min(2.0, timeout / 10))

    async def _check_topics(self) -> None:
        admin = make_admin(self._kafka)
        try:
            await admin.start()
            await require_topics(admin, self._kafka.topics)
        finally:
            await admin.close()

    async def stop(self) -> None:
        """Leave the group and close; bounded, and nothing it raises matters any more.

        aiokafka's own stop lets a CancelledError escape when brokers are away, and then leaves its client open.
        """
        if self._consumer is None:
            return
        with contextlib.suppress(TimeoutError, ClientError, OSError):
            async with asyncio.timeout(STOP_SECONDS):
                try:
                    await self._consumer.stop()
                except asyncio.CancelledError:
                    task = asyncio.current_task()
                    if task is not None and task.cancelling():
                        raise
        with contextlib.suppress(TimeoutError, ClientError, OSError):
            async with asyncio.timeout(1.0):
                await self._consumer._client.close()

    # -- records -------------------------------------------------------------------------------------------------

    async def wait(self, wanted: Collection[TopicPartition], seconds: float) -> None:
        """Return when something may be taken in one of these partitions, or after about ``seconds``.

        A partition without a usable offset is dealt with here. Raises KafkaError where this client cannot go on.
        """
        assert self._fetch is not None
        self._require_alive()
        try:
            await self._fetch.wait(wanted, seconds)
        except NoOffsetForPartitionError as error:
            await self._resolve(TopicPartition(*error.args[0]), "no_offset", self._kafka.offset_reset)
        except OffsetOutOfRangeError as error:
            ((key, offset),) = error.args[0].items()
            await self._resolve(TopicPartition(*key), "out_of_range", self._kafka.out_of_range, offset)
        except ClientError as error:
            raise KafkaError(f"fetching failed: {described(error)}") from error

    def _require_alive(self) -> None:
        """Raise when one of the client's background tasks has ended: it would go on to look alive and fetch nothing."""
        tasks = {
            "fetcher": self._consumer._fetcher._fetch_task,
            "group": self._consumer._coordinator._coordination_task,
        }
        for name, task in tasks.items():
            if task.done() and not task.cancelled():
                why = described(task.exception()) if task.exception() else "it returned"
                raise KafkaError(f"the client's {name} task has ended ({why}); a restart goes on from the last commit")

    def ready(self, key: TopicPartition) -> bool:
        """Whether ``take`` would return something."""
        return self._fetch is not None and self._fetch.ready(key)

    def take(self, key: TopicPartition) -> Chunk | None:
        """Return what comes next in a partition, or None when nothing is there yet; raises CorruptBatchError."""
        return self._fetch.take(key) if self._fetch is not None else None

    def salvage(self, key: TopicPartition, position: int, error: Exception) -> Chunk:
        """Return what can be read of the chunk taken last, from ``position`` on, when pulling from it raised ``error``.

        Raises CorruptBatchError, or BatchTooLargeError, when that is nothing.
        """
        assert self._fetch is not None
        return self._fetch.salvage(key, position, error)

    async def _resolve(self, key: TopicPartition, why: str, rule: str, gone: int = -1) -> None:
        """Decide where to go on in a partition that has no usable offset.

        Where the group has none it is committed before the first record: otherwise a crash before the first commit
        would resolve "latest" again, and skip what came in between. Where one is gone, records before it may be in work
        still: there it is committed when they are done, as everything else.
        """
        assert self._listener is not None
        assert self._fetch is not None
        if rule in ("none", "halt"):
            self._halt(key, why, gone)
            return
        partition = aiokafka.TopicPartition(*key)
        find = self._consumer.beginning_offsets if rule == "earliest" else self._consumer.end_offsets
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                offset = (await find([partition]))[partition]
                if why == "no_offset":
                    await self._consumer.commit({partition: offset})
        except (ClientError, TimeoutError) as error:
            log.warning("cannot resolve where to start; trying again", partition=str(key), why=described(error))
            return
        with contextlib.suppress(IllegalStateError):  # no longer assigned
            self._consumer.seek(partition, offset)
            self._fetch.forget(key)
        self._tally.offset_resets[key.topic, why] += 1
        log.info("offset resolved", partition=str(key), why=why, rule=rule, offset=offset)

    def _halt(self, key: TopicPartition, why: str, gone: int) -> None:
        assert self._listener is not None
        if why == "out_of_range":
            explanation = f"the broker no longer has offset {gone}; reset the group's offset, or set kafka.out_of_range"
            self._listener.halt(key, HaltReason.OUT_OF_RANGE, gone, explanation)
        else:
            explanation = 'the group has no offset here and kafka.offset_reset is "none"; commit one'
            self._listener.halt(key, HaltReason.NO_OFFSET, gone, explanation)

    # -- offsets -------------------------------------------------------------------------------------------------

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> Literal["ok", "failed", "fenced"]:
        """Commit offsets to read next; it waits for brokers that are away, so the caller bounds it."""
        try:
            await self._consumer.commit(
                {aiokafka.TopicPartition(*key): (offset, self._metadata) for key, offset in offsets.items()}
            )
        except (CommitFailedError, IllegalStateError) as error:
            log.warning("commit refused: the group has moved on", why=described(error))
            return "fenced"
        except ClientError as error:
            log.warning("commit failed", why=described(error))
            return "failed"
        self.heard_at = time.monotonic()
        return "ok"

    async def end_offsets(self, keys: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Ask where partitions end for this reader (the last stable offset under read_committed); {} without an answer.

        With no partition it only asks for metadata, to know that a broker is there.
        """
        if not self.joined:
            return {}
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                if keys:
                    ends = await self._consumer.end_offsets([aiokafka.TopicPartition(*key) for key in keys])
                elif await self._consumer._client.force_metadata_update():
                    ends = {}
                else:
                    return {}
        except (ClientError, TimeoutError, OSError) as error:
            self._heard(described(error))
            return {}
        self._heard(None)
        return {TopicPartition(*key): end for key, end in ends.items()}

    def _heard(self, problem: str | None) -> None:
        """Note whether a broker answered, and say so when that changes."""
        if problem is None:
            self.heard_at = time.monotonic()
            if self._silent:
                log.info("brokers answer again")
        elif not self._silent:
            log.warning("no broker answers; waiting for one", why=problem)
        self._silent = problem is not None

    # -- rebalances ----------------------------------------------------------------------------------------------

    async def revoked(self, keys: Collection[Any]) -> None:
        """Pass a revocation on; returns when the engine has drained and committed."""
        assert self._listener is not None
        # Without a generation the group has already given the partitions away: committing could only do harm.
        lost = self._consumer._coordinator.generation < 0  # there is no on_partitions_lost
        if keys:
            self._tally.rebalances["lost" if lost else "revoked"] += 1
            log.info("partitions lost" if lost else "partitions revoked", count=len(keys))
        await self._report(self._listener.revoke(lost=lost))
        if self._fetch is not None:
            self._fetch.clear()

    async def assigned(self, keys: Collection[Any]) -> None:
        """Pass an assignment on; heartbeats wait meanwhile, so this is quick."""
        assert self._listener is not None
        self._tally.rebalances["assigned"] += 1
        self._listener.assign([TopicPartition(*key) for key in sorted(keys)])
        log.info("partitions assigned", count=len(keys))

    async def _report(self, callback: Awaitable[None]) -> None:
        """Await a callback; aiokafka only logs what one raises, and goes on as if it had worked."""
        try:
            await callback
        except ConsumerError as error:
            self._fail(error)
        except Exception as error:
            self._fail(KafkaError(f"a rebalance failed: {described(error)}"))
            raise


class _Rebalances(ConsumerRebalanceListener):
    def __init__(self, source: KafkaSource) -> None:
        self._source = source

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        await self._source.revoked(revoked)

    async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        await self._source.assigned(assigned)
