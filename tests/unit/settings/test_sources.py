"""Settings: three sources into one typed value, and every mistake named with its setting and its source."""

from __future__ import annotations

import contextlib
import json
import tempfile
import tomllib
from collections.abc import Iterator, Mapping
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consumer.errors import SettingsError
from consumer.settings.meanings import HIDDEN, MEANINGS
from consumer.settings.sections import SECRETS, Kafka, RouteSettings, Settings
from consumer.settings.sources import PREFIX, Loaded, load_settings

SECRET = "hunter2-s3cret"

DEFAULTS = """
path = []
routes = []
[kafka]
bootstrap_servers = ["localhost:9092"]
topics = ["session-events"]
group_id = "session-consumer"
client_id = "session-consumer"
offset_reset = "earliest"
out_of_range = "halt"
isolation_level = "read_committed"
fetch_bytes = 1_048_576
fetch_path = "auto"
max_batch_bytes = 67_108_864
start_timeout_seconds = 60.0
session_timeout_seconds = 45.0
heartbeat_interval_seconds = 3.0
rebalance_timeout_seconds = 60.0
request_timeout_seconds = 70.0
[kafka.security]
protocol = "PLAINTEXT"
ca_file = ""
certificate_file = ""
key_file = ""
mechanism = "PLAIN"
username = ""
password = ""
[delivery]
ordering = "partition"
concurrency = 64
max_in_flight_records = 2000
max_in_flight_bytes = 8_388_608
max_record_bytes = 1_048_576
commit_interval_seconds = 1.0
drain_seconds = 25.0
on_halt = "wait"
[retry]
attempts = 5
initial_seconds = 0.2
maximum_seconds = 30.0
multiplier = 2.0
jitter = 0.2
[dead_letter]
topic = "{topic}.dlq"
headers = "connect"
limit_ratio = 0.5
limit_window_records = 1000
[watchdog]
stalled_seconds = 60.0
rebuilds = 5
window_seconds = 600.0
[http]
host = "127.0.0.1"
port = 8000
[log]
level = "info"
format = "auto"
payloads = false
[tracing]
enabled = false
"""

NUMBERS = [
    "kafka.fetch_bytes",
    "kafka.start_timeout_seconds",
    "kafka.session_timeout_seconds",
    "kafka.heartbeat_interval_seconds",
    "kafka.rebalance_timeout_seconds",
    "kafka.request_timeout_seconds",
    "delivery.concurrency",
    "delivery.max_in_flight_records",
    "delivery.max_in_flight_bytes",
    "delivery.max_record_bytes",
    "delivery.commit_interval_seconds",
    "delivery.drain_seconds",
]


def leaves(struct: Any = Settings, above: str = "") -> Iterator[str]:
    """Name every setting that has no settings below it."""
    for field in msgspec.structs.fields(struct):
        kind: Any = RouteSettings if field.name == "routes" else field.type
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            yield from leaves(kind, f"{above}{field.name}.")
        else:
            yield above + field.name


def a_file(folder: Path, text: str) -> Path:
    file = folder / "settings.toml"
    file.write_text(text, encoding="utf-8")
    return file


def loaded(*overrides: str, file: Path | None = None, **environment: str) -> Loaded:
    """Load settings; environment variables are given without their prefix."""
    return load_settings(file, {PREFIX + name: value for name, value in environment.items()}, overrides)


def refusal(*overrides: str, file: Path | None = None, **environment: str) -> str:
    with pytest.raises(SettingsError) as refused:
        loaded(*overrides, file=file, **environment)
    return str(refused.value)


def variable_of(name: str) -> str:
    return PREFIX + name.upper().replace(".", "__")


def refusal_of_variable(variable: str, text: str) -> str:
    with pytest.raises(SettingsError) as refused:
        load_settings(None, {variable: text})
    return str(refused.value)


# -- defaults and meanings ---------------------------------------------------------------------------------------------


def test_defaults_are_the_contracts() -> None:
    """With no source at all every setting has the value that the contract states, and no origin."""
    settings, origins = loaded().settings, loaded().origins
    assert msgspec.to_builtins(settings) == tomllib.loads(DEFAULTS)
    assert origins == {}


def test_every_setting_has_one_meaning() -> None:
    """Each setting that can be set has a meaning for the README, and no other has."""
    assert list(MEANINGS) == [name for name in leaves() if name not in HIDDEN]


