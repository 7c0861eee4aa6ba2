"""Variables that Kubernetes makes for Services are no settings; misspelt settings beside them are errors."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.settings.environment import PREFIX, is_of_a_service
from consumer.settings.sources import load_settings
from tests.unit.settings.loading import SECRET, leaves, refusal, refusal_of_variable, variable_of

names = st.from_regex(re.compile(r"session-consumer(-[a-z0-9-]{0,12}[a-z0-9])?", re.ASCII), fullmatch=True)
"""Names of Services that begin like our variables; a DNS label may hold two hyphens in a row."""
port_names = st.from_regex(re.compile(r"[a-z]([a-z0-9-]{0,8}[a-z0-9])?", re.ASCII), fullmatch=True)


def variables(service: str, port_name: str, protocol: str = "tcp", ip: str = "10.0.12.34") -> dict[str, str]:
    """Return what Kubernetes puts into each container of a Service's namespace, with its hyphens as underscores."""
    name = service.upper().replace("-", "_")
    url = f"{protocol}://{ip}:8000"
    each = f"{name}_PORT_8000_{protocol.upper()}"
    return {
        f"{name}_SERVICE_HOST": ip,
        f"{name}_SERVICE_PORT": "8000",
        f"{name}_SERVICE_PORT_{port_name.upper().replace('-', '_')}": "8000",
        f"{name}_PORT": url,
        each: url,
        f"{each}_PROTO": protocol,
        f"{each}_PORT": "8000",
        f"{each}_ADDR": ip,
    }


@given(names, port_names, st.sampled_from(["tcp", "udp", "sctp"]), st.sampled_from(["10.0.12.34", "[fd00::1]"]))
def test_the_variables_of_any_service_are_ignored(service: str, port_name: str, protocol: str, ip: str) -> None:
    """No variable that Kubernetes makes for a Service is a setting, whatever the Service is called."""
    assert load_settings(None, variables(service, port_name, protocol, ip)).origins == {}


@pytest.mark.parametrize("name", [*leaves(), "kafka.security.password_file"])
@pytest.mark.parametrize("text", ["8000", "tcp://10.0.12.34:8000", "10.0.12.34"])
def test_no_setting_is_taken_for_a_service(name: str, text: str) -> None:
    """The variable of a setting is read whatever its value looks like."""
    assert not is_of_a_service(variable_of(name), text)


@pytest.mark.parametrize("name", ["HTTP_PORT", "PORT", "HTPP__PORT", "METRICS_PORT", "SERVICE__HOST", "_PORT"])
def test_a_misspelt_port_is_no_service(name: str) -> None:
    """A variable that ends like a Service's but holds no address of one is an unknown setting."""
    assert f"environment variable {PREFIX}{name}" in refusal_of_variable(f"{PREFIX}{name}", "8000")


def test_a_secret_and_its_file_are_not_both_given() -> None:
    """A password in a variable and in a file is an error that names both settings, before the file is read."""
    message = refusal(KAFKA__SECURITY__PASSWORD=SECRET, KAFKA__SECURITY__PASSWORD_FILE="/no/such/file")
    assert "kafka.security.password and password_file are both set" in message
    assert SECRET not in message
