"""The REST API of an MLflow tracking server: finds the model that a URI names, and reads its files.

The server reads the files from its artifact store, as for its own pages. So neither MLflow nor access to the store is
needed here.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import msgspec

from inferd.mlflow.reference import LoggedModel, Reference, RegisteredAlias, RegisteredVersion, RunModel
from inferd.schemas.errors import ModelNotFoundError, ServerError, TooLargeError, VersionNotFoundError

_API = "/api/2.0/mlflow/"
_FILES_OF_VERSION, _FILES_OF_RUN = "/model-versions/get-artifact", "/get-artifact"
_FILES_OF_LOGGED = "/ajax-api/2.0/mlflow/logged-models/{}/artifacts/files"
_TIMEOUT = aiohttp.ClientTimeout(total=None, connect=10, sock_read=60)
_JSON_BYTES_MAX = 4_000_000
_ABSENT = ("RESOURCE_DOES_NOT_EXIST", "NOT_FOUND")


class MlflowUnreachableError(ServerError, ConnectionError):
    """The tracking server does not respond."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackingServer:
    """The address of a server, and the credentials."""

    uri: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> TrackingServer:
        """Reads MLflow's own environment variables; `ServerError` if they name no server."""
        uri = environ.get("MLFLOW_TRACKING_URI", "")
        if urlsplit(uri).scheme not in ("http", "https"):
            given = f"is {uri[:100]!r}" if uri else "is not set"
            raise ServerError(
                f"MLFLOW_TRACKING_URI {given}: set it to the address of an MLflow server, http://HOST:PORT"
            )
        names = ("USERNAME", "PASSWORD", "TOKEN")
        username, password, token = (environ.get(f"MLFLOW_TRACKING_{name}") for name in names)
        return cls(uri=uri.rstrip("/"), username=username, password=password, token=token)


@dataclass(frozen=True, slots=True)
class Found:
    """A model on the server: the route and parameters for its files, and labels that record its origin."""

    route: str
    parameters: dict[str, str]
    path_parameter: str
    labels: dict[str, str]
    folder: str = ""


