"""Kafka's configuration: server properties, logging, and Java options."""

from __future__ import annotations

from pathlib import Path

from inferd.daemon.broker.settings import ClusterNode, EmbeddedKafkaSettings

INTERNAL_PARTITIONS = "8"
REPLICAS_MAX, IN_SYNC_MAX = 3, 2
CLEANER_BUFFER_BYTES = str(32 << 20)
INTERNAL_SEGMENT_BYTES = str(1 << 20)

LOGGING = """\
rootLogger.level = {level}
rootLogger.appenderRef.file.ref = file
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {path}
appender.file.filePattern = {path}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d{{ISO8601}} %p %c{{1}}: %m%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 10MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 3
# It logs hundreds of lines of settings at every start.
logger.config.name = org.apache.kafka.common.config.AbstractConfig
logger.config.level = WARN
"""


def server_properties(
    settings: EmbeddedKafkaSettings, *, port: int, controller_port: int, kafka_dir: Path
) -> dict[str, str]:
    """Properties of a node that is broker and controller. Internal topics have up to three replicas."""
    node = settings.node or ClusterNode(1, "", {1: controller_port})
    replicas = min(REPLICAS_MAX, len(node.controllers))
    in_sync = str(min(IN_SYNC_MAX, max(1, replicas - 1)))
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return {
        "process.roles": "broker,controller",
        "node.id": str(node.number),
        "listeners": f"PLAINTEXT://{host}:{port},CONTROLLER://{host}:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{host}:{port}",
        "controller.listener.names": "CONTROLLER",
        # Voters are identified by their ids: their ports may change at each start of all of them.
        "controller.quorum.voters": ",".join(f"{number}@{host}:{at}" for number, at in node.controllers.items()),
        "log.dirs": str(kafka_dir),
        "num.partitions": str(settings.partitions_default),
        "auto.create.topics.enable": "false",
        "group.initial.rebalance.delay.ms": "0",
        "default.replication.factor": str(replicas),
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": str(replicas),
        "offsets.topic.num.partitions": INTERNAL_PARTITIONS,
        "transaction.state.log.replication.factor": str(replicas),
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": INTERNAL_PARTITIONS,
        "share.coordinator.state.topic.replication.factor": str(replicas),
        "share.coordinator.state.topic.min.isr": in_sync,
        "share.coordinator.state.topic.num.partitions": INTERNAL_PARTITIONS,
        # A broker that was killed can register again only once its previous session has expired.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
        # The default, 128 MiB, would take a quarter of the heap.
        "log.cleaner.dedupe.buffer.size": CLEANER_BUFFER_BYTES,
        # Only closed segments are compacted, and the default segment size is 100 MB. At each start the broker reads
        # these logs in full, twice after it was killed, and the group coordinator of Kafka 4.4 may mistake the end of
        # one read for the end of the other. Short logs keep the two reads from overlapping.
        "offsets.topic.segment.bytes": INTERNAL_SEGMENT_BYTES,
        "transaction.state.log.segment.bytes": INTERNAL_SEGMENT_BYTES,
        "share.coordinator.state.topic.segment.bytes": INTERNAL_SEGMENT_BYTES,
        **settings.extra,
    }


def render_properties(properties: dict[str, str]) -> str:
    """Text of a Java properties file, in ASCII."""
    return "".join(f"{key}={_escaped(value)}\n" for key, value in properties.items())


def render_logging(level: str, path: Path) -> str:
    """Text of a log4j2 configuration (a properties file) that writes one rolling file."""
    return LOGGING.format(level=level, path=_escaped(str(path)))


def _escaped(value: str) -> str:
    utf16 = value.replace("\\", "\\\\").encode("utf-16-be")
    units = [int.from_bytes(utf16[at : at + 2]) for at in range(0, len(utf16), 2)]
    return "".join(chr(unit) if 0x20 <= unit < 0x7F else f"\\u{unit:04x}" for unit in units)


def java_options(heap_mb: int, logging_config: Path, logs_dir: Path) -> list[str]:
    """Java options: those of Kafka's start script, a bounded heap, and no files outside the data directory."""
    return [
        f"-Xmx{heap_mb}m",
        "-XX:+UseG1GC",
        "-XX:MaxGCPauseMillis=20",
        "-XX:+ExplicitGCInvokesConcurrent",
        "-XX:+ExitOnOutOfMemoryError",
        "-XX:-UsePerfData",
        "-XX:-CreateCoredumpOnCrash",
        f"-XX:ErrorFile={logs_dir / 'java-crash.log'}",
        # Java's own log reports on the start-up cache: keep errors only.
        "-Xlog:disable",
        "-Xlog:all=error:stderr",
        "-Djava.awt.headless=true",
        f"-Dlog4j2.configurationFile={logging_config}",
    ]
