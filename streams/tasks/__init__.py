"""Tasks of asyncio: in the background, in slices, ending several at once, and exceptions in callbacks."""

from inferd.streams.tasks.background import BackgroundTasks
from inferd.streams.tasks.callbacks import OnCrash, when_done
from inferd.streams.tasks.cancel_all import all_of, cancelled, finished
from inferd.streams.tasks.own_thread import OwnThread
from inferd.streams.tasks.slices import Slices

__all__ = ["BackgroundTasks", "OnCrash", "OwnThread", "Slices", "all_of", "cancelled", "finished", "when_done"]
