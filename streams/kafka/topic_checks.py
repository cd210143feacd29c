"""Required configuration of topics, their actual state, and how to fix differences."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from inferd.schemas.audit import RECORD_BYTES_MAX as AUDIT_BYTES_MAX
from inferd.schemas.errors import ServerError
from inferd.schemas.headers import PROPAGATED_BYTES_MAX
from inferd.schemas.jobs import LABELS_BYTES_MAX
from inferd.schemas.labels import LABEL_BYTES_MAX, TO_LABEL_BYTES_MAX
from inferd.schemas.limits import Limits
from inferd.schemas.monitoring import WINDOW_BYTES_MAX
from inferd.schemas.rollouts import MESSAGE_BYTES_MAX
from inferd.schemas.rollouts import STATUS_BYTES_MAX as ROLLOUT_STATUS_BYTES_MAX
from inferd.schemas.topics import LABEL_STREAMS, LIFECYCLE_STREAMS, STREAMS, Stream, TenantTopics
from inferd.streams.jobs.state import state_bytes_max
from inferd.streams.kafka.changelogs import (
    LIFECYCLE_TABLES,
    SEGMENT_MS,
    TABLE_NAMES,
    TableName,
    changelog_config,
    changelog_name,
)
from inferd.streams.kafka.used_partitions import used_partitions
from inferd.streams.settings import StreamSettings, TopicSettings

Role = Stream | Literal["changelog", "reply-to", "sink"]
"""A tenant's stream, the changelog of one of its tables, a user topic for replies, or the sink of a route."""
JOB_STREAMS: tuple[Stream, ...] = ("jobs", "job-chunks", "job-results")
FOREIGN: frozenset[Role] = frozenset({"reply-to", "sink"})
"""Topics of others, which are never created and may have any settings."""
SINGLE: frozenset[Role] = frozenset({"models", "model-artifacts", "routes"})
"""Read completely and in order by every worker."""
COMPACTED: frozenset[Role] = frozenset({"models", "model-artifacts", "routes", "job-status", "rollout-status"})
FIRST_ONLY: frozenset[Role] = frozenset({*LIFECYCLE_STREAMS, "rollout-status", "audit"})
"""Only their first partition is used."""
BYTES_MAX_DEFAULT = 1_048_588
"""Kafka's own default of `max.message.bytes`."""
OTHER_BYTES = 8_192
"""Size of a record besides what the limits bound: inferd's headers, ids, and the batch around it."""
HEADER_LENGTHS_BYTES = 10
"""Lengths of the name and value of one header."""
OWN_HEADERS_BYTES = 1_024
"""Size of the headers that inferd adds to a result, and of the batch around it."""
STATUS_BYTES_MAX = 24_576
"""Size of a job's status besides its labels."""
RETENTION_MS_MIN = 60_000
AUDIT_RETENTION_MS = 31_536_000_000
"""A year. Existing topics may have any retention."""
PARTITIONS_MAX, REPLICATION_MAX = 10_000, 32
"""Allowed values of topic settings."""


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """How a topic is created, and what an existing one must match."""

    name: str
    stream: Role
    partitions: int
    replication: int
    config: Mapping[str, str] = field(default_factory=dict)
    follows: str = ""
    """Name of a topic with at most as many partitions: output of its partition n goes to partition n of this one."""
    bytes_max: int = 0
    """Size of its largest record according to the limits."""
    first_only: bool = False
    """Only its first partition is used, whatever the setting."""


@dataclass(frozen=True, slots=True)
class TopicState:
    """A topic as the broker describes it; `partitions` is 0 if it does not exist."""

    name: str
    stream: Role
    partitions: int
    replication: int
    config: Mapping[str, str] = field(default_factory=dict)
    problem: str | None = None
    """Problems with remedies; workers do not start with them."""
    note: str | None = None
    """Warnings with remedies; workers serve nevertheless."""


