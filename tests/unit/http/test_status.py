"""``/status.json``: plain data from the daemon's objects, and no content of records."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

import msgspec
import pytest

from consumer.http.conditions import DeadLetteringStatus, StallStatus
from consumer.http.history import SAMPLES, History
from consumer.observe.counters import Counters
from consumer.observe.members import GroupDescription, Member, Membership
from consumer.observe.waiting import Standing
from consumer.observe.watchdog import Stall
from consumer.outcome import HaltReason
from consumer.partition.hold import Halt, Hold
from consumer.partition.state import Partition, Phase
from consumer.record import TopicPartition
from consumer.settings.listing import HIDDEN, plain_settings
from consumer.settings.sections import Kafka, RouteSettings, Security, Settings
from tests.unit.http.scene import WALL, Scene


def close(partition: Partition) -> None:
    partition.phase = Phase.CLOSING


PHONE = "+18045550100"


def test_a_partition() -> None:
    """A partition has its offsets, its lag, what is in flight, and the age of its end offset."""
    scene = Scene()
    partition = scene.owns(3, start=100, end=160)
    partition.watermark.advance(120)
    partition.commit(110)
    scene.now += 4
    (found,) = scene.read().partitions
    assert (found.topic, found.partition, found.state) == ("session-events", 3, "reading")
    assert (found.committed_offset, found.position, found.end_offset, found.lag_records) == (110, 120, 160, 50)
    assert found.end_offset_age_seconds == 4.0
    assert found.lag_seconds == partition.lag_seconds(WALL + 4)


def test_an_unknown_start() -> None:
    """Unknown values are null: a partition that was just assigned has no lag."""
    scene = Scene()
    scene.observed.partitions.append(Partition(TopicPartition("session-events", 0), 1))
    (found,) = scene.read().partitions
    assert found.state == "starting"
    assert (found.lag_records, found.lag_seconds, found.committed_offset, found.end_offset) == (None, None, None, None)


def halted(partition: Partition) -> None:
    partition.halt = Halt(HaltReason.FUSE, 3, "most fail", "")


def held(kind: str) -> Callable[[Partition], None]:
    return lambda partition: partition.holds.add(Hold(kind, "voice", 100, WALL))


@pytest.mark.parametrize(
    ("happens", "state"),
    [
        ((), "caught up"),
        ((held("error"),), "retrying"),
        ((held("timeout"),), "retrying"),
        ((held("error"), held("pause")), "holding"),
        ((held("pause"), close), "draining"),
        ((held("pause"), halted), "halted"),
    ],
)
def test_the_state_of_a_partition(happens: tuple[Callable[[Partition], None], ...], state: str) -> None:
    """Of several true states a partition shows the most important one."""
    scene = Scene()
    partition = scene.owns(end=100)
    for each in happens:
        each(partition)
    assert scene.read().partitions[0].state == state


def test_partitions_are_in_order() -> None:
    """Partitions are sorted by number, however they were assigned."""
    scene = Scene()
    for number in (10, 2, 1):
        scene.owns(number)
    assert [each.partition for each in scene.read().partitions] == [1, 2, 10]


def test_routes_and_outcomes() -> None:
    """Each route has its counts; records of no route are counted under ``none``."""
    scene = Scene()
    counts = scene.counters.routes["voice"]
    counts.handled, counts.dead_lettered, counts.retries, counts.waiting = 7, 1, 4, 2
    scene.counters.skipped, scene.counters.no_route.dead_lettered = 3, 2
    scene.counters.handler_errors["voice", "timeout"] = 5
    voice, none = scene.read().routes
    assert (voice.name, voice.handled, voice.dead_lettered, voice.retries, voice.waiting) == ("voice", 7, 1, 4, 2)
    assert voice.errors["timeout"] == 5
    assert (none.name, none.skipped, none.dead_lettered, none.errors) == ("none", 3, 2, {})


def test_without_routes_everything_is_logged() -> None:
    """A daemon without routes shows the route that logs everything."""
    scene = Scene(Settings())
    assert [route.name for route in scene.read().routes] == ["none"]
    scene.counters.routes["log"] = scene.counters.no_route
    assert scene.read().routes[0].handler == "consumer.handlers.log:Log"


def test_no_value_of_an_option_or_match() -> None:
    """Options and matches show only their names, and secrets only whether they are set."""
    security = Security("SASL_SSL", username=f"{PHONE}-user", password=f"{PHONE}-password")
    options = {"url": f"https://{PHONE}@crm.example", "nested": {"token": PHONE}}
    route = RouteSettings("crm", "crm:Upsert", match={"source": PHONE}, options=options)
    scene = Scene(Settings(kafka=Kafka(security=security), routes=[route]))
    status = scene.read()
    assert PHONE not in msgspec.json.encode(status).decode()
    assert status.settings["kafka.security.password"] == status.settings["kafka.security.username"] == HIDDEN
    assert status.settings["kafka.security.protocol"] == "SASL_SSL"
    assert status.routes[0].options == ["url", "nested"]
    assert status.routes[0].match_fields == ["source"]


def test_every_setting_is_there() -> None:
    """All settings but those of routes are there with their values; a secret that is not set is empty."""
    found = plain_settings(Settings())
    assert found["kafka.bootstrap_servers"] == ["localhost:9092"]
    assert found["delivery.max_in_flight_bytes"] == 8_388_608
    assert found["kafka.security.password"] == ""
    assert not [name for name in found if name.startswith("routes.")]


def test_state_and_since() -> None:
    """The status has the daemon's state and the time when it was first seen."""
    scene = Scene()
    scene.observed.state = "starting"
    scene.now += 5
    scene.reader.sample()
    assert (scene.read().state, scene.read().since) == ("starting", WALL)
    scene.observed.state = "running"
    scene.now += 5
    scene.reader.sample()
    scene.now += 100
    status = scene.read()
    assert (status.state, status.since, status.at, status.process.started_at) == (
        "running",
        WALL + 10,
        WALL + 110,
        WALL,
    )