class Session:
    """An open connection to a server."""

    def __init__(self, server: TrackingServer, http: aiohttp.ClientSession) -> None:
        self._server, self._http = server, http

    async def find(self, reference: Reference) -> Found:
        """The model that a URI names. `ModelNotFoundError` or `VersionNotFoundError` if there is none."""
        if isinstance(reference, RunModel):
            return await self._of_run(reference)
        if isinstance(reference, LoggedModel):
            model = await self._get(f"logged-models/{reference.model}", {})
            if model is None:
                raise ModelNotFoundError(f"MLflow has no model {reference.model}")
            return _logged(model["model"]["info"])
        return await self._registered(reference)

    async def read(self, found: Found, path: str, bytes_max: int) -> bytes:
        """A file of a model. `ModelNotFoundError` if it does not exist, `TooLargeError` beyond `bytes_max`."""
        parameters = {**found.parameters, found.path_parameter: found.folder + path}
        status, body = await self._fetch(found.route, parameters, bytes_max)
        if status == 200:
            return body
        if status == 404 or _code(body) in _ABSENT:
            raise ModelNotFoundError(f"MLflow has no file {found.folder + path} of this model")
        raise self._rejection(status, body, f"cannot read {found.folder + path}")

    async def _registered(self, reference: RegisteredVersion | RegisteredAlias) -> Found:
        if isinstance(reference, RegisteredAlias):
            what = f"alias {reference.alias}"
            answer = await self._get("registered-models/alias", {"name": reference.name, "alias": reference.alias})
        else:
            what = f"version {reference.version}"
            parameters = {"name": reference.name, "version": str(reference.version)}
            answer = await self._get("model-versions/get", parameters)
        if answer is None:
            if await self._get("registered-models/get", {"name": reference.name}) is None:
                raise ModelNotFoundError(f"MLflow has no registered model {reference.name!r}")
            raise VersionNotFoundError(f"the registered model {reference.name!r} of MLflow has no {what}")
        version = answer["model_version"]
        labels = {"mlflow_model": version["name"], "mlflow_version": str(version["version"])}
        parameters = {"name": version["name"], "version": str(version["version"])}
        return Found(_FILES_OF_VERSION, parameters, "path", labels | _run_label(version.get("run_id")))

    async def _of_run(self, reference: RunModel) -> Found:
        answer = await self._get("runs/get", {"run_id": reference.run})
        if answer is None:
            raise ModelNotFoundError(f"MLflow has no run {reference.run!r}")
        # MLflow 3 stores the models that a run logs next to its artifacts.
        for output in (answer["run"].get("outputs") or {}).get("model_outputs", ()):
            model = await self._get(f"logged-models/{output['model_id']}", {})
            if model is not None and model["model"]["info"].get("name") == reference.path:
                return _logged(model["model"]["info"])
        labels = _run_label(reference.run)
        return Found(_FILES_OF_RUN, {"run_uuid": reference.run}, "path", labels, f"{reference.path}/")

    async def _get(self, route: str, parameters: dict[str, str]) -> Any:
        """The JSON of a route of the API; None if the requested object does not exist."""
        status, body = await self._fetch(_API + route, parameters, _JSON_BYTES_MAX)
        if status == 200:
            try:
                return msgspec.json.decode(body)
            except msgspec.DecodeError:
                raise ServerError(f"{self._shown} is not an MLflow server: its answer is not JSON") from None
        # A missing alias is INVALID_PARAMETER_VALUE.
        missing_alias = route == "registered-models/alias" and _code(body) == "INVALID_PARAMETER_VALUE"
        if _code(body) in _ABSENT or missing_alias:
            return None
        raise self._rejection(status, body, f"refuses {route}")

    async def _fetch(self, route: str, parameters: dict[str, str], bytes_max: int) -> tuple[int, bytes]:
        try:
            async with self._http.get(self._server.uri + route, params=parameters) as answer:
                body = bytearray()
                async for part in answer.content.iter_any():
                    body += part
                    if len(body) > bytes_max:
                        raise TooLargeError(f"MLflow: an answer of more than {bytes_max} bytes, which is the limit")
                return answer.status, bytes(body)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            why = str(error) or type(error).__name__
            raise MlflowUnreachableError(f"the MLflow server {self._shown} does not answer: {why}") from error

    def _rejection(self, status: int, body: bytes, what: str) -> ServerError:
        if status in (401, 403):
            remedy = "set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN"
            return ServerError(f"the MLflow server {self._shown} {what} with status {status}: {remedy}")
        return ServerError(f"the MLflow server {self._shown} {what} with status {status}: {_message(body)}")

    @property
    def _shown(self) -> str:
        """The address, without a password."""
        parts = urlsplit(self._server.uri)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


@asynccontextmanager
async def connected(server: TrackingServer) -> AsyncIterator[Session]:
    """A session with a server."""
    async with aiohttp.ClientSession(timeout=_TIMEOUT, headers=_authorization(server), trust_env=True) as http:
        yield Session(server, http)


def _authorization(server: TrackingServer) -> dict[str, str]:
    if server.token:
        return {"Authorization": f"Bearer {server.token}"}
    if server.username:
        pair = f"{server.username}:{server.password or ''}".encode()
        return {"Authorization": f"Basic {b64encode(pair).decode()}"}
    return {}


def _logged(info: Mapping[str, Any]) -> Found:
    labels = {"mlflow_model_id": str(info["model_id"])} | _run_label(info.get("source_run_id"))
    return Found(_FILES_OF_LOGGED.format(info["model_id"]), {}, "artifact_file_path", labels)


def _run_label(run: object) -> dict[str, str]:
    return {"mlflow_run_id": str(run)} if run else {}


def _error(body: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}


def _code(body: bytes) -> str:
    return str(_error(body).get("error_code", ""))


def _message(body: bytes) -> str:
    return str(_error(body).get("message", "")) or body[:200].decode(errors="replace")