def test_secrets_are_settings() -> None:
    """What is treated as a secret is a setting that exists."""
    assert set(leaves()) >= SECRETS


# -- sources -----------------------------------------------------------------------------------------------------------


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
    """Variables without the prefix are nobody's mistake."""
    assert load_settings(None, {"PATH": "/bin", "KAFKA__GROUP_ID": "x", "session_consumer_x": "y"}).origins == {}


def test_lists_are_separated_by_commas() -> None:
    """In the environment and in --set a list is written with commas; spaces and empty parts are dropped."""
    found = loaded("kafka.topics=x, y,,z ", KAFKA__BOOTSTRAP_SERVERS="a:9092,b:9092").settings.kafka
    assert found.bootstrap_servers == ["a:9092", "b:9092"]
    assert found.topics == ["x", "y", "z"]


def test_numbers_may_have_underscores() -> None:
    """A number reads in text as it does in TOML, underscores and all; a whole one is a float where one is asked."""
    found = loaded("kafka.fetch_bytes=2_097_152", "delivery.drain_seconds=5", DELIVERY__COMMIT_INTERVAL_SECONDS="0.5")
    assert found.settings.kafka.fetch_bytes == 2_097_152
    assert found.settings.delivery.drain_seconds == 5.0
    assert type(found.settings.delivery.drain_seconds) is float
    assert found.settings.delivery.commit_interval_seconds == 0.5


@pytest.mark.parametrize(("text", "value"), [("true", True), ("false", False), ("1", True), ("0", False)])
def test_booleans_are_words_or_digits(text: str, value: bool) -> None:
    """A boolean in text is true or false, or 1 or 0."""
    assert loaded(f"log.payloads={text}").settings.log.payloads is value


def test_text_is_taken_as_it_is() -> None:
    """A text needs no quotes, and may hold an equals sign or look like a number."""
    assert loaded("kafka.group_id=a=1").settings.kafka.group_id == "a=1"
    assert loaded(KAFKA__GROUP_ID="007").settings.kafka.group_id == "007"


def test_routes_are_toml_in_override() -> None:
    """A setting that is neither a text, a number nor a list of texts is written as TOML."""
    found = loaded('routes=[{name = "a", handler = "m:f", match = {is_test = false}}]').settings.routes
    assert found == [RouteSettings("a", "m:f", {"is_test": False})]


def test_path_is_relative_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folders of handlers are relative to the settings file, wherever the daemon was started."""
    folder = tmp_path / "etc"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    a_file(folder, 'path = ["handlers", "/opt/handlers"]')
    found = loaded(file=Path("etc/settings.toml")).settings.path
    assert found == [str(folder / "handlers"), "/opt/handlers"]


def test_path_without_a_file_is_relative_to_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a settings file, folders of handlers are relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    assert loaded("path=handlers").settings.path == [str(tmp_path / "handlers")]


# -- mistakes in names -------------------------------------------------------------------------------------------------


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
    """A name in the file that no setting has is an error with the file and the nearest known name."""
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
    """A name in --set that no setting has is an error with the nearest known name."""
    message = refusal(f"{unknown}=1")
    assert f"unknown setting {unknown!r} (--set)" in message
    assert f"did you mean {nearest!r}?" in message


@pytest.mark.parametrize(("unknown", "nearest"), UNKNOWN)
def test_unknown_name_in_the_environment(unknown: str, nearest: str) -> None:
    """A name in the environment that no setting has is an error with its variable and the nearest known name."""
    variable = variable_of(unknown)
    message = refusal_of_variable(variable, "1")
    assert f"unknown setting {unknown!r} (environment variable {variable})" in message
    assert f"did you mean {nearest!r}?" in message


ROUTES_WITH_TYPO = '[{name = "a", handler = "m:f", mach = {is_test = false}}]'


def test_unknown_name_inside_routes_of_override() -> None:
    """A name inside routes is checked in --set too: a match that is spelled wrong would match every event."""
    message = refusal(f"routes={ROUTES_WITH_TYPO}")
    assert "'routes[0].mach' (--set)" in message
    assert "did you mean 'match'?" in message


def test_unknown_name_inside_routes_of_the_environment() -> None:
    """A name inside routes is checked in the environment too."""
    message = refusal(ROUTES=ROUTES_WITH_TYPO)
    assert f"'routes[0].mach' (environment variable {PREFIX}ROUTES)" in message
    assert "did you mean 'match'?" in message


def test_a_section_is_no_setting() -> None:
    """A whole section cannot be set in text; the message names one of its keys."""
    assert "'http' (--set) is a section; set one of its keys, such as http.host" in refusal("http=x")


@pytest.mark.parametrize("override", ["http.port", "", "nonsense"])
def test_an_override_needs_an_equals_sign(override: str) -> None:
    """A --set without an equals sign says how to write one."""
    assert "write it as key=value" in refusal(override)


# -- mistakes in values ------------------------------------------------------------------------------------------------


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
    """A value of the wrong type in the file is an error that names the setting, the file and both types."""
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
    """A value that cannot be read is an error that names the setting, the source and what was expected."""
    message = refusal(f"{name}={text}")
    assert f"{name} (--set)" in message
    assert expected in message
    message = refusal_of_variable(variable_of(name), text)
    assert f"{name} (environment variable {variable_of(name)})" in message
    assert expected in message


def test_the_environment_needs_a_section(tmp_path: Path) -> None:
    """A value where the file should have a section is named when the environment sets a key below it."""
    assert "kafka is not a section" in refusal(file=a_file(tmp_path, "kafka = 3"), KAFKA__GROUP_ID="x")


@pytest.mark.parametrize("content", [b"[kafka", b"\xff", b'a = "\n"', b"http.port = 1\nhttp.port = 2"])
def test_a_file_that_is_not_toml(tmp_path: Path, content: bytes) -> None:
    """A file that is not TOML is named."""
    file = tmp_path / "settings.toml"
    file.write_bytes(content)
    assert f"settings file {file} is not TOML" in refusal(file=file)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A file that is missing, or a folder, is named with the system's reason."""
    assert f"settings file {tmp_path / 'no.toml'}: No such file" in refusal(file=tmp_path / "no.toml")
    assert f"settings file {tmp_path}: Is a directory" in refusal(file=tmp_path)


