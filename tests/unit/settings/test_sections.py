"""The settings and their defaults."""

from __future__ import annotations

import tomllib

import msgspec
import pytest

from consumer.settings.sections import SECRETS, DeadLetterSettings, Kafka, Settings, matches_topic
from tests.unit.settings.loading import leaves, loaded

DEFAULTS = """
path = []
allow_writable = false
schemas = []
routes = []
[kafka]
bootstrap_servers = ["localhost:9092"]
topics = ["session-events"]
topic_pattern = ""
group_id = "session-consumer"
group_instance_id = ""
group_protocol = "classic"
group_remote_assignor = ""
client_id = "session-consumer"
offset_reset = "earliest"
out_of_range = "halt"
isolation_level = "read_committed"
fetch_bytes = 1_048_576
fetch_path = "auto"
max_batch_bytes = 67_108_864
start_timeout_seconds = 60.0
session_timeout_seconds = 45.0
heartbeat_interval_seconds = 3.0
rebalance_timeout_seconds = 60.0
request_timeout_seconds = 70.0
[kafka.security]
protocol = "PLAINTEXT"
ca_file = ""
certificate_file = ""
key_file = ""
mechanism = "PLAIN"
username = ""
password = ""
password_file = ""
token_endpoint = ""
oauth_client_id = ""
oauth_client_secret = ""
oauth_client_secret_file = ""
scope = ""
token_file = ""
aws_region = ""
allow_plain_text_credentials = false
[delivery]
ordering = "partition"
concurrency = 64
threads = 64
max_in_flight_records = 2000
max_in_flight_bytes = 8_388_608
max_record_bytes = 1_048_576
commit_interval_seconds = 1.0
drain_seconds = 25.0
on_halt = "wait"
[retry]
attempts = 5
initial_seconds = 0.2
maximum_seconds = 30.0
multiplier = 2.0
jitter = 0.2
[dead_letter]
topic = "{topic}.dlq"
headers = "connect"
limit_ratio = 0.5
limit_window_records = 1000
[watchdog]
stalled_seconds = 60.0
rebuilds = 5
window_seconds = 600.0
[http]
host = "127.0.0.1"
port = 8000
allowed_hosts = []
[log]
level = "info"
format = "auto"
payloads = false
[tracing]
enabled = false
"""


def test_defaults_are_the_contracts() -> None:
    """Without any source every setting has the contract's default, and no origin."""
    settings, origins = loaded().settings, loaded().origins
    assert msgspec.to_builtins(settings) == tomllib.loads(DEFAULTS)
    assert origins == {}


def test_secrets_are_settings() -> None:
    """Every secret is an existing setting."""
    assert set(leaves()) >= SECRETS


@pytest.mark.parametrize(
    ("pattern", "letters", "topic", "consumed"),
    [
        ("session-.*", "{topic}.dlq", "session-events", True),
        ("session-.*", "{topic}.dlq", "session-events.dlq", False),
        ("session-.*", "{topic}.dlq", "my-session-events", False),
        ("session-events", "{topic}.dlq", "session-events-2", False),
        ("a|b", "{topic}.dlq", "b", True),
        ("a|b", "{topic}.dlq", "bb", False),
        (".*", "letters.of.{group}", "letters.of.g", False),
        (".*", "letters.of.{group}", "letters-of-g", True),
        (".*", "", "session-events.dlq", True),
    ],
)
def test_a_pattern_names_whole_topics_but_no_letters(pattern: str, letters: str, topic: str, *, consumed: bool) -> None:
    """Dead letters that a pattern matches would be consumed again for ever."""
    settings = Settings(
        kafka=Kafka(topics=[], topic_pattern=pattern, group_id="g"), dead_letter=DeadLetterSettings(topic=letters)
    )
    assert bool(matches_topic(settings).match(topic)) == consumed
