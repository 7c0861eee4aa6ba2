"""Types and defaults of all settings, one Struct per section; validated as a whole before any connection.

``sources.py`` reads the values, ``meanings.py`` describes them, ``ranges.py`` and ``checks.py`` say what they may be.
Seconds are floats, sizes are bytes.
"""

from __future__ import annotations

import re
from typing import Any, Literal

import msgspec


def address_of(host: str, port: int) -> str:
    """Return ``host:port``, as it stands in settings and in a URL: an IPv6 address has brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


ON_THIS_MACHINE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what a server listens on
"""Where servers are asked that listen on all addresses."""


class Security(msgspec.Struct, frozen=True):
    """Encryption and authentication of the connections to the brokers."""

    protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ca_file: str = ""
    certificate_file: str = ""
    key_file: str = ""
    mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "AWS_MSK_IAM"] = "PLAIN"
    username: str = ""
    password: str = ""
    password_file: str = ""
    token_endpoint: str = ""
    oauth_client_id: str = ""
    oauth_client_secret: str = ""
    oauth_client_secret_file: str = ""
    scope: str = ""
    token_file: str = ""
    aws_region: str = ""
    allow_plain_text_credentials: bool = False

    @property
    def uses_tls(self) -> bool:
        """Whether connections are encrypted."""
        return self.protocol.endswith("SSL")

    @property
    def uses_sasl(self) -> bool:
        """Whether connections authenticate with ``mechanism``."""
        return self.protocol.startswith("SASL")

    def __repr__(self) -> str:
        return f"Security(protocol={self.protocol!r}, …)"


class Kafka(msgspec.Struct, frozen=True):
    """The brokers, the topics, the consumer group and the client's timeouts."""

    bootstrap_servers: list[str] = msgspec.field(default_factory=lambda: ["localhost:9092"])
    topics: list[str] = msgspec.field(default_factory=lambda: ["session-events"])
    topic_pattern: str = ""
    group_id: str = "session-consumer"
    group_instance_id: str = ""
    group_protocol: Literal["classic", "consumer"] = "classic"
    group_remote_assignor: Literal["", "uniform", "range"] = ""
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
    """Order, concurrency and limits of delivery, the interval of commits and the time for a drain."""

    ordering: Literal["partition", "key", "unordered"] = "partition"
    concurrency: int = 64
    threads: int = 64
    max_in_flight_records: int = 2000
    max_in_flight_bytes: int = 8_388_608
    max_record_bytes: int = 1_048_576
    commit_interval_seconds: float = 1.0
    drain_seconds: float = 25.0
    on_halt: Literal["wait", "exit"] = "wait"


class RetrySettings(msgspec.Struct, frozen=True):
    """Number of calls for a record that fails, and the waits between them."""

    attempts: int = 5
    initial_seconds: float = 0.2
    maximum_seconds: float = 30.0
    multiplier: float = 2.0
    jitter: float = 0.2


class DeadLetterSettings(msgspec.Struct, frozen=True):
    """Topic and headers of dead letters, and the fuse that halts all partitions."""

    topic: str = "{topic}.dlq"
    headers: Literal["connect", "spring"] = "connect"
    limit_ratio: float = 0.5
    limit_window_records: int = 1000

    def is_topic(self, group: str) -> str:
        """Return a regular expression that matches the dead-letter topics of a group, whatever their topics are."""
        return re.escape(self.topic_for("{topic}", group)).replace(re.escape("{topic}"), ".+")

    def topic_for(self, topic: str, group: str) -> str:
        """Return the dead-letter topic of a topic that a consumer group reads; empty when there is none."""
        return self.topic.replace("{topic}", topic).replace("{group}", group)


class WatchdogSettings(msgspec.Struct, frozen=True):
    """Limits after which the daemon counts as stalled, and of what it does about it."""

    stalled_seconds: float = 60.0
    rebuilds: int = 5
    window_seconds: float = 600.0


class Http(msgspec.Struct, frozen=True):
    """Address of the HTTP server, and the names under which it answers."""

    host: str = "127.0.0.1"
    port: int = 8000
    allowed_hosts: list[str] = []

    def address(self, port: int | None = None) -> str:
        """Return ``host:port`` as it stands in a URL, with this port or with ``port``."""
        return address_of(self.host, self.port if port is None else port)

    def own_address(self, port: int | None = None) -> str:
        """Return ``host:port`` at which a server with these settings is asked on its machine."""
        return address_of(ON_THIS_MACHINE.get(self.host, self.host), self.port if port is None else port)


