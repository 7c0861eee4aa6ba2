"""Relations between settings, and what names and addresses may look like."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase

from consumer.errors import SettingsError, hint
from consumer.settings.ranges import check_ranges
from consumer.settings.sections import (
    DeadLetterSettings,
    Http,
    Kafka,
    RetrySettings,
    RouteSettings,
    Settings,
    matches_topic,
)
from consumer.settings.security import check_security

TOPIC_NAME = re.compile(r"(?!\.\.?$)[a-zA-Z0-9._-]{1,249}")
SERVER = re.compile(r"(?:\[[0-9A-Fa-f:.]+(?:%\w+)?\]|[^\s:/@\[\]]+):([0-9]{1,9})", re.ASCII)
AFTER_DRAIN_SECONDS = 7.0
"""Time after a drain for calls to end that are cancelled, and for the last flush and commit."""
BROKERS_DECIDE = {
    "kafka.session_timeout_seconds": ("consumer.session.timeout.ms", "group.consumer.session.timeout.ms"),
    "kafka.heartbeat_interval_seconds": ("consumer.heartbeat.interval.ms", "group.consumer.heartbeat.interval.ms"),
}
"""Settings that are the brokers' under ``group_protocol`` consumer: the group's configuration, and their default."""
WRONG_HOST = re.compile(r"$|.*[\s/\[\]]")


def check_relations(settings: Settings) -> None:
    """Raise SettingsError for a value out of range, or for values that cannot work together."""
    kafka, delivery = settings.kafka, settings.delivery
    for section in ("kafka", "delivery", "retry", "dead_letter", "watchdog", "http"):
        check_ranges(getattr(settings, section), section, f"{section}.")
    _check_http(settings.http)
    _require(bool(kafka.bootstrap_servers), "kafka.bootstrap_servers is empty; name a broker as host:port")
    for number, server in enumerate(kafka.bootstrap_servers, 1):
        _check_server(server, f"kafka.bootstrap_servers: number {number}")
    _check_topics(settings)
    twice = sorted({topic for topic in kafka.topics if kafka.topics.count(topic) > 1})
    _require(not twice, f"kafka.topics names {', '.join(twice)} more than once")
    _require(bool(kafka.group_id), "kafka.group_id is empty; name a consumer group, under which offsets are committed")
    _require(
        kafka.heartbeat_interval_seconds <= kafka.session_timeout_seconds / 3,
        f"kafka.heartbeat_interval_seconds = {kafka.heartbeat_interval_seconds} must be at most a third of"
        f" kafka.session_timeout_seconds = {kafka.session_timeout_seconds}",
    )
    _require(
        delivery.drain_seconds + AFTER_DRAIN_SECONDS <= kafka.rebalance_timeout_seconds,
        f"delivery.drain_seconds = {delivery.drain_seconds} must be at least {AFTER_DRAIN_SECONDS:g} s below"
        f" kafka.rebalance_timeout_seconds = {kafka.rebalance_timeout_seconds}, or a drain's last commit is refused",
    )
    _require(
        kafka.group_protocol == "consumer" or kafka.request_timeout_seconds >= kafka.rebalance_timeout_seconds + 5,
        f"kafka.request_timeout_seconds = {kafka.request_timeout_seconds} must be at least 5 s above"
        f" kafka.rebalance_timeout_seconds = {kafka.rebalance_timeout_seconds}, or joining the group can never succeed",
    )
    check_security(kafka)
    _check_retry(settings.retry, "retry")
    _check_dead_letters(settings.dead_letter, kafka)
    _check_routes(settings.routes, settings.retry)
    _check_topics_of(settings)


def check_protocol(kafka: Kafka, origins: Mapping[str, str]) -> None:
    """Raise SettingsError for a setting that was set and that ``kafka.group_protocol`` does not use."""
    if kafka.group_protocol == "classic":
        _require(
            not kafka.group_remote_assignor,
            f"kafka.group_remote_assignor = {kafka.group_remote_assignor!r} is for kafka.group_protocol ="
            ' "consumer"; leave it out, or set that',
        )
        return
    for name, (of_group, of_brokers) in BROKERS_DECIDE.items():
        _require(
            name not in origins,
            f'{name} ({origins.get(name)}): with kafka.group_protocol = "consumer" the brokers decide; leave it out,'
            f" and set {of_group} of the group (kafka-configs.sh --entity-type groups), or {of_brokers} of the brokers",
        )


def _check_topics(settings: Settings) -> None:
    kafka = settings.kafka
    if kafka.topic_pattern:
        try:
            matches_topic(settings)
        except re.error as error:
            raise SettingsError(f"kafka.topic_pattern is not a regular expression: {error}") from None
    else:
        _require(bool(kafka.topics) and all(kafka.topics), "kafka.topics is empty; name a topic")
    instance = kafka.group_instance_id.replace("{hostname}", "")
    _require(
        not instance or TOPIC_NAME.fullmatch(instance) is not None,
        "kafka.group_instance_id may hold letters, digits, `.`, `_` and `-`, and {hostname}, which stands for the host",
    )


def _check_server(server: str, where: str) -> None:
    """Raise SettingsError for what is not host:port; it may hold a password, so no message has it."""
    _require("://" not in server, f"{where} is a URL; write host:port, and set kafka.security.protocol")
    found = SERVER.fullmatch(server)
    _require(found is not None, f"{where} is not host:port; an IPv6 address is written as [::1]:9092")
    port = int(found[1]) if found is not None else 0
    _require(0 < port < 65536, f"{where} has a port that is not from 1 to 65535")


def _check_http(http: Http) -> None:
    for name, hosts in (("http.host", [http.host]), ("http.allowed_hosts", http.allowed_hosts)):
        wrong = any(WRONG_HOST.match(host) for host in hosts)
        _require(not wrong, f"{name} takes a name or an address, such as localhost, 0.0.0.0 or ::1 without brackets")


def _check_retry(retry: RetrySettings, where: str) -> None:
    _require(
        retry.initial_seconds <= retry.maximum_seconds,
        f"{where}.initial_seconds = {retry.initial_seconds} is above {where}.maximum_seconds = {retry.maximum_seconds}",
    )


def _check_dead_letters(dead_letter: DeadLetterSettings, kafka: Kafka) -> None:
    for topic in kafka.topics:
        target = dead_letter.topic_for(topic, kafka.group_id)
        _require(
            TOPIC_NAME.fullmatch(target) is not None or not dead_letter.topic,
            f"dead_letter.topic: {target!r} is no topic name; `{{topic}}` stands for the record's topic,"
            " `{{group}}` for kafka.group_id",
        )
        _require(
            target not in kafka.topics,
            f"dead_letter.topic: {target!r} is one of kafka.topics, so dead letters would be consumed again for ever",
        )


def _check_routes(routes: list[RouteSettings], retry: RetrySettings) -> None:
    names = [route.name for route in routes]
    for name in names:
        _require(name not in ("", "none"), f"routes: the name {name!r} is reserved; choose another")
        _require(names.count(name) == 1, f"routes: more than one is named {name!r}; names must be unique")
    for route in routes:
        where = f"routes ({route.name})"
        check_ranges(route, "routes", f"{where}: ")
        check_ranges(route.retry, "retry", f"{where}: retry.")
        _check_retry(route.retry.over(retry), f"{where}: retry")


def _check_topics_of(settings: Settings) -> None:
    """Raise SettingsError for an entry of a schema or route that fits none of the topics."""
    topics = settings.kafka.topics
    wanted = [(f"schemas[{number}].topic", [each.topic]) for number, each in enumerate(settings.schemas)]
    wanted += [(f"routes ({route.name}): topics", route.topics) for route in settings.routes]
    for where, patterns in wanted:
        for pattern in patterns:
            fits = not topics or any(fnmatchcase(topic, pattern) for topic in topics)
            _require(fits, f"{where}: {pattern!r} fits none of kafka.topics{hint(pattern, topics)}")
    for number, each in enumerate(settings.schemas):
        read = each.framing == "none" or each.format != "msgpack"
        _require(read, f"schemas[{number}].framing: MessagePack is not read behind a schema id; leave framing out")


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SettingsError(otherwise)
