"""What both group protocols share: one client after the other, chunks from its fetcher, its end offsets."""

from __future__ import annotations

import asyncio
import math
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any, Literal

import aiokafka
import structlog
from aiokafka.errors import (
    KafkaConnectionError,
    NodeNotReadyError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RequestTimedOutError,
)

from consumer.errors import ClientLostError, ConsumerError, KafkaError, KafkaUnreachableError
from consumer.kafka.client import (
    committed_offsets,
    make_consumer,
    matching_topics,
    open_admin,
    open_reader,
    require_readable_topics,
)
from consumer.kafka.client_internals import ended_task, stop_consumer, wait_longer_when_idle
from consumer.kafka.codecs import limit_decompression
from consumer.kafka.dial import dial
from consumer.kafka.drains import Drains
from consumer.kafka.end_offsets import EndOffsets
from consumer.kafka.failures import REQUEST_ERRORS, ClientError, described, explained
from consumer.kafka.fetch_plain import PlainFetch
from consumer.kafka.fetch_raw import RawFetch, supported
from consumer.kafka.offsets import Offsets
from consumer.kafka.plain_batch import refuse_large_headers
from consumer.kafka.positions import ANSWER_SECONDS, Listener, Positions
from consumer.kafka.probe import retried
from consumer.kafka.reach import CommitNotes, check_brokers, notes_of, until_reachable
from consumer.observe.counters import Counters
from consumer.observe.members import GroupDescription, Membership
from consumer.partition.chunk import Chunk
from consumer.record import TopicPartition
from consumer.settings.sections import Kafka

log = structlog.get_logger("consumer.kafka")

AGAIN_SECONDS = 0.5
UNREACHED = (KafkaConnectionError, NodeNotReadyError, RequestTimedOutError, KafkaUnreachableError)

SLOW_SECONDS = 5.0
"""Time for a drain after which a rebalance counts as slow."""

EARLY_SECONDS = 0.5
"""Time before the end of a session at which doubt begins: beats that look at it are 0.25 s apart, and calls take time.

Without it the next owner began while this member still called handlers, for up to 0.25 s.
"""

Fetch = RawFetch | PlainFetch


def early(seconds: float) -> float:
    """Return a time limit of the group's as this member counts it: a little less."""
    return seconds - min(EARLY_SECONDS, seconds / 10)