# -- relations ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", ["0", "-1"])
@pytest.mark.parametrize("name", NUMBERS)
def test_numbers_are_above_zero(name: str, number: str) -> None:
    """A size, a count or a time of nothing or less is refused by name."""
    assert f"{name} = {number}" in refusal(f"{name}={number}")


@pytest.mark.parametrize("name", [name for name in NUMBERS if name.endswith("_seconds")])
def test_times_are_numbers(name: str) -> None:
    """NaN is above nothing and below nothing, so it is no time."""
    assert name in refusal(f"{name}=nan")


ROUTE = '{{name = "{}", handler = "m:f"}}'

BROKEN = [
    (["http.port=-1"], "http.port = -1 must be from 0 to 65535"),
    (["http.port=65536"], "http.port = 65536 must be from 0 to 65535"),
    (["kafka.bootstrap_servers="], "kafka.bootstrap_servers is empty"),
    (["kafka.bootstrap_servers=broker"], "'broker' is not host:port"),
    (["kafka.bootstrap_servers=a:1,broker:"], "'broker:' is not host:port"),
    (["kafka.bootstrap_servers=broker:kafka"], "'broker:kafka' is not host:port"),
    (["kafka.bootstrap_servers=:9092"], "':9092' is not host:port"),
    (["kafka.bootstrap_servers=broker:²"], "'broker:²' is not host:port"),
    (["kafka.topics="], "kafka.topics is empty"),
    (["kafka.group_id="], "kafka.group_id is empty"),
    (["kafka.heartbeat_interval_seconds=15.1"], "at most a third of kafka.session_timeout_seconds = 45.0"),
    (["kafka.session_timeout_seconds=8.9"], "kafka.heartbeat_interval_seconds = 3.0 must be at most a third"),
    (["delivery.drain_seconds=60"], "must be below kafka.rebalance_timeout_seconds = 60.0"),
    (["kafka.rebalance_timeout_seconds=25"], "delivery.drain_seconds = 25.0 must be below"),
    (["kafka.request_timeout_seconds=64.9"], "must be at least 5 s above kafka.rebalance_timeout_seconds = 60.0"),
    (["kafka.rebalance_timeout_seconds=65.1"], "kafka.request_timeout_seconds = 70.0 must be at least 5 s above"),
    (["kafka.security.protocol=SASL_SSL"], "kafka.security.username is empty"),
    (["kafka.security.protocol=SASL_PLAINTEXT", "kafka.security.username=u"], "kafka.security.password is empty"),
    (["kafka.security.protocol=SSL", "kafka.security.certificate_file=c"], "go together"),
    (["kafka.security.protocol=SSL", "kafka.security.key_file=k"], "go together"),
    (["kafka.security.ca_file=c"], "kafka.security.ca_file is set, but the protocol PLAINTEXT does not use TLS"),
    (["kafka.security.certificate_file=c", "kafka.security.key_file=k"], "kafka.security.certificate_file is set"),
    ([f"routes=[{ROUTE.format('none')}]"], "routes: the name 'none' is reserved"),
    ([f"routes=[{ROUTE.format('')}]"], "routes: the name '' is reserved"),
    ([f"routes=[{ROUTE.format('a')}, {ROUTE.format('a')}]"], "routes: more than one is named 'a'"),
]

