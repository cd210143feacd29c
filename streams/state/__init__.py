"""Tables with changelogs: stores on this machine, restored from Kafka."""

from inferd.streams.inference.cache import Change
from inferd.streams.state.restore import Restore
from inferd.streams.state.state_directory import StateDirectory, claim_state_directory
from inferd.streams.state.stores import MemoryStore
from inferd.streams.state.tables import LaneTable, LaneTableManager, TablePartition, make_table

__all__ = [
    "Change",
    "LaneTable",
    "LaneTableManager",
    "MemoryStore",
    "Restore",
    "StateDirectory",
    "TablePartition",
    "claim_state_directory",
    "make_table",
]
