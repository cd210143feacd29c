"""`inferd.SyncClient` with a real Kafka, and a fake worker in another thread."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from inferd import BrokerUnreachableError, ResultTimeoutError, SyncClient
from inferd.errors import ClientClosedError
from inferd.schemas.errors import ModelNotFoundError
from inferd.schemas.requests.request import PredictionRequest
from inferd.schemas.requests.result import Failure, Prediction, Result
from inferd.schemas.topics import TenantTopics
from tests.fixtures.stand_in_worker import Answer, Seen, create_topics, stand_in_worker, sums


class Workplace:
    """A fake worker in a thread; `answer` may be replaced."""

    def __init__(self, kafka: str, topics: TenantTopics) -> None:
        self.answer: Answer = sums
        self._kafka, self._topics = kafka, topics
        self._ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._done = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))

    def __enter__(self) -> Workplace:
        self._thread.start()
        assert self._ready.wait(20)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._done.set)
        self._thread.join()
        self._loop.close()

    def _answer(self, request: PredictionRequest, seen: Seen) -> Result | Iterable[Result]:
        return self.answer(request, seen)

    async def _serve(self) -> None:
        await create_topics(self._kafka, self._topics)
        async with stand_in_worker(self._kafka, self._topics, self._answer):
            self._ready.set()
            await self._done.wait()


@pytest.fixture
def workplace(kafka: str, namespace: str) -> Iterator[Workplace]:
    with Workplace(kafka, TenantTopics(namespace, "default")) as running:
        yield running


@pytest.fixture
def client(kafka: str, namespace: str, workplace: Workplace) -> Iterator[SyncClient]:
    with SyncClient(kafka, namespace=namespace) as connected:
        yield connected


def test_one_prediction(client: SyncClient) -> None:
    assert client.predict("m", {"a": 1, "b": 2.5}).outputs == {"prediction": 3.5}


def test_many_predictions_in_order(client: SyncClient) -> None:
    results = client.predict_many("m", ([n] for n in range(2_000)))
    assert [r.outputs["prediction"] for r in results if isinstance(r, Prediction)] == list(range(2_000))


def test_results_may_be_abandoned(client: SyncClient) -> None:
    for result in client.predict_many("m", ([n] for n in range(100_000))):
        assert isinstance(result, Prediction)
        break
    assert client.predict("m", [1]).outputs == {"prediction": 1.0}


def test_errors_are_typed(client: SyncClient, workplace: Workplace) -> None:
    workplace.answer = lambda request, _: Failure(request.id or "", "m", "model_not_found", "none", False)
    with pytest.raises(ModelNotFoundError):
        client.predict("m", [1])
    workplace.answer = lambda _request, _seen: []
    with pytest.raises(ResultTimeoutError):
        client.predict("m", [1], timeout_s=0.3)
    with pytest.raises(ResultTimeoutError):
        list(client.predict_many("m", [[1], [2]], timeout_s=0.3))


def test_any_thread_may_call(client: SyncClient) -> None:
    with ThreadPoolExecutor(8) as threads:
        values = list(threads.map(lambda n: client.predict("m", [n]).outputs["prediction"], range(100)))
    assert values == list(range(100))


def test_models_are_listed(client: SyncClient) -> None:
    assert client.list_models() == []
    assert client.models().versions == {}


def test_a_closed_client_raises(kafka: str, client: SyncClient) -> None:
    client.stop()
    client.stop()
    with pytest.raises(ClientClosedError):
        client.predict("m", [1])


def test_no_broker() -> None:
    before = threading.active_count()
    with pytest.raises(BrokerUnreachableError):
        SyncClient("127.0.0.1:1", connect_timeout_s=5).start()
    assert threading.active_count() == before