class TopicsError(ServerError):
    """Topics do not match, or cannot be created: `problems` has one text each; `message` has all of them, uncut."""

    def __init__(self, problems: Iterable[str], *, lasting: bool = False) -> None:
        """`lasting`: a retry fails until settings or topics are changed."""
        super().__init__("")
        self.lasting = lasting
        self.problems = tuple(problems)
        self.message = "; ".join(self.problems)
        self.args = (self.message,)


def streams_of(settings: StreamSettings) -> Sequence[Stream]:
    """The topics of a tenant that workers with these settings use."""
    unused: set[Stream] = set()
    if not settings.capture_share:
        unused.add("capture")
    if not settings.labels_window_s:
        unused.update(LABEL_STREAMS)
    return [stream for stream in STREAMS if stream not in unused]


def tables_of(settings: StreamSettings) -> Sequence[TableName]:
    """The tables of a tenant that workers with these settings use."""
    return [table for table in TABLE_NAMES if table != "labels" or settings.labels_window_s]


def topic_specs(settings: StreamSettings) -> list[TopicSpec]:
    """Every topic of every tenant in the settings, and the changelogs of its tables."""
    return [spec for tenant in settings.tenants for spec in _tenant_specs(tenant, settings)]


def _tenant_specs(tenant: str, settings: StreamSettings) -> Iterable[TopicSpec]:
    topics = settings.topics
    for stream in streams_of(settings):
        yield _spec(TenantTopics(settings.namespace, tenant), stream, topics, settings.limits)
    for table in tables_of(settings):
        name = changelog_name(settings.group.group_id, tenant, table)
        config = changelog_config(table, settings.cache.ttl_max_s)
        follows = TenantTopics(settings.namespace, tenant).name("requests") if table == "predictions" else ""
        yield TopicSpec(
            name, "changelog", table_partitions(table, topics), topics.replication, config, follows,
            _changelog_bytes_max(table, settings.limits), table in LIFECYCLE_TABLES,
        )  # fmt: skip


def table_partitions(table: TableName, settings: TopicSettings) -> int:
    """Number of partitions of a table."""
    return 1 if table in LIFECYCLE_TABLES else settings.partitions


def _changelog_bytes_max(table: TableName, limits: Limits) -> int:
    match table:
        case "jobs":
            return state_bytes_max(limits) + OTHER_BYTES
        case "model-windows":
            return WINDOW_BYTES_MAX + OTHER_BYTES
        case "rollouts":
            return ROLLOUT_STATUS_BYTES_MAX + OTHER_BYTES
        case "labels":
            return TO_LABEL_BYTES_MAX + OTHER_BYTES
        case "predictions":
            return 0  # an entry that is too large for its changelog is skipped


def reply_specs(settings: StreamSettings) -> list[TopicSpec]:
    """User topics for replies; they are never created."""
    own = {spec.name for spec in topic_specs(settings)}
    return [TopicSpec(name, "reply-to", 0, 0) for name in dict.fromkeys(settings.reply_to_allowed) if name not in own]


def sink_specs(names: Iterable[str]) -> list[TopicSpec]:
    """Sinks of routes; they are never created."""
    return [TopicSpec(name, "sink", 0, 0) for name in sorted(names)]


def _spec(topics: TenantTopics, stream: Stream, settings: TopicSettings, limits: Limits) -> TopicSpec:
    config = {"cleanup.policy": "compact"}
    if stream not in COMPACTED:
        config = {"cleanup.policy": "delete", "retention.ms": str(settings.retention_ms)}
    if stream == "audit":
        config["retention.ms"] = str(max(settings.retention_ms, AUDIT_RETENTION_MS))
    if stream == "rollout-status":
        config["segment.ms"] = str(SEGMENT_MS)
    first_only = stream in FIRST_ONLY
    partitions = 1 if stream in SINGLE or first_only else settings.partitions
    follows = topics.name("requests") if stream in ("results", "dead-letters") else ""
    bytes_max = _BYTES_MAX[stream](limits)
    if stream == "dead-letters":
        config["max.message.bytes"] = str(bytes_max)
    return TopicSpec(
        topics.name(stream), stream, partitions, settings.replication, config, follows, bytes_max, first_only
    )


