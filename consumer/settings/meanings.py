"""What each setting means: one text for the settings table of the documentation and for the status page."""

from __future__ import annotations

MEANINGS = {
    "path": "Folders to import handlers from, besides PYTHONPATH. Appended to the import path, never put first.",
    "allow_writable": (
        "Whether other users may write the settings file and the folders in `path`. For mounts that show wrong modes."
    ),
    "kafka.bootstrap_servers": "Brokers to connect to first, each as `host:port`.",
    "kafka.topics": "Topics to consume.",
    "kafka.topic_pattern": "Regular expression for whole names of topics, instead of `topics`. New ones join in 30 s.",
    "kafka.group_id": "Consumer group under which offsets are committed.",
    "kafka.group_instance_id": "Id of this daemon in its group (static membership); `{hostname}` stands for the host.",
    "kafka.group_protocol": (
        "Rebalance protocol: classic, or consumer (KIP-848; Apache Kafka 4.0 or later): a rebalance stops only the"
        " partitions that move."
    ),
    "kafka.group_remote_assignor": (
        "Assignor of the brokers: uniform or range; for `group_protocol` consumer. Empty: the brokers' default."
    ),
    "kafka.client_id": "Name of this client in the brokers' logs and quotas.",
    "kafka.offset_reset": "Start of a partition without a committed offset: earliest, latest or none (halt).",
    "kafka.out_of_range": "Reaction to an offset that the broker no longer has: halt, earliest or latest.",
    "kafka.isolation_level": "Transactions that are read: read_committed or read_uncommitted.",
    "kafka.fetch_bytes": "Bytes fetched at a time, per partition. A single larger batch is still fetched whole.",
    "kafka.max_batch_bytes": "Maximum uncompressed bytes of a record batch. A larger batch halts the partition.",
    "kafka.start_timeout_seconds": "Seconds to wait for a broker at start. After that the daemon exits with 69.",
    "kafka.session_timeout_seconds": (
        "Seconds without heartbeat after which this member loses its partitions. For `group_protocol` classic."
    ),
    "kafka.heartbeat_interval_seconds": (
        "Seconds between heartbeats. Not set: 3, or a third of `session_timeout_seconds` if that is less; never more."
        " For `group_protocol` classic."
    ),
    "kafka.rebalance_timeout_seconds": "Seconds that a rebalance waits for this member.",
    "kafka.request_timeout_seconds": (
        "Timeout of a single request. With `group_protocol` classic it must exceed `rebalance_timeout_seconds` by 5 s."
    ),
    "kafka.security.protocol": "Protocol of the connections: PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.",
    "kafka.security.ca_file": "PEM file of the authority that signed the brokers' certificates. Empty: the system's.",
    "kafka.security.certificate_file": "PEM file of the client's certificate, for mutual TLS.",
    "kafka.security.key_file": "PEM file of the client's private key, for mutual TLS.",
    "kafka.security.mechanism": "SASL mechanism. OAUTHBEARER and AWS_MSK_IAM send tokens, the others a user name.",
    "kafka.security.username": "User name, for PLAIN and SCRAM.",
    "kafka.security.password": "Password, for PLAIN and SCRAM. Set it in the environment, never with `--set`.",
    "kafka.security.password_file": "File of the password, instead of `password`; read at each connection.",
    "kafka.security.token_endpoint": "URL where OAUTHBEARER gets its tokens, as an OAuth client (client credentials).",
    "kafka.security.oauth_client_id": "Id of that client.",
    "kafka.security.oauth_client_secret": "Secret of that client. Set it in the environment, never with `--set`.",
    "kafka.security.oauth_client_secret_file": "File of that secret, instead of it; read for each token.",
    "kafka.security.scope": "Scope to ask the token endpoint for. Empty: the one it gives by default.",
    "kafka.security.token_file": "File of the token for OAUTHBEARER, instead of an endpoint; read at each connection.",
    "kafka.security.aws_region": "Region of the cluster, for AWS_MSK_IAM. Needs the extra `aws`.",
    "kafka.security.allow_plain_text_credentials": (
        "Whether a password, client secret or token may be sent without TLS to another host."
    ),
    "delivery.ordering": "Order: partition (one record at a time), key (one of each key at a time) or unordered.",
    "delivery.concurrency": "Calls that run at once per partition, with the orderings key and unordered.",
    "delivery.threads": "Threads of each route with `threaded`. More calls than threads wait for a free thread.",
    "delivery.max_in_flight_records": "Maximum records in flight per partition: delivered and not done.",
    "delivery.max_in_flight_bytes": "Maximum bytes in flight per partition: keys, values, headers, fetches of batches.",
    "delivery.max_record_bytes": "Maximum bytes of a value. A larger one becomes a dead letter without being decoded.",
    "delivery.commit_interval_seconds": "Seconds between commits.",
    "delivery.drain_seconds": "Seconds for started calls to end when partitions are revoked or the daemon stops.",
    "delivery.on_halt": "Reaction to a halted partition: wait (the other partitions go on) or exit (with 74).",
    "retry.attempts": "Calls before a dead letter, the first call included. Counted per record and route, in memory.",
    "retry.initial_seconds": "Seconds between the first call and the second.",
    "retry.maximum_seconds": "Maximum seconds between two calls.",
    "retry.multiplier": "Factor by which each wait is longer than the one before.",
    "retry.jitter": "Share of each wait by which the wait is lengthened or shortened at random, from 0 to 1.",
    "dead_letter.topic": (
        "Topic of dead letters; may hold `{topic}` and `{group}`. Empty: the first one halts its partition."
    ),
    "dead_letter.headers": "Names of the cause's headers: connect (`__connect.errors.*`) or spring (`kafka_dlt-*`).",
    "dead_letter.limit_ratio": "Maximum share of dead letters in a full window. Above it all partitions halt.",
    "dead_letter.limit_window_records": "Records in that window, counted over all partitions.",
    "watchdog.stalled_seconds": "Seconds after which work that waits and does not move counts as stalled.",
    "watchdog.rebuilds": "Maximum new Kafka clients within the window. After that the daemon exits with 70.",
    "watchdog.window_seconds": "Seconds of that window. A stall that lasts as long also ends the daemon with 70.",
    "http.host": "Address of the status page, /metrics, /healthz and /readyz: a name, or an address such as ::1 or ::.",
    "http.port": "Port of the HTTP server. 0 picks a free one, which the log names.",
    "http.allowed_hosts": (
        "Names under which it answers, besides those of this machine. Empty: no others on a loopback `host`, else all."
        " /healthz and /readyz answer to any name, to others without a reason."
    ),
    "log.level": "Lowest level that is logged: debug, info, warning or error.",
    "log.format": "Format of the log: auto (console on a terminal, else json), console or json.",
    "log.payloads": "Whether events may appear in the log. Events hold personal data.",
    "tracing.enabled": "Whether handler calls are traced as spans. Needs the extra `otel` and the `OTEL_…` variables.",
    "schemas.topic": "Topics with these events: a name or a glob. The first entry that fits a topic counts.",
    "schemas.type": (
        "Type of the events as `module:attribute`: a Struct of msgspec, a union of tagged Structs, a dataclass, a class"
        " of attrs or a TypedDict; or `dict`, or `bytes` for values that are not decoded."
    ),
    "schemas.format": (
        "Format of values: json (also CloudEvents in binary mode), cloudevents (structured mode) or msgpack."
    ),
    "schemas.framing": "Framing of values: none, or confluent (a schema id before the document, or in a header).",
    "routes.name": "Unique name of the route. `none` is reserved.",
    "routes.handler": "Handler as `module:attribute`, imported at start.",
    "routes.topics": "Topics of the route: names or globs. Empty: all topics.",
    "routes.match": (
        'Events to handle: field = value, glob, list, { is = "null" } or { is = "present" }. "header.NAME", "key" and'
        ' "topic" match the record. Empty: all.'
    ),
    "routes.options": 'Arguments of a handler that is a class. A value may be { env = "X" } or { file = "path" }.',
    "routes.threaded": "Whether a plain function is called in a thread.",
    "routes.timeout_seconds": "Seconds after its start at which a call fails. Not for functions that run inline.",
    "routes.max_records": "Maximum records of a batch, 500 when not set; at most half of `max_in_flight_records`.",
    "routes.max_seconds": "Maximum seconds for which a batch is collected; 1.0 when not set.",
    "routes.flush_seconds": "Minimum seconds between two flushes, and so between two commits.",
    "routes.tombstones": "Whether records with a null value reach the handler, as the event None and the Record.",
    "routes.unknown_tags": "Whether the handler gets, as bytes, only records whose tag no type of their topic has.",
    "routes.retry": "Settings of `[retry]` for this route, such as { attempts = 10 }. Others are those of `[retry]`.",
    "routes.pause_on": "Exceptions that count as `Pause`, each as `module:attribute`, besides ConnectionError.",
}

HIDDEN = {"kafka.fetch_path": "Fetch path, for diagnosis: auto, raw or plain."}
