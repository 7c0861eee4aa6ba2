"""The screen of ``top``: what it says at each size, of one daemon and of several."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from rich.console import Console, Group

from consumer.cli.top_notes import Seen
from consumer.cli.top_view import live, whole
from consumer.http.ask import NoStatusError
from consumer.http.status import BrokersStatus, Status, Verdict
from consumer.http.wording import MISSING
from tests.statuses import (
    AT,
    a_halt,
    a_hold,
    a_partition,
    a_route,
    a_stall,
    a_status,
    a_topic,
    a_troubled_status,
    dead_lettering,
    some_stats,
)

COMMAND = (
    "kafka-consumer-groups.sh --bootstrap-server kafka-1:9092 --group session-consumer --reset-offsets "
    "--topic session-events:1 --to-offset 88122 --execute"
)
RUNNING = Verdict("Running", "good", "", "", "", "", AT - 11_520.0)
HALTED = Verdict(
    "Halted", "bad", "1 of 12 partitions is halted", "Mend the batch, or move past it", COMMAND, "Halted", AT - 300.0
)
HOLDING = Verdict("Holding", "warn", "Route crm waits for its server", "Start the server", "", "Holding", AT - 95.0)
DEAD = NoStatusError("Timed out", "did not answer within 3 s", "Check the address.")


def judged(status: Status, *verdicts: Verdict) -> Status:
    return msgspec.structs.replace(status, verdicts=list(verdicts))


def seen(status: Status | None = None, address: str = "worker-7:8000", **values: Any) -> Seen:
    return Seen(address, status, **({"answered_at": AT} | values))


def shown(made: Group, width: int = 80, height: int = 24) -> list[str]:
    """Return the lines of a screen as they are printed."""
    console = Console(width=width, height=height, highlight=False, markup=False, emoji=False)
    with console.capture() as captured:
        console.print(made, crop=False)
    return [line.rstrip() for line in captured.get().splitlines()]


def screen(
    *daemons: Seen, width: int = 80, height: int = 24, selected: int | None = None, now: float = AT
) -> list[str]:
    console = Console(width=width, height=height)
    lines = shown(live(daemons, AT, console, selected), width, height)
    assert len(lines) == height
    assert all(len(line) <= width for line in lines)
    return lines


def joined(lines: list[str]) -> str:
    """Return lines as one text, as if nothing had been wrapped."""
    return " ".join(" ".join(lines).replace("\\", "").split())


def test_a_running_daemon() -> None:
    """A small terminal has the verdict first, then who it is, the numbers and all tables."""
    lines = screen(seen(judged(a_status(), RUNNING)))
    assert lines[0] == " Running  For 3 h 12 min, since 04:21:20 UTC."
    assert lines[1] == "worker-7 pid 4211, version 0.2.0, up 3 h 12 min, as of 07:33:20 UTC"
    assert lines[2].startswith("group session-consumer (Stable), 2 members, a broker answered 0.3 s ago, client")
    assert lines[3].split("  ")[0] == "Records/s"
    assert lines[4].split() == ["18,204", "0", "0", "s", "0", "0", "0.6", "s"]
    text = "\n".join(lines)
    for name in ("Topics (1)", "Routes (3)", "Partitions (4)", "Members (2)"):
        assert name in text
    assert lines[-1] == "q quits"


def test_the_name_of_a_topic_keeps_its_case() -> None:
    """A sentence that begins with a topic is printed as it is: the name may be copied from there."""
    halted = msgspec.structs.replace(HALTED, sentence="calls-1 halted (fuse)")
    assert screen(seen(judged(a_status(), halted)))[0].startswith(" Halted  calls-1 halted (fuse). For 5 min")


def test_trouble_fits_a_small_terminal() -> None:
    """At 80 x 24 the verdicts, what to do, the command and the hold are shown; the last line names what is not."""
    troubled = msgspec.structs.replace(a_troubled_status(), stats=[])
    lines = screen(seen(judged(troubled, HALTED, HOLDING)))
    assert lines[0].startswith(" Halted  1 of 12 partitions is halted. For 5 min, since 07:28:20 UTC.")
    text = joined(lines)
    assert "Do: Mend the batch, or move past it." in text
    assert f"Run: {COMMAND}" in text
    assert "Holding Route crm waits for its server. For 1 min 35 s" in text
    assert "1 min 35 s 7 in 12 s ConnectionRefusedError" in text
    assert "22 s old" in text
    assert lines[-1] == "q quits; no room for dead letters, topics, routes, partitions, members, failures"
    lower = joined(screen(seen(judged(troubled, HALTED, HOLDING)), height=18))
    assert f"Run: {COMMAND}" in lower
    assert "Holding Route crm waits for its server." in lower
    assert "There is more: make the terminal higher, or use --once." in lower


def test_a_larger_terminal_shows_more() -> None:
    """At 120 x 40 the halt's place, the runbook, the hold's offset and the worst partitions are shown as well."""
    lines = screen(seen(judged(a_troubled_status(), HALTED, HOLDING)), width=120, height=40)
    text = joined(lines)
    assert "session-events-1 at offset 88121: The checksum of the batch at offset 88121 is wrong." in text
    assert "See docs/runbook.md#halted" in text
    assert "session-events-2 crm pause 1 502 1 min 35 s 7 in 12 s" in text
    assert "no room" not in text
    start = next(place for place, line in enumerate(lines) if line.startswith("Partitions ("))
    assert [line.split()[1] for line in lines[start + 1 : start + 4]] == ["halted", "holding", "retrying"]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_command_can_be_copied(width: int) -> None:
    """A command that is longer than a line has a backslash at the end of each, and no word of it is cut."""
    lines = screen(seen(judged(a_status(), HALTED)), width=width)
    first = next(place for place, line in enumerate(lines) if "Run: " in line)
    command = lines[first].partition("Run: ")[2]
    while command.endswith("\\"):
        first += 1
        command = f"{command[:-1]}{lines[first].strip()}"
    assert " ".join(command.split()) == COMMAND


def test_a_quoted_command_is_not_changed() -> None:
    """A command with quotes gets no backslash, which could change what it means."""
    command = "session-consumer dlq list --reason 'a b' " + "--route crm " * 6
    lines = screen(seen(judged(a_status(), msgspec.structs.replace(HALTED, command=command))))
    assert "\\" not in "".join(lines)
    assert command.strip() in joined(lines)


def test_a_sentence_without_end_leaves_the_rest() -> None:
    """A verdict that is longer than the screen is cut, with a line that says so, and the numbers stay."""
    endless = msgspec.structs.replace(HALTED, sentence="x " * 2000, command="")
    lines = screen(seen(judged(a_status(), endless)))
    assert "There is more: make the terminal higher, or use --once." in joined(lines)
    assert any(line.startswith("Records/s") for line in lines)


def test_a_stall_counts_down() -> None:
    """A stall shows its route, partition, offset, places, and when the process exits."""
    text = joined(screen(seen(judged(a_status(stall=a_stall()), HALTED))))
    assert "Stalled for 1 min 15 s: a handler's call does not end" in text
    assert "(route crm, session-events-3, offset 1207242)" in text
    assert "It stands in sleep (/srv/handlers/crm.py:52), called by upsert (/srv/handlers/crm.py:41)." in text
    assert "The process exits with 70 in 9 min 45 s if nothing moves." in text


def test_one_command_for_each_halted_topic() -> None:
    """Halted partitions of a topic have one command; one that a verdict shows is not repeated."""
    halt = a_halt(*range(9))
    lines = shown(whole([seen(judged(a_status(halts=[halt]), HALTED))], AT, 160), 160)
    assert "  Halted for 5 min (corrupt_batch): 9 partitions, session-events: 0, 1, 2, 3, 4, 5, 6, 7, 8." in lines
    assert [line for line in lines if "Run: " in line] == [f"  Run: {COMMAND}", f"  Run: {halt.command}"]
    same = msgspec.structs.replace(HALTED, command=halt.command)
    lines = shown(whole([seen(judged(a_status(halts=[halt]), same))], AT, 160), 160)
    assert [line for line in lines if "Run: " in line] == [f"  Run: {halt.command}"]


def test_numbers_of_an_outage_say_how_old_they_are() -> None:
    """While no broker answers the brokers are named, and lag and age say how old they are."""
    brokers = BrokersStatus(["kafka-1:9092", "kafka-2:9092"], AT - 95.0, silent=True)
    lines = screen(seen(judged(a_status(brokers=brokers), HOLDING)))
    text = joined(lines)
    assert "no broker has answered for 1 min 35 s: kafka-1:9092, kafka-2:9092" in text
    assert text.count("1 min old") == 2
    never = BrokersStatus(["kafka-1:9092"], None, silent=True)
    text = joined(screen(seen(judged(a_status(brokers=never, partitions=[], topics=[]), HOLDING))))
    assert "no broker has answered yet: kafka-1:9092" in text
    assert "0 s old" not in text  # there is no number that could be old


def test_routes_and_topics() -> None:
    """A route shows rate, times, share of failed calls and calls under way; a topic shows when it catches up."""
    status = a_status(
        routes=[
            a_route("voice", handled=12),
            a_route(
                "crm",
                records_per_second=12.5,
                call_seconds_p50=0.0123,
                call_seconds_p99=2.5,
                calls=400,
                calls_failed=100,
                waiting=17,
                allowed=64,
            ),
        ],
        topics=[
            a_topic("calm"),
            a_topic("busy", lag_records=50, lag_seconds=0.4, catch_up_seconds=None),
            a_topic("behind", lag_records=9000, lag_seconds=60.0, catch_up_seconds=90.0),
            a_topic("late", lag_records=10_000, lag_seconds=70.0, catch_up_seconds=None),
            a_topic("near", lag_records=20, lag_seconds=0.9, catch_up_seconds=None, growing_since=AT - 30.0),
            a_topic("growing", lag_records=20_000, lag_seconds=60.0, catch_up_seconds=None, growing_since=AT - 300.0),
        ],
        dead_lettering=[dead_lettering()],
    )
    lines = screen(seen(judged(status, RUNNING)), width=100, height=40)
    rows = [" ".join(line.split()) for line in lines]
    crm = next(row for row in rows if row.startswith("crm "))
    assert crm.startswith("crm 12 12.3 ms 2.5 s 25.0% 17 of 64 0 0")
    assert rows.index(crm) < next(place for place, row in enumerate(rows) if row.startswith("voice "))
    start = next(place for place, row in enumerate(rows) if row.startswith("Topics "))
    ends = ("no: growing for 5 min", "not at this rate", "in 1 min 30 s", *["keeping up"] * 2, "caught up")
    assert all(row.endswith(end) for row, end in zip(rows[start + 1 : start + 7], ends, strict=True))
    assert any(line.split()[:6] == ["session-events", "undecodable", "none", "267", "of", "400"] for line in lines)


def test_what_was_counted() -> None:
    """The values of each field are shown below all else, with their share."""
    lines = screen(seen(judged(a_status(stats=[some_stats()]), RUNNING)), height=60)
    text = joined(lines)
    assert "Counts (7)" in text
    assert "voice_sip_v1 channel_manager_type counts 1,204,118 75 %" in text
    assert "all others agent_name counts 142,117 8.8 %" in text
    assert "Counts" not in joined(screen(seen(judged(a_status(), RUNNING)), height=60))


def test_many_partitions_show_the_worst() -> None:
    """Of 256 partitions those in trouble and with most lag are shown, and how many there are."""
    partitions = [a_partition(number, lag_records=number, state="reading") for number in range(256)]
    partitions[3] = a_partition(3, state="holding", lag_records=5)
    partitions[4] = a_partition(4, state="draining", lag_records=900)
    lines = screen(seen(judged(a_status(partitions=partitions), RUNNING)), height=30)
    start = next(place for place, line in enumerate(lines) if line.startswith("Partitions ("))
    assert lines[start].startswith("Partitions (")
    assert " of 256)" in lines[start]
    assert [line.split()[0] for line in lines[start + 1 : start + 4]] == [
        f"session-events-{number}" for number in (3, 4, 255)
    ]


def several() -> list[Seen]:
    away: dict[str, Any] = {"answered_at": AT - 50.0, "failure": DEAD, "failing_since": AT - 45.0}
    return [
        seen(judged(a_status(), RUNNING), "worker-1:8000"),
        seen(judged(a_troubled_status(), HALTED), "worker-2:8000"),
        seen(judged(a_status(), RUNNING), "worker-3:8000", **away),
        seen(None, "worker-4:8000"),
    ]


def test_several_daemons() -> None:
    """Each daemon has a row, the worst first; the details are those of the worst."""
    lines = screen(*several(), height=40)
    rows = [" ".join(line.split()) for line in lines[:6]]
    assert rows[0] == "Daemons (4) Host, pid Verdict For Rec/s Lag Behind"
    assert rows[1] == "3 worker-3:8000 worker-7 4211 Timed out 45 s (18,204) (0) (0 s)"
    assert rows[2] == "2 worker-2:8000 worker-7 4211 Halted 5 min 18,204 64,813 3 min"
    assert rows[3] == "1 worker-1:8000 worker-7 4211 Running 3 h 18,204 0 0 s"
    assert rows[4] == f"4 worker-4:8000 {MISSING} asked {MISSING} {MISSING} {MISSING} {MISSING}"
    assert rows[5] == "3 worker-3:8000"


def test_a_daemon_that_does_not_answer() -> None:
    """Its failure stands first with since when and what to do; what it said before is marked as old."""
    text = joined(screen(several()[2]))
    assert text.startswith("Timed out worker-3:8000 did not answer within 3 s. For 45 s, since 07:32:35 UTC.")
    assert "Do: Check the address." in text
    assert "All below is 50 s old, from the last answer of this daemon. Was: Running" in text
    never = seen(None, failure=DEAD, failing_since=AT - 45.0)
    assert screen(never)[:2] == [
        " Timed out  worker-7:8000 did not answer within 3 s. For 45 s, since 07:32:35",
        "UTC.",
    ]


def test_a_daemon_that_never_answered_leaves_room() -> None:
    """When nothing is known of the worst daemon, the details of the worst one that is known follow."""
    never = seen(None, "worker-0:8000", failure=DEAD, failing_since=AT - 45.0)
    lines = screen(never, *several()[:2])
    assert lines[4:6] == [
        "1 worker-0:8000",
        " Timed out  worker-0:8000 did not answer within 3 s. For 45 s, since 07:32:35",
    ]
    assert lines[8] == "3 worker-2:8000"
    assert lines[9].startswith(" Halted ")
    assert screen(never, *several()[:2], selected=0)[8:23] == [""] * 15


def test_a_selected_daemon() -> None:
    """The details of a selected daemon are shown instead of the worst one's."""
    lines = screen(*several(), selected=1)
    assert lines[5] == "2 worker-2:8000"
    assert lines[6].startswith(" Halted ")


