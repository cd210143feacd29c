"""`--server`, `--batch-predictor`, `--realtime-predictor`: loading, errors, and use by a worker."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession

from inferd.daemon import cluster, process
from inferd.daemon.custom_classes import load_custom
from inferd.daemon.process import Parts, WorkerProcess
from inferd.daemon.settings.settings import Settings
from inferd.daemon.settings.table import SettingsError
from inferd.daemon.supervision.stop_signals import StopSignals
from inferd.schemas.connection import KafkaConnection
from inferd.schemas.errors import ModelNotFoundError, ModelNotReadyError, ServerError
from inferd.streams.inference.catalog import ModelCatalog
from inferd.streams.inference.user_code import PinnedModelId
from inferd.streams.serving.user_code import UserCode
from inferd.streams.settings import StreamSettings
from tests.fixtures.lane import sum_model
from tests.fixtures.scoring import catalog_of
from tests.unit.daemon.fake_streams import FakeStreams

DEADLINE_S = 10.0
MODULE = """
import asyncio
from inferd import BatchPredictor, ModelServer, RealtimePredictor

class Server(ModelServer):
    def _setup_routes(self):
        @self.app.get("/own/{model_id}")
        def own(model_id: str):
            return {"tenant": self.tenant_id, "prediction": self.realtime_predictor.predict(model_id, [1, 2])}

        @self.app.get("/livez")
        async def livez():
            return "own"

class Realtime(RealtimePredictor):
    def predict(self, model_id, input_data):
        return [self.tenant_id, super().predict(model_id, input_data)]

class Batch(BatchPredictor):
    def process_batch(self, model_id, input_batch):
        return [(self.tenant_id, each) for each in super().process_batch(model_id, input_batch)]

class Broken(ModelServer):
    def __init__(self, *given):
        raise ValueError("no licence")

class BadRoute(ModelServer):
    def _setup_routes(self):
        @self.app.get("/{model_id}")
        def own():
            return 1

