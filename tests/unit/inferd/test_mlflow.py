"""MLflow models: a fake MLflow server, and descriptions written by MLflow 3.17."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from inferd.mlflow import MlflowUnreachableError, TrackingServer, fetch_mlflow_model, is_mlflow_uri
from inferd.mlflow.mlmodel import Column, check_library, features_of, parse_description
from inferd.mlflow.reference import LoggedModel, RegisteredAlias, RegisteredVersion, RunModel, parse_reference
from inferd.schemas.errors import (
    InternalError,
    InvalidIdError,
    MalformedError,
    ModelNotFoundError,
    SchemaMismatchError,
    ServerError,
    TooLargeError,
    VersionNotFoundError,
)
from inferd.schemas.limits import Limits
from inferd.streams.inference import FileFeature, ModelFile, manifest_of

FOLDER = Path(__file__).parents[2] / "fixtures" / "mlflow"
RUN = "0123456789abcdef0123456789abcdef"


def description_of(name: str) -> bytes:
    return (FOLDER / f"{name}.MLmodel").read_bytes()


def booster() -> bytes:
    rows = np.random.default_rng(1).normal(size=(200, 3))
    data = lightgbm.Dataset(rows, rows[:, 0] > 0, feature_name=["age", "visits", "spend"])
    content: str = lightgbm.train({"objective": "binary", "verbose": -1}, data, 3).model_to_string()
    return content.encode()


def missing(message: str, code: str = "RESOURCE_DOES_NOT_EXIST", status: int = 404) -> web.Response:
    return web.json_response({"error_code": code, "message": message}, status=status)


class FakeMlflow:
    """One registered model `churn` with version 3 and the alias `champion`, a run of MLflow 2, and one of MLflow 3."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {"MLmodel": description_of("lightgbm"), "model.lgb": booster()}
        self.authorization: list[str | None] = []
        self.wanted: str | None = None
        self.url = ""

    def app(self) -> web.Application:
        app = web.Application(middlewares=[self._authorize])
        app.router.add_get("/api/2.0/mlflow/{route:.*}", self._api)
        app.router.add_get("/model-versions/get-artifact", self._file)
        app.router.add_get("/get-artifact", self._file_of_run)
        app.router.add_get("/ajax-api/2.0/mlflow/logged-models/m-1f/artifacts/files", self._file)
        return app

    @web.middleware
    async def _authorize(self, request: web.Request, handler: Any) -> web.StreamResponse:
        if self.wanted is not None and request.headers.get("Authorization") != self.wanted:
            return web.Response(status=401, text="You are not authenticated")
        answer: web.StreamResponse = await handler(request)
        return answer

    async def _api(self, request: web.Request) -> web.Response:
        route, query = request.match_info["route"], request.query
        version = {"name": "churn", "version": "3", "run_id": RUN, "source": "s3://unreachable/from/here"}
        if route == "registered-models/get" and query["name"] == "churn":
            return web.json_response({"registered_model": {"name": "churn"}})
        if route == "registered-models/alias" and query["name"] == "churn":
            if query["alias"] == "champion":
                return web.json_response({"model_version": version})
            return missing("Registered model alias not found", "INVALID_PARAMETER_VALUE", 400)
        if route == "model-versions/get" and (query["name"], query["version"]) == ("churn", "3"):
            return web.json_response({"model_version": version})
        if route == "runs/get" and query["run_id"] == RUN:
            return web.json_response({"run": {"outputs": {"model_outputs": [{"model_id": "m-1f"}]}}})
        if route == "logged-models/m-1f":
            info = {"model_id": "m-1f", "name": "model", "source_run_id": RUN}
            return web.json_response({"model": {"info": info}})
        return missing("not found")

    async def _file(self, request: web.Request) -> web.Response:
        return self._content(request.query.get("path") or request.query["artifact_file_path"])

    async def _file_of_run(self, request: web.Request) -> web.Response:
        assert request.query["run_uuid"] == RUN
        return self._content(request.query["path"].removeprefix("old/"))

    def _content(self, path: str) -> web.Response:
        return web.Response(body=self.files[path]) if path in self.files else missing("no such artifact")


@pytest.fixture
async def mlflow() -> AsyncIterator[FakeMlflow]:
    fake = FakeMlflow()
    async with TestServer(fake.app()) as server:
        fake.url = str(server.make_url("")).rstrip("/")
        yield fake


def server_of(fake: FakeMlflow, **more: str) -> TrackingServer:
    return TrackingServer(uri=fake.url, **more)


