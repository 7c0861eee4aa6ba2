"""Workers as processes: started again, drained together, and ended when one says so."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest

from consumer.errors import WorkersEndedError
from consumer.process.workers import worker as worker_module
from consumer.process.workers.restarts import Pace
from tests.cluster import eventually
from tests.unit.process.workers.programs import events, happened, is_alive, some_workers


async def test_a_stop_drains_all(tmp_path: Path) -> None:
    """Every worker is stopped once, and none is left."""
    workers = some_workers(tmp_path, 3)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(workers.run())
        started = await happened(tmp_path, "ready", 3)
        workers.stop()
        workers.stop()
        await running
    assert sorted(each.number for each in events(tmp_path, "stopped")) == [1, 2, 3]
    assert not any(is_alive(each.pid) for each in started)


async def test_a_stop_before_the_start(tmp_path: Path) -> None:
    workers = some_workers(tmp_path)
    workers.stop()
    await workers.run()
    assert not events(tmp_path, "started")


async def test_a_stop_while_workers_start(tmp_path: Path) -> None:
    """A worker whose process is being made when the stop comes is stopped too."""
    workers = some_workers(tmp_path)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(workers.run())
        while not all(each._starts for each in workers._workers):
            await asyncio.sleep(0)
        assert [each.pid for each in workers.facts] == [None, None]
        workers.stop()
        await running
    assert not any(is_alive(each.pid) for each in events(tmp_path, "started"))


async def test_a_killed_worker_is_started_again(tmp_path: Path) -> None:
    """Another process follows under the same number, its end is named, and the other worker goes on."""
    workers = some_workers(tmp_path)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(workers.run())
        first = {each.number: each.pid for each in await happened(tmp_path, "ready", 2)}
        os.kill(first[2], signal.SIGKILL)
        *_, again = await happened(tmp_path, "ready", 3)
        assert (again.number, again.pid != first[2]) == (2, True)
        one, two = workers.facts
        assert (one.pid, one.restarts, one.exit_code) == (first[1], 0, None)
        await eventually(lambda: workers.facts[1].serving)
        assert (workers.facts[1].pid, two.restarts, two.exit_code) == (again.pid, 1, 137)
        workers.stop()
        await running


@pytest.mark.parametrize("error", [BlockingIOError(11, "no process left"), RuntimeError("can't start new thread")])
async def test_a_worker_that_the_system_refuses_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A limit on processes, or on the thread that waits for one, ends no other worker."""
    start, refused = asyncio.create_subprocess_exec, [error]

    async def started(*arguments: Any, **options: Any) -> asyncio.subprocess.Process:
        if any("--worker=2:" in str(each) for each in arguments) and refused:
            raise refused.pop()
        return await start(*arguments, **options)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", started)
    workers = some_workers(tmp_path)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(workers.run())
        assert {each.number for each in await happened(tmp_path, "ready", 2)} == {1, 2}
        workers.stop()
        await running
    assert len(events(tmp_path, "stopped")) == 2


async def test_the_free_port_of_a_process_ends_with_it(tmp_path: Path) -> None:
    """A worker that took a free port has no known port until its next process reports one."""
    workers = some_workers(tmp_path, 1, pace=Pace(first=30.0), w1=["serve 4711"])
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(workers.run())
        await happened(tmp_path, "ready", 1)
        await eventually(lambda: workers.facts[0].port == 4711)
        workers.kill()
        await eventually(lambda: workers.facts[0].state == "ended")
        assert workers.facts[0].port is None
        workers.stop()
        await running


async def test_a_worker_that_ends_cleanly_by_itself_is_started_again(tmp_path: Path) -> None:
    workers = some_workers(tmp_path, 1, w1=["exit 0", "serve"])
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(workers.run())
        await happened(tmp_path, "ready", 1)
        workers.stop()
        await running
    assert len(events(tmp_path, "started")) == 2