WORKING = [
    ["http.port=0"],
    ["http.port=65535"],
    ["kafka.bootstrap_servers=a:1,[::1]:9092"],
    ["kafka.heartbeat_interval_seconds=15"],
    ["kafka.session_timeout_seconds=9"],
    ["delivery.drain_seconds=59.9"],
    ["kafka.rebalance_timeout_seconds=65"],
    ["kafka.request_timeout_seconds=65"],
    ["kafka.security.protocol=SSL"],
    ["kafka.security.protocol=SSL", "kafka.security.ca_file=c"],
    ["kafka.security.protocol=SSL", "kafka.security.certificate_file=c", "kafka.security.key_file=k"],
    [f"routes=[{ROUTE.format('a')}, {ROUTE.format('b')}]"],
]


@pytest.mark.parametrize(("overrides", "message"), BROKEN, ids=str)
def test_values_that_cannot_work_together(overrides: list[str], message: str) -> None:
    """Values of the right types that cannot work are refused by name before any connection."""
    assert message in refusal(*overrides)


@pytest.mark.parametrize("overrides", WORKING, ids=str)
def test_values_that_just_work_together(overrides: list[str]) -> None:
    """Values at the edge of what works are accepted."""
    assert loaded(*overrides).origins.keys() == {override.partition("=")[0] for override in overrides}


@pytest.mark.parametrize("protocol", ["SASL_PLAINTEXT", "SASL_SSL"])
def test_sasl_with_both_works(protocol: str) -> None:
    """SASL with a name and a password is accepted."""
    overrides = [f"kafka.security.protocol={protocol}", "kafka.security.username=u"]
    assert loaded(*overrides, KAFKA__SECURITY__PASSWORD=SECRET).settings.kafka.security.protocol == protocol


def test_tls_files_need_tls_under_sasl_too() -> None:
    """SASL without TLS has no use for an authority, and says so."""
    message = refusal(
        "kafka.security.protocol=SASL_PLAINTEXT",
        "kafka.security.username=u",
        "kafka.security.ca_file=c",
        KAFKA__SECURITY__PASSWORD=SECRET,
    )
    assert "kafka.security.ca_file is set, but the protocol SASL_PLAINTEXT does not use TLS" in message


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_a_password_from_the_environment() -> None:
    """A password may be given in the environment, and is taken as it is, commas and all."""
    secret = f"{SECRET},= x"
    assert loaded(KAFKA__SECURITY__PASSWORD=secret).settings.kafka.security.password == secret


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_a_password_from_a_file(tmp_path: Path, end: str) -> None:
    """A variable that ends in _FILE names the file that holds the password; the end of its line is not part of it."""
    file = tmp_path / "password"
    file.write_bytes(f" {SECRET} {end}".encode())
    found = loaded(KAFKA__SECURITY__PASSWORD_FILE=str(file))
    assert found.settings.kafka.security.password == f" {SECRET} "
    assert found.origins == {"kafka.security.password": f"environment variable {PREFIX}KAFKA__SECURITY__PASSWORD_FILE"}


def test_other_names_in_file_are_paths() -> None:
    """Only a secret is read from the file that its variable names: ca_file is a path and stays one."""
    found = loaded("kafka.security.protocol=SSL", KAFKA__SECURITY__CA_FILE="/etc/ca.pem")
    assert found.settings.kafka.security.ca_file == "/etc/ca.pem"


@pytest.mark.parametrize("name", ["missing", "."])
def test_a_password_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    """A password file that cannot be read is an error that names the variable."""
    message = refusal(KAFKA__SECURITY__PASSWORD_FILE=f"{tmp_path}/{name}")
    assert f"{PREFIX}KAFKA__SECURITY__PASSWORD_FILE" in message


