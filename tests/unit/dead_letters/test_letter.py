"""Dead letters as values: the record unchanged and, in the headers of either dialect, the cause."""

from __future__ import annotations

import struct
from typing import Any, Literal, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.dead_letters.cause import REASONS, Cause, class_name
from consumer.dead_letters.headers import Context, read_context, split_headers
from consumer.dead_letters.letter import Letter, Writer
from consumer.errors import DecodeError
from consumer.instructions import CODE
from consumer.record import Position, TopicPartition
from consumer.settings.sections import DeadLetterSettings

KEY = TopicPartition("orders", 3)
DLQ = TopicPartition("orders.dlq", 1)
CAUSE = Cause("exhausted", "voice", 5, "builtins.ValueError", "the handler of route 'voice' raised ValueError (h.py:7)")
Dialect = Literal["connect", "spring"]
DIALECTS: list[Dialect] = ["connect", "spring"]


class Raw(NamedTuple):
    """One record as the Kafka client delivers it."""

    offset: int = 1234
    value: bytes | None = b"value"
    key: bytes | None = b"key"
    timestamp: int = 1_729_512_000_123
    headers: tuple[tuple[str, bytes | None], ...] = (("trace", b"7"),)


RECORD = Raw()


def a_letter(
    raw: Any = RECORD, cause: Cause = CAUSE, dialect: Dialect = "connect", key: TopicPartition = KEY
) -> Letter:
    return Writer(DeadLetterSettings(headers=dialect), "group").letter(key, raw, cause)


def failed_again(letter: Letter, dialect: Dialect = "connect", cause: Cause = CAUSE) -> Letter:
    """Make the letter of a letter that failed again."""
    raw = Raw(77, letter.value, letter.key, letter.timestamp_ms, tuple(letter.headers))
    return Writer(DeadLetterSettings(headers=dialect), "group", of_letters=True).letter(DLQ, raw, cause)


def own(letter: Letter) -> list[tuple[str, bytes | None]]:
    return list(split_headers(letter.headers)[0])


def context(letter: Letter) -> Context:
    found = read_context(letter.headers)
    assert found is not None
    return found


def test_the_connect_dialect() -> None:
    """The Connect dialect has Kafka Connect's names and ASCII values, after the record's own headers."""
    assert a_letter() == Letter(
        "orders.dlq",
        b"key",
        b"value",
        [
            ("trace", b"7"),
            ("session-consumer.reason", b"exhausted"),
            ("session-consumer.route", b"voice"),
            ("session-consumer.attempts", b"5"),
            ("session-consumer.redrives", b"0"),
            ("session-consumer.group", b"group"),
            ("__connect.errors.topic", b"orders"),
            ("__connect.errors.partition", b"3"),
            ("__connect.errors.offset", b"1234"),
            ("__connect.errors.stage", b"TASK_PUT"),
            ("__connect.errors.exception.class.name", b"builtins.ValueError"),
            ("__connect.errors.exception.message", b"the handler of route 'voice' raised ValueError (h.py:7)"),
        ],
        1_729_512_000_123,
    )


def test_the_spring_dialect() -> None:
    """The Spring dialect has Spring's names; the partition is an int32, offset and timestamp are big-endian int64."""
    assert a_letter(dialect="spring").headers == [
        ("trace", b"7"),
        ("session-consumer.reason", b"exhausted"),
        ("session-consumer.route", b"voice"),
        ("session-consumer.attempts", b"5"),
        ("session-consumer.redrives", b"0"),
        ("session-consumer.group", b"group"),
        ("kafka_dlt-original-topic", b"orders"),
        ("kafka_dlt-original-partition", b"\x00\x00\x00\x03"),
        ("kafka_dlt-original-offset", b"\x00\x00\x00\x00\x00\x00\x04\xd2"),
        ("kafka_dlt-original-timestamp", struct.pack(">q", 1_729_512_000_123)),
        ("kafka_dlt-original-consumer-group", b"group"),
        ("kafka_dlt-exception-fqcn", b"builtins.ValueError"),
        ("kafka_dlt-exception-message", b"the handler of route 'voice' raised ValueError (h.py:7)"),
    ]


