"""The settings as a person may see them."""

from __future__ import annotations

from pathlib import Path

from consumer.settings.environment import PREFIX
from consumer.settings.listing import listing
from consumer.settings.meanings import MEANINGS
from tests.unit.settings.loading import SECRET, a_file, loaded

ROUTES = f"""
[[routes]]
name = "voice"
handler = "consumer.handlers.jsonl:JsonLines"
match = {{ channel_manager_type = "{SECRET}" }}
options = {{ path = "{SECRET}", max_bytes = 7 }}
timeout_seconds = 3.0
"""


def lines(*overrides: str, file: Path | None = None, **environment: str) -> list[str]:
    found = loaded(*overrides, file=file, **environment)
    return list(listing(found.settings, found.origins))


def test_every_setting_is_listed_with_its_origin(tmp_path: Path) -> None:
    """Each setting has a line with its value and the source that won, in the order of the documents."""
    file = a_file(tmp_path, '[kafka]\ngroup_id = "f"\nclient_id = "f"\n')
    found = lines("http.port=81", file=file, KAFKA__CLIENT_ID="e", HTTP__PORT="80")
    assert [line.partition(" = ")[0] for line in found[:-1]] == [
        n for n in MEANINGS if not n.startswith(("routes.", "schemas."))
    ]
    for line in (
        f'kafka.group_id = "f"  # {file}',
        f'kafka.client_id = "e"  # environment variable {PREFIX}KAFKA__CLIENT_ID',
        "http.port = 81  # --set",
        "delivery.drain_seconds = 25.0  # default",
        "routes[0]: log → consumer.handlers.log:Log  # default",
    ):
        assert line in found


def test_a_key_in_the_place_of_its_file_is_not_listed() -> None:
    """By mistake a setting for a file may hold the key itself."""
    settings = ("protocol=SSL", f"certificate_file={SECRET}", f"key_file={SECRET}")
    found = lines(*(f"kafka.security.{each}" for each in settings))
    assert SECRET not in "\n".join(found)
    assert "kafka.security.key_file = hidden  # --set" in found


def test_secrets_and_values_of_options_are_not_listed(tmp_path: Path) -> None:
    """A secret is listed as hidden; a route's options and match are listed by name."""
    file = a_file(tmp_path, ROUTES)
    security = ("kafka.security.protocol=SASL_SSL",)
    given = {"KAFKA__SECURITY__PASSWORD": SECRET, "KAFKA__SECURITY__USERNAME": SECRET}
    found = lines(*security, file=file, **given)
    assert SECRET not in "\n".join(found)
    assert f"kafka.security.password = hidden  # environment variable {PREFIX}KAFKA__SECURITY__PASSWORD" in found
    assert (
        "routes[0]: voice → consumer.handlers.jsonl:JsonLines; match channel_manager_type; options path, max_bytes;"
        f" timeout_seconds 3.0  # {file}"
    ) in found
    assert 'kafka.security.password = ""  # default' in lines()
