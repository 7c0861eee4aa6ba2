"""The wheel: it is built from what the image copies, and works in a fresh environment outside of the checkout."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.unit.deploy.test_image import ROOT, instructions

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PREFIX = "Programming Language :: Python :: 3."
MINORS = [int(each.removeprefix(PREFIX)) for each in PROJECT["classifiers"] if each.startswith(PREFIX)]
SECONDS = 120.0

LOOK = """
import json, sys, importlib.metadata
from pathlib import Path
import consumer, schemas, session_consumer
from consumer.http.page import load_page
from consumer.settings.sources import load_settings
load_page()
print(json.dumps({
    "version": "%d.%d" % sys.version_info[:2],
    "files": [module.__file__ for module in (consumer, schemas, session_consumer)],
    "typed": [Path(module.__file__).with_name("py.typed").is_file() for module in (consumer, schemas)],
    "group": load_settings(Path("settings.toml"), {}).settings.kafka.group_id,
    "installed": importlib.metadata.version("session-consumer"),
}))
"""


def outside(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment that leads to no code of the checkout."""
    return {key: text for key, text in environment.items() if not key.startswith(("PYTHON", "SESSION_CONSUMER_"))}


def output_of(*command: str | Path, folder: Path) -> str:
    done = subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=outside(os.environ),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel as the image does: from the files that it copies, with the pinned setuptools."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for each in (source for *sources, _ in map(str.split, instructions("COPY")) for source in sources):
        if (ROOT / each).is_dir():
            shutil.copytree(
                ROOT / each, source / each, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
            )
        elif (ROOT / each).is_file():
            shutil.copy(ROOT / each, source)
    pip: list[str | Path] = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        built,
    ]
    output_of(*pip, ".", folder=source)
    (made,) = built.glob("*.whl")
    return made


def interpreter(minor: int) -> str | None:
    """Return an interpreter of this version that starts, if there is one."""
    name = f"python3.{minor}"
    for each in (sys.executable, shutil.which(name), *Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/{name}")):
        if each is not None:
            asked = subprocess.run([each, "--version"], capture_output=True, text=True, check=False)
            if asked.stdout.startswith(f"Python 3.{minor}."):
                return str(each)
    return None


def test_the_wheel_has_every_file(wheel: Path) -> None:
    """The wheel has all code and data of its packages, and neither tests nor anything else of the checkout."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    kept = {
        str(path.relative_to(ROOT))
        for folder in ("consumer", "schemas")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert names == kept | {"session_consumer.py"}
    assert {"consumer/py.typed", "schemas/py.typed", "consumer/http/page.html"} <= names


@pytest.mark.parametrize("minor", [*MINORS, max(MINORS) + 1])
def test_the_wheel_works_outside_of_the_checkout(wheel: Path, tmp_path: Path, minor: int) -> None:
    """In a fresh environment and an empty folder, the command runs, and its own example settings are accepted."""
    found = interpreter(minor)
    if found is None:
        pytest.skip(f"there is no Python 3.{minor} on this machine")
    folder, environment = tmp_path / "empty", tmp_path / "environment"
    folder.mkdir()
    uv, python, command = Path(sys.executable).with_name("uv"), environment / "bin/python", environment / "bin"
    output_of(uv, "venv", "--quiet", "--python", found, environment, folder=folder)
    install: list[str | Path] = [uv, "pip", "install", "--quiet", "--python", python]
    try:
        output_of(
            *install, "--require-hashes", "--only-binary", ":all:", "-r", ROOT / "requirements/run.txt", folder=folder
        )
    except AssertionError as error:
        if "error sending request" in str(error).lower() and "CI" not in os.environ:
            pytest.skip("no package index answers, and its packages are not cached")
        raise
    output_of(*install, "--no-deps", "--offline", wheel, folder=folder)
    output_of(uv, "pip", "check", "--quiet", "--python", python, folder=folder)
    assert PROJECT["version"] in output_of(command / "session-consumer", "--version", folder=folder)
    example = output_of(command / "session-consumer", "settings", "--example", folder=folder)
    (folder / "settings.toml").write_text(example, encoding="utf-8")
    seen: dict[str, Any] = json.loads(output_of(python, "-c", LOOK, folder=folder))
    assert all(Path(file).is_relative_to(environment) for file in seen.pop("files"))
    assert seen == {
        "version": f"3.{minor}",
        "typed": [True, True],
        "group": "session-consumer",
        "installed": PROJECT["version"],
    }


INSTALLS = re.compile(r"\bpip(?: --python \S+)? install\b[^&|;`]*")
EXTRA = re.compile(r"install '\.\[\w+\]'")
"""What a person runs who adds an extra, and so chooses its versions."""


@pytest.mark.parametrize("path", ["Makefile", "Dockerfile", "README.md", "docs/getting-started.md"])
def test_every_install_is_pinned(path: str) -> None:
    """Every command that installs packages requires hashes, or installs this project alone with what is there."""
    text = (ROOT / path).read_text(encoding="utf-8").replace("\\\n", " ").replace("$(PIP)", "pip")
    found = INSTALLS.findall(text)
    assert found
    for command in found:
        ours = "--no-deps" in command and "--no-build-isolation" in command
        assert "--require-hashes" in command or ours or EXTRA.search(command), command
