"""Values that cannot work, alone or together, are refused with the setting's name."""

from __future__ import annotations

import pytest

from tests.unit.settings.loading import SECRET, loaded, refusal

NUMBERS = [
    "kafka.fetch_bytes",
    "kafka.start_timeout_seconds",
    "kafka.session_timeout_seconds",
    "kafka.heartbeat_interval_seconds",
    "kafka.rebalance_timeout_seconds",
    "kafka.request_timeout_seconds",
    "delivery.concurrency",
    "delivery.threads",
    "delivery.max_in_flight_records",
    "delivery.max_in_flight_bytes",
    "delivery.max_record_bytes",
    "delivery.commit_interval_seconds",
    "delivery.drain_seconds",
]


@pytest.mark.parametrize("number", ["0", "-1"])
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_above_zero(name: str, number: str) -> None:
    """A size, a count or a time of 0 or less is refused with its name."""
    assert f"{name} = {number}" in refusal(f"{name}={number}")


@pytest.mark.parametrize("name", [name for name in NUMBERS if name.endswith("_seconds")])
def test_times_are_numbers(name: str) -> None:
    """NaN is refused as a time."""
    assert name in refusal(f"{name}=nan")


ROUTE = '{{name = "{}", handler = "m:f"}}'


def a_retry(fields: str) -> str:
    """Return the override of one route with these retry settings."""
    return f'routes=[{{name = "a", handler = "m:f", retry = {{ {fields} }} }}]'


BROKEN = [
    (["http.port=-1"], "http.port = -1 must be from 0 to 65535"),
    (["http.port=65536"], "http.port = 65536 must be from 0 to 65535"),
    (["kafka.topic_pattern=("], "kafka.topic_pattern is not a regular expression: missing )"),
    (["kafka.topic_pattern=a", "kafka.topics=b"], "kafka.topic_pattern (--set) and kafka.topics (--set): set only one"),
    (["kafka.group_instance_id=a b"], "kafka.group_instance_id may hold letters, digits"),
    (["kafka.group_instance_id={host}"], "kafka.group_instance_id may hold letters, digits"),
    (["kafka.bootstrap_servers="], "kafka.bootstrap_servers is empty"),
    (["kafka.bootstrap_servers=broker"], "number 1 is not host:port"),
    (["kafka.bootstrap_servers=a:1,broker:"], "number 2 is not host:port"),
    (["kafka.bootstrap_servers=broker:kafka"], "number 1 is not host:port"),
    (["kafka.bootstrap_servers=:9092"], "number 1 is not host:port"),
    (["kafka.bootstrap_servers=broker:²"], "number 1 is not host:port"),
    (["kafka.bootstrap_servers=::1:9092"], "an IPv6 address is written as [::1]:9092"),
    (["kafka.bootstrap_servers=a:1,b:99999"], "number 2 has a port that is not from 1 to 65535"),
    (["kafka.bootstrap_servers=a:0"], "number 1 has a port that is not from 1 to 65535"),
    (["kafka.bootstrap_servers=SASL_SSL://me:hunter2@b:9092"], "number 1 is a URL; write host:port"),
    (["kafka.bootstrap_servers=me:hunter2@b:9092"], "number 1 is not host:port"),
    (["kafka.topics="], "kafka.topics is empty"),
    (["kafka.group_id="], "kafka.group_id is empty"),
    (["kafka.heartbeat_interval_seconds=15.1"], "at most a third of kafka.session_timeout_seconds = 45.0"),
    (["kafka.session_timeout_seconds=8.9", "kafka.heartbeat_interval_seconds=3"], "= 3.0 must be at most a third"),
    (["kafka.group_protocol=new"], "'new' is not one of classic, consumer"),
    (["kafka.group_protocol=consumer", "kafka.group_remote_assignor=sticky"], "is not one of , uniform, range"),
    (["kafka.group_remote_assignor=range"], 'is for kafka.group_protocol = "consumer"; leave it out'),
    (
        ["kafka.group_protocol=consumer", "kafka.session_timeout_seconds=45"],
        'kafka.session_timeout_seconds (--set): with kafka.group_protocol = "consumer" the brokers decide',
    ),
    (
        ["kafka.group_protocol=consumer", "kafka.session_timeout_seconds=45"],
        "leave it out, and set consumer.session.timeout.ms of the group",
    ),
    (
        ["kafka.group_protocol=consumer", "kafka.heartbeat_interval_seconds=3"],
        "or group.consumer.heartbeat.interval.ms of the brokers",
    ),
    (["delivery.drain_seconds=53.1"], "must be at least 7 s below kafka.rebalance_timeout_seconds = 60.0"),
    (["kafka.rebalance_timeout_seconds=25"], "delivery.drain_seconds = 25.0 must be at least 7 s below"),
    (["kafka.request_timeout_seconds=64.9"], "must be at least 5 s above kafka.rebalance_timeout_seconds = 60.0"),
    (["kafka.rebalance_timeout_seconds=65.1"], "kafka.request_timeout_seconds = 70.0 must be at least 5 s above"),
    (["kafka.security.protocol=SASL_SSL"], "kafka.security.username is empty"),
    (["kafka.security.protocol=SASL_PLAINTEXT", "kafka.security.username=u"], "kafka.security.password is empty"),
    (["kafka.security.protocol=SSL", "kafka.security.certificate_file=c"], "go together"),
    (["kafka.security.protocol=SSL", "kafka.security.key_file=k"], "go together"),
    (["kafka.security.ca_file=c"], "kafka.security.ca_file is set, but the protocol PLAINTEXT does not use TLS"),
    (["kafka.security.certificate_file=c", "kafka.security.key_file=k"], "kafka.security.certificate_file is set"),
    (["dead_letter.topic={topic} dead"], "dead_letter.topic: 'session-events dead' is no topic name"),
    (["dead_letter.topic={group}.dlq", "kafka.group_id=my group"], "'my group.dlq' is no topic name"),
    (["dead_letter.topic={group}", "kafka.group_id=session-events"], "'session-events' is one of kafka.topics"),
    ([a_retry("attempts = 0")], "routes (a): retry.attempts = 0 must be from 1 to 1_000_000"),
    ([a_retry("initial_seconds = nan")], "routes (a): retry.initial_seconds = nan must be from 0.001 to 2_147_483"),
    ([a_retry("maximum_seconds = 3e9")], "retry.maximum_seconds = 3000000000.0 must be from 0.001 to 2_147_483"),
    ([a_retry("multiplier = 0.9")], "routes (a): retry.multiplier = 0.9 must be from 1 to 1000"),
    ([a_retry("jitter = 1.1")], "routes (a): retry.jitter = 1.1 must be from 0 to 1"),
    ([a_retry("jitter = -0.1")], "routes (a): retry.jitter = -0.1 must be from 0 to 1"),
    ([a_retry("initial_seconds = 31.0")], "is above routes (a): retry.maximum_seconds = 30.0"),
    ([a_retry("maximum_seconds = 0.1")], "routes (a): retry.initial_seconds = 0.2 is above"),
    ([a_retry("attemps = 3")], "unknown setting 'routes[0].retry.attemps' (--set); did you mean 'attempts'?"),
    ([a_retry("attempts = 1.5")], "routes[0].retry.attempts (--set): expected int"),
    (["http.host="], "http.host takes a name or an address"),
    (["http.host=[::1]"], "::1 without brackets"),
    (["http.host=http://a"], "http.host takes a name or an address"),
    (["http.allowed_hosts=https://a.example/"], "http.allowed_hosts takes a name or an address"),
    ([f"routes=[{ROUTE.format('none')}]"], "routes: the name 'none' is reserved"),
    ([f"routes=[{ROUTE.format('')}]"], "routes: the name '' is reserved"),
    ([f"routes=[{ROUTE.format('a')}, {ROUTE.format('a')}]"], "routes: more than one is named 'a'"),
]

