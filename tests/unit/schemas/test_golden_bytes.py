"""Golden bytes of the wire format in `tests/golden/wire`: they must be written and read unchanged forever."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from inferd.schemas.codec import (
    decode_alias,
    decode_manifest,
    decode_request,
    decode_result,
    encode_alias,
    encode_manifest,
    encode_request,
    encode_result,
)
from inferd.schemas.codecs import JSON, MSGPACK, Codec
from inferd.schemas.dead_letters import DeadLetter
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.models.model import Alias, AliasRevision, AliasTarget, Feature, Manifest, SplitShare
from inferd.schemas.monitoring import decode_baseline, decode_window, encode_baseline, encode_window
from inferd.schemas.requests.request import (
    InputData,
    ListRows,
    NamedRows,
    TensorRows,
)
from inferd.schemas.requests.result import Prediction
from inferd.schemas.rollouts import (
    AbortRollout,
    Answer,
    Breach,
    Measure,
    Move,
    PauseRollout,
    PromoteRollout,
    ResumeRollout,
    Rollout,
    RolloutEvent,
    RolloutMessage,
    RolloutStatus,
    StartRollout,
    decode_rollout_message,
    decode_rollout_status,
    encode_rollout_message,
    encode_rollout_status,
)
from inferd.schemas.routes import decode_route, encode_route
from tests.unit.schemas.sample_records import ALIAS, BASELINES, DEAD_LETTER, MANIFEST, RESULTS, ROUTES, SHA256, WINDOWS

GOLDEN = Path(__file__).parents[2] / "golden" / "wire"
CODECS: tuple[Codec, ...] = (MSGPACK, JSON)

INPUTS: dict[str, InputData] = {
    "row": ListRows([[1.5, 2, None, True, "JFK"]], single=True),
    "rows": ListRows([[1.5, -2], [None, 18_446_744_073_709_551_615]], single=False),
    "named_row": NamedRows([{"dep_delay": 1.5, "carrier": "UA", "é": None}], single=True),
    "named_rows": NamedRows([{"a": 1}, {"a": 2, "b": False}], single=False),
    "tensor": TensorRows("<f4", (2, 1), b"\x00\x00\x80?\x00\x00\x00\xc0"),
}
PREDICTIONS = {
    "every_output": Prediction(
        "0-1",
        "m",
        1,
        SHA256,
        {
            "prediction": [0, 1],
            "probabilities": [[0.75, 0.25], [0.5, 0.5]],
            "raw": [-1.0986122886681098, 0.0],
            "contributions": [[0.5, -1.5], [0.25, 0.0]],
            "leaves": [[3, 0], [1, 2]],
        },
    ),
    "own_outputs": Prediction("r-1", "m", 2, SHA256, {"prediction": 0.5, "label": "é", "dense:0": [[1.5, -2.0]]}),
    "top_k": Prediction("a:b", "m", 12, SHA256, {"prediction": [{"label": "é", "probability": 0.5}]}),
}
MANIFESTS = {
    "every_field": MANIFEST,
    "least": Manifest("m", 1, "lightgbm", SHA256, 10, [Feature("x")]),
}
BEFORE = AliasRevision(version=3, revision=6, changed_at="2026-11-30T08:00:00.000+00:00", changed_by="ana@host")
ALIASES = {
    "split": ALIAS,
    "version": Alias(version=3),
    "rolled_back": Alias(
        version=2,
        revision=7,
        changed_at="2026-11-30T09:00:00.000+00:00",
        changed_by="http",
        restores=5,
        history=[BEFORE, AliasRevision(version=2, revision=5)],
    ),
    "removed": Alias(revision=8, removed=True, history=[AliasRevision(split=[SplitShare(1, 9.0)], revision=7)]),
}

ID = "0123456789abcdef0123456789abcdef"
ROLLOUT_MESSAGES: dict[str, RolloutMessage] = {
    "start": StartRollout(
        id=ID, to=4, steps=["shadow:30m", "10%:2h:1000", "100%"], alias="next", guards=["errors < 0.5%", "p99 < 1.5x"],
        requests_min=50, guard_requests_min=20, revision=7, by="ana@host",
    ),
    "least": StartRollout(id=ID, to=4, steps=["100%"]),
    "pause": PauseRollout(id=ID, by="ana@host"),
    "resume": ResumeRollout(id=ID),
    "promote": PromoteRollout(id=ID, rollout=ID),
    "abort": AbortRollout(id=ID),
}  # fmt: skip
ROLLOUT_STATUSES = {
    "rolled_back": RolloutStatus(
        rollout=Rollout(
            id=ID, model_id="m", alias="champion", version=4, base=AliasTarget(version=3), base_revision=7,
            steps=["10%:2h", "100%"], guards=["errors < 0.5%"], requests_min=100, guard_requests_min=100,
            started_at=1_000, started_by="ana@host", phase="rolled_back", held_ms=2_000,
            move=Move(9, AliasTarget(version=3), True),
            breach=Breach("errors < 0.5%", 0.25, 0.005, 120, "10%:2h", 3_000), ended_at=3_000,
            events=[RolloutEvent(1_000, "started", by="ana@host"), RolloutEvent(3_000, "rolled back", 9)],
        ),
        answers=[Answer(ID), Answer("f" * 32, "rollout_conflict", "it is running")],
        requests=120, measures=[Measure("errors < 0.5%", 0.25, 0.005, 120)], at=4_000,
    ),
    "refused": RolloutStatus(answers=[Answer(ID, "rollout_not_found", "no")], at=1),
}  # fmt: skip


def golden(kind: str, name: str, codec: Codec) -> bytes:
    written = json.loads((GOLDEN / f"{kind}.json").read_text())[name][codec.name]
    return bytes.fromhex(written) if codec is MSGPACK else written.encode()


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("name", INPUTS)
def test_requests(name: str, codec: Codec) -> None:
    value = golden("requests", name, codec)
    assert encode_request(INPUTS[name], "flights:3", outputs=["raw"], id="r-1", codec=codec) == value
    request = decode_request(value, codec, DEFAULT_LIMITS)
    assert (request.input_data, str(request.model), request.outputs, request.id) == (
        INPUTS[name],
        "flights:3",
        ("raw",),
        "r-1",
    )


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("name", [*RESULTS, *PREDICTIONS])
def test_results(name: str, codec: Codec) -> None:
    result = {**RESULTS, **PREDICTIONS}[name]
    assert encode_result(result, codec) == golden("results", name, codec)
    assert decode_result(golden("results", name, codec), codec) == result


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("name", MANIFESTS)
def test_manifests(name: str, codec: Codec) -> None:
    assert encode_manifest(MANIFESTS[name], codec) == golden("manifests", name, codec)
    assert decode_manifest(golden("manifests", name, codec), codec=codec) == MANIFESTS[name]


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("name", ALIASES)
def test_aliases(name: str, codec: Codec) -> None:
    assert encode_alias(ALIASES[name], codec) == golden("aliases", name, codec)
    assert decode_alias(golden("aliases", name, codec), codec=codec) == ALIASES[name]


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("name", ROUTES)
def test_routes(name: str, codec: Codec) -> None:
    assert encode_route(ROUTES[name], codec) == golden("routes", name, codec)
    assert decode_route(golden("routes", name, codec), codec=codec) == ROUTES[name]


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("name", ROLLOUT_MESSAGES)
def test_rollout_messages(name: str, codec: Codec) -> None:
    assert encode_rollout_message(ROLLOUT_MESSAGES[name], codec) == golden("rollouts", name, codec)
    assert decode_rollout_message(golden("rollouts", name, codec), codec) == ROLLOUT_MESSAGES[name]


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("name", ROLLOUT_STATUSES)
def test_rollout_statuses(name: str, codec: Codec) -> None:
    assert encode_rollout_status(ROLLOUT_STATUSES[name], codec) == golden("rollouts", name, codec)
    assert decode_rollout_status(golden("rollouts", name, codec), codec) == ROLLOUT_STATUSES[name]


@pytest.mark.parametrize("name", WINDOWS)
def test_windows(name: str) -> None:
    assert encode_window(WINDOWS[name]) == golden("windows", name, MSGPACK)
    assert decode_window(golden("windows", name, MSGPACK)) == WINDOWS[name]


@pytest.mark.parametrize("codec", CODECS, ids=str)
@pytest.mark.parametrize("name", BASELINES)
def test_baselines(name: str, codec: Codec) -> None:
    assert encode_baseline(BASELINES[name], codec) == golden("baselines", name, codec)
    assert decode_baseline(golden("baselines", name, codec), codec) == BASELINES[name]


def test_dead_letters() -> None:
    written: dict[str, Any] = json.loads((GOLDEN / "dead_letters.json").read_text())["redriven"]
    headers = [(name, None if value is None else bytes.fromhex(value)) for name, value in written["headers"]]
    assert list(DEAD_LETTER.headers()) == headers
    assert DeadLetter.parse(bytes.fromhex(written["key"]), bytes.fromhex(written["value"]), headers) == DEAD_LETTER