async def test_a_crash_loop_ends_all(tmp_path: Path) -> None:
    """The sixth end of one worker drains the other, and all end with 70."""
    with pytest.raises(WorkersEndedError, match=r"worker 1 exited with 1, and more than 5 times within 600 s") as ended:
        await some_workers(tmp_path, w1=["exit 1"]).run()
    assert ended.value.exit_code == 70
    assert [each.number for each in events(tmp_path, "started")].count(1) == 6
    assert [each.number for each in events(tmp_path, "stopped")] == [2]


@pytest.mark.parametrize(("code", "why"), [(2, "settings or handlers"), (74, "a partition halted")])
async def test_what_a_restart_does_not_change_ends_all(tmp_path: Path, code: int, why: str) -> None:
    """Wrong settings, and a halt with on_halt = exit, end all with the same code at once."""
    with pytest.raises(WorkersEndedError, match=f"worker 2 exited with {code}: .*{why}") as ended:
        await some_workers(tmp_path, w2=[f"exit {code}"]).run()
    assert ended.value.exit_code == code
    assert [each.number for each in events(tmp_path, "started")].count(2) == 1


async def test_kafka_out_of_reach_at_the_start_ends_all(tmp_path: Path) -> None:
    """While no worker has joined, 69 ends all with 69."""
    with pytest.raises(WorkersEndedError, match="no worker has reached Kafka") as ended:
        await some_workers(tmp_path, w1=["lonely 69"], w2=["lonely 69"]).run()
    assert ended.value.exit_code == 69


async def test_an_outage_ends_nothing(tmp_path: Path) -> None:
    """A worker that is started again during an outage may exit with 69 any number of times."""
    workers = some_workers(tmp_path, w1=["serve"], w2=["exit 1", *["exit 69"] * 9, "serve"])
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(workers.run())
        await eventually(lambda: workers.facts[1].serving)
        workers.stop()
        await running
    assert workers.facts[1].restarts == 10


async def test_the_first_bad_code_of_a_stop_decides(tmp_path: Path) -> None:
    workers = some_workers(tmp_path, w2=["ends 70"])
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(_refused(workers))
        await happened(tmp_path, "ready", 2)
        workers.stop()
        assert await running == (70, "worker 2 exited with 70 at the stop; all workers were stopped")


async def test_a_stop_has_a_limit(tmp_path: Path) -> None:
    """A worker that does not end in time is killed, and the code is 70."""
    workers = some_workers(tmp_path, w1=["stuck"], stop_seconds=0.5)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(_refused(workers))
        started = await happened(tmp_path, "ready", 2)
        workers.stop()
        assert (await running)[0] == 70
    assert [each.exit_code for each in workers.facts] == [137, 0]
    assert not any(is_alive(each.pid) for each in started)


async def test_a_silent_worker_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose supervising thread stands still is killed and started again; one that reports is left alone."""
    monkeypatch.setattr(worker_module, "SILENT_LOOKS", 5)
    workers = some_workers(tmp_path, 1, pace=Pace(first=0.01, look=0.4), w1=["mute", "beat"])
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(workers.run())
        mute, _ = await happened(tmp_path, "ready", 2)
        assert not is_alive(mute.pid)
        await happened(tmp_path, "beat", 15)
        assert workers.facts[0].restarts == 1
        assert workers.facts[0].exit_code == 137
        workers.stop()
        await running


async def test_a_program_that_cannot_be_started(tmp_path: Path) -> None:
    """A failure of the system to start a process counts as an end, and is no error of the parent."""
    workers = some_workers(tmp_path, 1)
    for each in workers._workers:
        each._command = [str(tmp_path / "missing")]
    with pytest.raises(WorkersEndedError, match="more than 5 times"):
        await workers.run()


async def test_a_cancelled_run_leaves_no_process(tmp_path: Path) -> None:
    running = asyncio.create_task(some_workers(tmp_path).run())
    started = await happened(tmp_path, "ready", 2)
    running.cancel()
    await asyncio.wait([running])
    assert not any(is_alive(each.pid) for each in started)


async def _refused(workers: object) -> tuple[int, str]:
    with pytest.raises(WorkersEndedError) as ended:
        await workers.run()  # type: ignore[attr-defined]
    return ended.value.exit_code, str(ended.value)
