"""Three sources of settings make one typed value; every mistake is named with its setting and source."""

from __future__ import annotations

from pathlib import Path

import pytest

from consumer.settings.environment import PREFIX
from consumer.settings.sections import RouteSettings
from consumer.settings.sources import load_settings
from tests.unit.settings.loading import a_file, loaded, refusal, refusal_of_variable, variable_of


def test_the_last_source_wins(tmp_path: Path) -> None:
    """The environment overrides the file, --set overrides both, and each value's origin is known."""
    file = a_file(tmp_path, '[kafka]\nclient_id = "f"\ngroup_id = "f"\ntopics = ["f"]\n')
    found = loaded("kafka.topics=s", file=file, KAFKA__GROUP_ID="e", KAFKA__TOPICS="e")
    kafka = found.settings.kafka
    assert (kafka.client_id, kafka.group_id, kafka.topics) == ("f", "e", ["s"])
    assert found.origins == {
        "kafka.client_id": str(file),
        "kafka.group_id": f"environment variable {PREFIX}KAFKA__GROUP_ID",
        "kafka.topics": "--set",
    }


def test_the_last_override_wins() -> None:
    """Of two --set for one setting the later one counts."""
    assert loaded("http.port=1", "http.port=2").settings.http.port == 2


def test_other_environment_variables_are_not_settings() -> None:
    """Variables without the prefix are ignored."""
    assert load_settings(None, {"PATH": "/bin", "KAFKA__GROUP_ID": "x", "session_consumer_x": "y"}).origins == {}


def test_lists_are_separated_by_commas() -> None:
    """In the environment and in --set lists are comma-separated; spaces and empty parts are dropped."""
    found = loaded("kafka.topics=x, y,,z ", KAFKA__BOOTSTRAP_SERVERS="a:9092,b:9092").settings.kafka
    assert found.bootstrap_servers == ["a:9092", "b:9092"]
    assert found.topics == ["x", "y", "z"]


def test_numbers_may_have_underscores() -> None:
    """Numbers in text may have underscores, as in TOML; a whole number is accepted for a float."""
    found = loaded("kafka.fetch_bytes=2_097_152", "delivery.drain_seconds=5", DELIVERY__COMMIT_INTERVAL_SECONDS="0.5")
    assert found.settings.kafka.fetch_bytes == 2_097_152
    assert found.settings.delivery.drain_seconds == 5.0
    assert type(found.settings.delivery.drain_seconds) is float
    assert found.settings.delivery.commit_interval_seconds == 0.5


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), ("1", True), ("0", False)])
def test_booleans_are_words_or_digits(text: str, value: bool) -> None:
    """A boolean in text is true, false, 1 or 0."""
    assert loaded(f"log.payloads={text}").settings.log.payloads is value


def test_text_is_taken_as_it_is() -> None:
    """A text needs no quotes, and may hold an equals sign or look like a number."""
    assert loaded("kafka.group_id=a=1").settings.kafka.group_id == "a=1"
    assert loaded(KAFKA__GROUP_ID="007").settings.kafka.group_id == "007"


def test_routes_are_toml_in_override() -> None:
    """A setting that is no text, number or list of texts is written as TOML."""
    found = loaded('routes=[{name = "a", handler = "m:f", match = {is_test = false}}]').settings.routes
    assert found == [RouteSettings("a", "m:f", match={"is_test": False})]


@pytest.mark.parametrize(("session", "heartbeat"), [("45", 3.0), ("9", 3.0), ("6", 2.0), ("0.7", 0.7 / 3)])
def test_heartbeats_follow_the_session_timeout(session: str, heartbeat: float) -> None:
    """Without an interval heartbeats are 3 s apart, or a third of the session timeout if that is less."""
    found = loaded(f"kafka.session_timeout_seconds={session}")
    assert found.settings.kafka.heartbeat_interval_seconds == heartbeat
    assert "kafka.heartbeat_interval_seconds" not in found.origins