number = 7
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The module `own_classes` in the working directory."""
    (tmp_path / "own_classes.py").write_text(MODULE)
    (tmp_path / "own_broken.py").write_text("import nothing_there")
    (tmp_path / "own_syntax.py").write_text("def")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(tmp_path)])
    yield
    for name in ("own_classes", "own_broken", "own_syntax"):
        sys.modules.pop(name, None)


def settings_of(**flags: str) -> Settings:
    return Settings.from_environment({}, {"http_port": "0", "worker_id": "w1", "tenants": "default,acme", **flags})


def test_without_custom_classes_nothing_is_loaded() -> None:
    customised = load_custom(settings_of())
    assert customised.routes is None
    assert customised.custom is None


@pytest.mark.usefixtures("own")
def test_each_tenant_has_its_own_objects_with_the_workers_models() -> None:
    names = {"batch_predictor": "own_classes.Batch", "realtime_predictor": "own_classes.Realtime"}
    custom = load_custom(settings_of(**names)).custom
    assert custom is not None
    with pytest.raises(ModelNotReadyError, match="has not read its models"):
        custom.models("default").load("sum")
    model = sum_model()
    custom.follow({"default": catalog_of(model), "acme": ModelCatalog()})
    pinned = PinnedModelId.of("sum", model)
    for tenant in ("default", "acme"):
        ask, process_batch = custom.ask(tenant), custom.process_batch(tenant)
        assert ask is not None
        assert process_batch is not None
        assert ask(pinned, [1, 2], ("prediction",)) == {"prediction": [tenant, 3.0]}
        assert process_batch(pinned, [[1, 2], [3, 4]]) == [(tenant, 3.0), (tenant, 7.0)]
    process_batch = custom.process_batch("acme")
    assert process_batch is not None
    assert [type(each) for each in process_batch("sum", [[1, 2]])] == [ModelNotFoundError]
    assert [getattr(each, "code", None) for each in custom.process_batch("default")("sum", [[1], [1, 2]])] == [  # type: ignore[misc]
        "schema_mismatch",
        None,
    ]


def test_the_workers_models_are_read_only_and_per_tenant() -> None:
    custom = UserCode(("default", "acme"))
    custom.follow({"default": catalog_of(sum_model()), "acme": ModelCatalog()})
    models = custom.models("default")
    assert [manifest.model_id for manifest in models.list()] == ["sum"]
    assert models.for_tenant("acme").list() == []
    for call in (
        lambda: models.register("sum", b""),
        lambda: models.set_alias("sum", "champion", 1),
        lambda: models.rollback_alias("sum", "champion"),
        lambda: models.promote_alias("sum", "next", "champion"),
        lambda: models.remove("sum"),
    ):
        with pytest.raises(ServerError, match="inferd models"):
            call()
    with pytest.raises(ServerError, match="not served by this worker"):
        models.for_tenant("other")
    assert custom.ask("default") is None
    assert custom.process_batch("default") is None


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"server": "nowhere.Server"}, "INFERD_SERVER=nowhere.Server cannot be loaded: .*No module named 'nowhere'"),
        ({"server": "own_classes.Nobody"}, "module 'own_classes' has no 'Nobody'"),
        (
            {"server": "own_classes.Realtime"},
            "INFERD_SERVER=own_classes.Realtime is not a subclass of inferd.ModelServer",
        ),
        ({"batch_predictor": "own_classes.number"}, "is not a subclass of inferd.BatchPredictor"),
        ({"realtime_predictor": "own_broken.X"}, "No module named 'nothing_there'"),
        ({"realtime_predictor": "own_syntax.X"}, "invalid syntax"),
        ({"server": "own_classes.Broken"}, "INFERD_SERVER: its class cannot be constructed: .*no licence"),
        ({"server": "own_classes.BadRoute"}, "the path has 'model_id', but the function has no such parameter"),
        ({"server": "Server"}, "must be a class with its module, such as mypackage.MyServer"),
    ],
)
def test_an_unusable_class_names_its_setting(flags: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        load_custom(settings_of(**flags))


class Followed(FakeStreams):
    """Streams that pass their models to the user's classes."""

    def __init__(
        self, settings: StreamSettings, on_fatal: Callable[[str, int], None], custom: UserCode | None = None
    ) -> None:
        super().__init__(settings, on_fatal)
        assert custom is not None
        custom.follow({tenant: catalog_of(sum_model()) for tenant in settings.tenants})


@pytest.mark.usefixtures("own")
async def test_a_worker_serves_the_routes_of_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    async def reach(_connection: KafkaConnection, _timeout_s: float) -> Any:
        return cluster.BrokerAnswer("127.0.0.1", 9092, {})

    monkeypatch.setattr(cluster, "reach", reach)
    monkeypatch.setattr(process, "settle_memory", lambda: None)
    signals, started, urls = StopSignals(lambda _code: None), asyncio.Event(), list[str]()
    parts = Parts(
        load_streams=lambda: Followed, on_listening=urls.append, on_started=lambda _url: started.set(),
        leave=lambda _code, _reason: None,
    )  # fmt: skip
    names = {"server": "own_classes.Server", "realtime_predictor": "own_classes.Realtime"}
    worker = asyncio.create_task(WorkerProcess(settings_of(**names), signals, parts).run())
    async with asyncio.timeout(DEADLINE_S), ClientSession() as session:
        await started.wait()
        async with session.get(f"{urls[0]}/own/sum:1") as answer:
            assert await answer.json() == {"tenant": "default", "prediction": ["default", 3.0]}
        async with session.get(f"{urls[0]}/own/nobody") as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (404, "model_not_found")
        async with session.get(f"{urls[0]}/livez") as answer:
            assert await answer.text() == "own"
        async with session.get(f"{urls[0]}/status") as answer:
            assert answer.status == 200
        signals.receive(15)
        assert await worker == 0