def test_more_daemons_than_lines() -> None:
    """The rows of daemons use a third of the screen, and say how many there are."""
    daemons = [seen(judged(a_status(), RUNNING), f"worker-{number}:8000") for number in range(50)]
    daemons[49] = several()[1]
    lines = screen(*daemons)
    assert lines[0].startswith("Daemons (8 of 50)")
    assert lines[1].startswith("50 worker-2:8000")
    assert lines[9] == "50 worker-2:8000"


def test_everything_without_a_limit() -> None:
    """Without a terminal every row of every daemon is printed, a command in one line, and no since of one question."""
    partitions = [a_partition(number) for number in range(256)]
    daemons = [several()[2]._replace(status=None), seen(judged(a_status(partitions=partitions), HALTED), "big:8000")]
    lines = shown(whole(daemons, AT, 160), 160)
    assert sum(line.startswith("session-events-") for line in lines) == 256
    assert f"  Run: {COMMAND}" in lines
    assert " Timed out  worker-3:8000 did not answer within 3 s." in lines
    assert lines.count("2 big:8000") == 1


def test_markup_is_text() -> None:
    """What looks like markup, a link or an emoji in a status is shown as it is."""
    odd = "[red]x[/red] [link=http://a]y[/link] :bomb:"
    verdict = Verdict(odd, "bad", odd, odd, odd, "", AT)
    status = a_status(
        halts=[msgspec.structs.replace(a_halt(1), mend=odd)],
        holds=[a_hold(1, error=odd)],
        routes=[a_route(odd)],
    )
    lines = shown(whole([seen(judged(status, verdict))], AT, 200), 200)
    assert "\n".join(lines).count(odd) >= 6


def test_a_tone_that_is_not_known() -> None:
    """A tone of a later version counts as a warning, and is shown."""
    later = Verdict("Odd", "purple", "it is odd", "", "", "", AT)
    daemon = seen(judged(a_status(), later))
    assert not daemon.bad
    assert screen(daemon, seen(judged(a_status(), RUNNING)))[1].split()[3:5] == ["4211", "Odd"]


@pytest.mark.parametrize(("width", "height"), [(1, 1), (10, 4), (20, 5), (40, 10), (300, 100)])
def test_any_size(width: int, height: int) -> None:
    """A screen of any size is made, with the verdict first."""
    for daemons in ([several()[1]], several()):
        lines = shown(live(daemons, AT, Console(width=width, height=height), None), width, height)
        assert len(lines) >= height
    first = shown(live([several()[1]], AT, Console(width=width, height=height), None), width, height)[0]
    assert first.strip()[:1] in ("H", "")
