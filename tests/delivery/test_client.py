"""`inferd.Client` with a real Kafka, and a fake worker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing

import pandas as pd
import pytest

from inferd import (
    BrokerUnreachableError,
    Client,
    ResultTimeoutError,
    TopicNotFoundError,
)
from inferd.daemon.broker import EmbeddedKafka
from inferd.errors import ClientClosedError
from inferd.schemas.errors import (
    InvalidIdError,
    InvalidValueError,
    ModelNotFoundError,
    ModelNotReadyError,
    SchemaMismatchError,
    TooLargeError,
)
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.requests.request import PredictionRequest, default_id
from inferd.schemas.requests.result import Failure, Prediction, Result
from inferd.schemas.topics import TenantTopics
from tests.fixtures.stand_in_worker import (
    PARTITIONS,
    Seen,
    StandInWorker,
    create_topics,
    prediction,
    stand_in_worker,
    sums,
)


@pytest.fixture
async def topics(kafka: str, namespace: str) -> TenantTopics:
    topics = TenantTopics(namespace, "default")
    await create_topics(kafka, topics)
    return topics


@pytest.fixture
async def worker(kafka: str, topics: TenantTopics) -> AsyncIterator[StandInWorker]:
    async with stand_in_worker(kafka, topics) as running:
        yield running


@pytest.fixture
async def client(kafka: str, topics: TenantTopics) -> AsyncIterator[Client]:
    async with Client(kafka, namespace=topics.namespace) as connected:
        yield connected


# ---------------------------------------------------------------------------------------------------------- predict


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
async def test_rows_of_every_shape_are_answered(
    kafka: str, topics: TenantTopics, worker: StandInWorker, encoding: str
) -> None:
    async with Client(kafka, namespace=topics.namespace, encoding=encoding) as client:
        assert (await client.predict("m", [1.5, 2, None])).outputs == {"prediction": 3.5}
        assert (await client.predict("m", {"a": 1, "b": 2})).outputs == {"prediction": 3.0}
        assert (await client.predict("m", [[1, 2], [3, 4]])).outputs == {"prediction": [3.0, 7.0]}


async def test_a_data_frame_is_predicted_as_rows_in_one_request_or_in_many(
    client: Client, worker: StandInWorker
) -> None:
    frame = pd.DataFrame({"a": [1, 2, 3], "b": [0.5, None, 2.5]}, index=[7, 8, 9])
    assert (await client.predict("m", frame)).outputs == {"prediction": [1.5, 2.0, 5.5]}
    results = [result async for result in client.predict_many("m", frame)]
    assert [result.outputs for result in results if isinstance(result, Prediction)] == [
        {"prediction": 1.5}, {"prediction": 2.0}, {"prediction": 5.5},
    ]  # fmt: skip


async def test_a_request_has_the_requested_options(client: Client, worker: StandInWorker) -> None:
    await client.predict("m:3", [1], outputs=["raw"], key="customer-7", headers={"correlation-id": "abc"})
    (seen,) = worker.seen
    assert seen.key == b"customer-7"
    assert seen.headers == {"correlation-id": b"abc"}
    assert (str(seen.request.model), seen.request.outputs) == ("m:3", ("raw",))


async def test_concurrent_requests_each_get_their_own_result(client: Client, worker: StandInWorker) -> None:
    results = await asyncio.gather(*[client.predict("m", [n]) for n in range(200)])
    assert [result.outputs["prediction"] for result in results] == [float(n) for n in range(200)]


async def test_two_clients_do_not_take_each_others_results(
    kafka: str, topics: TenantTopics, worker: StandInWorker
) -> None:
    async with (
        Client(kafka, namespace=topics.namespace) as one,
        Client(kafka, namespace=topics.namespace) as other,
    ):
        for n in range(5):
            results = await asyncio.gather(one.predict("m", [n]), other.predict("m", [-n]))
            assert [result.outputs["prediction"] for result in results] == [n, -n]


async def test_a_failure_is_raised_as_its_typed_error(client: Client, worker: StandInWorker) -> None:
    worker.answer = lambda request, _: Failure(request.id or "", "m", "schema_mismatch", "2 features, not 3", False)
    with pytest.raises(SchemaMismatchError, match="2 features, not 3"):
        await client.predict("m", [1, 2, 3])


async def test_a_failure_is_matched_by_the_offset_of_its_request(client: Client, worker: StandInWorker) -> None:
    def refuse_unread(_: PredictionRequest, seen: Seen) -> Result:
        return Failure(default_id(seen.partition, seen.offset), None, "too_large", "over this worker's limit", False)

    worker.answer = refuse_unread
    for _ in range(10):
        with pytest.raises(TooLargeError, match="over this worker's limit"):
            await client.predict("m", [1])


async def test_repeated_results_are_harmless(client: Client, worker: StandInWorker) -> None:
    worker.answer = lambda request, seen: [sums(request, seen)] * 3
    values = [(await client.predict("m", [n])).outputs["prediction"] for n in range(20)]
    assert values == [float(n) for n in range(20)]


async def test_no_result_in_time_is_an_error_that_names_the_request(client: Client, worker: StandInWorker) -> None:
    worker.answer = lambda _request, _seen: []
    with pytest.raises(
        ResultTimeoutError, match=r"no result within 0\.5 s: .* is at \d-\d .*default\.requests"
    ) as late:
        await client.predict("m", [1], timeout_s=0.5)
    assert isinstance(late.value, TimeoutError)
    worker.answer = sums
    assert (await client.predict("m", [2])).outputs == {"prediction": 2.0}


async def test_a_client_ignores_results_from_before_its_start(
    kafka: str, topics: TenantTopics, worker: StandInWorker, client: Client
) -> None:
    await client.predict("m", [1])
    async with Client(kafka, namespace=topics.namespace) as later:
        assert (await later.predict("m", [5])).outputs == {"prediction": 5.0}


async def test_a_client_that_chooses_partitions_uses_no_others(
    kafka: str, topics: TenantTopics, worker: StandInWorker
) -> None:
    async with Client(kafka, namespace=topics.namespace, partitions=[1]) as client:
        for n in range(10):
            await client.predict("m", [n], key=f"key-{n}" if n % 2 else None)
    assert {seen.partition for seen in worker.seen} == {1}


async def test_an_unknown_partition_is_rejected(kafka: str, topics: TenantTopics) -> None:
    async with Client(kafka, namespace=topics.namespace, partitions=[0, PARTITIONS]) as client:
        with pytest.raises(InvalidValueError, match=rf"partitions \[{PARTITIONS}\]"):
            await client.predict("m", [1])


@pytest.mark.parametrize(
    ("model_id", "input_data", "error"),
    [
        ("no such name", [1], InvalidIdError),
        ("m", object(), InvalidValueError),
        ("m", [float(n) for n in range(DEFAULT_LIMITS.message_bytes_max // 8)], TooLargeError),
    ],
)
async def test_invalid_requests_are_rejected_before_they_are_sent(
    client: Client, worker: StandInWorker, model_id: str, input_data: object, error: type[Exception]
) -> None:
    with pytest.raises(error):
        await client.predict(model_id, input_data)
    assert worker.seen == []


# --------------------------------------------------------------------------------------------------- sending again


async def test_a_request_for_an_unready_model_is_retried(client: Client, worker: StandInWorker) -> None:
    def ready_later(request: PredictionRequest, seen: Seen) -> Result:
        if len(worker.seen) < 3:
            return Failure(request.id or "", "m", "model_not_ready", "loading", True)
        return sums(request, seen)

    worker.answer = ready_later
    assert (await client.predict("m", [4])).outputs == {"prediction": 4.0}
    assert len({seen.request.id for seen in worker.seen}) == 3


async def test_the_last_failure_is_raised_when_the_time_is_over(client: Client, worker: StandInWorker) -> None:
    worker.answer = lambda request, _: Failure(request.id or "", "m", "model_not_ready", "still loading", True)
    with pytest.raises(ModelNotReadyError, match="still loading"):
        await client.predict("m", [1], timeout_s=0.6)
    assert len(worker.seen) > 1


async def test_a_request_for_an_unknown_model_is_not_retried(client: Client, worker: StandInWorker) -> None:
    worker.answer = lambda request, _: Failure(request.id or "", "m", "model_not_found", "no model", False)
    with pytest.raises(ModelNotFoundError):
        await client.predict("m", [1])
    assert len(worker.seen) == 1


# ---------------------------------------------------------------------------------------------------- predict_many


async def collected(results: AsyncIterator[Result]) -> list[Result]:
    return [result async for result in results]


async def test_results_of_many_rows_are_in_order(client: Client, worker: StandInWorker) -> None:
    results = await collected(client.predict_many("m", ([n] for n in range(3_000))))
    assert [result.outputs["prediction"] for result in results if isinstance(result, Prediction)] == list(range(3_000))
    assert {seen.partition for seen in worker.seen} == set(range(PARTITIONS))


async def test_failures_are_yielded_among_the_results(client: Client, worker: StandInWorker) -> None:
    def refuse_odd(request: PredictionRequest, seen: Seen) -> Result:
        result = sums(request, seen)
        assert isinstance(result, Prediction)
        if result.outputs["prediction"] % 2:
            return Failure(result.id, "m", "invalid_value", "odd", False)
        return result

    worker.answer = refuse_odd
    results = await collected(client.predict_many("m", [[0], [1], [2], ["x", object()], [4]]))
    assert [r.code if isinstance(r, Failure) else r.outputs["prediction"] for r in results] == [
        0.0,
        "invalid_value",
        2.0,
        "invalid_value",
        4.0,
    ]


async def test_results_arrive_while_rows_are_still_sent(client: Client, worker: StandInWorker) -> None:
    answered: asyncio.Queue[Result] = asyncio.Queue()

    async def one_row_an_answer() -> AsyncIterator[list[int]]:
        for n in range(5):
            yield [n]
            await asyncio.wait_for(answered.get(), timeout=20)

    values = []
    async for result in client.predict_many("m", one_row_an_answer()):
        assert isinstance(result, Prediction)
        values.append(result.outputs["prediction"])
        answered.put_nowait(result)
    assert values == [0, 1, 2, 3, 4]


async def test_no_more_than_the_window_is_on_its_way(client: Client, worker: StandInWorker) -> None:
    taken = 0
    yielded = 0

    def rows() -> AsyncIterator[list[int]]:
        async def generate() -> AsyncIterator[list[int]]:
            nonlocal taken
            for n in range(100):
                taken += 1
                assert taken - yielded <= 8 + 2
                yield [n]

        return generate()

    async for _ in client.predict_many("m", rows(), window=8):
        yielded += 1
    assert yielded == 100


async def test_stopping_early_leaves_no_task_running(client: Client, worker: StandInWorker) -> None:
    async with aclosing(client.predict_many("m", ([n] for n in range(10_000)))) as results:
        first = await anext(results)
    assert isinstance(first, Prediction)
    assert (await client.predict("m", [7])).outputs == {"prediction": 7.0}
    assert len(worker.seen) < 10_000


async def test_requests_for_an_unready_model_are_retried_together(client: Client, worker: StandInWorker) -> None:
    ready_at = time.monotonic() + 0.5

    def ready_later(request: PredictionRequest, seen: Seen) -> Result:
        if time.monotonic() < ready_at:
            return Failure(request.id or "", "m", "model_not_ready", "loading", True)
        return sums(request, seen)

    worker.answer = ready_later
    started = time.monotonic()
    results = await collected(client.predict_many("m", ([n] for n in range(300))))
    assert all(isinstance(result, Prediction) for result in results)
    assert time.monotonic() - started < 10


async def test_an_error_of_the_input_is_raised_after_earlier_results(client: Client, worker: StandInWorker) -> None:
    def rows() -> AsyncIterator[list[int]]:
        async def generate() -> AsyncIterator[list[int]]:
            yield [1]
            raise RuntimeError("the file ends here")

        return generate()

    results = client.predict_many("m", rows())
    assert isinstance(await anext(results), Prediction)
    with pytest.raises(RuntimeError, match="the file ends here"):
        await anext(results)


# ------------------------------------------------------------------------------------------------------- the cluster


async def test_a_client_survives_a_broker_restart(spare_broker: EmbeddedKafka, namespace: str) -> None:
    address = spare_broker.bootstrap_servers
    topics = TenantTopics(namespace, "default")
    await create_topics(address, topics)
    async with Client(address, namespace=namespace) as client:
        async with stand_in_worker(address, topics):
            assert (await client.predict("m", [1])).outputs == {"prediction": 1.0}
        await asyncio.to_thread(spare_broker.kill)
        waiting = asyncio.create_task(client.predict("m", [2], timeout_s=60))
        await asyncio.to_thread(spare_broker.start)
        async with stand_in_worker(address, topics):
            assert (await waiting).outputs == {"prediction": 2.0}


async def test_an_unreachable_broker_is_reported_at_once() -> None:
    client = Client("127.0.0.1:1", connect_timeout_s=5)
    with pytest.raises(BrokerUnreachableError, match=r"127\.0\.0\.1:1") as unreachable:
        await client.start()
    assert isinstance(unreachable.value, ConnectionError)


async def test_missing_topics_are_named_and_not_created(kafka: str, namespace: str) -> None:
    async with Client(kafka, namespace=namespace, tenant="acme") as client:
        with pytest.raises(TopicNotFoundError, match=rf"{namespace}\.acme\.requests.*inferd topics create"):
            await client.predict("m", [1])
        with pytest.raises(TopicNotFoundError, match=rf"{namespace}\.acme\.models"):
            await client.list_models()


async def test_closing_ends_the_waiting(kafka: str, topics: TenantTopics) -> None:
    client = Client(kafka, namespace=topics.namespace)
    await client.start()
    waiting = asyncio.create_task(client.predict("m", [1]))
    async with stand_in_worker(kafka, topics, lambda _request, _seen: []) as worker:
        await asyncio.wait_for(worker.arrived.wait(), timeout=20)
        await client.stop()
    with pytest.raises(ClientClosedError):
        await waiting


async def test_an_unstarted_client_raises(kafka: str) -> None:
    with pytest.raises(ClientClosedError, match="async with"):
        await Client(kafka).predict("m", [1])


async def test_the_prediction_of_a_fake_worker_is_typed(client: Client, worker: StandInWorker) -> None:
    worker.answer = lambda request, _: prediction(request, [0.25, 0.75])
    result = await client.predict("m", [1])
    assert (result.version, result.digest, result.outputs) == (1, "0" * 64, {"prediction": [0.25, 0.75]})