def test_option_files_are_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that an option points to is relative to the settings file, also inside a table of the option."""
    folder = tmp_path / "etc"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    options = '{ a = { file = "token" }, b = { x = { file = "/run/token" } }, c = { file = "x", y = 1 }, d = "file" }'
    a_file(folder, f'[[routes]]\nname = "r"\nhandler = "m:C"\noptions = {options}')
    assert loaded(file=Path("etc/settings.toml")).settings.routes[0].options == {
        "a": {"file": str(folder / "token")},
        "b": {"x": {"file": "/run/token"}},
        "c": {"file": "x", "y": 1},
        "d": "file",
    }


def test_path_is_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Handler folders are relative to the settings file, not to the working directory."""
    folder = tmp_path / "etc"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    a_file(folder, 'path = ["handlers", "/opt/handlers"]')
    found = loaded(file=Path("etc/settings.toml")).settings.path
    assert found == [str(folder / "handlers"), "/opt/handlers"]


def test_path_without_a_file_is_relative_to_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a settings file handler folders are relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    assert loaded("path=handlers").settings.path == [str(tmp_path / "handlers")]


@pytest.mark.parametrize(
    ("text", "unknown", "nearest"),
    [
        ("[kafak]\ntopics = []", "kafak", "kafka"),
        ('[kafka]\ngroup = "x"', "kafka.group", "group_id"),
        ('[kafka.security]\nusernme = "x"', "kafka.security.usernme", "username"),
        ("[http]\nprt = 1", "http.prt", "port"),
        ('[[routes]]\nname = "a"\nhandlr = "m:f"', "routes[0].handlr", "handler"),
        ('[[routes]]\nname = "a"\nhandler = "m:f"\n[[routes]]\nmach = {}', "routes[1].mach", "match"),
    ],
)
def test_unknown_name_in_the_file(tmp_path: Path, text: str, unknown: str, nearest: str) -> None:
    """An unknown name in the file is an error with the file and the nearest known name."""
    file = a_file(tmp_path, text)
    message = refusal(file=file)
    assert f"unknown setting {unknown!r} ({file})" in message
    assert f"did you mean {nearest!r}?" in message


UNKNOWN = [
    ("kafak.topics", "kafka"),
    ("kafka.topic", "kafka.topics"),
    ("kafka.security.usernme", "kafka.security.username"),
    ("http.prt", "http.port"),
    ("log.payload", "log.payloads"),
    ("delivery.drain_second", "delivery.drain_seconds"),
]


@pytest.mark.parametrize(("unknown", "nearest"), UNKNOWN)
def test_unknown_name_in_override(unknown: str, nearest: str) -> None:
    """An unknown name in --set is an error with the nearest known name."""
    message = refusal(f"{unknown}=1")
    assert f"unknown setting {unknown!r} (--set)" in message
    assert f"did you mean {nearest!r}?" in message


@pytest.mark.parametrize(("unknown", "nearest"), UNKNOWN)
def test_unknown_name_in_the_environment(unknown: str, nearest: str) -> None:
    """An unknown name in the environment is an error with its variable and the nearest known name."""
    variable = variable_of(unknown)
    message = refusal_of_variable(variable, "1")
    assert f"unknown setting {unknown!r} (environment variable {variable})" in message
    assert f"did you mean {nearest!r}?" in message


ROUTES_WITH_TYPO = '[{name = "a", handler = "m:f", mach = {is_test = false}}]'


def test_unknown_name_inside_routes_of_override() -> None:
    """Names inside routes are checked in --set too, because a misspelt match would match every event."""
    message = refusal(f"routes={ROUTES_WITH_TYPO}")
    assert "'routes[0].mach' (--set)" in message
    assert "did you mean 'match'?" in message


def test_unknown_name_inside_routes_of_the_environment() -> None:
    """Names inside routes are checked in the environment too."""
    message = refusal(ROUTES=ROUTES_WITH_TYPO)
    assert f"'routes[0].mach' (environment variable {PREFIX}ROUTES)" in message
    assert "did you mean 'match'?" in message