def test_a_stall() -> None:
    """A stall comes before any other state, with its reason and the time at which progress stopped."""
    scene = Scene()
    scene.now += 100
    scene.observed.stall = Stall("loop", (), scene.now - 60, scene.now)
    scene.observed.stands = Standing("voice", 105, ["sleep (calls.py:7)"], "session-events-3")
    scene.observed.unready = "stalled: too"
    status = scene.read()
    assert (status.state, status.since) == ("stalled", WALL + 40)
    assert status.stall == StallStatus(
        "loop",
        "the event loop is blocked, most likely by a handler that waits without await",
        WALL + 40,
        WALL + 100 + scene.settings.watchdog.window_seconds,
        ["session-events-3"],
        "voice",
        105,
        ["sleep (calls.py:7)"],
    )
    assert status.unready == "stalled: too"
    scene.observed.stall = None
    assert scene.read().stall is None
    assert (scene.read().state, scene.read().since) == ("running", WALL + 100)


def test_the_partition_of_the_call_that_stalls_comes_first() -> None:
    """Of several partitions whose calls do not end, the first is that of the record that the offset names."""
    scene = Scene()
    keys = tuple(TopicPartition("session-events", number) for number in range(3))
    scene.observed.stall = Stall("call", keys, scene.now - 60, scene.now)
    scene.observed.stands = Standing("voice", 105, [], "session-events-2")
    stall = scene.read().stall
    assert stall is not None
    assert stall.partitions == ["session-events-2", "session-events-0", "session-events-1"]


def test_versions_and_totals() -> None:
    """The status has the versions in use, and totals under the metrics' names."""
    scene = Scene()
    scene.counters.commits["ok"] = 4
    scene.counters.records_consumed["session-events"] = 12
    status = scene.read()
    assert set(status.versions) == {"session-consumer", "aiokafka", "python"}
    assert (status.commits, status.records_consumed) == ({"ok": 4, "failed": 0, "fenced": 0}, 12)
    assert status.last_commit_at is None


def test_rates_are_differences() -> None:
    """A sample is the change per second since the one before; lag is the sum over all partitions."""
    scene = Scene()
    scene.owns(0, start=0, end=30)
    scene.owns(1, start=0, end=12)
    scene.reader.sample()
    scene.counters.records_consumed["session-events"] += 500
    scene.counters.bytes_consumed["session-events"] += 8000
    scene.now += 2
    scene.reader.sample()
    status = scene.read()
    (sample,) = status.history
    assert (sample.at, sample.records_per_second, sample.bytes_per_second, sample.lag_records) == (
        WALL + 2,
        250,
        4000,
        42,
    )
    assert (status.records_per_second, status.bytes_per_second) == (250, 4000)


def test_history_is_bounded() -> None:
    """Five minutes of samples are kept; the shown rate is the mean of ten samples."""
    history = History()
    counters = Counters(["t"], ["r"])
    for second in range(SAMPLES * 3):
        counters.records_consumed["t"] = second * 100 if second < 890 else 89_000
        history.note(WALL + second, second, counters, None)
    assert len(history.samples) == SAMPLES
    assert history.samples[-1].at == WALL + SAMPLES * 3 - 1
    assert history.records_per_second("t") == history.records_per_second()
    assert history.records_per_second() == sum(sample.records_per_second for sample in history.samples[-10:]) / 10
    assert (History().records_per_second(), History().bytes_per_second()) == (0.0, 0.0)


