"""The folder of a broker: its settings, its logging and its formatted storage."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aiokafka.record.default_records import DefaultRecordBatchBuilder

# The features, and their levels, that `StorageTool format` of Kafka 4.3.0 writes; metadata.version 30 is 4.3-IV0.
FEATURES = {
    "metadata.version": 30,
    "eligible.leader.replicas.version": 1,
    "group.version": 1,
    "share.version": 1,
    "streams.version": 1,
    "transaction.version": 2,
}
FEATURE_LEVEL_RECORD = 12  # its key among KRaft's metadata records (FeatureLevelRecord.json)

# Only the root cause of an exception: whole stack traces would fill the log lines that an error message shows.
LOGGING = """\
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.alwaysWriteExceptions=false
appender.out.layout.pattern=%d %p %m (%c{1})%n%notEmpty{%rEx{5}%n}
rootLogger.level=warn
rootLogger.appenderRef.out.ref=out
logger.server.name=kafka.server.KafkaRaftServer
logger.server.level=info
logger.version.name=org.apache.kafka.common.utils.AppInfoParser
logger.version.level=info
"""


@dataclass(frozen=True)
class Layout:
    """Ports of the brokers; node ``i`` (from 1) has the ``i``-th of both lists."""

    ports: list[int]
    controller_ports: list[int]

    @property
    def nodes(self) -> range:
        return range(1, len(self.ports) + 1)

    def settings(self, node: int, data: Path) -> dict[str, str]:
        """Return the lines of ``server.properties`` for a broker that stores its records in ``data``."""
        replicas = str(len(self.ports))
        in_sync = "2" if len(self.ports) > 1 else "1"
        client = f"PLAINTEXT://127.0.0.1:{self.ports[node - 1]}"
        voters = [f"{i}@127.0.0.1:{self.controller_ports[i - 1]}" for i in self.nodes]
        return {
            "process.roles": "broker,controller",
            "node.id": str(node),
            "controller.quorum.voters": ",".join(voters),
            "controller.listener.names": "CONTROLLER",
            "listeners": f"{client},CONTROLLER://127.0.0.1:{self.controller_ports[node - 1]}",
            "advertised.listeners": client,
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(data),
            "log.retention.ms": "-1",
            "auto.create.topics.enable": "false",
            "delete.topic.enable": "true",
            "default.replication.factor": replicas,
            "min.insync.replicas": in_sync,
            "offsets.topic.replication.factor": replicas,
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": in_sync,
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": in_sync,
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
        }


def cluster_id(folders: list[Path]) -> str:
    """Return the cluster id of folders that are formatted, else a new one: 16 random bytes, as Kafka writes them."""
    for folder in folders:
        meta = folder / "data" / "meta.properties"
        if meta.exists():
            for line in meta.read_text().splitlines():
                if line.startswith("cluster.id="):
                    return line.removeprefix("cluster.id=")
    return base64.urlsafe_b64encode(secrets.token_bytes(16)).decode().rstrip("=")


def write_folder(folder: Path, settings: Mapping[str, str], cluster: str) -> None:
    """Write all files that a broker reads; formatted storage is left as it is. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{name}={_escaped(value)}\n" for name, value in settings.items()]
    (folder / "server.properties").write_text("".join(lines))
    (folder / "log4j2.properties").write_text(LOGGING)
    for data in settings["log.dirs"].split(","):
        _format(Path(data), settings["node.id"], cluster)


def _format(data: Path, node: str, cluster: str) -> None:
    """Format storage as ``StorageTool format`` does, without the 1.2 s of another JVM."""
    meta = data / "meta.properties"
    if meta.exists():
        return
    data.mkdir(parents=True, exist_ok=True)
    (data / "bootstrap.checkpoint").write_bytes(_feature_records())
    # Written last, and by renaming: this file distinguishes formatted storage from an interrupted start.
    unfinished = data / "meta.properties.new"
    unfinished.write_text(f"version=1\nnode.id={node}\ncluster.id={cluster}\n")
    unfinished.replace(meta)


def _feature_records() -> bytes:
    """Return the first metadata records of a new cluster as a batch; without them all features but one are off."""
    batch = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=0,
        is_transactional=0,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=4096,
    )
    for offset, (name, level) in enumerate(FEATURES.items()):
        # frame version, record type, record version; then a compact string, an int16, no tagged fields
        head = bytes([1, FEATURE_LEVEL_RECORD, 0, len(name) + 1])
        value = head + name.encode() + level.to_bytes(2, "big") + b"\0"
        batch.append(offset, timestamp=0, key=None, value=value, headers=[])
    return bytes(batch.build())


def _escaped(value: str) -> str:
    """Escape a value for a properties file, which Java reads as Latin-1 with escapes."""
    return "".join(c if c.isascii() and c.isprintable() and c != "\\" else f"\\u{ord(c):04x}" for c in value)