def result_record_bytes_max(limits: Limits) -> int:
    """Size of the largest record of `results` and `job-results`, with its key and headers."""
    headers = PROPAGATED_BYTES_MAX + HEADER_LENGTHS_BYTES * min(limits.headers_max, PROPAGATED_BYTES_MAX)
    return limits.result_bytes_max + limits.key_bytes_max + headers + OWN_HEADERS_BYTES


_BYTES_MAX: Mapping[Stream, Callable[[Limits], int]] = {
    # Senders ensure that key and headers fit besides the value.
    "requests": lambda limits: limits.message_bytes_max,
    "jobs": lambda limits: limits.message_bytes_max,
    "results": result_record_bytes_max,
    "job-results": result_record_bytes_max,
    "dead-letters": lambda limits: limits.dead_letter_bytes_max,
    "job-chunks": lambda limits: limits.job_chunk_bytes_max + PROPAGATED_BYTES_MAX + OTHER_BYTES,
    "job-status": lambda _: LABELS_BYTES_MAX + STATUS_BYTES_MAX + OTHER_BYTES,
    "models": lambda limits: limits.manifest_bytes_max + OTHER_BYTES,
    "model-artifacts": lambda limits: limits.artifact_part_bytes_max + OTHER_BYTES,
    "routes": lambda limits: limits.manifest_bytes_max + OTHER_BYTES,
    "model-stats": lambda _: WINDOW_BYTES_MAX + OTHER_BYTES,
    "labels": lambda _: LABEL_BYTES_MAX + OTHER_BYTES,
    # Predictions whose record is larger do not wait for labels.
    "to-label": lambda _: 0,
    # Requests whose record is larger are not captured.
    "capture": lambda _: 0,
    "shadow-results": result_record_bytes_max,
    "rollouts": lambda _: MESSAGE_BYTES_MAX + OTHER_BYTES,
    "rollout-status": lambda _: ROLLOUT_STATUS_BYTES_MAX + OTHER_BYTES,
    "audit": lambda _: AUDIT_BYTES_MAX + OTHER_BYTES,
}
_SETTINGS: Mapping[Role, str] = {
    "requests": "INFERD_MESSAGE_BYTES_MAX",
    "jobs": "INFERD_MESSAGE_BYTES_MAX",
    "results": "INFERD_RESULT_BYTES_MAX",
    "job-results": "INFERD_RESULT_BYTES_MAX",
    "shadow-results": "INFERD_RESULT_BYTES_MAX",
    "dead-letters": "INFERD_MESSAGE_BYTES_MAX",
    "job-chunks": "INFERD_JOB_CHUNK_BYTES_MAX",
    "changelog": "INFERD_JOB_MESSAGES_MAX and INFERD_JOB_CHUNKS_MAX",
}
"""The setting that limits the size of records."""


def checked(specs: Sequence[TopicSpec], states: Sequence[TopicState], servers: str) -> list[TopicState]:
    """The states of the topics of `specs`, in the same order, with their problems. `servers`: of Kafka, in commands."""
    there = [(spec, state) for spec, state in zip(specs, states, strict=True) if state.partitions]
    common = _Common(
        servers=servers,
        counts={state.name: state.partitions for _, state in there},
        partitions=_only(
            {s.partitions for spec, s in there if spec.stream not in SINGLE | FOREIGN and not spec.first_only}
        ),
        replication=_only({s.replication for spec, s in there if spec.stream not in FOREIGN}),
        retention_ms=_only(
            {
                _retention_ms(s)
                for spec, s in there
                if spec.config.get("cleanup.policy") == "delete" and spec.stream != "audit"
            }
        ),
    )
    return [
        replace(state, problem="; ".join(_problems(spec, state, common)) or None, note=_note(spec, state, common))
        for spec, state in zip(specs, states, strict=True)
    ]


