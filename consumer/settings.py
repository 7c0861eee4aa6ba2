"""Every setting as one typed value, with its default and its meaning; validated whole before any connection.

Where values come from (file, environment, ``--set``) is ``settings_sources.py``. The first sentence under a field is
its meaning in the README's table, which a test holds to this file. Seconds are floats, sizes are bytes.
"""

from __future__ import annotations

import math
import re
from typing import Any, Literal

import msgspec

from consumer.errors import SettingsError


class Security(msgspec.Struct, frozen=True):
    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    username: str = ""
    password: str = ""

    def __repr__(self) -> str:
        return f"Security(protocol={self.protocol!r}, …)"


class Kafka(msgspec.Struct, frozen=True):
    bootstrap_servers: list[str] = msgspec.field(default_factory=lambda: ["localhost:9092"])
    topics: list[str] = msgspec.field(default_factory=lambda: ["session-events"])
    group_id: str = "session-consumer"
    client_id: str = "session-consumer"
    offset_reset: Literal["earliest", "latest", "none"] = "earliest"
    out_of_range: Literal["halt", "earliest", "latest"] = "halt"
    isolation_level: Literal["read_committed", "read_uncommitted"] = "read_committed"
    fetch_bytes: int = 1_048_576
    fetch_path: Literal["auto", "raw", "plain"] = "auto"
    max_batch_bytes: int = 67_108_864
    start_timeout_seconds: float = 60.0
    session_timeout_seconds: float = 45.0
    heartbeat_interval_seconds: float = 3.0
    rebalance_timeout_seconds: float = 60.0
    request_timeout_seconds: float = 70.0
    security: Security = Security()


class Delivery(msgspec.Struct, frozen=True):
    ordering: Literal["partition", "key", "unordered"] = "partition"
    concurrency: int = 64
    max_in_flight_records: int = 2000
    max_in_flight_bytes: int = 8_388_608
    max_record_bytes: int = 1_048_576
    commit_interval_seconds: float = 1.0
    drain_seconds: float = 25.0
    on_halt: Literal["wait", "exit"] = "wait"


class RetrySettings(msgspec.Struct, frozen=True):
    attempts: int = 5
    initial_seconds: float = 0.2
    maximum_seconds: float = 30.0
    multiplier: float = 2.0
    jitter: float = 0.2


class DeadLetterSettings(msgspec.Struct, frozen=True):
    topic: str = "{topic}.dlq"
    headers: Literal["connect", "spring"] = "connect"
    limit_ratio: float = 0.5
    limit_window_records: int = 1000

    def topic_for(self, topic: str) -> str:
        """Where dead letters of a topic go; empty: nowhere."""
        return self.topic.replace("{topic}", topic)


class WatchdogSettings(msgspec.Struct, frozen=True):
    stalled_seconds: float = 60.0
    rebuilds: int = 5
    window_seconds: float = 600.0


class Http(msgspec.Struct, frozen=True):
    host: str = "127.0.0.1"
    port: int = 8000


class Log(msgspec.Struct, frozen=True):
    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"
    payloads: bool = False


class TracingSettings(msgspec.Struct, frozen=True):
    enabled: bool = False


class RouteSettings(msgspec.Struct, frozen=True):
    name: str
    handler: str
    match: dict[str, Any] = {}
    options: dict[str, Any] = {}
    threaded: bool = False
    timeout_seconds: float | None = None
    max_records: int | None = None
    max_seconds: float | None = None
    flush_seconds: float | None = None
    tombstones: bool = False

    def __repr__(self) -> str:
        return f"RouteSettings(name={self.name!r}, handler={self.handler!r}, …)"


class Settings(msgspec.Struct, frozen=True):
    """The whole of the settings; lives as long as the process and never changes."""

    path: list[str] = []
    kafka: Kafka = Kafka()
    delivery: Delivery = Delivery()
    retry: RetrySettings = RetrySettings()
    dead_letter: DeadLetterSettings = DeadLetterSettings()
    watchdog: WatchdogSettings = WatchdogSettings()
    http: Http = Http()
    log: Log = Log()
    tracing: TracingSettings = TracingSettings()
    routes: list[RouteSettings] = []


def dead_letter_topics(settings: Settings) -> list[str]:
    """Return the topics that dead letters of this daemon's topics go to."""
    return sorted({settings.dead_letter.topic_for(topic) for topic in settings.kafka.topics})


LOG_EVERYTHING = RouteSettings(name="log", handler="consumer.handlers.log:Log")
"""The route of a daemon that was given none: it says what it gets."""

