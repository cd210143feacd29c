"""What an operator sees of the process: logs, metrics and status."""

from inferd.daemon.telemetry.exposition import Metrics
from inferd.daemon.telemetry.history import History
from inferd.daemon.telemetry.logs import configure_for_command, configure_logs
from inferd.daemon.telemetry.metrics import METRICS, STEPS
from inferd.daemon.telemetry.status import Status, StatusBoard, total_lag

__all__ = [
    "METRICS",
    "STEPS",
    "History",
    "Metrics",
    "Status",
    "StatusBoard",
    "configure_for_command",
    "configure_logs",
    "total_lag",
]