@dataclass(frozen=True, slots=True)
class _Common:
    """Values shared by all existing topics, so that changing the setting suffices; None where they differ."""

    servers: str
    """Bootstrap servers, for commands."""
    counts: Mapping[str, int]
    """Partition count by topic."""
    partitions: int | None
    replication: int | None
    retention_ms: int | None


def _only(values: set[int]) -> int | None:
    return next(iter(values)) if len(values) == 1 else None


def _problems(spec: TopicSpec, state: TopicState, common: _Common) -> Iterable[str]:
    if state.partitions == 0:
        yield _missing(spec)
    elif spec.stream not in FOREIGN:
        yield from _wrong_partitions(spec, state, common)
        yield from _wrong_replication(spec, state, common)
        yield from _wrong_policy(spec, state, common)
        yield from _wrong_retention(spec, state, common)
        yield from _too_small(spec, state, common)


def _missing(spec: TopicSpec) -> str:
    if spec.stream == "reply-to":
        return f"topic {spec.name} of INFERD_REPLY_TO_ALLOWED does not exist: create it, or take it off that list"
    if spec.stream == "sink":
        return f"topic {spec.name}, the sink of a route, does not exist: create it"
    return f"topic {spec.name} does not exist: run `inferd topics create`, or set INFERD_TOPICS_CREATE=true"


def _wrong_partitions(spec: TopicSpec, state: TopicState, common: _Common) -> Iterable[str]:
    """Problems with the number of partitions.

    The remedy never loses a record: partitions are only added to topics whose
    records are not located by the hash of a key.
    """
    have, name = state.partitions, state.name
    wanted = max(spec.partitions, common.counts.get(spec.follows, 0))
    facts = f"topic {name} has {have} partitions"
    if spec.first_only:
        return
    if spec.stream == "routes":
        if have != 1:
            yield f"{facts} and must have 1: create the routes again after it was deleted and created with 1"
    elif spec.stream in SINGLE:
        if have != 1:
            yield (
                f"{facts} and must have 1, and Kafka cannot take partitions away: set INFERD_NAMESPACE to another name,"
                " whose topics are created, and deploy the models there; do not delete this topic, it holds models"
            )
    elif common.partitions == have and used_partitions(spec.partitions, [have]) != have:
        yield f"{facts}, INFERD_TOPIC_PARTITIONS is {spec.partitions}: {_setting(have)}; do not change the topic"
    elif spec.stream in KEYED and have < wanted:
        yield f"{facts}, INFERD_TOPIC_PARTITIONS is {wanted}: {_setting(have)}; {_keyed(spec.stream)}"
    elif have < wanted:
        because = f"{spec.follows} has {wanted}" if wanted > spec.partitions else f"INFERD_TOPIC_PARTITIONS is {wanted}"
        yield (
            f"{facts}, {because}: kafka-topics --bootstrap-server {common.servers} --alter --topic {name}"
            f" --partitions {wanted}, which loses nothing; do not delete it"
        )


KEYED: frozenset[Role] = frozenset({"jobs", *LABEL_STREAMS})
"""Topics whose partition is the hash of an id: their number of partitions is doubled, never chosen freely."""


def _keyed(stream: Role) -> str:
    what = "jobs" if stream == "jobs" else "predictions and labels"
    found = f"{what} are found by the hash of their id over its partitions"
    return f"do not add partitions to it, {found}, and do not delete it"


def _setting(partitions: int) -> str:
    if partitions > PARTITIONS_MAX:
        return f"no more than {PARTITIONS_MAX} can be served"
    return f"set INFERD_TOPIC_PARTITIONS={partitions}"


