"""The sockets of the HTTP server."""

from __future__ import annotations

import socket

import pytest

from consumer.errors import ConsumerError
from consumer.http.listen import listen
from consumer.settings.sections import Http


def reached(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "reachable"),
    [
        ("127.0.0.1", {"127.0.0.1"}),
        ("::1", {"::1"}),
        ("0.0.0.0", {"127.0.0.1"}),
        ("::", {"127.0.0.1", "::1"}),
    ],
)
def test_an_address_is_listened_on(host: str, reachable: set[str]) -> None:
    """An address of either family is listened on; ``::`` answers both."""
    opened = listen(Http(host=host, port=0))
    try:
        port = opened[0].getsockname()[1]
        assert {each for each in ("127.0.0.1", "::1") if reached(each, port)} == reachable
    finally:
        for each in opened:
            each.close()


def test_all_addresses_of_a_name_have_one_port() -> None:
    """A name is listened on at all of its addresses, on the same port."""
    opened = listen(Http(host="localhost", port=0))
    try:
        assert len({each.getsockname()[1] for each in opened}) == 1
        assert reached("localhost", opened[0].getsockname()[1])
    finally:
        for each in opened:
            each.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_port_in_use_is_named(host: str) -> None:
    """A port in use is an error with the address as it stands in a URL."""
    (taken,) = listen(Http(host=host, port=0))
    http = Http(host=host, port=taken.getsockname()[1])
    with taken, pytest.raises(ConsumerError, match=r"http\.port: cannot listen on") as refused:
        listen(http)
    assert http.address() in str(refused.value)
    assert "in use" in str(refused.value)


@pytest.mark.parametrize("host", ["no-such-host.invalid", "203.0.113.7", "a" * 300])
def test_an_address_of_another_machine_is_named(host: str) -> None:
    """A host that is not of this machine is an error that names it."""
    with pytest.raises(ConsumerError, match=r"http\.host, http\.port: cannot listen on") as refused:
        listen(Http(host=host, port=0))
    assert host in str(refused.value)


def test_an_address_in_a_url() -> None:
    """An IPv6 address stands in brackets in a URL."""
    assert Http(host="::1", port=80).address() == "[::1]:80"
    assert Http(host="::").address(7) == "[::]:7"
    assert Http(host="127.0.0.1").address() == "127.0.0.1:8000"