@pytest.mark.parametrize(
    ("reason", "stage"),
    [
        ("undecodable", b"VALUE_CONVERTER"),
        ("too_large", b"VALUE_CONVERTER"),
        ("bad_header", b"HEADER_CONVERTER"),
        ("rejected", b"TASK_PUT"),
        ("exhausted", b"TASK_PUT"),
    ],
)
def test_every_reason_has_its_stage(reason: str, stage: bytes) -> None:
    """Each reason has a stage in Kafka Connect's terms."""
    assert reason in REASONS
    headers = dict(a_letter(cause=CAUSE._replace(reason=reason)).headers)
    assert headers["__connect.errors.stage"] == stage


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_reject_code_is_in_the_letter(dialect: Dialect) -> None:
    """A code has its own header in both dialects; a letter without a code has no such header."""
    letter = a_letter(cause=CAUSE._replace(reason="rejected", code="unknown_agent"), dialect=dialect)
    assert dict(letter.headers)["session-consumer.code"] == b"unknown_agent"
    assert "session-consumer.code" not in dict(a_letter(dialect=dialect).headers)
    assert context(failed_again(letter, dialect)).code == ""


@pytest.mark.parametrize("said", [b"+4930123456", b"Unknown agent", b"", b"\xff", b"a" * 65])
def test_a_code_of_another_form_is_not_read(said: bytes) -> None:
    """A code header that no Reject could have written may hold payload; it counts as missing."""
    letter = a_letter()
    assert context(letter).code == ""
    found = read_context([*letter.headers, ("session-consumer.code", said)])
    assert found is not None
    assert found.code == ""


@pytest.mark.parametrize("dialect", DIALECTS)
def test_what_is_not_ascii_is_escaped(dialect: Dialect) -> None:
    """Class and message are ASCII: other characters are escaped, and can be read back."""
    letter = a_letter(
        cause=CAUSE._replace(error_class="módulo.Ungültig", message="in größe.py \N{PILE OF POO}"), dialect=dialect
    )
    said = [value for name, value in letter.headers if "exception" in name]
    assert said == [b"m\\xf3dulo.Ung\\xfcltig", b"in gr\\xf6\\xdfe.py \\U0001f4a9"]
    assert context(letter).error_class == "m\\xf3dulo.Ung\\xfcltig"


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("raw", [Raw(key=None), Raw(value=None), Raw(key=None, value=None), Raw(key=b"", value=b"")])
def test_key_and_value_stay_as_they_are(raw: Raw, dialect: Dialect) -> None:
    """A missing key or value stays missing, and an empty one stays empty."""
    letter = a_letter(raw, dialect=dialect)
    assert (letter.key, letter.value) == (raw.key, raw.value)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("timestamp", [-1, 0, 2**63 - 1])
def test_any_timestamp_is_kept(timestamp: int, dialect: Dialect) -> None:
    """A record without a timestamp (-1) becomes a letter without one."""
    letter = a_letter(Raw(timestamp=timestamp), dialect=dialect)
    assert letter.timestamp_ms == timestamp
    if dialect == "spring":
        assert dict(letter.headers)["kafka_dlt-original-timestamp"] == struct.pack(">q", timestamp)


@pytest.mark.parametrize(
    ("topic", "target"),
    [
        ("{topic}.dlq", "orders.dlq"),
        ("dead", "dead"),
        ("x.{topic}", "x.orders"),
        ("{topic}.{group}.dlq", "orders.group.dlq"),
        ("{group}", "group"),
    ],
)
def test_where_it_goes(topic: str, target: str) -> None:
    """`{topic}` stands for the record's topic, `{group}` for the group; also for a letter that failed again."""
    writer = Writer(DeadLetterSettings(topic=topic), "group")
    letter = writer.letter(KEY, Raw(), CAUSE)
    again = writer._replace(of_letters=True).letter(DLQ, Raw(headers=tuple(letter.headers)), CAUSE)
    assert (letter.topic, again.topic) == (target, target)


