"""Shadow versions: they score the requests of an alias once these are answered, and never delay or fail one."""

from inferd.streams.shadow.low_thread import LowThread
from inferd.streams.shadow.publisher import ShadowPublisher
from inferd.streams.shadow.scores import Reason, ShadowScoring
from inferd.streams.shadow.shadows import Shadows

__all__ = ["LowThread", "Reason", "ShadowPublisher", "ShadowScoring", "Shadows"]
