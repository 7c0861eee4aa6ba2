"""Children that handlers fork: they get neither our signal handlers nor our sockets.

A child that is started with ``exec`` has none of them anyway: signals are reset and descriptors are closed there.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any


def reset_signals_in_children(caught: Callable[[], Iterator[int]]) -> None:
    """Give children that are forked from now on the default handlers of the signals that ``caught`` returns.

    These signals wait while a child is forked: one that reached it before its handlers are reset would be lost.
    """
    masks = threading.local()

    def before() -> None:
        masks.mask = signal.pthread_sigmask(signal.SIG_BLOCK, caught())

    def in_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.mask)

    def in_child() -> None:
        signal.set_wakeup_fd(-1)  # or a signal to the child would wake our event loop
        for number in caught():
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        in_parent()

    os.register_at_fork(before=before, after_in_child=in_child, after_in_parent=in_parent)


def keep_sockets_from_children(loop: asyncio.AbstractEventLoop) -> None:
    """Close the sockets of an event loop in each child that is forked from now on, while the loop is open.

    Otherwise a child that outlives the daemon keeps its port and its connections.
    """
    os.register_at_fork(after_in_child=partial(_disconnect, weakref.ref(loop)))


def keep_socket_from_children(kept: socket.socket) -> None:
    """Close a socket in each child that is forked from now on, while it is open."""
    reference = weakref.ref(kept)

    def in_child() -> None:
        found = reference()
        if found is not None and found.fileno() != -1:
            _replace([found.fileno()])

    os.register_at_fork(after_in_child=in_child)


def _disconnect(reference: weakref.ref[asyncio.AbstractEventLoop]) -> None:
    loop = reference()
    if loop is not None and not loop.is_closed():
        _replace(_descriptors(loop))


def _replace(descriptors: Iterable[int]) -> None:
    """Put /dev/null in the place of each descriptor: an object that closes its number must not close another file."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for number in descriptors:
        with contextlib.suppress(OSError):
            os.dup2(nothing, number, inheritable=False)
    os.close(nothing)


def _descriptors(loop: Any) -> set[int]:
    """Return what the loop has open: listening sockets, connections, its selector and the pair that wakes it.

    asyncio has no public list of them. A connection whose reading is paused is a transport only. A transport that was
    closed may still be listed under a number that another file has now, so each is asked for its socket's own: -1 then.
    """
    selector = loop._selector  # noqa: SLF001
    registered = {key.fd for key in selector.get_map().values()}
    connected = {each.get_extra_info("socket").fileno() for each in loop._transports.values()}  # noqa: SLF001
    return (registered | connected | {selector.fileno(), loop._csock.fileno()}) - {-1}  # noqa: SLF001
