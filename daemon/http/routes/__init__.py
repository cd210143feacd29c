"""The routes for predictions, jobs, models and observation; `services` has the protocols of their backends."""

from inferd.daemon.http.routes.asyncapi import RoutesOf, add_asyncapi
from inferd.daemon.http.routes.callers import add_whoami
from inferd.daemon.http.routes.cluster import add_cluster
from inferd.daemon.http.routes.dead_letters import DeadLetters, add_dead_letters
from inferd.daemon.http.routes.forwarding import Forwarding
from inferd.daemon.http.routes.jobs import add_jobs
from inferd.daemon.http.routes.labels import add_labels
from inferd.daemon.http.routes.models import add_models
from inferd.daemon.http.routes.monitoring import add_monitoring
from inferd.daemon.http.routes.observation import add_observation, readyz
from inferd.daemon.http.routes.open_inference import add_open_inference
from inferd.daemon.http.routes.openapi import ROLES_OF_OPERATIONS, add_openapi
from inferd.daemon.http.routes.operating import add_operating
from inferd.daemon.http.routes.page import add_page
from inferd.daemon.http.routes.predictions import add_predictions
from inferd.daemon.http.routes.rollouts import add_rollouts
from inferd.daemon.http.routes.routes import add_routes
from inferd.daemon.http.routes.services import (
    Deploy,
    Deployed,
    Jobs,
    ModelOverview,
    Models,
    ModelVersion,
    Monitoring,
    Operating,
    PauseOverview,
    Predictions,
    RedriveOptions,
    RolloutBody,
    Rollouts,
    RouteOverview,
    Routes,
    Steering,
    VersionOverview,
)
from inferd.daemon.http.routes.topics import Topic, TopicRecord, TopicRecords, Topics, add_topics
from inferd.daemon.http.routes.uploads import Uploads

__all__ = [
    "ROLES_OF_OPERATIONS",
    "DeadLetters",
    "Deploy",
    "Deployed",
    "Forwarding",
    "Jobs",
    "ModelOverview",
    "ModelVersion",
    "Models",
    "Monitoring",
    "Operating",
    "PauseOverview",
    "Predictions",
    "RedriveOptions",
    "RolloutBody",
    "Rollouts",
    "RouteOverview",
    "Routes",
    "RoutesOf",
    "Steering",
    "Topic",
    "TopicRecord",
    "TopicRecords",
    "Topics",
    "Uploads",
    "VersionOverview",
    "add_asyncapi",
    "add_cluster",
    "add_dead_letters",
    "add_jobs",
    "add_labels",
    "add_models",
    "add_monitoring",
    "add_observation",
    "add_open_inference",
    "add_openapi",
    "add_operating",
    "add_page",
    "add_predictions",
    "add_rollouts",
    "add_routes",
    "add_topics",
    "add_whoami",
    "readyz",
]
