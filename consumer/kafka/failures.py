"""What went wrong with a request, in plain words: what happened and what to do."""

from __future__ import annotations

from collections.abc import Iterator

from aiokafka import errors

from consumer.errors import KafkaError, KafkaUnreachableError
from consumer.kafka.broker_errors import GroupMaxSizeReachedError
from consumer.settings.sections import Kafka

ClientError = errors.KafkaError
"""Base class of aiokafka's errors, which are translated in this folder."""

REQUEST_ERRORS = (ClientError, KafkaError, KafkaUnreachableError, OSError, TimeoutError)
"""What connecting, or a request to the brokers, may raise."""

ANSWERS: dict[type[BaseException], str] = {
    errors.TopicAuthorizationFailedError: "permission denied on a topic; grant READ and DESCRIBE on {topics}",
    errors.GroupAuthorizationFailedError: "permission denied on the group; grant READ on group {group!r}",
    errors.ClusterAuthorizationFailedError: "permission denied on the cluster; grant what the request needs",
    errors.InconsistentGroupProtocolError: (
        "the members of group {group!r} use another protocol or another assignor than `range`; stop them, or choose"
        " another kafka.group_id"
    ),
    errors.InvalidSessionTimeoutError: (
        "kafka.session_timeout_seconds = {session:g} is outside the broker's range (group.min.session.timeout.ms to"
        " group.max.session.timeout.ms); change one of them"
    ),
    GroupMaxSizeReachedError: "group {group!r} is full; raise group.max.size of the brokers",
    errors.InvalidGroupIdError: "kafka.group_id {group!r} is not a name that the broker accepts; choose another",
    errors.UnsupportedVersionError: "the broker does not support the request; use Apache Kafka 2.1 or later",
}
"""Sentence for each error of a request that waiting does not change."""


def explained(error: BaseException, kafka: Kafka) -> str:
    """Describe the error of a request in one line: our own sentence, or the class and text of the client's error."""
    if isinstance(error, KafkaError | KafkaUnreachableError):
        return str(error)
    if isinstance(error, TimeoutError):
        return "the brokers did not answer in time"
    for each in chain_of(error):
        sentence = next((text for kind, text in ANSWERS.items() if isinstance(each, kind)), None)
        if sentence is not None:
            topics, session = ", ".join(kafka.topics), kafka.session_timeout_seconds
            return sentence.format(topics=topics, group=kafka.group_id, session=session)
    return described(error)


def unreachable(kafka: Kafka, error: BaseException) -> KafkaUnreachableError:
    """Make the error for a client that did not connect, although a server had answered."""
    servers = ", ".join(kafka.bootstrap_servers)
    return KafkaUnreachableError(f"kafka.bootstrap_servers: {servers}: {explained(error, kafka)}")


def described(error: BaseException) -> str:
    """Describe a client error in one line: its class and its text, which names only brokers and topics."""
    name = type(error).__name__
    text = str(error).strip().partition("\n")[0].removeprefix(f"{name}: ")
    return f"{name}: {text}" if text else name


def chain_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and its causes, innermost first: what the network said is below what aiokafka made of it."""
    chain: list[BaseException] = []
    each: BaseException | None = error
    while each is not None and each not in chain:
        chain.append(each)
        each = each.__cause__
    return reversed(chain)
