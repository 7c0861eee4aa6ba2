"""The verdicts on a status: the worst first, each with its time, what to do, and where the runbook says more."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from consumer.cli.main import cli
from consumer.http import advice, wording
from consumer.http.advice import Advice
from consumer.http.page import Page
from consumer.http.status import BrokersStatus, GroupStatus, MemberStatus, Status
from consumer.http.verdict import judge
from consumer.observe.remedy import DRAINS, HOLD_ENDS
from consumer.observe.watchdog import MESSAGES
from consumer.outcome import HaltReason
from tests.statuses import (
    AT,
    a_failure,
    a_halt,
    a_hold,
    a_partition,
    a_route,
    a_stall,
    a_status,
    a_topic,
    a_troubled_status,
    dead_lettering,
)
from tests.unit.http.document import EMPTY, words
from tests.web.states import STATES

DOCS = Path(__file__).parents[3] / "docs"
RUNBOOK = (DOCS / "runbook.md").read_text(encoding="utf-8")
MANUAL = (DOCS / "operating.md").read_text(encoding="utf-8")
LAGGING = a_partition(1, state="reading", lag_records=4000, lag_seconds=95.0)


def lagging(**values: Any) -> Status:
    usual: dict[str, Any] = {"lag_records": 4000, "lag_seconds": 95.0, "catch_up_seconds": None}
    return a_status(partitions=[a_partition(0), LAGGING], topics=[a_topic(**(usual | values))])


def alone(*members: MemberStatus, state: str = "Stable") -> Status:
    group = GroupStatus("calls", state, list(members), AT - 5 if state else None)
    return a_status(partitions=[], topics=[], group=group)


ME = MemberStatus("m-1", "session-consumer", "/10.0.3.7", 0, me=True)
OTHER = MemberStatus("m-2", "session-consumer", "/10.0.3.8", 4, me=False)


@pytest.mark.parametrize(
    ("status", "word", "tone", "sentence"),
    [
        (a_status(), "Running", "good", "All partitions are caught up."),
        (lagging(lag_seconds=0.4), "Running", "good", "Keeping up: 0.4 s behind."),
        (
            lagging(catch_up_seconds=61.0),
            "Catching up",
            "busy",
            "session-events: 4,000 records, 1 min 35 s behind, caught up in 1 min 1 s at this rate.",
        ),
        (lagging(), "Behind", "busy", "not shrinking"),
        (lagging(growing_since=AT - 20, lag_seconds=30.0), "Behind", "busy", "30 s behind, growing."),
        (a_status(topics=[a_topic(lag_seconds=None)]), "Running", "good", "The lag is not known yet."),
        (alone(ME, OTHER), "Standby", "good", "Others own 4 partitions: 10.0.3.8 (4)."),
        (alone(ME, state="PreparingRebalance"), "Standby", "good", "no other did when the group was Prep"),
        (alone(state=""), "Standby", "good", "the group has not been described yet"),
        (alone(ME), "No partitions", "warn", "No member of group calls owns a partition."),
        (EMPTY, "Starting", "busy", "Not joined yet."),
        (a_status(state="draining", unready="stopping"), "Draining", "busy", "Started calls end"),
        (a_status(state="rebuilding"), "Rebuilding", "warn", "a new one joins"),
        (a_status(unready="rebalancing for 90 s"), "Not ready", "warn", "Rebalancing for 90 s."),
    ],
)
def test_the_state(page: Page, status: Status, word: str, tone: str, sentence: str) -> None:
    """A daemon without trouble has one verdict, and the title repeats its word."""
    (verdict,) = judge(status)
    assert (verdict.word, verdict.tone) == (word, tone)
    assert sentence in verdict.sentence
    assert f"<title>{word} · " in page.render(status)


def test_one_halt() -> None:
    """A halt of one partition says why, where, since when, and how the group passes it."""
    (verdict,) = judge(a_status(halts=[a_halt(1)]))
    assert (verdict.word, verdict.tone, verdict.since) == ("Partly halted", "bad", AT - 300)
    assert verdict.sentence == (
        "session-events-1 halted (corrupt_batch) at offset 88121: the checksum of the batch at offset 88121 is wrong."
    )
    assert verdict.todo.startswith("Stop all members of the group, run the command, ")
    assert verdict.command.startswith("kafka-consumer-groups.sh ")


def test_halts_of_many_partitions() -> None:
    """Halts of one topic are one verdict with one command; that of most partitions is the first."""
    partitions = [a_partition(number) for number in range(64)]
    halts = [a_halt(0, topic="calls", reason=HaltReason.FUSE), a_halt(*range(9))]
    first, second = judge(a_status(partitions=partitions, topics=[a_topic(partitions=64)], halts=halts))
    assert first.sentence == "9 of 64 partitions of session-events halted (corrupt_batch) and wait for a person."
    assert "calls-0 halted (fuse)" in second.sentence
    assert second.todo.startswith("Run the command to see why most records became dead letters")
    assert second.command == "session-consumer dlq list -c settings.toml"


def test_all_halted() -> None:
    """When every owned partition is halted, the word says so."""
    assert judge(a_status(partitions=[a_partition(0)], halts=[a_halt(0)]))[0].word == "Halted"


@pytest.mark.parametrize("reason", HaltReason)
def test_every_way_out_of_a_halt_is_said(reason: HaltReason) -> None:
    """The verdict names what mends the cause, the command that passes it, or both."""
    halt = a_halt(1, reason=reason)
    (verdict,) = judge(a_status(halts=[halt]))
    assert verdict.command == (halt.command or "session-consumer dlq list -c settings.toml")
    assert "run the command" in verdict.todo.lower()
    mended = reason not in (HaltReason.CORRUPT_BATCH, HaltReason.FUSE)
    assert (halt.mend[1:] in verdict.todo) == mended


def test_a_stalled_call() -> None:
    """A stall names the route, the record, the place in the code, and the time until the process ends."""
    first, *_ = judge(a_status(state="stalled", stall=a_stall(), unready="a handler's call does not end"))
    assert (first.word, first.tone, first.since) == ("Stalled", "bad", AT - 75)
    assert first.sentence == (
        "A call of route crm has not ended for 1 min 15 s: session-events-3 at offset 1207242, in sleep"
        " (/srv/handlers/crm.py:52). The process exits with 70 in 9 min 45 s."
    )
    assert first.todo == "Restart this daemon; then set timeout_seconds for route crm."
    assert first.runbook == "SessionConsumerNotConsuming"


def test_a_blocked_loop() -> None:
    """A blocked event loop is said to be one, also when it is not known by whom."""
    stall = a_stall(kind="loop", route="", offset=None, partitions=[], places=[], exits_at=AT - 1)
    (verdict,) = judge(a_status(state="stalled", stall=stall))
    assert verdict.sentence == ("The event loop has been blocked for 1 min 15 s. The process exits with 70 in 0 s.")
    named = judge(a_status(state="stalled", stall=a_stall(kind="loop")))[0]
    assert "by route crm (session-events-3 at offset 1207242) for 1 min 15 s, in sleep" in named.sentence
    assert named.runbook == "SessionConsumerLoopBlocked"


@pytest.mark.parametrize("kind", [*MESSAGES, "unheard"])
def test_every_stall_has_advice(kind: str) -> None:
    """Every kind of stall says what is late and what to do."""
    why = MESSAGES.get(kind, "something new does not end")  # type: ignore[call-overload]
    stall = a_stall(kind=kind, why=why, route="", offset=None)
    verdict = judge(a_status(state="stalled", stall=stall))[0]
    assert verdict.todo
    assert "{" not in verdict.todo


def test_dead_letters_are_never_green() -> None:
    """A daemon that dead-letters says how much of which topic, why, since when, and how to list the letters."""
    (verdict,) = judge(a_status(dead_lettering=[dead_lettering()]))
    assert (verdict.word, verdict.tone, verdict.since) == ("Dead-lettering", "warn", AT - 130)
    assert verdict.sentence == "267 of the last 400 records of session-events were dead-lettered (undecodable)."
    assert verdict.command == "session-consumer dlq list -c settings.toml --reason undecodable"
    assert verdict.runbook == "SessionConsumerDeadLettering"


def test_dead_letters_of_a_route() -> None:
    """Dead letters of a route name it; the topic that loses the largest share is the first."""
    few = dead_lettering(topic="calls", dead_lettered=2, records=200)
    of_route = dead_lettering(route="it's crm", reason="exhausted")
    first, second = judge(a_status(dead_lettering=[few, of_route]))
    assert "were dead-lettered by route it's crm (exhausted)." in first.sentence
    assert first.command.endswith("""--reason exhausted --route 'it'"'"'s crm'""")
    assert "2 of the last 200 records of calls" in second.sentence


@pytest.mark.parametrize("reason", ["undecodable", "rejected"])
def test_the_dlq_command_exists(reason: str) -> None:
    """The command of the verdict has only options that ``dlq list`` has."""
    (verdict,) = judge(a_status(dead_lettering=[dead_lettering(route="crm", reason=reason)]))
    program, *arguments = verdict.command.split()
    assert program == "session-consumer"
    assert CliRunner().invoke(cli, [*arguments, "--help"]).exit_code == 0
    options = CliRunner().invoke(cli, [*arguments[:2], "--help"]).output
    assert all(each in options for each in arguments if each.startswith("-"))


def test_a_hold() -> None:
    """A hold names route, partition, offset, class and place of the exception, attempts, and the next try."""
    (verdict,) = judge(a_status(holds=[a_hold(2)]))
    assert (verdict.word, verdict.tone, verdict.since) == ("Partly holding", "warn", AT - 95)
    assert verdict.sentence == (
        "Route crm holds session-events-2 at offset 502 (pause): ConnectionRefusedError (/srv/handlers/crm.py:33),"
        " 7 failed attempts, next try in 12 s."
    )
    assert verdict.todo.startswith("Repair what route crm calls; ")


def test_holds_of_many_partitions() -> None:
    """Holds of one route and kind are one verdict, with the one that lasts longest."""
    holds = [a_hold(number, since=AT - 90 - number) for number in range(4)]
    (verdict,) = judge(a_status(holds=holds))
    assert verdict.word == "Holding"
    assert verdict.sentence.startswith("Route crm holds 4 of 4 partitions, the longest session-events-3 at offset 503 ")


@pytest.mark.parametrize("kind", HOLD_ENDS)
def test_every_hold_has_advice(kind: str) -> None:
    """Every kind of hold says what to do, also without a route, an error or a known next try."""
    hold = a_hold(2, kind, route="", error="", attempts=0, next_at=None)
    (verdict,) = judge(a_status(holds=[hold]))
    assert verdict.sentence == f"Waiting session-events-2 at offset 502 ({kind})."
    assert verdict.todo
    assert "{" not in verdict.todo


def test_a_retry_by_policy_is_a_warning_when_it_lasts(page: Page) -> None:
    """A retry by policy is no verdict in its first seconds; after two attempts the page lists it."""
    young, old = a_hold(2, "error", since=AT - 2), a_hold(2, "error", since=AT - 20)
    assert [each.word for each in judge(a_status(holds=[young]))] == ["Running"]
    assert "Route crm retries session-events-2 at offset 502 (error)" in words(page, a_status(holds=[young]))
    first = a_hold(2, "error", since=AT - 2, attempts=1)
    assert "Route crm retries" not in words(page, a_status(holds=[first]))
    (verdict,) = judge(a_status(holds=[old]))
    assert (verdict.word, verdict.tone, verdict.runbook) == ("Retrying", "warn", "SessionConsumerRetrying")


def test_a_failing_route() -> None:
    """A route whose calls fail shows how many, and the last failure with its place; a hold of it says the same."""
    route = a_route("crm", calls=3600, calls_failed=431, failing_since=AT - 60)
    (verdict,) = judge(a_status(routes=[route], failures=[a_failure(route="voice"), a_failure()]))
    assert (verdict.word, verdict.tone, verdict.since) == ("Calls fail", "warn", AT - 60)
    assert verdict.sentence == (
        "12 % of the calls of route crm failed in the last minutes, 431 of 3,600; the last: KeyError"
        " (/srv/handlers/crm.py:41)."
    )
    assert [each.word for each in judge(a_status(routes=[route], holds=[a_hold(1)]))] == ["Partly holding"]


def test_growing_lag_matters_after_a_minute() -> None:
    """Lag that grows is a warning from a minute on; a burst of some seconds is none."""
    (verdict,) = judge(lagging(growing_since=AT - 360))
    assert (verdict.word, verdict.tone, verdict.since) == ("Falling behind", "warn", AT - 360)
    assert verdict.sentence == "The lag of session-events has grown for 6 min: 4,000 records, 1 min 35 s behind."
    assert [each.tone for each in judge(lagging(growing_since=AT - 30, lag_seconds=30.0))] == ["busy"]


def test_lag_behind_a_hold() -> None:
    """Lag of a topic that holds asks for no more members: the hold is its cause."""
    status = lagging(growing_since=AT - 90)
    *_, verdict = judge(a_status(topics=status.topics, holds=[a_hold(1)]))
    assert verdict.todo.startswith("End the halt, hold or stall first")


def test_silent_brokers() -> None:
    """When no broker is heard the verdict counts the time and names the servers, and is the only one about it."""
    silent = BrokersStatus(["kafka-1:9092", "kafka-2:9092"], AT - 42, silent=True)
    (verdict,) = judge(a_status(brokers=silent, unready="no broker heard for 42 s"))
    assert (verdict.word, verdict.tone, verdict.since) == ("No broker answers", "warn", AT - 42)
    assert verdict.sentence == "No broker heard for 42 s: kafka-1:9092, kafka-2:9092."
    never = BrokersStatus(["kafka-1:9092"], None, silent=True)
    first, second = judge(a_status(brokers=never, state="starting", unready="not joined yet"))
    assert (first.word, first.since, second.word) == ("No broker answers", AT - 11_522, "Starting")


def test_a_blocked_loop_is_no_outage(page: Page) -> None:
    """While the event loop is blocked no answer is heard, which is neither an outage nor a hold."""
    status = a_status(
        state="stalled",
        stall=a_stall(kind="loop"),
        brokers=BrokersStatus(["kafka-1:9092"], AT - 70, silent=True),
        holds=[a_hold(1, "group", route="")],
        partitions=[a_partition(1, end_offset_age_seconds=75.0)],
    )
    assert [each.word for each in judge(status)] == ["Stalled"]
    assert "no broker heard" not in words(page, status).lower()
    assert "measured 1 min 15 s ago" in words(page, status)


def test_a_stall_of_several_partitions() -> None:
    """The offset stands beside its partition, and the place is that of the handler, not of what it waits in."""
    library, package = "/usr/lib/python3.12/asyncio/tasks.py:649", "/venv/lib/python3.12/site-packages/aiohttp/c.py:9"
    places = [f"sleep ({library})", f"get ({package})", "ask (/srv/calls.py:7)", "talk (/srv/calls.py:3)"]
    stall = a_stall(partitions=["calls-2", "calls-0", "calls-1"], offset=98, places=places)
    (verdict,) = judge(a_status(state="stalled", stall=stall))
    assert ": calls-2 at offset 98 and 2 other partitions, in ask (/srv/calls.py:7)." in verdict.sentence
    assert wording.own_place(places[:2]) == places[1]
    assert wording.own_place(places[:1]) == places[0]


def test_a_halt_before_its_drain_ended() -> None:
    """Until a halted partition has drained there is no command, and the verdict says what is waited for."""
    halt = msgspec.structs.replace(a_halt(1), mend=DRAINS, command="")
    (verdict,) = judge(a_status(halts=[halt]))
    assert (verdict.todo, verdict.command) == (wording.sentence(DRAINS), "")


def test_a_silent_leader() -> None:
    """Partitions whose leader does not answer for a minute have old lag, while other brokers are heard."""
    partitions = [a_partition(0), a_partition(1, end_offset_age_seconds=75.0)]
    (verdict,) = judge(a_status(partitions=partitions))
    assert verdict.sentence.startswith("The leaders of 1 of 2 partitions have not answered for 1 min 15 s")


def test_the_worst_first() -> None:
    """Verdicts are ordered by their tone: what waits for a person comes before what passes by itself."""
    troubled = judge(a_troubled_status())
    assert [each.word for each in troubled] == ["Partly halted", "Dead-lettering", "Partly holding", "Falling behind"]
    stalled = judge(a_status(state="stalled", stall=a_stall(), halts=[a_halt(0)], dead_lettering=[dead_lettering()]))
    assert [each.word for each in stalled] == ["Stalled", "Partly halted", "Dead-lettering"]
    draining = judge(a_status(state="draining", halts=[a_halt(0)]))
    assert [each.tone for each in draining] == ["bad", "busy"]


def all_advice() -> list[Advice]:
    found: list[Advice] = []
    for value in vars(advice).values():
        found += [value] if isinstance(value, Advice) else value.values() if isinstance(value, dict) else []
    return [each for each in found if isinstance(each, Advice)]


def test_every_runbook_heading_exists() -> None:
    """Each advice names an alert that has a heading in the runbook."""
    headings = set(re.findall(r"^## (\w+)$", RUNBOOK, re.MULTILINE))
    assert len(all_advice()) > 20
    assert {each.runbook for each in all_advice()} | {advice.HALT} <= headings


@pytest.mark.parametrize("name", STATES)
def test_the_manual_quotes_the_verdict(name: str) -> None:
    """The manual's table of states has the first verdict of each, with what to do, beside its pictures."""
    (row,) = [line for line in MANUAL.splitlines() if f"status/{name}-light.png" in line]
    verdict = judge(STATES[name]())[0]
    assert f"**{verdict.word}.** {verdict.sentence} | {verdict.todo}" in row


