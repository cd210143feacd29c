"""Lanes: topics consumed in batches. Workers, partitions, processing guarantees, ownership and scheduling."""

from inferd.streams.lane.at_least_once import AtLeastOnce
from inferd.streams.lane.backoff import describe
from inferd.streams.lane.by_topic import ByTopic
from inferd.streams.lane.context import LaneContext
from inferd.streams.lane.dead_letters import DeadLetters, dead_letter_of, outgoing_of, rejection_of
from inferd.streams.lane.exactly_once import ExactlyOnce
from inferd.streams.lane.guarantee import PUBLISH_ERRORS, Guarantee, OnAcked, OnFailed
from inferd.streams.lane.handover import Handover, KeyedTable, Move
from inferd.streams.lane.lane import Lane
from inferd.streams.lane.output_batch import OutputBatch, timestamps_of
from inferd.streams.lane.owner import OwnerProcessor
from inferd.streams.lane.partition import Partition
from inferd.streams.lane.processor import Kind, Processor, Work
from inferd.streams.lane.publisher import MakeGuarantee

__all__ = [
    "PUBLISH_ERRORS",
    "AtLeastOnce",
    "ByTopic",
    "DeadLetters",
    "ExactlyOnce",
    "Guarantee",
    "Handover",
    "KeyedTable",
    "Kind",
    "Lane",
    "LaneContext",
    "MakeGuarantee",
    "Move",
    "OnAcked",
    "OnFailed",
    "OutputBatch",
    "OwnerProcessor",
    "Partition",
    "Processor",
    "Work",
    "dead_letter_of",
    "describe",
    "outgoing_of",
    "rejection_of",
    "timestamps_of",
]
