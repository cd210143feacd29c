"""The consumer group: membership, assignment and fetching, built on Faust."""

from inferd.streams.group.assignor import LaneAssignor
from inferd.streams.group.consumer import LaneApp, LaneConsumer, Records, kafka_tps
from inferd.streams.group.membership import instance_id_conflict

__all__ = ["LaneApp", "LaneAssignor", "LaneConsumer", "Records", "instance_id_conflict", "kafka_tps"]
