"""Models of an MLflow registry or run: found on its tracking server, checked, and deployed like a file."""

from inferd.mlflow.model import MlflowModel, fetch_mlflow_model
from inferd.mlflow.reference import is_mlflow_uri
from inferd.mlflow.server import MlflowUnreachableError, TrackingServer

__all__ = ["MlflowModel", "MlflowUnreachableError", "TrackingServer", "fetch_mlflow_model", "is_mlflow_uri"]
