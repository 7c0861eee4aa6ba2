"""The Docker files: services, settings, metrics, mounts and images fit together."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from consumer.cli import healthcheck
from consumer.kafka.local.jars import KAFKA_VERSION
from consumer.routes.load import extend_path, load_handler, load_routes
from consumer.settings.environment import PREFIX as ENVIRONMENT_PREFIX
from consumer.settings.sections import RouteSettings, Settings, dead_letter_topics
from consumer.settings.sources import load_settings
from schemas.session import Session

ROOT = Path(__file__).parent.parent.parent.parent
GRAFANA = ROOT / "deploy/grafana"
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()


def read_yaml(path: str) -> Any:
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


COMPOSE: dict[str, Any] = read_yaml("docker-compose.yml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
DASHBOARDS = sorted(GRAFANA.glob("dashboards/*.json"))

each_service = pytest.mark.parametrize("name", sorted(SERVICES))


def volumes(name: str) -> Iterator[tuple[str, str]]:
    for volume in SERVICES[name].get("volumes", []):
        source, target = volume.split(":")[:2]
        yield source, target


def inside(name: str, path: str) -> Path:
    """Return the file of this repository that a service sees at ``path``."""
    for source, target in volumes(name):
        if source.startswith("./") and (path == target or path.startswith(f"{target}/")):
            return ROOT / source / path.removeprefix(target).lstrip("/")
    raise AssertionError(f"{name} mounts nothing at {path}")


def instructions(word: str) -> list[str]:
    """Return the arguments of one kind of instruction in the Dockerfile, in order."""
    lines = [line.partition(" ") for line in DOCKERFILE]
    return [rest.strip() for first, _, rest in lines if first == word]


def environment(name: str) -> dict[str, str]:
    """Return the settings in a service's environment."""
    every: dict[str, str] = SERVICES[name].get("environment", {})
    return {key: text for key, text in every.items() if key.startswith(ENVIRONMENT_PREFIX)}


def daemon_settings() -> Settings:
    """Return the settings that the daemon has in its container."""
    command: list[str] = SERVICES["consumer"]["command"]
    return load_settings(inside("consumer", command[command.index("-c") + 1]), environment("consumer")).settings


def tag_of(image: str) -> str:
    """Return an image's name and tag, without its digest."""
    return image.partition("@")[0]


@each_service
def test_a_service_is_built_here_or_comes_from_a_pinned_image(name: str) -> None:
    """Every service is built from this repository or names an image with a version."""
    service = SERVICES[name]
    if "build" in service:
        assert (ROOT / service["build"] / "Dockerfile").is_file()
    else:
        assert re.fullmatch(r"[\w/-]+:v?\d+\.\d+\.\d+", tag_of(service["image"])), service["image"]


@each_service
def test_ports_are_for_this_machine_only(name: str) -> None:
    """No service publishes a port to the network."""
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@each_service
def test_what_is_mounted_exists(name: str) -> None:
    """Every mounted path is in this repository, and every named volume is declared."""
    for source, _ in volumes(name):
        assert (ROOT / source).exists() if source.startswith("./") else source in COMPOSE["volumes"], source