@pytest.mark.parametrize("override", [f"{{}}={SECRET}", f" {{}} = {SECRET}", "{}", f"{{}}:{SECRET}"])
@pytest.mark.parametrize("name", sorted(SECRETS))
def test_a_secret_is_refused_in_override(name: str, override: str) -> None:
    """A secret in --set would show in ps: it is refused, and the message does not repeat it."""
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
    """A password of the wrong type, with a broken quote or under a wrong name is not repeated by its error."""
    assert SECRET not in refusal(file=a_file(tmp_path, f"[kafka.security]\n{line}\n"))


def test_a_secret_is_not_shown() -> None:
    """Neither the settings as text nor what was loaded shows the password."""
    found = loaded(KAFKA__SECURITY__PASSWORD=SECRET)
    assert found.settings.kafka.security.password == SECRET
    assert (
        SECRET not in f"{found!r} {found} {found.settings!r} {found.settings.kafka!r} {found.settings.kafka.security!r}"
    )


def test_values_of_options_are_not_shown() -> None:
    """Values of a handler's options may be secrets: the settings as text show at most their names."""
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
    """Routes that cannot be read are refused without repeating what their options hold."""
    assert SECRET not in refusal(ROUTES=routes)


# -- anything at all ---------------------------------------------------------------------------------------------------

any_text = st.text(max_size=20) | st.text("0a,\udcff", max_size=3)
"""Also surrogates: that is how Python reads bytes in the environment or on a command line that are not UTF-8."""
likely = st.sampled_from(
    ["", "0", "-1", "1_0", "nan", "inf", "1e400", "true", "[]", "{}", "[{}]", '""', "a:1", "x\ny=1"]
)


@given(st.sampled_from([*sorted(MEANINGS), "routes", "kafka", ""]), likely | any_text)
def test_any_text_is_read_or_refused(name: str, text: str) -> None:
    """Whatever is given in --set or in the environment, there are settings or a SettingsError, and nothing else."""
    with contextlib.suppress(SettingsError):
        assert type(loaded(f"{name}={text}").settings) is Settings
    with contextlib.suppress(SettingsError):
        assert type(load_settings(None, {variable_of(name): text}).settings) is Settings


@given(any_text)
def test_any_override_is_read_or_refused(override: str) -> None:
    """Whatever --set is given, also without a known name, there are settings or a SettingsError."""
    with contextlib.suppress(SettingsError):
        assert type(loaded(override).settings) is Settings


def toml(value: Any) -> str:
    """Write a value as TOML on one line."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case datetime() | date() | time():
            return value.isoformat()
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            return f"{{{', '.join(f'{toml(name)} = {toml(each)}' for name, each in value.items())}}}"
        case _:
            return repr(value)


NAMES = sorted({part for name in MEANINGS for part in name.split(".")})
scalars = (
    st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=10)
    | st.datetimes()
    | st.dates()
    | st.times()
    | st.sampled_from(["a:1", "SSL", "halt", "debug", 10**30])
)
junk = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def tree_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Nest dotted names."""
    tree: dict[str, Any] = {}
    for name, value in values.items():
        *above, last = name.split(".")
        place = tree
        for part in above:
            place = place.setdefault(part, {})
        place[last] = value
    return {**tree, "routes": [tree["routes"]]} if "routes" in tree else tree


@given(
    st.dictionaries(st.sampled_from(sorted(MEANINGS)), junk, max_size=4).map(tree_of)
    | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), junk, max_size=3)
)
def test_any_file_is_read_or_refused(tree: dict[str, Any]) -> None:
    """Whatever tree of values a file holds, there are settings or a SettingsError, and nothing else."""
    text = "".join(f"{toml(name)} = {toml(value)}\n" for name, value in tree.items())
    assert list(tomllib.loads(text)) == list(tree)
    with tempfile.TemporaryDirectory() as folder:
        file = a_file(Path(folder), text)
        with contextlib.suppress(SettingsError):
            assert type(loaded(file=file).settings.kafka) is Kafka


@pytest.mark.parametrize("value", ["[" * 3000, "9" * 5000], ids=["deep", "long"])
def test_a_value_beyond_the_parser_is_refused(tmp_path: Path, value: str) -> None:
    """A value too deep or too long for Python to parse is an error of the setting, as any other."""
    assert "routes (--set)" in refusal(f"routes={value}")
    assert "settings.toml" in refusal(file=a_file(tmp_path, f"routes = {value}"))