def test_who_it_is() -> None:
    """The status names the process, and the members of the group with this one marked."""
    scene = Scene(Settings(kafka=Kafka(client_id="c", group_instance_id="i")))
    scene.observed.member_id = "c-1"
    scene.observed.group = GroupDescription("Stable", [Member("c-1", "c", "a", 3), Member("c-2", "c", "b", 2)], WALL)
    status = scene.read()
    process = status.process
    assert (process.host, process.pid) == (socket.gethostname(), os.getpid())
    assert (process.client_id, process.instance_id, process.member_id) == ("c", "i", "c-1")
    assert (status.group.state, status.group.asked_at) == ("Stable", WALL)
    assert [(each.host, each.partitions, each.me) for each in status.group.members] == [("a", 3, True), ("b", 2, False)]


def test_a_member_of_the_consumer_protocol() -> None:
    """The status has its epoch, how far it is behind its group, its last heartbeat, and what it lets go of."""
    scene = Scene()
    scene.observed.membership = Membership("consumer", 5, scene.now, [TopicPartition("t", 3)])
    scene.observed.group = GroupDescription("Reconciling", [], WALL, epoch=7)
    found = scene.read().group.membership
    assert (found.protocol, found.epoch, found.epochs_behind, found.answered_at) == ("consumer", 5, 2, WALL)
    assert found.revoking == ["t-3"]
    scene.observed.membership = Membership("consumer")
    found = scene.read().group.membership
    assert (found.epoch, found.epochs_behind, found.answered_at, found.revoking) == (0, 0, None, [])


def test_silent_brokers() -> None:
    """Brokers are silent when the event loop runs and has heard none; a blocked loop says nothing of them."""
    scene = Scene()
    assert scene.read().brokers.heard_at is None
    scene.observed.heard_at = scene.now
    scene.now += 60
    assert (scene.read().brokers.heard_at, scene.read().brokers.silent) == (WALL, False)
    scene.observed.unheard_seconds = 60.0
    assert scene.read().brokers.silent


def test_brokers_that_never_answered() -> None:
    """Brokers that have not answered since the start are silent after some seconds."""
    scene = Scene()
    assert not scene.read().brokers.silent
    scene.now += 11
    assert (scene.read().brokers.heard_at, scene.read().brokers.silent) == (None, True)


def test_a_topic_that_falls_behind() -> None:
    """A topic has the rate of its records, the age of the oldest, and the time since which its lag has grown."""
    scene = Scene()
    partition = scene.owns(end=100)
    for second in range(60):
        scene.counters.records_consumed["session-events"] += 5
        partition.lag.ends_at(100 + 20 * second, 100, scene.now, WALL)
        scene.reader.sample()
        scene.now += 1
    (topic,) = scene.read().topics
    assert (topic.topic, topic.partitions, topic.lag_records) == ("session-events", 1, 20 * 59)
    assert (topic.records_per_second, topic.catch_up_seconds) == (5.0, None)
    assert topic.growing_since is not None
    assert WALL <= topic.growing_since < WALL + 20


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_the_wall_clock_is_set(step: float) -> None:
    """A clock that is set neither changes the time to catch up nor keeps dead letters in view."""
    scene = Scene()
    partition = scene.owns(end=1100)
    scene.counters.dead_letters["session-events", "undecodable"] = 100
    for second in range(180):
        scene.counters.records_consumed["session-events"] += 100
        partition.lag.ends_at(1100 - second, 100, scene.now, WALL)
        scene.reader.sample()
        scene.now += 1
        scene.clock_set = step if second > 150 else 0.0
    status = scene.read()
    assert status.topics[0].catch_up_seconds == pytest.approx(821, abs=1)
    assert status.dead_lettering == []


def test_nothing_catches_up_while_nothing_is_consumed() -> None:
    """A lag that shrank within the minute promises no time to catch up once no record has come for ten seconds."""
    scene = Scene()
    partition = scene.owns(end=100)
    for second in range(40):
        scene.counters.records_consumed["session-events"] += 5 * (second < 20)
        partition.lag.ends_at(200 - 5 * min(second, 19), 100, scene.now, WALL)
        scene.reader.sample()
        scene.now += 1
        if second == 19:
            assert scene.read().topics[0].catch_up_seconds is not None
    assert scene.read().topics[0].catch_up_seconds is None


def test_dead_letters_have_a_share() -> None:
    """Dead letters among the last records are one entry of their topic, with the most frequent reason."""
    scene = Scene()
    scene.reader.sample()
    scene.counters.records_consumed["session-events"] = 400
    scene.counters.dead_letters["session-events", "undecodable"] = 267
    scene.now += 1
    scene.reader.sample()
    scene.now += 5
    assert scene.read().dead_lettering == [
        DeadLetteringStatus("session-events", "undecodable", "none", 267, 400, WALL + 1)
    ]