WORKING = [
    ["http.port=0"],
    ["http.port=65535"],
    ["kafka.bootstrap_servers=a:1,[::1]:9092"],
    ["kafka.heartbeat_interval_seconds=15"],
    ["kafka.session_timeout_seconds=9"],
    ["kafka.group_protocol=consumer", "kafka.request_timeout_seconds=5"],
    ["kafka.group_protocol=consumer", "kafka.group_remote_assignor=range"],
    ["kafka.group_protocol=consumer", "kafka.group_remote_assignor="],
    ["kafka.session_timeout_seconds=8.9"],
    ["http.host=::1"],
    ["http.host=::"],
    ["http.allowed_hosts=metrics.example,10.0.0.7,::7,a.example:8000"],
    ["delivery.drain_seconds=53"],
    ["kafka.rebalance_timeout_seconds=65"],
    ["kafka.request_timeout_seconds=65"],
    ["dead_letter.topic={topic}.{group}.dlq", "kafka.group_id=my-group"],
    ["kafka.security.protocol=SSL"],
    ["kafka.security.protocol=SSL", "kafka.security.ca_file=c"],
    ["kafka.security.protocol=SSL", "kafka.security.certificate_file=c", "kafka.security.key_file=k"],
    [f"routes=[{ROUTE.format('a')}, {ROUTE.format('b')}]"],
    [a_retry("attempts = 1, initial_seconds = 30.0, multiplier = 1.0, jitter = 0.0")],
    [a_retry("")],
    ["retry.maximum_seconds=60.0", a_retry("initial_seconds = 60.0")],
]


@pytest.mark.parametrize(("overrides", "message"), BROKEN, ids=str)
def test_values_that_cannot_work_together(overrides: list[str], message: str) -> None:
    """Values that cannot work together are refused with their names before any connection."""
    assert message in refusal(*overrides)


def test_a_server_is_not_echoed() -> None:
    """What was meant as a server may hold a password."""
    assert "hunter2" not in refusal("kafka.bootstrap_servers=SASL_SSL://me:hunter2@broker:9092")


@pytest.mark.parametrize("overrides", WORKING, ids=str)
def test_values_that_just_work_together(overrides: list[str]) -> None:
    """Values at the limit of what works are accepted."""
    assert loaded(*overrides).origins.keys() == {override.partition("=")[0] for override in overrides}


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_sasl_with_both_works(protocol: str) -> None:
    """SASL with a user name and a password is accepted."""
    overrides = [f"kafka.security.protocol={protocol}", "kafka.security.username=u"]
    assert loaded(*overrides, KAFKA__SECURITY__PASSWORD=SECRET).settings.kafka.security.protocol == protocol


def test_tls_files_need_tls_under_sasl_too() -> None:
    """A CA file for SASL without TLS is refused."""
    message = refusal(
        "kafka.security.protocol=SASL_PLAINTEXT",
        "kafka.security.username=u",
        "kafka.security.ca_file=c",
        KAFKA__SECURITY__PASSWORD=SECRET,
    )
    assert "kafka.security.ca_file is set, but the protocol SASL_PLAINTEXT does not use TLS" in message