def test_a_section_is_no_setting() -> None:
    """A whole section cannot be set as text; the message names one of its keys."""
    assert "'http' (--set) is a section; set one of its keys, such as http.host" in refusal("http=x")


@pytest.mark.parametrize("override", ["http.port", "", "nonsense"])
def test_an_override_needs_an_equals_sign(override: str) -> None:
    """A --set without an equals sign is refused with the right form."""
    assert "write it as key=value" in refusal(override)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('[http]\nport = "8000"', ["http.port", "expected int, got str"]),
        ("[http]\nport = true", ["http.port", "expected int, got bool"]),
        ("[http]\nport = 1.5", ["http.port", "expected int, got float"]),
        ('[kafka]\ntopics = "a"', ["kafka.topics", "expected a list, got str"]),
        ("[kafka]\ntopics = [1]", ["kafka.topics[0]", "expected str, got int"]),
        ("[kafka]\ngroup_id = 1", ["kafka.group_id", "expected str, got int"]),
        ('[delivery]\ndrain_seconds = "25"', ["delivery.drain_seconds", "expected float, got str"]),
        ("[log]\npayloads = 1", ["log.payloads", "expected bool, got int"]),
        ('[log]\nlevel = "loud"', ["log.level", "'loud' is not one of debug, info, warning, error"]),
        ("kafka = 3", ["kafka", "expected a table, got int"]),
        ('[[routes]]\nname = 1\nhandler = "m:f"', ["routes[0].name", "expected str, got int"]),
        ('[[routes]]\nname = "a"', ["routes[0]", "it needs the key handler"]),
        ('[[routes]]\nname = "a"\nhandler = "m:f"\nmatch = []', ["routes[0].match", "expected a table, got a list"]),
    ],
    ids=str,
)
def test_wrong_type_in_the_file(tmp_path: Path, text: str, named: list[str]) -> None:
    """A wrong type in the file is an error that names the setting, the file and both types."""
    file = a_file(tmp_path, text)
    message = refusal(file=file)
    assert [part for part in [*named, str(file)] if part not in message] == []


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("http.port", "eighty", "expected int, got 'eighty'"),
        ("http.port", "80.5", "expected int, got '80.5'"),
        ("http.port", "", "expected int, got ''"),
        ("delivery.drain_seconds", "soon", "expected float, got 'soon'"),
        ("log.payloads", "yes", "expected bool, got 'yes'"),
        ("log.level", "loud", "'loud' is not one of debug, info, warning, error"),
        ("kafka.security.protocol", "ssl", "'ssl' is not one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL"),
        ("routes", "3", "expected a list, got int"),
        ("routes", "[", "expected a TOML value"),
    ],
)
def test_wrong_type_in_text(name: str, text: str, expected: str) -> None:
    """A value that cannot be read is an error that names the setting, the source and the expected type."""
    message = refusal(f"{name}={text}")
    assert f"{name} (--set)" in message
    assert expected in message
    message = refusal_of_variable(variable_of(name), text)
    assert f"{name} (environment variable {variable_of(name)})" in message
    assert expected in message


def test_the_environment_needs_a_section(tmp_path: Path) -> None:
    """A value in place of a section is named when the environment sets a key below it."""
    assert "kafka is not a section" in refusal(file=a_file(tmp_path, "kafka = 3"), KAFKA__GROUP_ID="x")


@pytest.mark.parametrize("content", [b"[kafka", b"\xff", b'a = "\n"', b"http.port = 1\nhttp.port = 2"])
def test_a_file_that_is_not_toml(tmp_path: Path, content: bytes) -> None:
    """A file that is not TOML is named."""
    file = tmp_path / "settings.toml"
    file.write_bytes(content)
    assert f"settings file {file} is not TOML" in refusal(file=file)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A missing file, or a folder, is named with the system's reason."""
    assert f"settings file {tmp_path / 'no.toml'}: No such file" in refusal(file=tmp_path / "no.toml")
    assert f"settings file {tmp_path}: Is a directory" in refusal(file=tmp_path)