class Log(msgspec.Struct, frozen=True):
    """Level and format of the log."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    format: Literal["auto", "console", "json"] = "auto"
    payloads: bool = False


class TracingSettings(msgspec.Struct, frozen=True):
    """OpenTelemetry tracing."""

    enabled: bool = False


class RouteRetry(msgspec.Struct, frozen=True, omit_defaults=True):
    """Retry settings of one route; those that are not set are the ones in ``[retry]``."""

    attempts: int | None = None
    initial_seconds: float | None = None
    maximum_seconds: float | None = None
    multiplier: float | None = None
    jitter: float | None = None

    def over(self, retry: RetrySettings) -> RetrySettings:
        """Return the settings of the route: its own, and those of ``retry`` for the rest."""
        given = {name: value for name, value in msgspec.structs.asdict(self).items() if value is not None}
        return msgspec.structs.replace(retry, **given)


class SchemaSettings(msgspec.Struct, frozen=True):
    """Type and format of the events of topics."""

    topic: str
    type: str = "schemas.session:Session"
    format: Literal["json", "cloudevents", "msgpack"] = "json"
    framing: Literal["none", "confluent"] = "none"


class RouteSettings(msgspec.Struct, frozen=True):
    """One route: its handler, the events it matches and the limits of its calls."""

    name: str
    handler: str
    topics: list[str] = []
    match: dict[str, Any] = {}
    options: dict[str, Any] = {}
    threaded: bool = False
    timeout_seconds: float | None = None
    max_records: int | None = None
    max_seconds: float | None = None
    flush_seconds: float | None = None
    tombstones: bool = False
    unknown_tags: bool = False
    retry: RouteRetry = RouteRetry()
    pause_on: list[str] = []

    def __repr__(self) -> str:
        return f"RouteSettings(name={self.name!r}, handler={self.handler!r}, …)"


class Settings(msgspec.Struct, frozen=True):
    """All settings; made once at start, never changed."""

    path: list[str] = []
    allow_writable: bool = False
    kafka: Kafka = Kafka()
    delivery: Delivery = Delivery()
    retry: RetrySettings = RetrySettings()
    dead_letter: DeadLetterSettings = DeadLetterSettings()
    watchdog: WatchdogSettings = WatchdogSettings()
    http: Http = Http()
    log: Log = Log()
    tracing: TracingSettings = TracingSettings()
    schemas: list[SchemaSettings] = []
    routes: list[RouteSettings] = []


def matches_topic(settings: Settings) -> re.Pattern[str]:
    """Compile ``kafka.topic_pattern``: it is matched with whole names, and passes dead-letter topics over."""
    kafka, letters = settings.kafka, settings.dead_letter
    wanted = re.compile(kafka.topic_pattern)
    flags = re.match(r"\(\?[aimsx]+\)", kafka.topic_pattern)  # Python takes them at the very beginning only
    pattern = kafka.topic_pattern[flags.end() :] if flags else kafka.topic_pattern
    others = f"(?!(?-i:{letters.is_topic(kafka.group_id)})$)" if letters.topic else ""
    return re.compile(f"{others}(?:{pattern})$", wanted.flags)


def letters_of(settings: Settings) -> dict[str, str]:
    """Return the dead-letter topic of each topic; empty when dead letters go nowhere."""
    kafka, letters = settings.kafka, settings.dead_letter
    return {topic: letters.topic_for(topic, kafka.group_id) for topic in kafka.topics if letters.topic}


def dead_letter_topics(settings: Settings) -> list[str]:
    """Return the dead-letter topics of this daemon's topics."""
    return sorted(set(letters_of(settings).values()))


LOG_EVERYTHING = RouteSettings(name="log", handler="consumer.handlers.log:Log")
"""The route of a daemon whose settings have none: it logs each event."""

SECRETS = frozenset({"kafka.security.password", "kafka.security.oauth_client_secret"})
"""Settings that no message and no page shows; each has one beside it that ends in ``_file`` and names a file."""