def test_a_class_is_named_with_its_module() -> None:
    """An exception is named by its module and class, as other tools expect."""
    assert class_name(DecodeError("undecodable", "")) == "consumer.errors.DecodeError"
    assert class_name(KeyError()) == "builtins.KeyError"


names = st.text(max_size=8)
headers = st.lists(
    st.tuples(
        st.one_of(names, st.sampled_from(["session-consumer.", "__connect.errors.", "kafka_dlt-"]).flatmap(
            lambda prefix: names.map(lambda name: prefix + name)
        ), st.sampled_from([name for dialect in DIALECTS for name, _ in a_letter(dialect=dialect).headers])),
        st.none() | st.binary(max_size=12),
    ),
    max_size=6,
)  # fmt: skip
raws = st.builds(
    Raw,
    offset=st.integers(0, 2**63 - 1),
    value=st.none() | st.binary(max_size=5),
    key=st.none() | st.binary(max_size=5),
    timestamp=st.integers(-1, 2**63 - 1),
    headers=headers.map(tuple),
)
causes = st.builds(
    Cause,
    reason=st.sampled_from(REASONS),
    route=st.text(min_size=1, max_size=8).filter(lambda name: name.isprintable()),
    attempts=st.integers(0, 2**31 - 1),
    error_class=st.text(max_size=8),
    message=st.text(max_size=20),
    code=st.just("") | st.from_regex(CODE, fullmatch=True),
)


@given(raw=raws, cause=causes, dialects=st.lists(st.sampled_from(DIALECTS), min_size=1, max_size=4))
def test_a_letter_is_read_as_it_was_written(raw: Raw, cause: Cause, dialects: list[Dialect]) -> None:
    """With any headers, and after any number of redrives, a letter gives back its record and origin."""
    letter = a_letter(raw, cause, dialects[0])
    for dialect in dialects[1:]:
        letter = failed_again(letter, dialect, cause)
    assert own(letter) == list(raw.headers)
    assert (letter.key, letter.value, letter.timestamp_ms) == (raw.key, raw.value, raw.timestamp)
    assert context(letter) == Context(
        Position(*KEY, raw.offset),
        cause.reason,
        cause.route,
        cause.attempts,
        len(dialects) - 1,
        cause.error_class.encode("ascii", "backslashreplace").decode(),
        cause.message.encode("ascii", "backslashreplace").decode(),
        group="group",
        code=cause.code,
    )


@given(headers=headers)
def test_headers_of_any_kind_are_read(headers: list[tuple[str, bytes | None]]) -> None:
    """Reading headers never raises, and splitting them loses none."""
    read_context(headers)
    assert sorted(map(repr, (each for part in split_headers(headers) for each in part))) == sorted(map(repr, headers))


def test_the_letter_of_a_letter() -> None:
    """The letter of a letter has the same origin, one redrive more, its own cause, and no headers of the old one."""
    cause = CAUSE._replace(reason="rejected", attempts=1)
    again = failed_again(failed_again(a_letter()), cause=cause)
    assert context(again) == context(a_letter())._replace(redrives=2, reason="rejected", attempts=1)
    assert len(again.headers) == len(a_letter().headers)


def test_a_dead_letter_topic_that_is_consumed() -> None:
    """A daemon that consumes a dead-letter topic sees letters as records whose headers hold the cause."""
    first = a_letter()
    second = a_letter(Raw(5, headers=tuple(first.headers)), key=DLQ)
    assert own(second) == first.headers
    assert context(second).origin == Position(*DLQ, 5)
    assert context(second).redrives == 0
    assert second.topic == "orders.dlq.dlq"


def test_an_escaped_header_key_stays_escaped() -> None:
    """The header that names escaped keys becomes the record's own, also when the record fails again."""
    escaped = (("%FFkey", b"x"), ("session-consumer.escaped", b"%FFkey"))
    letter = failed_again(a_letter(Raw(headers=escaped)))
    assert own(letter) == list(escaped)