def test_the_page_begins_with_the_verdict(page: Page) -> None:
    """The headline has the word, since when, the sentence, what to do, the command and the heading, in this order."""
    text = words(page, a_status(dead_lettering=[dead_lettering()]))
    assert (
        "Dead-lettering since 07:31:10 UTC, for 2 min 10 s 267 of the last 400 records of session-events were"
        " dead-lettered (undecodable). Do: Run the command, find out what the producer changed, and redrive the letters"
        " when it is repaired. session-consumer dlq list -c settings.toml --reason undecodable More in the runbook:"
        " docs/runbook.md#sessionconsumerdeadlettering Records a second"
    ) in text


def test_each_verdict_stands_on_the_page(page: Page) -> None:
    """Every verdict is on the page with its sentence and its command."""
    status = a_troubled_status()
    text = words(page, status)
    for verdict in status.verdicts:
        assert verdict.todo in text
        assert verdict.command in text
        assert all(part in text for part in re.split(r"next try in .*", verdict.sentence))


def test_halts_on_the_page(page: Page) -> None:
    """Halts of one topic have one command, and each partition its offset and its time; three are shown first."""
    text = page.render(a_status(halts=[a_halt(*range(20))], partitions=[a_partition(n) for n in range(20)]))
    assert text.count('<code class="command">') == 1
    assert text.count("<b>session-events-") == 20
    assert "17 more</summary>" in text
    assert "since 07:28:20" in text


def test_times_that_move_have_their_number(page: Page) -> None:
    """A countdown and an age are right in the page itself, and carry the number that the script counts on."""
    text = page.render(a_status(state="stalled", stall=a_stall()))
    assert '<b data-down="585.0">9 min 45 s</b>' in text
    held = page.render(a_status(holds=[a_hold(1), a_hold(2, next_at=AT + 90)]))
    assert held.count('<b data-down="12.0">12 s</b>') == 2
    assert '<b data-down="90.0">1 min 30 s</b>' in held
    silent = a_status(brokers=BrokersStatus(["kafka-1:9092"], AT - 42, silent=True))
    assert '<b data-up="42.0">42 s</b>' in page.render(silent)


def test_a_stall_shows_where_it_stands(page: Page) -> None:
    """The places of the stack stand in the page, innermost first."""
    text = words(page, a_status(state="stalled", stall=a_stall()))
    assert "innermost first sleep (/srv/handlers/crm.py:52) upsert (/srv/handlers/crm.py:41)" in text
