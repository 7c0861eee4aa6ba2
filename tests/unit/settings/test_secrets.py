"""Secrets: where they may come from; no message and no listing shows them."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumer.settings.sections import SECRETS
from tests.unit.settings.loading import SECRET, a_file, loaded, refusal


def test_a_password_from_the_environment() -> None:
    """A password in the environment is taken unchanged, commas included."""
    secret = f"{SECRET},= x"
    assert loaded(KAFKA__SECURITY__PASSWORD=secret).settings.kafka.security.password == secret


@pytest.mark.parametrize("name", sorted(SECRETS))
def test_the_file_of_a_secret(name: str) -> None:
    """Each secret may come from a file, which is named by a setting of its own, in any source."""
    *above, last = name.split(".")
    for read in (
        loaded(f"{name}_file=/run/s"),
        loaded(file=None, **{f"{'__'.join([*above, last]).upper()}_FILE": "/run/s"}),
    ):
        assert getattr(read.settings.kafka.security, f"{last}_file") == "/run/s"
        assert getattr(read.settings.kafka.security, last) == ""


def test_other_names_in_file_are_paths() -> None:
    """A file of certificates is named in the same way."""
    found = loaded("kafka.security.protocol=SSL", KAFKA__SECURITY__CA_FILE="/etc/ca.pem")
    assert found.settings.kafka.security.ca_file == "/etc/ca.pem"


@pytest.mark.parametrize("override", [f"{{}}={SECRET}", f" {{}} = {SECRET}", "{}", f"{{}}:{SECRET}"])
@pytest.mark.parametrize("name", sorted(SECRETS))
def test_a_secret_is_refused_in_override(name: str, override: str) -> None:
    """A secret in --set, which ps would show, is refused, and the message does not repeat it."""
    message = refusal(override.format(name))
    assert name in message
    assert SECRET not in message


@pytest.mark.parametrize(
    "overrides",
    [
        ["kafka.security.protocol=nonsense"],
        ["kafka.security.protocol=SASL_SSL"],
        ["kafka.security.ca_file=x"],
        ["kafka.security.key_file=x"],
        ["http.port=-1"],
        ["kafka.security=x"],
        ["kafka.security.passwd=x"],
    ],
    ids=str,
)
def test_a_secret_is_never_in_a_message(tmp_path: Path, overrides: list[str]) -> None:
    """No error about another setting repeats the password, wherever it came from."""
    file = a_file(tmp_path, f'[kafka.security]\npassword = "{SECRET}"')
    assert SECRET not in refusal(*overrides, file=file)
    assert SECRET not in refusal(*overrides, KAFKA__SECURITY__PASSWORD=SECRET)


@pytest.mark.parametrize("line", [f'password = ["{SECRET}"]', f'password = "{SECRET}', f'passwort = "{SECRET}"'])
def test_a_secret_written_wrongly_is_not_in_the_message(tmp_path: Path, line: str) -> None:
    """The error about a wrong type, a broken quote or a wrong name does not repeat the password."""
    assert SECRET not in refusal(file=a_file(tmp_path, f"[kafka.security]\n{line}\n"))


def test_a_secret_is_not_shown() -> None:
    """Neither the settings nor what was loaded shows the password as text."""
    found = loaded(KAFKA__SECURITY__PASSWORD=SECRET)
    assert found.settings.kafka.security.password == SECRET
    assert (
        SECRET not in f"{found!r} {found} {found.settings!r} {found.settings.kafka!r} {found.settings.kafka.security!r}"
    )


def test_values_of_options_are_not_shown() -> None:
    """The text of the settings shows options by name only, because values may be secrets."""
    found = loaded(ROUTES=f'[{{name = "a", handler = "m:C", options = {{token = "{SECRET}"}}}}]')
    assert found.settings.routes[0].options == {"token": SECRET}
    assert SECRET not in repr(found.settings)


@pytest.mark.parametrize(
    "routes",
    [
        f'[{{name = "a", handler = "m:C", options = {{token = "{SECRET}"}}',
        f'[{{name = "a", handler = "m:C", options = "{SECRET}"}}]',
        f'[{{name = "a", handler = "m:C", option = {{token = "{SECRET}"}}}}]',
        f'[{{name = "none", handler = "m:C", options = {{token = "{SECRET}"}}}}]',
    ],
)
def test_values_of_options_are_not_in_a_message(routes: str) -> None:
    """Routes that cannot be read are refused without repeating their options' values."""
    assert SECRET not in refusal(ROUTES=routes)
