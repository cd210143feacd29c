"""HTTP server of a worker: its application, composed from its settings, and the backends of its routes."""

from inferd.daemon.http.worker.cluster_dead_letters import ClusterDeadLetters
from inferd.daemon.http.worker.cluster_models import ClusterModels
from inferd.daemon.http.worker.cluster_monitoring import ClusterMonitoring
from inferd.daemon.http.worker.cluster_operating import ClusterOperating
from inferd.daemon.http.worker.cluster_rollouts import ClusterRollouts
from inferd.daemon.http.worker.cluster_routes import ClusterRoutes
from inferd.daemon.http.worker.composition import Backends, http_server_of, worker_app
from inferd.daemon.http.worker.services import JobStreams, StreamsJobs, StreamsPredictions

__all__ = [
    "Backends",
    "ClusterDeadLetters",
    "ClusterModels",
    "ClusterMonitoring",
    "ClusterOperating",
    "ClusterRollouts",
    "ClusterRoutes",
    "JobStreams",
    "StreamsJobs",
    "StreamsPredictions",
    "http_server_of",
    "worker_app",
]
