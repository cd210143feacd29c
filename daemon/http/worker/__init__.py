"""HTTP of a worker: its application, composed from its settings, and the services behind the routes."""

from inferd.daemon.http.worker.cluster_models import ClusterModels
from inferd.daemon.http.worker.composition import worker_app
from inferd.daemon.http.worker.services import StreamsJobs, StreamsOfJobs, StreamsPredictions

__all__ = ["ClusterModels", "StreamsJobs", "StreamsOfJobs", "StreamsPredictions", "worker_app"]
