"""Which ``Host`` headers are answered."""

from __future__ import annotations

import pytest

from consumer.http.hosts import Hosts
from consumer.settings.sections import Http

OWN = ["localhost", "LOCALHOST:8000", "localhost.", "127.0.0.1:8000", "127.1.2.3", "[::1]:8000", "::1", None]
FOREIGN = ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.7", ""]
MALFORMED = ["[::1].evil.example", "[::1]evil", "[localhost]", "localhost:evil", "[::1]:8000:evil", "[::1", "[]"]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost"])
def test_a_loopback_server_answers_to_names_of_this_machine(host: str) -> None:
    """On a loopback address the names of this machine are answered, and no others."""
    hosts = Hosts(Http(host=host))
    assert [each for each in OWN if not hosts.answers(each)] == []
    assert [each for each in FOREIGN + MALFORMED if hosts.answers(each)] == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "metrics.example"])
def test_another_server_answers_to_every_name(host: str) -> None:
    """On any other address every name is answered."""
    hosts = Hosts(Http(host=host))
    assert all(map(hosts.answers, [*OWN, *FOREIGN]))


@pytest.mark.parametrize("host", ["127.0.0.1", "10.0.0.7"])
def test_allowed_hosts_are_answered_besides(host: str) -> None:
    """Names in allowed_hosts are answered besides those of this machine, with any port; then no others are."""
    hosts = Hosts(Http(host=host, allowed_hosts=["Metrics.example", "fd00::7", "10.0.0.8:80"]))
    for each in ("metrics.example", "METRICS.example.:443", "[fd00::7]:80", "10.0.0.8", host, *OWN):
        assert hosts.answers(each), each
    assert not hosts.answers("evil.example")
