"""The consumer group: membership, assignment and fetching, built on Faust."""

from inferd.streams.group.assignor import LaneAssignor
from inferd.streams.group.consumer import LaneApp, LaneConsumer, Records, kafka_tps
from inferd.streams.group.membership import used_twice

__all__ = ["LaneApp", "LaneAssignor", "LaneConsumer", "Records", "kafka_tps", "used_twice"]
