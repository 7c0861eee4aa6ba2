"""Requests and answers of the consumer group protocol, against bytes of Apache Kafka 4.3."""

from __future__ import annotations

from io import BytesIO
from typing import Any
from uuid import UUID

import pytest
from aiokafka.errors import IncompatibleBrokerVersion
from aiokafka.protocol.types import Int16, TaggedFields

from consumer.kafka.wire import NO_TAGS, Nullable, Pinned, Uuid, tagged
from consumer.kafka.wire_questions import DescribeRequest, TopicsRequest
from consumer.kafka.wire_requests import HeartbeatRequest, OffsetCommitRequest, OffsetFetchRequest

MEMBER = "6b2f9c1e-0000-4000-8000-000000000001"
ID = UUID("f2fd849b-4d87-4a7b-ae62-eb4bd2ca4eb9")
ZERO = UUID(int=0)

JOIN = HeartbeatRequest("probe-g", MEMBER, 0, None, None, 30000, ["probe"], None, "uniform", [])
OWNED = HeartbeatRequest("probe-g", MEMBER, 2, None, None, -1, None, None, None, [tagged(ID, [0, 1])])
COMMIT = OffsetCommitRequest("probe-g", 2, MEMBER, None, [tagged("probe", [tagged(0, 5, -1, "note")])], ids=[ID])
ASK = OffsetFetchRequest([tagged("probe-g", MEMBER, 2, [tagged("probe", [0, 1])])], True)

REQUESTS = {
    JOIN: (
        "0870726f62652d672536623266396331652d303030302d343030302d383030302d303030303030303030303031"
        "00000000000000007530020670726f62650008756e69666f726d0100"
    ),
    OWNED: (
        "0870726f62652d672536623266396331652d303030302d343030302d383030302d303030303030303030303031"
        "000000020000ffffffff00000002f2fd849b4d874a7bae62eb4bd2ca4eb90300000000000000010000"
    ),
    COMMIT: (
        "0870726f62652d67000000022536623266396331652d303030302d343030302d383030302d303030303030303030303031"
        "00020670726f626502000000000000000000000005ffffffff056e6f7465000000"
    ),
    ASK: (
        "020870726f62652d672536623266396331652d303030302d343030302d383030302d303030303030303030303031"
        "00000002020670726f626503000000000000000100000100"
    ),
    TopicsRequest([tagged(ZERO, "probe")], False, False): "02000000000000000000000000000000000670726f626500000000",
    TopicsRequest([tagged(ID, None)], False, False): "02f2fd849b4d874a7bae62eb4bd2ca4eb90000000000",
    DescribeRequest(["probe-g"], False): "020870726f62652d670000",
}


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda each: type(each).__name__)
def test_a_request_is_written_as_kafka_reads_it(request_: Pinned) -> None:
    """The bytes are those that a broker took, and are read back as they were written."""
    written = request_.STRUCT(*request_.fields, NO_TAGS)
    assert written.encode().hex() == REQUESTS[request_]
    assert request_.STRUCT.decode(bytes.fromhex(REQUESTS[request_])).encode() == written.encode()


def read(request: type[Pinned], text: str) -> Any:
    """Read an answer without its header, to the last byte."""
    data = BytesIO(bytes.fromhex(text))
    answer = request.STRUCT.RESPONSE_TYPE.decode(data)
    assert data.read() == b""
    return answer


def test_an_assignment() -> None:
    """The answer to a join has the epoch, the interval and all partitions."""
    answer = read(
        HeartbeatRequest,
        "00000000000000"
        "2536623266396331652d303030302d343030302d383030302d303030303030303030303031"
        "00000002000013880102f2fd849b4d874a7bae62eb4bd2ca4eb9030000000000000001000000",
    )
    assert (answer.error_code, answer.member_id, answer.member_epoch) == (0, MEMBER, 2)
    assert answer.heartbeat_interval_ms == 5000
    assert answer.assignment[0] == [(ID, [0, 1], {})]


def test_no_assignment() -> None:
    """An answer without news has no assignment, which is not an empty one."""
    text = "000000000000002536623266396331652d303030302d343030302d383030302d303030303030303030303031"
    assert read(HeartbeatRequest, f"{text}0000000200001388ff00").assignment is None
    assert read(HeartbeatRequest, f"{text}000000020000138801010000").assignment == ([], {})


def test_a_refusal() -> None:
    answer = read(HeartbeatRequest, "000000000019044e6f2e000000000000000000ff00")
    assert (answer.error_code, answer.error_message, answer.member_id) == (25, "No.", None)


