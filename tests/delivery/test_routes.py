"""Routes on a real broker: existing topics are scored in their own format, under both guarantees."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiokafka.partitioner import murmur2 as signed_murmur2
from confluent_kafka.admin import NewPartitions  # type: ignore[attr-defined]

from tests.fixtures.groups import forgotten
from tests.fixtures.routes import ForeignTopics, doctor, feature_options, order, routes_command, row, status
from tests.fixtures.workers import Cluster, StartWorker, TrainedModel, Worker, until, wait_for_partitions


def murmur2(key: bytes) -> int:
    return int(signed_murmur2(key)) & 0x7FFFFFFF


both_guarantees = pytest.mark.parametrize("guarantee", ["at_least_once", "exactly_once"])


@both_guarantees
def test_a_running_worker_adopts_a_route_and_enriches_its_records(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker, guarantee: str
) -> None:
    others = ForeignTopics(cluster)
    source, sink = others.create("orders.v1"), others.create("orders.scored")
    cluster.deploy(model)
    worker = start_worker(
        cluster, processing_guarantee=guarantee, routes_sources=f"{others.prefix}.*", routes_sinks=sink
    )
    worker.wait_ready()
    rebalances = status(worker)["rebalances"]
    producer = others.producer()
    producer.produce(source, order(-1), b"before")
    assert producer.flush(30) == 0
    routes_command(
        cluster, "create", "orders", "--from", source, "--to", sink, "--format", "json", "--model", "demo",
        *feature_options(), "--field", "fraud",
    )  # fmt: skip
    for number in range(1_000):
        producer.produce(source, order(number), b"k%d" % number, headers=[("trace", b"t"), ("none", None)])
    assert producer.flush(30) == 0
    records = others.read(sink, 1_000)
    assert len(records) == 1_000
    expected = model.booster.predict([row(number) for number in range(1_000)])
    for record in records:
        value = json.loads(record.value())
        number = value["id"]
        assert record.value().startswith(order(number)[:-1]), "the original survives byte for byte"
        assert value["fraud"] == {"prediction": expected[number], "model_id": "demo", "version": 1}
        assert record.key() == b"k%d" % number
        assert record.headers() == [("trace", b"t"), ("none", None)]
    assert {json.loads(record.value())["id"] for record in records} == set(range(1_000))
    assert status(worker)["rebalances"] == rebalances + 1
    until(lambda: not any(part["lag"] for part in status(worker)["partitions"]), 20, "no lag")
    assert worker.stop() == 0


def start_route_worker(
    start_worker: StartWorker, cluster: Cluster, others: ForeignTopics, **settings: object
) -> Worker:
    pattern = f"{others.prefix}.*"
    return start_worker(cluster, routes_sources=pattern, routes_sinks=pattern, **settings)


def create(cluster: Cluster, name: str, source: str, sink: str, *more: str) -> None:
    routes_command(
        cluster, "create", name, "--from", source, "--to", sink, "--format", "json", "--model", "demo",
        *feature_options(), *more,
    )  # fmt: skip


def test_what_comes_to_a_route_beside_usual_records(  # noqa: PLR0915  (one route sees it all)
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker
) -> None:
    """Tombstones, poison, null keys, no time stamp, compressed and transactional batches, 4 MB, other partitions."""
    others = ForeignTopics(cluster)
    source = others.create("orders", 3, max_message_bytes="9000000")
    sink = others.create("scored", 5, max_message_bytes="9000000")
    cluster.deploy(model)
    create(cluster, "orders", source, sink, "--tombstones", "forward", "--start", "earliest", "--field", "fraud")
    worker = start_route_worker(start_worker, cluster, others)
    worker.wait_ready()
    plain = others.producer(**{"compression.type": "zstd"})
    plain.produce(source, order(0), b"a", partition=0)
    plain.produce(source, b"not JSON", b"b", partition=0)
    plain.produce(source, None, b"c", partition=0)
    plain.produce(source, order(1, order={"a": "text"}), b"d", partition=0)
    plain.produce(source, order(2, fraud=1), b"e", partition=0)
    plain.produce(source, order(3, more="x" * 4_000_000), b"f", partition=0)
    plain.produce(source, order(4), None, partition=0)
    plain.produce(source, order(5), b"g", partition=0, timestamp=1)
    assert plain.flush(30) == 0
    transactional = others.producer(**{"transactional.id": f"{others.prefix}-t"})
    transactional.init_transactions(30)
    for number, commits in ((6, True), (7, False), (8, True)):
        transactional.begin_transaction()
        transactional.produce(source, order(number), b"t%d" % number, partition=0)
        transactional.flush(30)
        (transactional.commit_transaction if commits else transactional.abort_transaction)(30)
    records = others.read(sink, 7)
    scored = {json.loads(r.value())["id"]: r for r in records if r.value() is not None}
    assert set(scored) == {0, 3, 4, 5, 6, 8}
    assert [r.key() for r in records if r.value() is None] == [b"c"]
    expected = model.booster.predict([row(number) for number in range(9)])
    for number, record in scored.items():
        assert json.loads(record.value())["fraud"]["prediction"] == expected[number]
        if record.key() is not None:
            assert record.partition() == murmur2(record.key()) % 5
    letters = cluster.read("dead-letters", lambda found: len(found) >= 3, 20)
    assert {(r.key(), dict(r.headers())["inferd-error-code"]) for r in letters} == {
        (b"b", b"malformed"), (b"d", b"invalid_value"), (b"e", b"schema_mismatch"),
    }  # fmt: skip
    assert all(dict(r.headers())["inferd-error-topic"] == source.encode() for r in letters)
    (route,) = status(worker)["routes"]
    assert (route["state"], route["results"], route["tombstones"], route["dead_letters"]) == ("running", 6, 1, 3)
    assert route["errors"] == {"malformed": 1, "invalid_value": 1, "schema_mismatch": 1}
    code, shown = worker.get("/routes/orders")
    assert (code, shown["state"], shown["route"]["name"]) == (200, "running", "orders")
    tried = json.loads(routes_command(cluster, "try", "orders", "--limit", "3", "--output", "json").stdout)
    assert [each["value"]["id"] for each in tried] == [4, 6, 8]
    assert worker.stop() == 0


def test_errors_in_the_sink_and_results_alone_with_everything_that_is_beside_the_value(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker
) -> None:
    others = ForeignTopics(cluster)
    source, second, sink = others.create("orders", 2), others.create("more", 3), others.create("scored", 1)
    cluster.deploy(model)
    routes_command(
        cluster, "create", "orders", "--from", f"{source},{second}", "--to", sink, "--format", "json",
        "--model", "demo", "--feature", "Column_0=$headers.first", "--feature", "Column_1=$key",
        "--constant", "Column_2=0.5", "--mode", "result", "--carry", "id", "--carry", "when=$timestamp",
        "--on-error", "sink", "--outputs", "prediction,raw",
    )  # fmt: skip
    worker = start_route_worker(start_worker, cluster, others)
    worker.wait_ready()
    producer = others.producer()
    rows = []
    for number in range(20):
        headers: Any = [("first", b"%d" % number)] if number else [("first", b"word")]
        producer.produce(
            (source, second)[number % 2], order(number), b"%d.5" % number, headers=headers, timestamp=9_000
        )
        rows.append([float(number), number + 0.5, 0.5, *row(number)[3:]])
    assert producer.flush(30) == 0
    records = others.read(sink, 20)
    found = {json.loads(record.value())["id"]: json.loads(record.value()) for record in records}
    expected, raw = model.booster.predict(rows), model.booster.predict(rows, raw_score=True)
    assert found[0]["error"]["code"] == "invalid_value"
    assert "Column_0" in found[0]["error"]["message"]
    for number in range(1, 20):
        assert found[number] == {
            "id": number, "when": 9_000, "prediction": expected[number], "raw": raw[number], "model_id": "demo",
            "version": 1,
        }  # fmt: skip
    assert worker.stop() == 0


@both_guarantees
def test_two_workers_share_a_route_and_one_is_killed_under_load(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker, guarantee: str
) -> None:
    others = ForeignTopics(cluster)
    source, sink = others.create("orders", 6), others.create("scored", 6)
    cluster.deploy(model)
    workers = [
        start_route_worker(start_worker, cluster, others, processing_guarantee=guarantee) for _ in range(2)
    ]  # fmt: skip
    for worker in workers:
        worker.wait_ready()
    create(cluster, "orders", source, sink)
    until(lambda: all(owned(worker) == 3 for worker in workers), 30, "each worker owns half of the partitions")
    producer, sent = others.producer(), 0
    for number in range(20_000):
        producer.produce(source, order(number), b"%d" % number, partition=number % 6)
        producer.poll(0)
        sent += 1
        if number == 10_000:
            producer.flush(30)
            workers[0].kill()
    assert producer.flush(60) == 0
    until(lambda: owned(workers[1]) == 6, 60, "the other worker owns all")
    until(lambda: route_of(workers[1])["lag"] == 0, 60, "no lag")
    records = others.read(sink, sent)
    check_ledger(records, sent, exactly_once=guarantee == "exactly_once")
    assert workers[1].stop() == 0


def test_a_route_is_removed_under_load_and_continues_when_it_is_created_again(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker
) -> None:
    others = ForeignTopics(cluster)
    source, sink = others.create("orders"), others.create("scored")
    cluster.deploy(model)
    create(cluster, "orders", source, sink)
    worker = start_route_worker(start_worker, cluster, others)
    worker.wait_ready()
    producer = others.producer()

    def send(numbers: range) -> None:
        for number in numbers:
            producer.produce(source, order(number), b"%d" % number, partition=number % 4)
            producer.poll(0)
        assert producer.flush(60) == 0

    send(range(5_000))
    routes_command(cluster, "remove", "orders")
    send(range(5_000, 10_000))
    until(lambda: status(worker)["routes"] == [], 30, "the route is gone")
    until(lambda: owned(worker, source) == 0, 30, "its partitions are not owned")
    requests = cluster.producer()
    requests.produce(cluster.topics.name("requests"), json.dumps({"model_id": "demo", "input_data": row(1)}).encode(),
                     headers=[("content-type", b"application/json")])  # fmt: skip
    assert requests.flush(30) == 0
    assert len(cluster.read("results", lambda found: len(found) >= 1, 20)) == 1, "requests are served all the while"
    create(cluster, "orders", source, sink)
    records = others.read(sink, 10_000)
    check_ledger(records, 10_000, exactly_once=False)
    assert worker.stop() == 0


def test_topics_of_a_route_grow_and_are_created_again_while_it_runs(  # noqa: PLR0915  (one route sees it all)
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker
) -> None:
    """The source gets partitions, and is recreated; the sink is recreated, and the route is replaced meanwhile. Every
    record of what exists comes once, without a restart."""
    others = ForeignTopics(cluster)
    source, sink = others.create("orders", 3), others.create("scored", 3)
    cluster.deploy(model)
    worker = start_route_worker(start_worker, cluster, others, processing_guarantee="exactly_once")
    worker.wait_ready()
    create(cluster, "orders", source, sink)
    sent = 0

    def send(count: int, partitions: int) -> None:
        nonlocal sent
        producer = others.producer()
        wait_for_partitions(producer, source, partitions)
        for number in range(sent, sent + count):
            producer.produce(source, order(number), b"%d" % number, partition=number % partitions)
        assert producer.flush(30) == 0
        sent += count

    def delete(topic: str, name: str) -> None:
        others.admin.delete_topics([topic])[topic].result(30)
        until(lambda: route_of(worker)["state"] == "waiting", 30, f"{name} is gone")
        assert f"{name} does not exist" in route_of(worker)["reason"]

    def numbers(count: int) -> list[int]:
        return sorted(json.loads(record.value())["id"] for record in others.read(sink, count))

    send(200, 3)
    until(lambda: owned(worker, source) == 3, 30, "the source is read")
    others.admin.create_partitions([NewPartitions(source, 5)])[source].result(30)
    send(300, 5)
    assert numbers(500) == list(range(500))
    assert owned(worker, source) == 5

    delete(source, "orders")
    others.create("orders", 2)
    send(200, 2)
    assert numbers(700) == list(range(700))

    delete(sink, "scored")
    send(100, 2)
    create(cluster, "orders", source, others.create("fallback"), "--field", "fraud", "--replace")
    waited = others.read(others.name("fallback"), 100)
    assert sorted(json.loads(record.value())["id"] for record in waited) == list(range(700, 800))
    assert all("fraud" in json.loads(record.value()) for record in waited), "what waited follows the route as it is now"
    others.create("scored", 4)
    create(cluster, "orders", source, sink, "--replace")
    until(lambda: route_of(worker)["sink"] == sink, 20, "the worker knows of the change")
    send(100, 2)
    records = others.read(sink, 100)
    assert sorted(json.loads(record.value())["id"] for record in records) == list(range(800, 900))
    assert all(record.partition() == murmur2(record.key()) % 4 for record in records)
    assert worker.stop() == 0


def test_routes_that_may_not_run_are_refused_by_name_and_others_wait_for_their_sink(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker
) -> None:
    others = ForeignTopics(cluster)
    source, sink = others.create("orders"), others.create("scored")
    cluster.deploy(model)
    worker = start_worker(cluster, routes_sources=source, routes_sinks=sink)
    worker.wait_ready()
    base = ["--format", "json", "--model", "demo"]
    for arguments, message in (
        (["--from", source, "--to", others.name("none"), *base], "none does not exist: create it"),
        (["--from", source, "--to", source, *base], "read its own output"),
        (["--from", cluster.topics.name("requests"), "--to", sink, *base], "own"),
        (["--from", source, "--to", sink, "--format", "json", "--model", "other"], "no model 'other'"),
        (["--from", source, "--to", sink, *base, "--feature", "colour=a"], "colour"),
        (["--from", source, "--to", sink, *base, "--outputs", "sky"], "sky"),
        (["--from", source, "--to", sink, "--format", "yaml", "--model", "demo"], "yaml"),
    ):
        done = routes_command(cluster, "create", "x", *arguments, check=False)
        assert done.returncode != 0
        assert message in done.stderr
    elsewhere = others.create("elsewhere")
    create(cluster, "a", elsewhere, sink)
    until(lambda: route_of(worker, "a")["state"] == "refused", 20, "the setting refuses it")
    assert "INFERD_ROUTES_SOURCES" in route_of(worker, "a")["reason"]
    circle = routes_command(
        cluster, "create", "b", "--from", sink, "--to", elsewhere, *base, check=False
    )  # fmt: skip
    assert "circle" in circle.stderr
    assert "elsewhere is read by the route a" in routes_command(
        cluster, "create", "c", "--from", elsewhere, "--to", others.create("third"), *base, check=False
    ).stderr  # fmt: skip
    listed = json.loads(routes_command(cluster, "list", "--output", "json").stdout)
    assert [each["name"] for each in listed] == ["a"]
    create(cluster, "d", source, sink)
    others.admin.delete_topics([sink])[sink].result(30)
    until(lambda: route_of(worker, "d")["state"] == "waiting", 30, "the sink is gone")
    assert "scored does not exist" in route_of(worker, "d")["reason"]
    found = doctor(cluster, routes_sources=source, routes_sinks=sink)
    assert [each["detail"].partition(" of tenant")[0] for each in found] == ["route a", "route d"]
    assert "INFERD_ROUTES_SOURCES" in found[0]["detail"]
    assert f"its sink {sink} does not exist" in found[1]["detail"]
    until(lambda: worker.get("/readyz")[0] == 200, 30, "the worker is ready after the rebalance")
    producer = others.producer()
    producer.produce(source, order(1), b"k")
    assert producer.flush(30) == 0
    others.create("scored")
    assert len(others.read(sink, 1)) == 1
    assert worker.stop() == 0


def route_of(worker: Worker, name: str = "orders") -> dict[str, Any]:
    """The route in the status of a worker."""
    found = [each for each in status(worker)["routes"] if each["route"] == name]
    return found[0] if found else {"state": None, "lag": None}


def owned(worker: Worker, topic: str = "") -> int:
    """The partitions of routes, or of a topic, that a worker owns."""
    topics = [topic] if topic else [source for each in status(worker)["routes"] for source in each["sources"]]
    return sum(part["topic"] in topics for part in status(worker)["partitions"])


def check_ledger(records: list[Any], sent: int, *, exactly_once: bool) -> None:
    """Every record has a result; repeats have the same bytes, and with exactly-once there are none; the first results
    of a partition are in order."""
    values: dict[int, bytes] = {}
    repeated = 0
    last = dict[int, int]()
    for record in records:
        number = json.loads(record.value())["id"]
        if number in values:
            repeated += 1
            assert values[number] == record.value()
            continue
        values[number] = record.value()
        assert number > last.get(record.partition(), -1)
        last[record.partition()] = number
    assert set(values) == set(range(sent))
    assert not (exactly_once and repeated)


@both_guarantees
def test_requests_of_the_open_inference_protocol(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker, guarantee: str
) -> None:
    others = ForeignTopics(cluster)
    source, sink = others.create("asked"), others.create("answered", 2)
    cluster.deploy(model)
    command = ("create", "oip", "--from", source, "--to", sink, "--format", "oip", "--model", "demo")
    refused = routes_command(cluster, *command, check=False)
    assert refused.returncode != 0
    assert "no mode 'enrich'" in refused.stderr
    routes_command(cluster, *command, "--mode", "result", "--on-error", "sink", "--start", "earliest")
    worker = start_route_worker(start_worker, cluster, others, processing_guarantee=guarantee)
    worker.wait_ready()
    producer = others.producer()
    for number in range(300):
        rows = [row(number + place) for place in range(number % 4)]
        if number % 2:
            shape, values = [len(rows), 10], [value for each in rows for value in each]
            inputs = [{"name": "rows", "shape": shape, "datatype": "FP64", "data": values}]
        else:
            inputs = [
                {"name": f"Column_{at}", "shape": [len(rows)], "datatype": "FP64", "data": [each[at] for each in rows]}
                for at in range(10)
            ]
        value = json.dumps({"id": str(number), "inputs": inputs}).encode()
        producer.produce(source, value, b"k%d" % number, headers=[("trace", b"t")])
    producer.produce(source, b'{"id": "bad", "inputs": []}', b"bad")
    producer.produce(source, b"{", b"broken")
    assert producer.flush(30) == 0
    records = {record.key(): record for record in others.read(sink, 300)}
    assert len(records) == 300
    for number in range(300):
        record = records[b"k%d" % number]
        said = json.loads(record.value())
        expected = [model.booster.predict([row(number + place)])[0] for place in range(number % 4)]
        assert (said["id"], said["outputs"][0]["data"]) == (str(number), expected)
        assert record.headers() == [("content-type", b"application/vnd.oip.v2+json"), ("trace", b"t")]
    letters = others.read(f"{cluster.namespace}.default.dead-letters", 2)
    codes = {letter.key(): dict(letter.headers())["inferd-error-code"] for letter in letters}
    assert codes == {b"bad": b"schema_mismatch", b"broken": b"malformed"}
    tried = json.loads(routes_command(cluster, "try", "oip", "--limit", "400", "--output", "json").stdout)
    shown = {each["key"]: each for each in tried}["k299"]
    assert shown["headers"] == {"content-type": "application/vnd.oip.v2+json", "trace": "t"}
    assert shown["value"] == json.loads(records[b"k299"].value())
    assert worker.stop() == 0


@pytest.mark.parametrize("mode", ["enrich", "result"])
def test_events_have_the_same_bytes_again_after_a_crash(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker, mode: str
) -> None:
    """A worker that finds no committed offsets repeats what it wrote: events have the same id and time."""
    others = ForeignTopics(cluster)
    source, sink = others.create("events"), others.create("scored")
    cluster.deploy(model)
    routes_command(
        cluster, "create", "events", "--from", source, "--to", sink, "--format", "cloudevents", "--model", "demo",
        *feature_options(), "--mode", mode, "--on-error", "sink", "--start", "earliest",
    )  # fmt: skip
    worker = start_route_worker(start_worker, cluster, others)
    worker.wait_ready()
    producer = others.producer()
    attributes = {"specversion": "1.0", "source": "/shop", "type": "order"}
    for number in range(40):
        data = order(number, **({"order": {"a": "text"}} if number % 5 == 0 else {}))
        event = {**attributes, "id": f"e-{number}"}
        value = data
        headers: list[tuple[str, str | bytes | None]] = [("content-type", b"application/json")]
        if number % 2:
            value = json.dumps({**event, "data": json.loads(data)}).encode()
            headers = [("content-type", b"application/cloudevents+json")]
        else:
            headers += [(f"ce_{name}", text.encode()) for name, text in event.items()]
        producer.produce(source, value, b"k%d" % number, headers=headers)
    assert producer.flush(30) == 0
    first = others.read(sink, 40)
    worker.kill()
    until(lambda: forgotten(cluster), 60, "the group has no offsets")
    start_route_worker(start_worker, cluster, others).wait_ready()
    both = others.read(sink, 80)
    assert len(first) == 40
    assert len(both) == 80
    found = sorted((record.key(), record.value(), record.headers()) for record in both)
    assert found[::2] == found[1::2] == sorted((record.key(), record.value(), record.headers()) for record in first)
