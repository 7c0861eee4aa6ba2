"""The connection of a worker to its parent, from the worker's end."""

from __future__ import annotations

import os
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from consumer.process.workers.lifeline import Lifeline


class Ends(NamedTuple):
    """Both ends of one connection."""

    parent: socket.socket
    lifeline: Lifeline


@pytest.fixture
def ends() -> Iterator[Ends]:
    ours, theirs = socket.socketpair()
    ours.settimeout(20.0)
    descriptor = theirs.detach()
    os.set_inheritable(descriptor, True)  # as a process has it that was started with it
    with ours:
        made = Lifeline(descriptor)
        with made.stopping(lambda: None):  # else the end of the parent ends this process
            assert not os.get_inheritable(descriptor), "a program that a handler starts would keep it"
            yield Ends(ours, made)
            ours.close()
            made._socket.close()


@pytest.mark.parametrize("how", [socket.socket.close, lambda parent: parent.shutdown(socket.SHUT_WR)])
def test_the_end_of_the_parent_stops(ends: Ends, how: Callable[[socket.socket], None]) -> None:
    """A closed connection, and one that the parent has ended for writing, call the stop once."""
    stopped = threading.Semaphore(0)
    with ends.lifeline.stopping(stopped.release):
        how(ends.parent)
        assert stopped.acquire(timeout=20.0)
        assert not stopped.acquire(blocking=False)


def test_reports(ends: Ends) -> None:
    ends.lifeline.alive("starting")
    ends.lifeline.ready(8001)
    assert ends.parent.recv(100) == b"alive starting\nready 8001\n"


def test_a_parent_that_does_not_read(ends: Ends) -> None:
    """A report never waits, and one to a parent that has ended is dropped."""
    for _ in range(100_000):
        ends.lifeline.alive("running")
    ends.parent.close()
    ends.lifeline.alive("running")


def test_a_forked_child_has_no_connection(ends: Ends) -> None:
    """A child that a handler forks keeps no end of it, and /dev/null has its number."""
    descriptor = ends.lifeline._socket.fileno()
    child = os.fork()
    if child == 0:
        os._exit(stat.S_ISSOCK(os.fstat(descriptor).st_mode))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    ends.lifeline.alive("running")
    assert ends.parent.recv(100) == b"alive running\n"