def test_an_answer_to_a_commit() -> None:
    answer = read(OffsetCommitRequest, "00000000020670726f626502000000000000000000")
    assert answer.topics == [("probe", [(0, 0, {})], {})]


def test_a_commit_by_the_ids_of_topics() -> None:
    """A topic that was made again has another id, so a broker that reads ids takes no offset of the one before."""
    by_id: Any = COMMIT.prepare({8: (2, 10)})
    assert by_id.API_VERSION == 10
    written = REQUESTS[COMMIT].replace("0670726f6265", ID.hex)
    assert by_id.encode().hex() == written
    data = BytesIO(bytes.fromhex("00000000026060179cfec54ec59c6944cc3973876502000000000000000000"))
    answer: Any = by_id.RESPONSE_TYPE.decode(data)
    assert answer.topics == [(UUID("6060179c-fec5-4ec5-9c69-44cc39738765"), [(0, 0, {})], {})]
    assert data.read() == b""
    assert COMMIT.prepare({8: (2, 9)}).encode().hex() == REQUESTS[COMMIT]


def test_committed_offsets() -> None:
    """A partition without an offset has -1, and an error of the group stands beside no topics."""
    answer = read(
        OffsetFetchRequest,
        "00000000020870726f62652d67020670726f626503000000000000000000000005ffffffff056e6f746500000000"
        "000001ffffffffffffffffffffffff010000000000000000",
    )
    ((_, ((_, rows, _),), code, _),) = answer.groups
    assert ([row[:4] for row in rows], code) == ([(0, 5, -1, "note"), (1, -1, -1, "")], 0)
    stale = read(OffsetFetchRequest, "00000000020870726f62652d670100710000")
    assert stale.groups == [("probe-g", [], 113, {})]


def test_topics_by_id() -> None:
    answer = read(
        TopicsRequest,
        "0000000002000000010a3132372e302e302e31000072d0000017664a6b456132593269502d5137774b4b53554b373777"
        "000000010200000670726f6265f2fd849b4d874a7bae62eb4bd2ca4eb900030000000000000000000100000000020000000102"
        "0000000101000000000000010000000100000000020000000102000000010100800000000000",
    )
    ((code, name, topic_id, _internal, partitions, *_),) = answer.topics
    assert (code, name, topic_id) == (0, "probe", ID)
    assert [each[1:3] for each in partitions] == [(0, 1), (1, 1)]


def test_a_group_as_its_coordinator_has_it() -> None:
    answer = read(
        DescribeRequest,
        "00000000020000000870726f62652d6707537461626c65000000020000000208756e69666f726d02"
        "2536623266396331652d303030302d343030302d383030302d303030303030303030303031"
        "0000000000021061696f6b61666b612d302e31342e300b2f3132372e302e302e31020670726f62650102"
        "f2fd849b4d874a7bae62eb4bd2ca4eb90670726f626503000000000000000100000"
        "2f2fd849b4d874a7bae62eb4bd2ca4eb90670726f6265030000000000000001000000800000000000",
    )
    ((code, _, group, state, epoch, assigned, assignor, members, *_),) = answer.groups
    assert (code, group, state, epoch, assigned, assignor) == (0, "probe-g", "Stable", 2, 2, "uniform")
    assert [(each[0], each[3], each[8][0]) for each in members] == [(MEMBER, 2, [(ID, "probe", [0, 1], {})])]


def test_unknown_tags_are_passed_over() -> None:
    """A later broker may add tagged fields to any struct."""
    plain = "0000000000000000000000020000138801"
    with_tags = read(HeartbeatRequest, f"{plain}01010502abcd010702cdef")
    assert with_tags.assignment == ([], {5: b"\xab\xcd"})


def test_an_id_that_is_cut_off() -> None:
    with pytest.raises(ValueError, match="16"):
        Uuid.decode(BytesIO(b"123"))


def test_a_nullable_struct() -> None:
    kind = Nullable(("code", Int16), ("tags", TaggedFields))
    assert kind.decode(BytesIO(kind.encode((7, {})))) == (7, {})
    assert kind.decode(BytesIO(kind.encode(None))) is None
    assert (kind.repr(None), kind.repr((7, {}))) == ("NULL", "(code=7, tags={})")


@pytest.mark.parametrize("versions", [{}, {68: (0, 0)}, {68: (2, 3)}])
def test_a_broker_without_the_request(versions: dict[int, tuple[int, int]]) -> None:
    """Nothing is sent to a broker that lacks the version."""
    with pytest.raises(IncompatibleBrokerVersion, match="HeartbeatRequest v1"):
        JOIN.prepare(versions)
    assert JOIN.prepare({68: (0, 1)}).API_VERSION == 1
