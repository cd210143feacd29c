"""Topics and records on Kafka: producing, transactions, offsets, topic metadata, access rights."""

from inferd.streams.kafka.changelogs import TableName, changelog_config, changelog_name, table_name
from inferd.streams.kafka.destinations import EVERYTHING, Outlets, RefusedError, naming, naming_topic
from inferd.streams.kafka.outgoing import Outgoing
from inferd.streams.kafka.producer import close_producer, open_producer, produce, produce_changes, producer_options
from inferd.streams.kafka.record_batches import UnreadableLogError, install_batch_checks
from inferd.streams.kafka.retention_gaps import Gaps
from inferd.streams.kafka.rights import ALL, Right, describe_missing, grant_commands, http_rights, named, worker_rights
from inferd.streams.kafka.rights_check import is_denied, missing_rights
from inferd.streams.kafka.start_offsets import commit_note, read_positions
from inferd.streams.kafka.topic_checks import (
    TopicsError,
    TopicState,
    job_partitions,
    result_record_bytes_max,
    topic_specs,
)
from inferd.streams.kafka.topic_watch import LOOK_INTERVAL_S, KnownTopics, TopicWatch, missing_reason, unserved_reasons
from inferd.streams.kafka.topics import describe_topics, ensure_topics
from inferd.streams.kafka.transactions import Ending, failure_of, last_endings, repeat_ending, unit_of

__all__ = [
    "ALL",
    "EVERYTHING",
    "LOOK_INTERVAL_S",
    "Ending",
    "Gaps",
    "KnownTopics",
    "Outgoing",
    "Outlets",
    "RefusedError",
    "Right",
    "TableName",
    "TopicState",
    "TopicWatch",
    "TopicsError",
    "UnreadableLogError",
    "changelog_config",
    "changelog_name",
    "close_producer",
    "commit_note",
    "describe_missing",
    "describe_topics",
    "ensure_topics",
    "failure_of",
    "grant_commands",
    "http_rights",
    "install_batch_checks",
    "is_denied",
    "job_partitions",
    "last_endings",
    "missing_reason",
    "missing_rights",
    "named",
    "naming",
    "naming_topic",
    "open_producer",
    "produce",
    "produce_changes",
    "producer_options",
    "read_positions",
    "repeat_ending",
    "result_record_bytes_max",
    "table_name",
    "topic_specs",
    "unit_of",
    "unserved_reasons",
    "worker_rights",
]