@each_service
def test_a_service_waits_only_for_services_that_exist(name: str) -> None:
    """Every dependency names a service, and one that is waited for to be healthy has a health check."""
    depends = SERVICES[name].get("depends_on", [])
    assert set(depends) <= set(SERVICES)
    for other, how in depends.items() if isinstance(depends, dict) else []:
        if how["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other]


@each_service
def test_a_service_cannot_gain_privileges(name: str) -> None:
    """Every service drops all capabilities and can gain none."""
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", ["consumer", "demo"])
def test_the_environment_holds_settings_that_exist(name: str) -> None:
    """The environment of our containers holds valid settings, and the brokers' internal address."""
    settings = load_settings(None, environment(name)).settings
    advertised = SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"].split(",")
    assert [f"INSIDE://{server}" for server in settings.kafka.bootstrap_servers] == advertised[:1]


def test_the_daemon_listens_beyond_its_container() -> None:
    """The daemon listens on its published port, on every address of the container."""
    http = daemon_settings().http
    assert http.host == "0.0.0.0"
    assert SERVICES["consumer"]["ports"] == [f"127.0.0.1:{http.port}:{http.port}"]


def test_the_image_checks_the_health_of_its_daemon() -> None:
    """The health check runs the module that asks the daemon at its own address."""
    _, _, command = instructions("HEALTHCHECK")[0].partition("CMD ")
    assert json.loads(command) == ["python", "-I", "-m", healthcheck.__name__]


@pytest.mark.parametrize("name", ["kafka", "topics"])
def test_kafka_is_the_one_that_is_tested(name: str) -> None:
    """The services run the version of Apache Kafka that the tests and the demo run."""
    assert tag_of(SERVICES[name]["image"]) == f"apache/kafka:{KAFKA_VERSION}"


def test_the_daemon_may_finish_its_drain() -> None:
    """Docker kills the daemon only after the longest possible stop."""
    patience = int(SERVICES["consumer"]["stop_grace_period"].removesuffix("s"))
    assert patience >= daemon_settings().delivery.drain_seconds + 10


def test_the_daemon_writes_only_where_a_volume_is() -> None:
    """The file system is read-only, and every route's file lies in a volume."""
    assert SERVICES["consumer"]["read_only"] is True
    mounted = [Path(target) for source, target in volumes("consumer") if not source.startswith("./")]
    for route in daemon_settings().routes:
        file = Path(instructions("WORKDIR")[-1]) / route.options["path"]
        assert any(file.is_relative_to(volume) for volume in mounted), file


def test_the_topics_that_are_consumed_are_created() -> None:
    """The one-shot service creates the consumed topic and its dead-letter topic."""
    settings = daemon_settings()
    topics = " ".join([*settings.kafka.topics, *dead_letter_topics(settings)])
    assert f"for topic in {topics}; do" in SERVICES["topics"]["command"][0]


def test_prometheus_scrapes_the_daemon() -> None:
    """Prometheus scrapes the daemon's service at its port, with the mounted configuration."""
    flags = dict(flag.split("=", 1) for flag in SERVICES["prometheus"]["command"])
    config = yaml.safe_load(inside("prometheus", flags["--config.file"]).read_text(encoding="utf-8"))
    (job,) = config["scrape_configs"]
    assert job["static_configs"] == [{"targets": [f"consumer:{daemon_settings().http.port}"]}]


def test_prometheus_finds_its_rules() -> None:
    """The rules that the configuration names are mounted where Prometheus looks for them."""
    (rules,) = read_yaml("deploy/prometheus/prometheus.yml")["rule_files"]
    folder, pattern = f"/etc/prometheus/{rules}".rsplit("/", 1)
    assert list(inside("prometheus", folder).glob(pattern))


def test_prometheus_finds_alertmanager() -> None:
    """Alerts go to the service, whose receivers are all there; each severity of the rules has a route."""
    (target,) = read_yaml("deploy/prometheus/prometheus.yml")["alerting"]["alertmanagers"]
    assert target["static_configs"] == [{"targets": ["alertmanager:9093"]}]
    assert SERVICES["alertmanager"]["ports"] == ["127.0.0.1:9093:9093"]
    flags = dict(flag.split("=", 1) for flag in SERVICES["alertmanager"]["command"])
    config = yaml.safe_load(inside("alertmanager", flags["--config.file"]).read_text(encoding="utf-8"))
    routes = [config["route"], *config["route"]["routes"]]
    assert {each["receiver"] for each in routes} == {each["name"] for each in config["receivers"]}
    rules = read_yaml("deploy/prometheus/rules/session-consumer.yml")["groups"][0]["rules"]
    severities = {each["labels"]["severity"] for each in rules if "alert" in each}
    matched = {each["matchers"][0].split('"')[1] for each in routes[1:]}
    assert severities - matched == {"warning"}, "what no route matches is the first route's"
    names = {each["alert"] for each in rules if "alert" in each}
    for each in config["inhibit_rules"]:
        for matcher in each["source_matchers"] + each["target_matchers"]:
            pattern = re.compile(matcher.split('"')[1])
            assert any(pattern.fullmatch(name) for name in names), matcher


@pytest.mark.skipif(shutil.which("amtool") is None, reason="amtool, of Debian's prometheus-alertmanager, is not here")
def test_alertmanager_accepts_its_configuration() -> None:
    file = ROOT / "deploy/alertmanager/alertmanager.yml"
    ended = subprocess.run(["amtool", "check-config", str(file)], capture_output=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    """Grafana's data source is the Prometheus service, with its scrape interval, and the dashboards are mounted."""
    (source,) = read_yaml("deploy/grafana/provisioning/datasources/prometheus.yml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    scraped = read_yaml("deploy/prometheus/prometheus.yml")["global"]["scrape_interval"]
    assert source["jsonData"]["timeInterval"] == scraped
    (provider,) = read_yaml("deploy/grafana/provisioning/dashboards/dashboards.yml")["providers"]
    assert inside("grafana", provider["options"]["path"]) == GRAFANA / "dashboards"
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert inside("grafana", home) in DASHBOARDS


def test_the_example_settings_work(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The example's settings load and every handler that it names can be made."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.chdir(tmp_path)
    settings = load_settings(ROOT / "examples/settings.toml", {}).settings
    assert [route.name for route in load_routes(settings, {})] == [route.name for route in settings.routes]


async def test_the_example_handler_keeps_what_it_flushed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The example's handler continues from the counts that it flushed, and from no others."""
    monkeypatch.setattr(sys, "path", sys.path[:])
    extend_path([str(ROOT / "examples/handlers")], sys.path)
    file = tmp_path / "data/agents.json"
    event = Session(timestamp=datetime(2026, 1, 1, tzinfo=UTC), agent_name="Billing")
    for flushed in (1, 2):
        handler = load_handler(
            RouteSettings("r", "count_by_agent:CountByAgent", options={"path": str(file)}), "route", {}, 1
        )
        assert handler.flush is not None
        handler.call(event)
        await handler.flush()
        handler.call(event)
        assert json.loads(file.read_bytes()) == {"Billing": flushed}


def test_the_example_leaves_out_test_and_legacy_sessions() -> None:
    """Every route of the example excludes test and legacy sessions; no route does so by default."""
    routes = load_settings(ROOT / "examples/settings.toml", {}).settings.routes
    assert routes
    for route in routes:
        assert (route.match["is_test"], route.match["is_legacy"]) == (False, False)


def test_the_image_is_not_run_as_root() -> None:
    """The image's last user is given as a number other than root's."""
    user = instructions("USER")[-1]
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user), user


def test_the_image_pins_its_base() -> None:
    """Every stage starts from one Python, pinned to a minor version that the project supports."""
    (base,) = {tag_of(source.split(" AS ")[0]) for source in instructions("FROM")}
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", base)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    minor = base.removeprefix("python:").split("-")[0]
    assert f"Programming Language :: Python :: {minor}" in project["classifiers"]


def test_what_the_image_copies_exists() -> None:
    """Everything that the Dockerfile copies is in this repository and not ignored by the build."""
    sent = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    copies = [each.split() for each in instructions("COPY") if not each.startswith("--from=")]
    for source in (source for *sources, _ in copies for source in sources):
        assert (ROOT / source).exists(), source
        assert f"!{source}" in sent, source


def test_the_image_runs_the_console_script() -> None:
    """The image runs the project's command, directly, so that signals reach it."""
    (entry,) = instructions("ENTRYPOINT")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert json.loads(entry) == list(project["scripts"])