MEANINGS = {
    "path": "folders from which handlers may be imported, besides PYTHONPATH; appended, never put first",
    "kafka.bootstrap_servers": "brokers to start from, `host:port` each",
    "kafka.topics": "topics to consume",
    "kafka.group_id": "consumer group whose offsets are used",
    "kafka.client_id": "name of this client in the brokers' logs and quotas",
    "kafka.offset_reset": "a partition without a committed offset starts at: earliest, latest or none (halt)",
    "kafka.out_of_range": "at an offset that the broker no longer has: halt, earliest or latest",
    "kafka.isolation_level": "read_committed or read_uncommitted",
    "kafka.fetch_bytes": "bytes per partition and fetch; one larger batch still arrives whole",
    "kafka.max_batch_bytes": "of one batch when it is unpacked; a larger one halts its partition",
    "kafka.start_timeout_seconds": "how long the brokers may be away at start before exit 69",
    "kafka.session_timeout_seconds": "silence after which the group takes this member's partitions away",
    "kafka.heartbeat_interval_seconds": "between two signs of life to the group",
    "kafka.rebalance_timeout_seconds": "how long a rebalance waits for this member",
    "kafka.request_timeout_seconds": "for one request; longer than a rebalance, or joining can never succeed",
    "kafka.security.protocol": "PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL",
    "kafka.security.ca_file": "PEM of the authority that signed the brokers' certificates; empty: the system's",
    "kafka.security.certificate_file": "PEM of this client's certificate, for mutual TLS",
    "kafka.security.key_file": "PEM of its private key",
    "kafka.security.mechanism": "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
    "kafka.security.username": "for SASL",
    "kafka.security.password": "for SASL; a secret: set it in the environment or through a file, never with --set",
    "delivery.ordering": "partition (one record at a time), key (one of each key at a time) or unordered",
    "delivery.concurrency": "calls running at once per partition, for key and unordered",
    "delivery.max_in_flight_records": "records per partition that were delivered and are not done",
    "delivery.max_in_flight_bytes": "the same in bytes of key and value",
    "delivery.max_record_bytes": "a larger value is dead-lettered undecoded",
    "delivery.commit_interval_seconds": "between two commits of what is done",
    "delivery.drain_seconds": "how long started calls may take to end when partitions are revoked or the daemon stops",
    "delivery.on_halt": "when a partition halts: wait (the others go on) or exit (with 74)",
    "retry.attempts": "calls, the first included, before a dead letter; per record and route, counted in memory",
    "retry.initial_seconds": "wait before the second call",
    "retry.maximum_seconds": "the longest wait between two calls",
    "retry.multiplier": "each wait is this much longer than the one before",
    "retry.jitter": "share of each wait by which it is made longer or shorter at random",
    "dead_letter.topic": "where records go that no handler may get again; empty: the first one halts its partition",
    "dead_letter.headers": "how a letter says why: connect (`__connect.errors.*`) or spring (`kafka_dlt-*`)",
    "dead_letter.limit_ratio": "when more than this share of a full window is dead-lettered, all partitions halt",
    "dead_letter.limit_window_records": "the window, in records of all partitions",
    "watchdog.stalled_seconds": "work waits and nothing moves for so long: the daemon is stalled, and says so",
    "watchdog.rebuilds": "new Kafka clients within the window before it gives up with exit 70",
    "watchdog.window_seconds": "that window; a stall that no new client can cure is given up after as long",
    "http.host": "address of the status page, /metrics, /healthz and /readyz",
    "http.port": "its port; 0 takes a free one and logs it",
    "log.level": "debug, info, warning or error",
    "log.format": "auto (console on a terminal, else json), console or json",
    "log.payloads": "whether events may appear in the log; they hold personal data",
    "tracing.enabled": "whether calls are spans; needs the extra `otel`, and the usual `OTEL_…` variables say where to",
    "routes.name": "unique; `none` is reserved",
    "routes.handler": "`module:attribute`, imported at start",
    "routes.match": 'field = value, glob, list of them, { is = "null" } or { is = "present" }; empty: every event',
    "routes.options": 'arguments of a handler that is a class; each may be { env = "X" } or { file = "path" }',
    "routes.threaded": "whether a plain function is called in a thread",
    "routes.timeout_seconds": "after which a call counts as failed; not for functions that run inline",
    "routes.max_records": "of a batch, for a handler of `list[Session]`; 500 when not set",
    "routes.max_seconds": "how long a batch may be in the making; 1.0 when not set",
    "routes.flush_seconds": "at least so long between two flushes, and so between two commits",
    "routes.tombstones": "whether records with a null value reach the handler, as the event None and the Record",
}

HIDDEN = {"kafka.fetch_path": "for diagnosis: auto, raw or plain"}

TOPIC_NAME = re.compile(r"(?!\.\.?$)[a-zA-Z0-9._-]{1,249}")
MAX_INT32 = 2**31 - 1
MAX_SECONDS = MAX_INT32 // 1000
MAY_BE_ZERO = ("http.port", "retry.jitter")
SECRETS = frozenset({"kafka.security.password"})


