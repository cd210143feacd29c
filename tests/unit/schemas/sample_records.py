"""Records that use every field."""

from __future__ import annotations

from inferd.schemas.dead_letters import DeadLetter
from inferd.schemas.models.model import (
    Alias,
    CacheSpec,
    Feature,
    Manifest,
    Postprocess,
    Preprocess,
    SplitShare,
)
from inferd.schemas.monitoring import (
    Baseline,
    CategoryBaseline,
    Features,
    FeatureStats,
    NumberBaseline,
    Predictions,
    WindowStats,
)
from inferd.schemas.requests.result import Failure, Prediction, Result
from inferd.schemas.routes import Format, Route, Sink, Source

SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

MANIFEST = Manifest(
    model_id="flights",
    version=3,
    runtime="lightgbm",
    sha256=SHA256,
    size=123_456,
    features=[
        Feature("dep_delay", "float64", min=-60.0, max=1_500.0),
        Feature("carrier", "category", categories=["AA", "UA", 7, 2.5, False], required=True),
        Feature("hour", "int64", required=False),
    ],
    objective="binary",
    outputs=1,
    preprocess=Preprocess(
        order=["hour", "carrier", "dep_delay"],
        defaults={"hour": 12, "carrier": "AA"},
        unknown_category="missing",
        out_of_range="clip",
    ),
    postprocess=Postprocess(labels=["on time", "late"], threshold=0.4),
    cache=CacheSpec(ttl_s=60.0, max_entries=1_000),
    warmup=[[12, "AA", 3.5]],
    labels={"team": "ops", "env": "prod"},
    created_at="2026-01-02T03:04:05Z",
)
ALIAS = Alias(split=[SplitShare(3, 0.9), SplitShare(4, 0.1)], shadow=[5])
PREDICTION = Prediction("2-17", "flights", 3, SHA256, {"prediction": "late", "probabilities": [0.25, 0.75]})
FAILURE = Failure("2-18", "flights", "schema_mismatch", "row 0 has 9 features, and the model takes 10", False)
UNREADABLE = Failure("2-19", None, "malformed", "request: the record has no value", False)
RESULTS: dict[str, Result] = {"prediction": PREDICTION, "failure": FAILURE, "unreadable": UNREADABLE}
DEAD_LETTER = DeadLetter(
    code="malformed",
    message="request: trailing bytes – at byte 3",
    topic="inferd.default.requests",
    partition=2,
    offset=19,
    timestamp=1_767_322_800_123,
    worker="worker-1",
    key=b"k\x00",
    value=b"\xc1",
    original_headers=(
        ("content-type", b"application/msgpack"),
        ("x", b"\xff\x00"),
        ("x", None),
        ("inferd-error-code", b"too_deep"),
    ),
)
ROUTES = {
    "every_field": Route(
        name="orders",
        source=Source(
            ["orders.v1", "orders.v2"],
            Format("protobuf", schema='syntax = "proto3"; message Order { double amount = 1; }', registry=True,
                   message="Order"),
            start={"orders.v1": [0, 2**40], "orders.v2": [7]},
            tombstones="forward",
        ),
        model="fraud@champion",
        sink=Sink(
            "orders.scored", "result", carry={"id": "order.id", "when": "$timestamp"}, subjects="topic-record"
        ),
        features={"amount": "order.amount", "é": 'order.items[0]["unit.price"]', "source": "$headers.source"},
        constants={"country": "CH", "rate": 0.1, "count": 3, "new": True, "none": None},
        outputs=["prediction", "raw"],
        on_error="sink",
        created_at="2026-01-02T03:04:05.678+00:00",
    ),
    "events": Route("r", Source(["in"], Format("cloudevents", data="avro")), "m", Sink("out")),
    "added_field": Route("r", Source(["in"], Format("json")), "m", Sink("out", field="fraud")),
    "least": Route("r", Source(["in"], Format("json")), "m", Sink("out")),
}  # fmt: skip

WINDOWS = {
    "counts": WindowStats(model_id="m", version=1, minute=29_934_000, requests=3, rows=2, errors={"internal": 1}),
    "everything": WindowStats(
        model_id="m", version=2, minute=29_934_001, variant="canary", alias_revision=7, requests=5, rows=4,
        errors={"malformed": 1}, latency={0: 2, 12: 3}, predictions=Predictions("log", {-3: 1, 0: 1, 700: 2}),
        features=Features(
            1_796_041_129_748, 4, {"age": FeatureStats([1, 2], 1, 1), "plan": FeatureStats([3], 0, 0, 1)}
        ),
        compared=4, differing=1,
    ),
    "of_an_alias": WindowStats(
        model_id="m", version=2, minute=29_934_001, alias="eu", variant="champion", alias_revision=7, requests=1
    ),
}  # fmt: skip
BASELINES = {
    "given": Baseline(
        1_796_041_129_748, "given", 10,
        {"age": NumberBaseline([30.5], 18.0, 90.0, [4, 5], 1), "plan": CategoryBaseline(["a", True], [6, 2], 1, 1)},
        Predictions("unit", {12: 9, 99: 1}),
    ),
    "learned": Baseline(1, "learned", 0, {}),
}  # fmt: skip