@pytest.mark.parametrize(
    ("uri", "reference"),
    [
        ("models:/churn/3", RegisteredVersion("churn", 3)),
        ("models:/churn@champion", RegisteredAlias("churn", "champion")),
        ("models:/my%20churn@champion", RegisteredAlias("my churn", "champion")),
        ("models:/m-1f", LoggedModel("m-1f")),
        (f"runs:/{RUN}/model", RunModel(RUN, "model")),
        (f"runs:/{RUN}/a/b/", RunModel(RUN, "a/b")),
    ],
)
def test_uris(uri: str, reference: object) -> None:
    assert is_mlflow_uri(uri)
    assert parse_reference(uri) == reference


@pytest.mark.parametrize(
    "uri", ["models:/churn", "models:/churn/Production", "models:/churn/0", "models:/@a", f"runs:/{RUN}", "runs:///m"]
)
def test_other_uris_are_rejected(uri: str) -> None:
    with pytest.raises(InvalidIdError, match="expected models:/NAME@ALIAS"):
        parse_reference(uri)


def test_paths_are_not_uris() -> None:
    assert not any(map(is_mlflow_uri, ["model.txt", "models/churn", "./models:/x", "runs.txt"]))


@pytest.mark.parametrize(
    ("uri", "alias", "labels"),
    [
        ("models:/churn@champion", "champion", {"mlflow_model": "churn", "mlflow_version": "3", "mlflow_run_id": RUN}),
        ("models:/churn/3", None, {"mlflow_model": "churn", "mlflow_version": "3", "mlflow_run_id": RUN}),
        ("models:/m-1f", None, {"mlflow_model_id": "m-1f", "mlflow_run_id": RUN}),
        (f"runs:/{RUN}/model", None, {"mlflow_model_id": "m-1f", "mlflow_run_id": RUN}),
        (f"runs:/{RUN}/old", None, {"mlflow_run_id": RUN}),
    ],
)
async def test_a_model_is_found_with_its_origin(
    mlflow: FakeMlflow, uri: str, alias: str | None, labels: dict[str, str]
) -> None:
    found = await fetch_mlflow_model(uri, server_of(mlflow))
    assert (found.content, found.alias, found.labels) == (mlflow.files["model.lgb"], alias, labels)
    manifest = manifest_of(found.content, "churn", 1, found.manifest({"labels": {"team": "a"}}))
    assert manifest.labels == {"team": "a", **labels}
    assert [feature.name for feature in manifest.features] == ["age", "visits", "spend"]


