"""The process lifecycle: signals, exit, the event loop watchdog, and supervision of the embedded broker."""

from inferd.daemon.supervision.broker_supervisor import SupervisedBroker
from inferd.daemon.supervision.exit import EXIT_DRAIN_TIMEOUT, EXIT_ZOMBIE, end_within, leave
from inferd.daemon.supervision.stop_signals import StopSignals, terminable
from inferd.daemon.supervision.watchdog import Watchdog

__all__ = [
    "EXIT_DRAIN_TIMEOUT",
    "EXIT_ZOMBIE",
    "StopSignals",
    "SupervisedBroker",
    "Watchdog",
    "end_within",
    "leave",
    "terminable",
]
