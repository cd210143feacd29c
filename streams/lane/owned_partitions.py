"""The partitions that a lane owns. Dropping records also corrects counters, tables and processors."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from aiokafka import TopicPartition

from inferd.streams.group import Records
from inferd.streams.lane.output_batch import OutputBatch
from inferd.streams.lane.partition import Partition, Usage
from inferd.streams.lane.processor import Processor


class OwnedPartitions(Mapping[TopicPartition, Partition]):
    """Owned partitions; dropped records count as never received."""

    def __init__(self, processors: Mapping[str, Processor]) -> None:
        """`processors` by topic."""
        self.processors = processors
        self.tenants: frozenset[str] = frozenset()
        self.usage: Mapping[str, Usage] = {}
        """By tenant, of its partitions that are not closed."""
        self._owned: dict[TopicPartition, Partition] = {}
        self._by_topic: dict[str, list[Partition]] = {}
        self.update()

    def update(self) -> None:
        """Follows a change of the processors; those that were removed own no partition any more."""
        self.tenants = frozenset(processor.tenant for processor in self.processors.values())
        self.usage = {tenant: self.usage.get(tenant) or Usage() for tenant in self.tenants}

    def __getitem__(self, tp: TopicPartition) -> Partition:
        return self._owned[tp]

    def __iter__(self) -> Iterator[TopicPartition]:
        return iter(self._owned)

    def __len__(self) -> int:
        return len(self._owned)

    def processor(self, partition: Partition) -> Processor:
        return self.processors[partition.tp.topic]

    def of(self, topics: Iterable[str]) -> list[Partition]:
        """The partitions of some topics."""
        return [partition for topic in topics for partition in self._by_topic.get(topic, ())]

    def of_tenant(self, tenant: str) -> list[Partition]:
        return self.of(topic for topic, processor in self.processors.items() if processor.tenant == tenant)

    def make(self, tp: TopicPartition) -> Partition:
        """A new partition, which is not owned before `replace`."""
        return Partition(tp, self.usage[self.processors[tp.topic].tenant])

    def replace(self, partitions: Mapping[TopicPartition, Partition], topics: Collection[str]) -> None:
        """Owns `partitions` of `topics`, and closes those of them that were owned before."""
        self.close(self.of(topics))
        self._own({tp: each for tp, each in self._owned.items() if tp.topic not in topics} | dict(partitions))

    def _own(self, partitions: dict[TopicPartition, Partition]) -> None:
        self._owned = partitions
        self._by_topic = {}
        for tp, partition in partitions.items():
            self._by_topic.setdefault(tp.topic, []).append(partition)

    def revoke(self, revoked: Collection[TopicPartition]) -> list[Partition]:
        """Gives up `revoked` partitions and drains them; the caller closes them later."""
        withdrawn = [partition for tp, partition in self._owned.items() if tp in revoked]
        self._own({tp: partition for tp, partition in self._owned.items() if tp not in revoked})
        self.drain(withdrawn)
        return withdrawn

    def close(self, partitions: Collection[Partition]) -> None:
        """Drops what is not acknowledged, and closes the partitions."""
        self.rewind(partitions)
        for partition in partitions:
            partition.close()

    def queue(self, partition: Partition, records: Records) -> int | None:
        """Queues fetched records; returns the offset to seek back to if records before them are missing."""
        before = partition.queued
        back_to = partition.offer(records)
        self.processor(partition).counters.requests_in += partition.queued - before
        return back_to

    def drain(self, partitions: Collection[Partition]) -> None:
        """Stops taking from `partitions`, and drops queued records."""
        for partition in partitions:
            self._uncount(partition, partition.drain())

    def drop_taken(self, partition: Partition, records: Records) -> None:
        """Drops records that were taken before the partition was drained."""
        partition.drop_taken(records)
        self._uncount(partition, len(records))

    def rewind(self, partitions: Collection[Partition]) -> None:
        """Drops unacknowledged records and their table changes."""
        for partition in partitions:
            dropped = partition.in_flight_outputs()
            self._uncount(partition, partition.rewind())
            self._discard(partition, dropped)

    def _discard(self, partition: Partition, dropped: Sequence[OutputBatch]) -> None:
        processor, number = self.processor(partition), partition.tp.partition
        for table in processor.tables:
            if number in table.owned:
                table.partition(number).discard()
        processor.rewound(number, dropped)

    def _uncount(self, partition: Partition, records: int) -> None:
        self.processor(partition).counters.requests_in -= records
