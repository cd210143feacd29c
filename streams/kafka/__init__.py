"""Topics and records on Kafka: producing, transactions, offsets, topic metadata, access rights."""

from inferd.streams.kafka.changelogs import TableName, changelog_config, changelog_name, table_name
from inferd.streams.kafka.destinations import (
    UNCHECKED,
    Destinations,
    TopicRejectedError,
    as_rejection,
    raise_rejections,
)
from inferd.streams.kafka.noted_partitions import check_noted_partitions
from inferd.streams.kafka.outgoing import (
    HeaderColumns,
    HeaderList,
    Outgoing,
    OutgoingBlock,
    OutgoingColumns,
    OutgoingRecords,
)
from inferd.streams.kafka.partitioner import partition_of_key
from inferd.streams.kafka.producer import (
    close_producer,
    fill_batches,
    open_producer,
    produce,
    produce_changes,
    producer_options,
    send_batches,
)
from inferd.streams.kafka.record_batches import UnreadableLogError, install_batch_checks
from inferd.streams.kafka.retention_gaps import RetentionGaps
from inferd.streams.kafka.rights import (
    Operation,
    Right,
    describe_missing,
    describe_rights,
    grant_commands,
    http_rights,
    read_streams,
    worker_rights,
)
from inferd.streams.kafka.rights_check import is_denied, missing_rights
from inferd.streams.kafka.start_offsets import committed, offset_metadata, read_positions
from inferd.streams.kafka.topic_checks import (
    TopicsError,
    TopicState,
    result_record_bytes_max,
    table_partitions,
    topic_specs,
)
from inferd.streams.kafka.topic_growth import grow_topics
from inferd.streams.kafka.topic_metadata import TopicMetadata, read_topics
from inferd.streams.kafka.topic_watch import (
    REFRESH_INTERVAL_S,
    KnownTopics,
    TopicWatch,
    missing_reason,
    unserved_reasons,
)
from inferd.streams.kafka.topics import describe_topics, ensure_topics
from inferd.streams.kafka.transactions import (
    TransactionResult,
    last_transaction_results,
    repeat_transaction_result,
    transaction_failures,
    unit_of,
)
from inferd.streams.kafka.used_partitions import Family, UsedPartitions, ancestors, belongs, keyed_topics

__all__ = [
    "REFRESH_INTERVAL_S",
    "UNCHECKED",
    "Destinations",
    "Family",
    "HeaderColumns",
    "HeaderList",
    "KnownTopics",
    "Operation",
    "Outgoing",
    "OutgoingBlock",
    "OutgoingColumns",
    "OutgoingRecords",
    "RetentionGaps",
    "Right",
    "TableName",
    "TopicMetadata",
    "TopicRejectedError",
    "TopicState",
    "TopicWatch",
    "TopicsError",
    "TransactionResult",
    "UnreadableLogError",
    "UsedPartitions",
    "ancestors",
    "as_rejection",
    "belongs",
    "changelog_config",
    "changelog_name",
    "check_noted_partitions",
    "close_producer",
    "committed",
    "describe_missing",
    "describe_rights",
    "describe_topics",
    "ensure_topics",
    "fill_batches",
    "grant_commands",
    "grow_topics",
    "http_rights",
    "install_batch_checks",
    "is_denied",
    "keyed_topics",
    "last_transaction_results",
    "missing_reason",
    "missing_rights",
    "offset_metadata",
    "open_producer",
    "partition_of_key",
    "produce",
    "produce_changes",
    "producer_options",
    "raise_rejections",
    "read_positions",
    "read_streams",
    "read_topics",
    "repeat_transaction_result",
    "result_record_bytes_max",
    "send_batches",
    "table_name",
    "table_partitions",
    "topic_specs",
    "transaction_failures",
    "unit_of",
    "unserved_reasons",
    "worker_rights",
]