def _note(spec: TopicSpec, state: TopicState, common: _Common) -> str | None:
    if spec.stream not in KEYED or state.partitions <= spec.partitions or common.partitions is not None:
        return None
    wanted = spec.partitions
    while wanted < state.partitions:
        wanted *= 2
    return (
        f"topic {state.name} has {state.partitions} partitions, and other topics of the tenant have less: the new ones"
        f" are not served. Run `inferd topics grow --partitions {wanted}`; do not delete this one"
        " (docs/operations.md#topics-that-change)"
    )


def _wrong_replication(spec: TopicSpec, state: TopicState, common: _Common) -> Iterable[str]:
    have = state.replication
    if have != spec.replication:
        setting = f"set INFERD_TOPIC_REPLICATION={have}, or " if common.replication == have <= REPLICATION_MAX else ""
        yield (
            f"topic {state.name} has {have} replicas, INFERD_TOPIC_REPLICATION is {spec.replication}: "
            f"{setting}change them with kafka-reassign-partitions"
        )


def _wrong_policy(spec: TopicSpec, state: TopicState, common: _Common) -> Iterable[str]:
    have, wanted = state.config.get("cleanup.policy", ""), spec.config["cleanup.policy"]
    if set(have.split(",")) != set(wanted.split(",")):
        change = _alter(common, state, "cleanup.policy", _quoted(wanted))
        yield f"topic {state.name} has cleanup.policy={have}, by which {_loss(spec)}: {change}"


def _quoted(value: str) -> str:
    """A value for `--add-config`, in which commas are escaped."""
    return f"[{value}]" if "," in value else value


def _loss(spec: TopicSpec) -> str:
    """The consequence of a wrong cleanup policy."""
    if spec.config["cleanup.policy"] == "delete":
        return "records with equal keys are lost"
    if spec.stream == "changelog":
        return "entries of its table are lost, or never go"
    if spec.stream == "routes":
        return "routes are lost with time"
    return "deploys are lost with time" if spec.stream in SINGLE else "statuses are lost with time"


def _wrong_retention(spec: TopicSpec, state: TopicState, common: _Common) -> Iterable[str]:
    wanted = spec.config.get("retention.ms")
    have = _retention_ms(state)
    if spec.stream == "changelog":
        if wanted is not None and 0 <= have < int(wanted):
            yield (
                f"topic {state.name} has retention.ms={have}, less than INFERD_CACHE_TTL_MAX_S requires ({wanted}): "
                f"lower that, or {_alter(common, state, 'retention.ms', wanted)}"
            )
    elif spec.stream != "audit" and wanted is not None and 0 <= have < int(wanted):
        settable = common.retention_ms == have >= RETENTION_MS_MIN
        setting = f"set INFERD_TOPIC_RETENTION_MS={have}, or " if settable else ""
        yield (
            f"topic {state.name} has retention.ms={have}, INFERD_TOPIC_RETENTION_MS is {wanted}: "
            f"{setting}{_alter(common, state, 'retention.ms', wanted)}"
        )


def _too_small(spec: TopicSpec, state: TopicState, common: _Common) -> Iterable[str]:
    have = state.config.get("max.message.bytes")
    if have is None or int(have) >= spec.bytes_max:
        return
    setting = _SETTINGS.get(spec.stream)
    why = (
        f"by {setting} a record may have {spec.bytes_max}: lower that, or " if setting else f"needs {spec.bytes_max}: "
    )
    alter = _alter(common, state, "max.message.bytes", str(spec.bytes_max))
    yield f"topic {state.name} has max.message.bytes={have}, and {why}{alter}"


def _retention_ms(state: TopicState) -> int:
    return int(state.config.get("retention.ms", -1))


def _alter(common: _Common, state: TopicState, name: str, value: str) -> str:
    return f"kafka-configs --bootstrap-server {common.servers} --alter --topic {state.name} --add-config {name}={value}"