@pytest.mark.parametrize(
    ("uri", "error", "message"),
    [
        ("models:/absent@champion", ModelNotFoundError, "no registered model 'absent'"),
        ("models:/absent/3", ModelNotFoundError, "no registered model 'absent'"),
        ("models:/churn@absent", VersionNotFoundError, "'churn' of MLflow has no alias absent"),
        ("models:/churn/4", VersionNotFoundError, "'churn' of MLflow has no version 4"),
        ("models:/m-2f", ModelNotFoundError, "no model m-2f"),
        ("runs:/ffff/model", ModelNotFoundError, "no run 'ffff'"),
    ],
)
async def test_missing_models_are_named(mlflow: FakeMlflow, uri: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        await fetch_mlflow_model(uri, server_of(mlflow))


async def test_a_missing_file_is_named(mlflow: FakeMlflow) -> None:
    del mlflow.files["model.lgb"]
    with pytest.raises(ModelNotFoundError, match=r"no file model\.lgb"):
        await fetch_mlflow_model("models:/churn/3", server_of(mlflow))


async def test_a_file_beyond_the_limit_is_not_read(mlflow: FakeMlflow) -> None:
    with pytest.raises(TooLargeError, match="more than 100 bytes"):
        await fetch_mlflow_model("models:/churn/3", server_of(mlflow), replace(Limits(), artifact_bytes_max=100))


async def test_an_unreachable_server() -> None:
    server = TrackingServer(uri="http://user:secret@127.0.0.1:1")
    with pytest.raises(MlflowUnreachableError, match=r"http://127\.0\.0\.1:1 does not answer") as caught:
        await fetch_mlflow_model("models:/churn/3", server)
    assert "secret" not in str(caught.value)


async def test_authentication(mlflow: FakeMlflow) -> None:
    mlflow.wanted = "Bearer abc"
    with pytest.raises(ServerError, match="status 401: set MLFLOW_TRACKING_USERNAME"):
        await fetch_mlflow_model("models:/churn/3", server_of(mlflow))
    await fetch_mlflow_model("models:/churn/3", server_of(mlflow, token="abc"))
    mlflow.wanted = "Basic YWRhOnB3"
    await fetch_mlflow_model("models:/churn/3", server_of(mlflow, username="ada", password="pw"))


@pytest.mark.parametrize("uri", ["", "sqlite:///mlflow.db", "databricks", "./mlruns"])
def test_only_http_servers(uri: str) -> None:
    with pytest.raises(ServerError, match=r"MLFLOW_TRACKING_URI .*: set it to the address"):
        TrackingServer.from_environment({"MLFLOW_TRACKING_URI": uri})


def test_the_variables_of_mlflow() -> None:
    environ = {"MLFLOW_TRACKING_URI": "https://h/mlflow/", "MLFLOW_TRACKING_USERNAME": "ada"}
    server = TrackingServer.from_environment(environ | {"MLFLOW_TRACKING_PASSWORD": "pw"})
    assert server == TrackingServer(uri="https://h/mlflow", username="ada", password="pw")
    assert "pw" not in repr(server)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("lightgbm", "model.lgb"), ("xgboost", "model.ubj"), ("catboost", "model.cb"), ("onnx", "model.onnx"),
        ("sklearn", "model.skops"),
    ],
)  # fmt: skip
def test_descriptions_that_mlflow_wrote(name: str, path: str) -> None:
    description = parse_description(description_of(name))
    assert (description.flavour, description.path) == (name, path)
    assert [(column.name, column.type) for column in description.columns] == [
        ("age", "double"), ("visits", "double"), ("spend", "double"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sklearn-pickle", r"saved with cloudpickle.*serialization_format='skops'"),
        ("lightgbm-cloudpickle", r"saved with cloudpickle.*mlflow\.lightgbm\.log_model\(model\.booster_"),
        ("lightgbm-skops", r"LGBMClassifier: log its booster"),
    ],
)
def test_errors_of_unsupported_models_say_how_to_save_them(name: str, message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        parse_description(description_of(name))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            b"flavors:\n  pytorch: {}\n  python_function: {}\n",
            "flavours pytorch, python_function; inferd serves lightgbm",
        ),
        (b"flavors: {}\n", "flavours none"),
        (b"flavors: [", "is not YAML"),
        (b"\xff\xfe\x00", "MLmodel: "),
        (b"a", "MLmodel: the file"),
        (b"flavors:\n  sklearn: 1\n", r"flavors\.sklearn: Expected"),
        (b"flavors:\n  xgboost: {}\n", r"flavors\.xgboost\.data: Expected `str`"),
        (b"flavors:\n  sklearn: {pickled_model: model.pkl, serialization_format: pickle}\n", "saved with pickle"),
        (b"flavors: !!python/object/apply:os.system ['true']\n", "is not YAML"),
    ],
)
def test_damaged_and_foreign_descriptions(text: bytes, message: str) -> None:
    with pytest.raises(MalformedError, match=message):
        parse_description(text)


@pytest.mark.parametrize(
    ("flavour", "version", "remedy"),
    [
        ("lightgbm", "4.5.0", None),
        ("lightgbm", "99.0.0", r"saved by lightgbm 99\.0\.0, and .* is installed here: install 99\.0"),
        ("sklearn", "1.3.2", r"saved by sklearn 1\.3\.2"),
        ("sklearn", None, None),
        ("onnx", "1.0.0", None),
    ],
)
def test_another_version_of_the_library(flavour: str, version: str | None, remedy: str | None) -> None:
    description = replace(parse_description(description_of(flavour)), library=version if flavour != "onnx" else None)
    if remedy is None:
        check_library(description)
        return
    with pytest.raises(InternalError, match=remedy):
        check_library(description)


def file_of(*features: FileFeature, named: bool) -> ModelFile:
    return ModelFile(runtime="xgboost", sha256="", size=0, features=features, named=named)


def test_a_signature_names_features_and_opens_types() -> None:
    columns = parse_description(description_of("xgboost")).columns
    unnamed = file_of(*(FileFeature(name=f"f{number}") for number in range(3)), named=False)
    assert features_of(columns, unnamed) == [{"name": "age"}, {"name": "visits"}, {"name": "spend"}]
    assert features_of((), unnamed) == []
    with pytest.raises(SchemaMismatchError, match="3 columns, and the model 1 features"):
        features_of(columns, file_of(FileFeature(name="f0"), named=False))
    columns = (Column("long", "visits", required=False), Column("double", "spend"), Column("double", "absent"))
    named = file_of(*(FileFeature(name=name, fixed=False) for name in ("spend", "visits", "other")), named=True)
    assert features_of(columns, named) == [
        {"name": "visits", "dtype": "int64", "required": False},
        {"name": "spend", "dtype": "float64"},
    ]
