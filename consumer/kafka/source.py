"""The source: chunks from aiokafka's consumer, commits to its group, and its rebalances told to the engine."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Literal, Protocol

import aiokafka
import structlog
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import CommitFailedError, IllegalStateError, NoOffsetForPartitionError, OffsetOutOfRangeError

from consumer.errors import ClientLostError, ConsumerError, KafkaError
from consumer.kafka.client import (
    ClientError,
    described,
    make_consumer,
    make_reader,
    open_admin,
    require_topics,
    unreachable,
)
from consumer.kafka.client_internals import STOP_SECONDS, ended_task, fence_commits, note_heartbeats, stop_consumer
from consumer.kafka.codecs import limit_decompression
from consumer.kafka.fetch_plain import PlainFetch
from consumer.kafka.fetch_raw import RawFetch, supported
from consumer.observe.counters import Counters
from consumer.outcome import HaltReason
from consumer.partition.chunk import Chunk
from consumer.record import TopicPartition
from consumer.settings.sections import Kafka

log = structlog.get_logger("consumer.kafka")

ATTEMPT_SECONDS = 20.0
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

    def __init__(self, kafka: Kafka, counters: Counters, fail: Callable[[Exception], None], metadata: str = "") -> None:
        """``metadata`` stands beside every offset that is committed."""
        self.joined = False
        self.rebuilds = 0
        """How often the client was replaced."""
        self.heard_at = float("-inf")
        """Monotonic time at which a broker last answered."""
        self._silent = False
        self._revoked_at = self._member_at = time.monotonic()
        self._kafka = kafka
        self._counters = counters
        self._fail = fail
        self._metadata = metadata
        self._consumer: Any = None
        self._listener: Listener | None = None
        self._rebalances: _Rebalances
        self._fetch: RawFetch | PlainFetch | None = None
        self._path: type[RawFetch | PlainFetch] | None = None
        """The one of the two that was chosen at start."""

    # -- life ----------------------------------------------------------------------------------------------------

    async def start(self, listener: Listener) -> None:
        """Find the brokers and the topics, then join the group; returns after the first assignment.

        Raises KafkaUnreachableError when no broker answers within ``start_timeout_seconds``, KafkaError when a topic
        does not exist, ClientLostError when the group comes to no assignment.
        """
        self._listener = listener
        await self._until_reachable(self._check_topics, self._kafka.start_timeout_seconds)
        try:
            await self._connect()
        except ClientError as error:
            raise KafkaError(f"joining group {self._kafka.group_id!r} failed: {described(error)}") from error

    async def rebuild(self, reason: str) -> None:
        """Leave with this client and join with a new one, however long the brokers are away.

        What is in work is drained and committed as at a rebalance, as far as the old client still can. Raises
        ClientLostError when the new one fails too.
        """
        self.rebuilds += 1
        self._counters.client_rebuilds[reason] += 1
        assert self._listener is not None
        self._revoked_at = time.monotonic()
        await self._listener.revoke(lost=self._without_generation())
        await self.stop()
        await self._until_reachable(self._check_brokers, math.inf)
        try:
            await self._connect()
        except (ClientError, OSError) as error:
            raise ClientLostError("error", f"joining again failed: {described(error)}") from error

    async def _connect(self) -> None:
        """Make a client and join; one that fails is closed by the next ``rebuild``, or by ``stop``.

        aiokafka waits for an assignment without end. One that a group can come to is there within a rebalance, begun
        when the session of a member that died has ended.
        """
        self.heard_at = time.monotonic()
        fetch = self._path = self._path or self._choose_fetch()
        limit_decompression(self._kafka.max_batch_bytes)
        self._consumer = consumer = make_consumer(self._kafka, fetch.fetches_per_partition)
        self._rebalances = _Rebalances(self)
        consumer.subscribe(self._kafka.topics, listener=self._rebalances)
        seconds = self._kafka.session_timeout_seconds + self._kafka.rebalance_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                await consumer.start()
        except TimeoutError as error:
            await self.stop()
            raise ClientLostError("rebalance", f"no assignment came within {seconds:g} s of joining") from error
        note_heartbeats(consumer, self._still_member)
        fence_commits(consumer)
        self._fetch = fetch(consumer, self._counters.bytes_consumed)
        self.joined = True

    @property
    def group_id(self) -> str:
        """The consumer group whose offsets are used."""
        return self._kafka.group_id

    def _still_member(self) -> None:
        self._member_at = time.monotonic()

    def doubtful(self, now: float) -> bool:
        """Whether the group may have given this member's partitions away without its knowing."""
        silent = now - self._member_at
        return self.joined and not self.rebalancing and silent > self._kafka.session_timeout_seconds

    def _choose_fetch(self) -> type[RawFetch | PlainFetch]:
        if self._kafka.fetch_path == "plain":
            return PlainFetch
        if supported():
            return RawFetch
        if self._kafka.fetch_path == "raw":
            raise KafkaError('kafka.fetch_path is "raw", and this aiokafka is not the one it was written for')
        log.warning("raw_fetch_unsupported", aiokafka=aiokafka.__version__, fetch_path="plain")
        return PlainFetch

    async def _until_reachable(self, attempt: Callable[[], Awaitable[None]], seconds: float) -> None:
        deadline = time.monotonic() + seconds
        said_at = float("-inf")
        while True:
            try:
                async with asyncio.timeout(min(ATTEMPT_SECONDS, max(0.1, deadline - time.monotonic()))):
                    return await attempt()
            except (ClientError, OSError, TimeoutError) as error:
                now = time.monotonic()
                if now + 0.5 >= deadline:
                    raise unreachable(self._kafka) from error
                if now - said_at > SAY_SECONDS:
                    said_at = now
                    log.warning("brokers_unreachable", servers=", ".join(self._kafka.bootstrap_servers))
                await asyncio.sleep(min(2.0, seconds / 10))

    async def _check_brokers(self) -> None:
        async with open_admin(self._kafka):
            pass

    async def _check_topics(self) -> None:
        async with open_admin(self._kafka) as admin:
            await require_topics(admin, self._kafka.topics)

    async def stop(self) -> None:
        """Leave the group and close; bounded, and nothing it raises matters any more."""
        consumer, self._consumer, self._fetch = self._consumer, None, None
        if consumer is None:
            return
        self._rebalances.source = None
        await stop_consumer(consumer)

    # -- records -------------------------------------------------------------------------------------------------

    async def wait(self, wanted: Collection[TopicPartition], seconds: float) -> None:
        """Return when something may be taken in one of these partitions, or after about ``seconds``.

        A partition without a usable offset is dealt with here. Raises KafkaError where this client cannot go on.
        """
        assert self._fetch is not None
        if ended := ended_task(self._consumer):
            raise ClientLostError("task_ended", ended)
        try:
            try:
                await self._fetch.wait(wanted, seconds)
            except NoOffsetForPartitionError as error:
                await self._resolve(TopicPartition(*error.args[0]), "no_offset", self._kafka.offset_reset)
            except OffsetOutOfRangeError as error:
                ((key, offset),) = error.args[0].items()
                await self._resolve(TopicPartition(*key), "out_of_range", self._kafka.out_of_range, offset)
        except ConsumerError:
            raise
        except Exception as error:  # whatever it is, this client may never be the same again
            raise ClientLostError("error", f"fetching failed: {described(error)}") from error

    @property
    def rebalancing(self) -> bool:
        """Whether this member waits for the group's decision."""
        consumer = self._consumer  # read once: the watchdog asks from its own thread
        if consumer is None or self._fetch is None:
            return True
        return bool(consumer._subscription.reassignment_in_progress)

    async def group_answers(self) -> bool:
        """Whether a new client can talk to the group's coordinator: else no client could do better than ours."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS), open_admin(self._kafka) as admin:
                await admin.list_consumer_group_offsets(self._kafka.group_id)
        except (ClientError, OSError, TimeoutError):
            return False
        return True

    def rebalancing_for(self, now: float) -> float:
        """Return for how many seconds this member has waited for the group's decision; 0 when it does not."""
        return now - self._revoked_at if self.rebalancing else 0.0

    async def deaf(self, keys: Collection[TopicPartition]) -> bool:
        """Whether a new client hears what this one does not: where all the partitions end.

        aiokafka knows only the addresses that it was told at its start and later; where all brokers moved it never
        finds them again.
        """
        reader = make_reader(self._kafka)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await reader.start()
                await reader.end_offsets([aiokafka.TopicPartition(*key) for key in keys])
        except (ClientError, OSError, TimeoutError):
            return False
        finally:
            with contextlib.suppress(TimeoutError, ClientError, OSError):
                async with asyncio.timeout(STOP_SECONDS):
                    await reader.stop()
        return time.monotonic() - self.heard_at > ANSWER_SECONDS

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
        except (ClientError, TimeoutError, KeyError) as error:  # an answer that aiokafka does not know holds no offset
            log.warning("offset_unresolved", partition=str(key), why=described(error))
            return
        with contextlib.suppress(IllegalStateError):  # no longer assigned
            self._consumer.seek(partition, offset)
            self._fetch.forget(key)
        self._counters.offset_resets[key.topic, why] += 1
        log.info("offset_resolved", partition=str(key), why=why, rule=rule, offset=offset)

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
            log.warning("commit_fenced", why=type(error).__name__)
            return "fenced"
        except ClientError as error:
            log.warning("commit_failed", why=described(error))
            return "failed"
        self.heard_at = self._member_at = time.monotonic()
        return "ok"

    async def end_offsets(self, keys: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Ask where partitions end for this reader (the last stable offset under read_committed).

        Each broker is asked by itself: those that do not answer are missing in what is returned. With no partition it
        only asks for metadata, to know that a broker is there.
        """
        if self._fetch is None:
            return {}
        by_leader: dict[int | None, list[aiokafka.TopicPartition]] = {}
        for key in keys:
            partition = aiokafka.TopicPartition(*key)
            by_leader.setdefault(self._consumer._client.cluster.leader_for_partition(partition), []).append(partition)
        asked = [self._ends_of(partitions) for partitions in by_leader.values()]
        answers = await asyncio.gather(*(asked or [self._metadata_of()]), return_exceptions=True)
        ends: dict[TopicPartition, int] = {}
        problem: str | None = None
        for answer in answers:
            if isinstance(answer, BaseException):
                problem = described(answer)
            else:
                ends |= answer
        self._heard(problem if not ends and problem else None)
        return ends

    async def _ends_of(self, partitions: Collection[aiokafka.TopicPartition]) -> dict[TopicPartition, int]:
        async with asyncio.timeout(ANSWER_SECONDS):
            ends = await self._consumer.end_offsets(partitions)
        return {TopicPartition(*key): end for key, end in ends.items()}

    async def _metadata_of(self) -> dict[TopicPartition, int]:
        async with asyncio.timeout(ANSWER_SECONDS):
            if not await self._consumer._client.force_metadata_update():
                raise KafkaError("no metadata")
        return {}

    def _heard(self, problem: str | None) -> None:
        """Note whether a broker answered, and say so when that changes."""
        if problem is None:
            self.heard_at = time.monotonic()
            if self._silent:
                log.info("brokers_reachable")
        elif not self._silent:
            log.warning("brokers_unreachable", why=problem)
        self._silent = problem is not None

    # -- rebalances ----------------------------------------------------------------------------------------------

    async def revoked(self, keys: Collection[Any]) -> None:
        """Pass a revocation on; returns when the engine has drained and committed."""
        assert self._listener is not None
        lost = self._without_generation()
        self._revoked_at = time.monotonic()
        if keys:
            self._counters.rebalances["lost" if lost else "revoked"] += 1
            if lost:
                log.info("partitions_lost", count=len(keys))
            else:
                log.info("partitions_revoked", count=len(keys))
        await self._report(self._listener.revoke(lost=lost))
        if self._fetch is not None:
            self._fetch.clear()

    def _without_generation(self) -> bool:
        """Whether the group has already given the partitions away: committing could only do harm.

        There is no ``on_partitions_lost``.
        """
        coordinator = self._consumer._coordinator if self._consumer is not None else None
        return coordinator is None or bool(coordinator.generation < 0)

    async def assigned(self, keys: Collection[Any]) -> None:
        """Pass an assignment on; heartbeats wait meanwhile, so this is quick."""
        assert self._listener is not None
        self._counters.rebalances["assigned"] += 1
        self._member_at = time.monotonic()
        self._listener.assign([TopicPartition(*key) for key in sorted(keys)])
        log.info("partitions_assigned", count=len(keys))

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
    """What one client's group decides; a client that was replaced has nothing to say any more."""

    def __init__(self, source: KafkaSource) -> None:
        self.source: KafkaSource | None = source

    async def on_partitions_revoked(self, revoked: Collection[Any]) -> None:
        if self.source is not None:
            await self.source.revoked(revoked)

    async def on_partitions_assigned(self, assigned: Collection[Any]) -> None:
        if self.source is not None:
            await self.source.assigned(assigned)