class ClientSource(ABC):
    """One membership in the group; made with the daemon, connected by ``start`` and left by ``stop``.

    Records are taken only from partitions that the caller names, and never twice within an epoch. They come through one
    of two fetch paths with the same methods (``fetch_raw.py``, ``fetch_plain.py``), chosen at start. How the group is
    joined, and what is committed to it, is the group protocol's: ``source.py`` and ``consumer_source.py``.
    """

    def __init__(
        self,
        kafka: Kafka,
        counters: Counters,
        fail: Callable[[Exception], None],
        pattern: re.Pattern[str] | None = None,
    ) -> None:
        """Make a source; a ``pattern`` names the topics in place of ``kafka.topics``."""
        self.joined = False
        self._over = False
        """Whether this member has ended: another one has its instance id, or its group refuses it."""
        self.rebuilds = 0
        """How often the client was replaced."""
        self._ends = EndOffsets(kafka)
        self._revoked_at = self._member_at = time.monotonic()
        self._kafka = kafka
        self._counters = counters
        self._fail = fail
        self.notes: CommitNotes | None = None
        """What is committed with offsets, as their metadata, and read at the start."""
        self.at_start: Callable[[Iterable[str]], Awaitable[None]] | None = None
        """Called once with the topics, when they are known to exist."""
        self.at_answer: Callable[[], None] | None = None
        """Called after each wait for records, before any is taken."""
        self.drains = Drains(lambda _key: 0.0, math.inf)
        """What is known of a drain before it begins."""
        self._pattern = pattern
        self._topics: list[str] = []
        self._found_notes: dict[TopicPartition, str] = {}
        """What the group's offsets carried at the start; used once."""
        self._consumer: Any = None
        self._listener: Listener
        """Set by ``start``, before it is called."""
        self._leaving: Collection[TopicPartition] = ()
        """Partitions of the revocation under way; under the consumer protocol each is by itself."""
        self._fetch: Fetch | None = None
        """None while no client is connected."""
        self._positions: Positions | None = None
        self._path: type[Fetch] | None = None
        """The fetch path that was chosen at start."""

    async def start(self, listener: Listener) -> None:
        """Check the brokers and the topics, then join the group; returns after the first assignment.

        Raises KafkaUnreachableError when no broker answers within ``start_timeout_seconds``, KafkaError when a topic
        does not exist, ClientLostError when the group assigns nothing in time.
        """
        self._listener = listener
        await until_reachable(self._kafka, self._check_topics, self._kafka.start_timeout_seconds)
        if self.at_start is not None:
            await self.at_start(self._topics)
        deadline = time.monotonic() + self._kafka.start_timeout_seconds
        while True:
            try:
                return await self._connect()
            except (ClientError, KafkaUnreachableError) as error:
                # The server that has just answered may be gone; another one is enough.
                why = f"joining the group failed: {explained(error, self._kafka)}"
                if not isinstance(error, UNREACHED):
                    raise KafkaError(why) from error
                if time.monotonic() > deadline:
                    raise KafkaUnreachableError(why) from error
            await self._close(for_good=False)
            await asyncio.sleep(AGAIN_SECONDS)

    async def rebuild(self, reason: str) -> None:
        """Close this client and join with a new one, however long the brokers are unreachable.

        Calls are drained and offsets committed as at a rebalance, as far as the old client still can. Raises
        ClientLostError when the new client fails too.
        """
        self.rebuilds += 1
        self._counters.client_rebuilds[reason] += 1
        self._revoked_at = time.monotonic()
        self._hold()
        await self._stop_positions()
        await self._listener.revoke(lost=self._is_lost())
        await self._close(for_good=False)
        await until_reachable(self._kafka, partial(check_brokers, self._kafka), math.inf)
        try:
            await self._connect()
        except REQUEST_ERRORS as error:
            raise ClientLostError("error", f"joining again failed: {explained(error, self._kafka)}") from error

    async def _connect(self) -> None:
        """Make a client and join the group. The next ``rebuild``, or ``stop``, closes a client that fails."""
        self._ends.heard(time.monotonic())
        fetch = self._path = self._path or self._choose_fetch()
        limit_decompression(self._kafka.max_batch_bytes, refuse_large_headers if fetch is RawFetch else None)
        self._consumer = consumer = make_consumer(await dial(self._kafka), fetch.fetches_per_partition)
        offsets = await self._join(consumer)
        fetched = fetch(consumer, self._counters.bytes_consumed)
        wait_longer_when_idle(consumer, fetched.has_records)
        self._positions = Positions(self._kafka, consumer, fetched, self._listener, self._counters, offsets)
        self._fetch = fetched
        self.joined = True
        self._connected(consumer)

    @abstractmethod
    async def _join(self, consumer: Any) -> Offsets:
        """Start a client and join the group; return when it has answered. Raises ClientLostError when it does not."""

    def _connected(self, consumer: Any) -> None:  # noqa: B027 - the classic protocol needs nothing here
        """Go on with a client that is ready to fetch."""

    def _hold(self) -> None:  # noqa: B027 - the classic protocol needs nothing here
        """Begin nothing more with this client: its partitions are about to be revoked."""

    def _ended(self) -> str | None:
        """Return which task of this client has ended, and why; None while all run."""
        return ended_task(self._consumer)

    @property
    def _alive_at(self) -> float:
        """Monotonic time at which the group last knew that this member lives."""
        return self._member_at

    @property
    def _waits_since(self) -> float:
        """Monotonic time since which a member that is rebalancing waits for its group."""
        return self._revoked_at

    @abstractmethod
    async def _leave(self, *, for_good: bool) -> None:
        """Leave the group as far as that is not a part of the client's stop; errors are ignored.

        Unless it is ``for_good``, the next client joins as the same member.
        """

    @abstractmethod
    def _is_lost(self) -> bool:
        """Whether the group has already reassigned the partitions, so that a commit would be wrong."""

    @abstractmethod
    async def commit(self, offsets: Mapping[TopicPartition, int]) -> Literal["ok", "failed", "fenced"]:
        """Commit offsets to read next. It waits for unreachable brokers without limit, so the caller must bound it."""

    @property
    def membership(self) -> Membership:
        """This member as it knows itself. Read from any thread."""
        return Membership(self._kafka.group_protocol, self.generation, self._alive_at, self._revoking())

    def _revoking(self) -> Collection[TopicPartition]:
        """Return the partitions that are being let go of."""
        return tuple(self._leaving)

    @abstractmethod
    async def describe(self) -> GroupDescription:
        """Ask the coordinator for the group's members. Raises REQUEST_ERRORS."""

    @property
    @abstractmethod
    def rebalancing(self) -> bool:
        """Whether this member waits for its group."""

    @property
    @abstractmethod
    def member_id(self) -> str:
        """Name of this member; empty until it has joined. Read from any thread."""

    @property
    @abstractmethod
    def generation(self) -> int:
        """Generation or epoch of this member; negative while it is in no group."""

    @property
    @abstractmethod
    def session_seconds(self) -> float:
        """Seconds without a heartbeat after which the group removes this member."""

    @property
    def heard_at(self) -> float:
        """Monotonic time of a broker's last answer; -inf before the first."""
        return self._ends.heard_at

    @property
    def client(self) -> Any:
        """The client that is connected; None while there is none."""
        return self._consumer if self._fetch is not None else None

    @property
    def group_id(self) -> str:
        """The consumer group whose offsets are used."""
        return self._kafka.group_id

    def _still_member(self, sent: float) -> None:
        self._member_at = max(self._member_at, sent)

    def doubtful(self, now: float) -> bool:
        """Whether the group may have reassigned this member's partitions without its knowledge."""
        silent = now - self._alive_at
        unheard = silent > early(self.session_seconds)
        return self._over or (self.joined and not self.rebalancing and unheard)

    def group_since(self, now: float) -> float | None:
        """Monotonic time since which this member waits for its group: for partitions, or for heartbeats' answers."""
        if self.rebalancing:
            return self._waits_since
        since = self._alive_at + self.session_seconds
        return since if now >= since and self.doubtful(now) else None

    def _choose_fetch(self) -> type[Fetch]:
        if self._kafka.fetch_path == "plain":
            return PlainFetch
        if supported():
            return RawFetch
        if self._kafka.fetch_path == "raw":
            raise KafkaError(
                'kafka.fetch_path is "raw", but the raw path does not support this aiokafka; set "auto" or "plain"'
            )
        log.warning("raw_fetch_unsupported", aiokafka=aiokafka.__version__, fetch_path="plain")
        return PlainFetch

    async def _check_topics(self) -> None:
        async with open_admin(self._kafka) as admin:
            topics = self._kafka.topics if self._pattern is None else await matching_topics(admin, self._pattern)
            counts = await retried(lambda: require_readable_topics(admin, topics))
        self._topics = list(counts)
        if self.notes is not None and self.notes.read is not None:
            self._found_notes = await notes_of(self._kafka, counts)

    async def stop(self) -> None:
        """Leave the group and close the client, within a time limit; errors are ignored."""
        await self._close(for_good=True)

    async def _close(self, *, for_good: bool) -> None:
        """Close the client; also when cancelled: a stop of the daemon cancels a rebuild, which may be at this."""
        consumer, self._consumer, self._fetch = self._consumer, None, None
        if consumer is None:
            return
        self._ends.give_up()
        leaving = asyncio.create_task(self._leave(for_good=for_good))
        try:
            await asyncio.shield(leaving)
        finally:
            await asyncio.wait([leaving])
            await self._stop_positions()
            await stop_consumer(consumer)

    async def _stop_positions(self) -> None:
        if self._positions is not None:
            await self._positions.stop()

    async def wait(self, wanted: Collection[TopicPartition], seconds: float) -> None:
        """Return when one of these partitions may have a chunk to take, or after about ``seconds``.

        Sets the position of a partition without a usable offset, or halts it. Raises ClientLostError when this client
        is broken.
        """
        fetch, positions = self._fetch, self._positions
        if fetch is None or positions is None:
            raise ClientLostError("error", "no client is connected")
        if ended := self._ended():
            raise ClientLostError("task_ended", ended)
        try:
            try:
                positions.look()
                await fetch.wait([key for key in wanted if key not in positions], seconds)
            except NoOffsetForPartitionError as error:
                positions.missing(TopicPartition(*error.args[0]))
            except OffsetOutOfRangeError as error:
                ((key, offset),) = error.args[0].items()
                positions.gone(TopicPartition(*key), offset)
        except ConsumerError:
            raise
        except Exception as error:  # the client may be broken after any other error
            raise ClientLostError("error", f"fetching failed: {described(error)}") from error
        if self.at_answer is not None:
            self.at_answer()

    async def group_answers(self) -> bool:
        """Whether a new client reaches the group's coordinator; if not, a new client would not help."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS), open_admin(self._kafka) as admin:
                await committed_offsets(admin, self._kafka.group_id)
        except REQUEST_ERRORS:
            return False
        return True

    def rebalancing_for(self, now: float) -> float:
        """Return the seconds for which this member has waited for an assignment; 0 when it does not wait."""
        return now - self._waits_since if self.rebalancing else 0.0

    async def deaf(self, keys: Collection[TopicPartition]) -> bool:
        """Whether a new client gets the end offsets of all the partitions, while this one gets no answer.

        aiokafka never asks its bootstrap servers again: it knows only the addresses of earlier answers, and never finds
        brokers that have all moved.
        """
        try:
            async with asyncio.timeout(ANSWER_SECONDS), open_reader(self._kafka) as reader:
                await reader.end_offsets([aiokafka.TopicPartition(*key) for key in keys])
        except REQUEST_ERRORS:
            return False
        return time.monotonic() - self.heard_at > ANSWER_SECONDS

    def ready(self, key: TopicPartition) -> bool:
        """Whether ``take`` would return something."""
        return self._fetch is not None and self._fetch.ready(key)

    def take(self, key: TopicPartition) -> Chunk | None:
        """Return the next chunk of a partition, or None when there is none yet. Raises CorruptBatchError."""
        return self._fetch.take(key) if self._fetch is not None else None

    def salvage(self, key: TopicPartition, position: int, error: Exception) -> Chunk:
        """Return the readable records of the chunk taken last, from ``position`` on, after pulling raised ``error``.

        Raises CorruptBatchError or BatchTooLargeError when none is readable.
        """
        assert self._fetch is not None
        return self._fetch.salvage(key, position, error)

    def fetched_ends(self) -> Mapping[TopicPartition, tuple[int, float]]:
        """Return end offsets that answers to fetches carried, and the monotonic times of the answers."""
        return self._ends.fetched(self._consumer) if self._fetch is not None else {}

    async def end_offsets(self, keys: Collection[TopicPartition]) -> Mapping[TopicPartition, int]:
        """Ask the brokers for the end offsets for this reader; those of brokers that do not answer are missing.

        A client that still joins has none, and asks for metadata: joining may take as long as a rebalance.
        """
        if self._consumer is None or not self._consumer._client.cluster.brokers():
            return {}
        return await self._ends.ask(self._consumer, keys if self._fetch is not None else ())

    def _begin(self, keys: Collection[TopicPartition]) -> None:
        """Note an assignment, read its notes, and begin the epochs.

        Raises SettingsError for a topic of the pattern that a route does not fit.
        """
        self._counters.rebalances["assigned"] += 1
        self._counters.know(key.topic for key in keys)
        if self._found_notes and self.notes is not None and self.notes.read is not None:
            mine = [self._found_notes[key] for key in keys if key in self._found_notes]
            if mine:
                self._found_notes = {}
                self.notes.read(mine)
        # A partition may also begin while heartbeats get no answer: the group may then have given the others away.
        self._listener.doubt(doubtful=self.doubtful(time.monotonic()))
        self._listener.assign(sorted(keys))
        log.info("partitions_assigned", count=len(keys))

    def _note_slow(self, keys: Collection[TopicPartition], began: float) -> None:
        """Count a revocation whose drain was long: others have waited for it."""
        seconds = time.monotonic() - began
        if seconds > SLOW_SECONDS:
            self._counters.rebalances["slow"] += 1
            log.warning("rebalance_slow", count=len(keys), seconds=round(seconds, 1))

    def _note_revoked(self, count: int, *, lost: bool) -> None:
        if count:
            self._counters.rebalances["lost" if lost else "revoked"] += 1
            if lost:
                log.info("partitions_lost", count=count)
            else:
                log.info("partitions_revoked", count=count)