BY_CONNECT: list[tuple[str, bytes | None]] = [
    ("mine", b"1"),
    ("__connect.errors.topic", b"orders"),
    ("__connect.errors.partition", b"3"),
    ("__connect.errors.offset", b"1234"),
    ("__connect.errors.connector.name", b"sink"),
    ("__connect.errors.task.id", b"0"),
    ("__connect.errors.stage", b"VALUE_CONVERTER"),
    ("__connect.errors.class.name", b"org.apache.kafka.connect.json.JsonConverter"),
    ("__connect.errors.exception.class.name", b"org.apache.kafka.connect.errors.DataException"),
    ("__connect.errors.exception.message", None),
    ("__connect.errors.exception.stacktrace", b"at ..."),
]
BY_SPRING: list[tuple[str, bytes | None]] = [
    ("mine", b"1"),
    ("kafka_dlt-original-topic", b"orders"),
    ("kafka_dlt-original-partition", struct.pack(">i", 3)),
    ("kafka_dlt-original-offset", struct.pack(">q", 1234)),
    ("kafka_dlt-original-timestamp", struct.pack(">q", 5)),
    ("kafka_dlt-original-timestamp-type", b"CreateTime"),
    ("kafka_dlt-original-consumer-group", b"them"),
    ("kafka_dlt-exception-fqcn", b"org.apache.kafka.connect.errors.DataException"),
    ("kafka_dlt-exception-stacktrace", b"at ..."),
]


@pytest.mark.parametrize("theirs", [BY_CONNECT, BY_SPRING])
def test_letters_of_other_tools(theirs: list[tuple[str, bytes | None]]) -> None:
    """Letters of Kafka Connect and Spring name their record and no route, and are known as foreign."""
    error = "org.apache.kafka.connect.errors.DataException"
    assert read_context(theirs) == Context(Position(*KEY, 1234), "", "none", 0, 0, error, "", is_ours=False)
    assert split_headers(theirs)[0] == [("mine", b"1")]


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("theirs", [BY_CONNECT, BY_SPRING])
def test_a_letter_of_other_tools_that_fails_again(theirs: list[tuple[str, bytes | None]], dialect: Dialect) -> None:
    """A foreign letter that fails again becomes our letter of the same record, without foreign headers."""
    again = failed_again(Letter("orders.dlq", b"key", b"value", theirs, 5), dialect)
    assert own(again) == [("mine", b"1")]
    assert context(again) == context(a_letter())._replace(redrives=1)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("__connect.errors.offset", b"x"),
        ("__connect.errors.offset", b""),
        ("__connect.errors.offset", b"-1"),
        ("__connect.errors.offset", b" 1"),
        ("__connect.errors.offset", b"1_0"),
        ("__connect.errors.offset", b"%d" % 2**63),
        ("__connect.errors.offset", b"9" * 5000),
        ("__connect.errors.partition", b"%d" % 2**31),
        ("__connect.errors.partition", None),
        ("__connect.errors.topic", None),
        ("session-consumer.attempts", b"many"),
        ("session-consumer.redrives", b"-1"),
        ("kafka_dlt-original-offset", b"1234"),
        ("kafka_dlt-original-offset", struct.pack(">q", -1)),
        ("kafka_dlt-original-partition", struct.pack(">q", 3)),
        ("kafka_dlt-original-partition", b""),
        ("kafka_dlt-original-topic", None),
    ],
)
def test_a_malformed_letter(name: str, value: bytes | None) -> None:
    """Headers that name an impossible record make no letter, and raise nothing."""
    letter = a_letter(dialect="spring" if name.startswith("kafka_dlt-") else "connect")
    assert read_context([(each, value if each == name else said) for each, said in letter.headers]) is None


def test_no_letter() -> None:
    """A record without headers, or with other headers, is not a letter."""
    assert read_context([]) is None
    assert read_context([("trace", b"7"), ("session-consumer.reason", b"exhausted")]) is None
