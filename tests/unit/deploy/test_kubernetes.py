"""The Kubernetes manifests fit the schemas of Kubernetes, KEDA and the Prometheus operator, and they fit the daemon."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from kubernetes_validate.utils import ValidationError, latest_version, validate

from consumer.cli.main import cli
from consumer.http.answering import PROBES
from consumer.routes.load import load_routes
from consumer.settings.sections import Settings
from consumer.settings.sources import load_settings
from tests.docs import ROOT
from tests.kubernetes import RULES, prometheus_rule

FOLDER = ROOT / "deploy/kubernetes"
FILES = sorted(path for path in FOLDER.rglob("*.yaml") if path.name != "kustomization.yaml")
KUSTOMIZATIONS = sorted(FOLDER.rglob("kustomization.yaml"))
SCHEMAS = Path(__file__).parent / "schemas"
"""Schemas of the operators' kinds; kubernetes_validate ships those of Kubernetes."""
OLDEST, NEWEST = "1.29", latest_version()

each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


STATEFUL_SET = read(FOLDER / "base/statefulset.yaml")
POD = STATEFUL_SET["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]
SETTINGS = [FOLDER / "base/settings.toml", FOLDER / "example/settings.toml"]


def settings_in_a_pod(path: Path) -> Settings:
    """Return the settings that a daemon has in a pod."""
    environment = {each["name"]: each.get("value", "session-consumer-0") for each in CONTAINER["env"]}
    return load_settings(path, environment).settings


def refusals(resource: dict[str, Any]) -> list[str]:
    """Return what the schema of a resource's kind refuses; names that it does not have are refused too."""
    file = SCHEMAS / f"{resource['kind']}.json"
    if file.exists():
        found = Draft202012Validator(json.loads(file.read_bytes())).iter_errors(resource)
        return [f"{each.json_path}: {each.message}" for each in found]
    refused = []
    for version in (OLDEST, NEWEST):
        try:
            validate(resource, version, strict=True)
        except ValidationError as error:
            refused.append(f"{version}: {error.message}")
    return refused


@each_file
def test_a_file_fits_its_schema(path: Path) -> None:
    assert refusals(read(path)) == []


@pytest.mark.parametrize("name", ["statefulset", "podmonitor", "scaledobject"])
def test_a_misspelt_name_is_found(name: str) -> None:
    """The schemas are strict: the test above can fail."""
    (path,) = FOLDER.rglob(f"{name}.yaml")
    resource = read(path)
    resource["spec"]["misspelt"] = 1
    assert len(refusals(resource)) == (2 if name == "statefulset" else 1)


@pytest.mark.parametrize("path", KUSTOMIZATIONS, ids=lambda path: path.parent.name)
def test_a_kustomization_names_files_that_exist(path: Path) -> None:
    """Every resource, component and file is there, and every file of the folder is named."""
    found = read(path)
    named = [*found.get("resources", []), *found.get("components", [])]
    named += [file for each in found.get("configMapGenerator", []) for file in each["files"]]
    assert all((path.parent / each).exists() for each in named)
    assert {each.name for each in path.parent.iterdir()} - {path.name} <= set(named)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_builds_the_example() -> None:
    """The result has every resource once, in one namespace, with the image and settings of the example."""
    built = subprocess.run(
        ["kubectl", "kustomize", str(FOLDER / "example")],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"},
    )
    resources = {each["kind"]: each for each in yaml.safe_load_all(built.stdout)}
    assert set(resources) == {read(path)["kind"] for path in FILES} | {"ConfigMap"}
    assert {each["metadata"]["namespace"] for each in resources.values()} == {"sessions"}
    pod = resources["StatefulSet"]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"].startswith("registry.example/session-consumer:")
    assert pod["volumes"][0]["configMap"]["name"] == resources["ConfigMap"]["metadata"]["name"]
    assert resources["ConfigMap"]["data"]["settings.toml"] == SETTINGS[1].read_text(encoding="utf-8")
    assert "replicas" not in resources["StatefulSet"]["spec"]
    assert [problem for each in resources.values() for problem in refusals(each)] == []


@pytest.mark.parametrize("path", SETTINGS, ids=lambda path: path.parent.name)
def test_the_settings_work_in_a_pod(path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The settings load with the pod's environment, and their handlers can be made."""
    monkeypatch.chdir(tmp_path)
    settings = settings_in_a_pod(path)
    assert settings.http.host == "0.0.0.0"
    assert settings.kafka.group_instance_id == "session-consumer-0"
    routes = load_routes(settings, {})
    assert [route.name for route in routes] == ["sessions"]
    # A handler writes where a volume is; the image's working directory is /srv.
    mounts = [Path(each["mountPath"]) for each in CONTAINER["volumeMounts"] if not each.get("readOnly")]
    file = Path("/srv") / settings.routes[0].options["path"]
    assert any(file.is_relative_to(mount) for mount in mounts)


def test_the_daemon_may_finish_its_drain() -> None:
    seconds = settings_in_a_pod(SETTINGS[0]).delivery.drain_seconds
    assert POD["terminationGracePeriodSeconds"] == seconds + 20


def test_the_command_and_the_settings_are_there() -> None:
    command, option, file = CONTAINER["args"]
    assert command in cli.commands
    assert option in {each for parameter in cli.commands[command].params for each in parameter.opts}
    assert Path(file).name == "settings.toml"
    assert str(Path(file).parent) in [each["mountPath"] for each in CONTAINER["volumeMounts"]]


def test_probes_ask_paths_that_are_served() -> None:
    (port,) = CONTAINER["ports"]
    assert port["containerPort"] == Settings().http.port
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = CONTAINER[probe]["httpGet"]
        assert asked["path"] in PROBES
        assert asked["port"] == port["name"]


def test_the_pod_is_confined() -> None:
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert f"USER {POD['securityContext']['runAsUser']}:" in (ROOT / "Dockerfile").read_text()
    security = CONTAINER["securityContext"]
    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}


def test_what_scales_knows_the_group() -> None:
    """KEDA reads the lag of the group and topic that the settings name, from the same brokers."""
    (trigger,) = read(FOLDER / "keda/scaledobject.yaml")["spec"]["triggers"]
    kafka = settings_in_a_pod(SETTINGS[0]).kafka
    assert trigger["metadata"]["consumerGroup"] == kafka.group_id
    assert [trigger["metadata"]["topic"]] == kafka.topics
    assert trigger["metadata"]["bootstrapServers"].split(",") == kafka.bootstrap_servers


def test_the_alerts_are_those_of_prometheus() -> None:
    assert RULES.read_text(encoding="utf-8") == prometheus_rule()