def check_relations(settings: Settings) -> None:
    """Raise SettingsError for values that are each of the right type and cannot work together."""
    kafka, delivery = settings.kafka, settings.delivery
    for name, number in _numbers(settings):
        if not (0 < number < math.inf) and name not in MAY_BE_ZERO:
            raise SettingsError(f"{name} = {number} must be above 0, and finite")
        limit = MAX_SECONDS if name.endswith("_seconds") else MAX_INT32
        _require(number <= limit, f"{name} = {number} is over {limit:_}, more than Kafka's protocol can say")
    _require(0 <= settings.http.port < 65536, f"http.port = {settings.http.port} must be from 0 to 65535")
    _require(bool(kafka.bootstrap_servers), "kafka.bootstrap_servers is empty; name a broker as host:port")
    for server in kafka.bootstrap_servers:
        host, _, port = server.rpartition(":")
        _require(
            bool(host) and port.isascii() and port.isdigit(), f"kafka.bootstrap_servers: {server!r} is not host:port"
        )
    _require(bool(kafka.topics) and all(kafka.topics), "kafka.topics is empty; name a topic")
    twice = sorted({topic for topic in kafka.topics if kafka.topics.count(topic) > 1})
    _require(not twice, f"kafka.topics names {', '.join(twice)} more than once")
    _require(bool(kafka.group_id), "kafka.group_id is empty; offsets are kept under a group's name")
    _require(
        kafka.heartbeat_interval_seconds * 3 <= kafka.session_timeout_seconds,
        f"kafka.heartbeat_interval_seconds = {kafka.heartbeat_interval_seconds} must be at most a third of"
        f" kafka.session_timeout_seconds = {kafka.session_timeout_seconds}",
    )
    _require(
        delivery.drain_seconds < kafka.rebalance_timeout_seconds,
        f"delivery.drain_seconds = {delivery.drain_seconds} must be below"
        f" kafka.rebalance_timeout_seconds = {kafka.rebalance_timeout_seconds}, or a drain ends fenced",
    )
    _require(
        kafka.request_timeout_seconds >= kafka.rebalance_timeout_seconds + 5,
        f"kafka.request_timeout_seconds = {kafka.request_timeout_seconds} must be 5 s above"
        f" kafka.rebalance_timeout_seconds = {kafka.rebalance_timeout_seconds}, or a slow join never succeeds",
    )
    _check_security(kafka.security)
    _check_failures(settings.retry, settings.dead_letter, kafka.topics)
    _check_routes(settings.routes)


def _check_failures(retry: RetrySettings, dead_letter: DeadLetterSettings, topics: list[str]) -> None:
    _require(retry.multiplier >= 1, f"retry.multiplier = {retry.multiplier} must be at least 1")
    _require(0 <= retry.jitter <= 1, f"retry.jitter = {retry.jitter} must be from 0 to 1")
    _require(
        retry.initial_seconds <= retry.maximum_seconds,
        f"retry.initial_seconds = {retry.initial_seconds} is above retry.maximum_seconds = {retry.maximum_seconds}",
    )
    _require(dead_letter.limit_ratio <= 1, f"dead_letter.limit_ratio = {dead_letter.limit_ratio} must be at most 1")
    for topic in topics:
        target = dead_letter.topic_for(topic)
        _require(
            TOPIC_NAME.fullmatch(target) is not None or not dead_letter.topic,
            f"dead_letter.topic: {target!r} is no topic's name; `{{topic}}` stands for the record's topic",
        )
        _require(
            target not in topics,
            f"dead_letter.topic: {target!r} is one of kafka.topics, so its dead letters would come back for ever",
        )


def _check_security(security: Security) -> None:
    if security.protocol.startswith("SASL"):
        _require(bool(security.username), "kafka.security.username is empty, and the protocol is SASL")
        _require(bool(security.password), "kafka.security.password is empty, and the protocol is SASL")
    _require(
        bool(security.certificate_file) == bool(security.key_file),
        "kafka.security.certificate_file and key_file go together; set both or neither",
    )
    for name in ("ca_file", "certificate_file", "key_file"):
        unused = getattr(security, name) and not security.protocol.endswith("SSL")
        _require(not unused, f"kafka.security.{name} is set, and the protocol {security.protocol} has no TLS")


def _check_routes(routes: list[RouteSettings]) -> None:
    names = [route.name for route in routes]
    for name in names:
        _require(name not in ("", "none"), f"routes: the name {name!r} is reserved; choose another")
        _require(names.count(name) == 1, f"routes: two are named {name!r}; names tell routes apart in metrics")
    for route in routes:
        for field in ("timeout_seconds", "max_records", "max_seconds", "flush_seconds"):
            number = getattr(route, field)
            _require(number is None or number > 0, f"routes ({route.name}): {field} = {number} must be above 0")


def _numbers(settings: Settings) -> list[tuple[str, float]]:
    found: list[tuple[str, float]] = []
    for section in ("kafka", "delivery", "retry", "dead_letter", "watchdog", "http"):
        for name, value in msgspec.structs.asdict(getattr(settings, section)).items():
            if isinstance(value, int | float) and not isinstance(value, bool):
                found.append((f"{section}.{name}", value))
    return found


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SettingsError(otherwise)
