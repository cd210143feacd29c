"""The grammar of steps and guards, and the codec of messages and statuses of rollouts."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from inferd.schemas.codecs import JSON, MSGPACK, Codec
from inferd.schemas.errors import InferenceError, InvalidIdError, InvalidValueError, MalformedError
from inferd.schemas.models import AliasTarget
from inferd.schemas.rollouts import (
    METRICS,
    AbortRollout,
    Answer,
    Guard,
    Move,
    PauseRollout,
    PromoteRollout,
    ResumeRollout,
    Rollout,
    RolloutMessage,
    RolloutStatus,
    StartRollout,
    Step,
    decode_rollout_message,
    decode_rollout_status,
    encode_rollout_message,
    encode_rollout_status,
    parse_guard,
    parse_guards,
    parse_rollout_key,
    parse_step,
    parse_steps,
)

ID = "0123456789abcdef0123456789abcdef"
RELATIVE = {"errors", "p50", "p95", "p99", "auc"}
STEPS = ["shadow:30m", "1%:30m", "10%:2h:1000", "100%"]


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("shadow:30m", Step(None, 1_800, None)),
        ("1%:90s", Step(1, 90, None)),
        ("0.5%:2h:1000", Step(0.5, 7_200, 1_000)),
        (" 10%:1d:0 ", Step(10, 86_400, 0)),
        ("100%", Step(100, 0, None)),
    ],
)
def test_a_step_is_a_share_a_time_and_a_number_of_requests(text: str, step: Step) -> None:
    assert parse_step(text) == step
    assert parse_step(str(step)) == step


@pytest.mark.parametrize("text", ["", "10", "%", "10%:5", "10%:5y", "0%:1h", "101%:1h", "10%:31d", "-1%:1h", "１%:1h"])
def test_what_is_no_step_says_what_is_expected(text: str) -> None:
    with pytest.raises(InvalidValueError, match=r"step .*: (expected shadow:TIME|the share must|at most 30d)"):
        parse_step(text)


@pytest.mark.parametrize(
    ("steps", "says"),
    [
        ("10%:1h", "the last one is '10%:1h'; it must be 100%, such as 10%:1h,100%"),
        ("10%:1h,5%:1h,100%", "each share is larger"),
        ("10%:1h,shadow:1h,100%", "a shadow comes first"),
        ("10%,100%", "say how long it lasts"),
        (",".join(["100%"] * 13), "13; expected 1 to 12"),
    ],
)
def test_steps_lead_to_all_requests(steps: str, says: str) -> None:
    with pytest.raises(InvalidValueError, match=says):
        parse_steps(steps)


def test_steps_are_separated_by_commas_or_listed() -> None:
    assert parse_steps(",".join(STEPS)) == parse_steps(STEPS) == [parse_step(text) for text in STEPS]


@pytest.mark.parametrize(
    ("text", "guard", "shown"),
    [
        ("errors < 0.5%", Guard("errors", "value", 0.005), "errors < 0.5%"),
        ("errors<2x", Guard("errors", "times", 2), "errors < 2x"),
        ("errors < champion + 0.5%", Guard("errors", "champion", 0.005), "errors < champion + 0.5%"),
        ("p99 < 1.5x", Guard("p99", "times", 1.5), "p99 < 1.5x"),
        ("p50 < 80ms", Guard("p50", "value", 80), "p50 < 80ms"),
        ("p95 < 1.2s", Guard("p95", "value", 1_200), "p95 < 1200ms"),
        ("disagreement < 10%", Guard("disagreement", "value", 0.1), "disagreement < 10%"),
        ("psi < 0.2", Guard("psi", "value", 0.2), "psi < 0.2"),
        ("auc > champion - 0.01", Guard("auc", "champion", -0.01), "auc > champion - 0.01"),
        ("auc > 0.8", Guard("auc", "value", 0.8), "auc > 0.8"),
    ],
)
def test_a_guard_limits_a_metric(text: str, guard: Guard, shown: str) -> None:
    assert parse_guard(text) == guard
    assert str(guard) == shown
    assert parse_guard(shown) == guard


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("errors", "expected METRIC < LIMIT, such as errors < 0.5%"),
        ("speed < 3", "one of errors, p50, p95, p99, disagreement, psi, auc"),
        ("errors > 1%", "for errors, write errors < 0.5%"),
        ("errors < 5ms", "for errors, write"),
        ("errors < 0.5", "for errors, write"),
        ("p99 < 10%", "for p99, write p99 < 80ms, p99 < 1.5x"),
        ("auc < 0.5", "for auc, write auc > 0.8"),
        ("auc > 2x", "for auc, write"),
        ("psi < 2x", "for psi, write psi < 0.2"),
        ("disagreement < champion + 1%", "for disagreement, write"),
        ("errors < nan%", "expected METRIC"),
        ("x" * 500, "expected METRIC"),
    ],
)
def test_what_is_no_guard_says_what_is_allowed(text: str, says: str) -> None:
    with pytest.raises(InvalidValueError, match=says):
        parse_guard(text)


def test_there_are_at_most_16_guards() -> None:
    with pytest.raises(InvalidValueError, match="17; at most 16"):
        parse_guards(["psi < 1"] * 17)


@given(st.sampled_from(METRICS), st.sampled_from(["value", "times", "champion"]), st.floats(0.001, 10_000))
def test_the_text_of_a_guard_is_the_guard(metric: str, relation: str, amount: float) -> None:
    guard = msgspec.convert({"metric": metric, "relation": relation, "amount": round(amount, 6)}, Guard)
    assume(relation == "value" or (metric in RELATIVE and (metric, relation) != ("auc", "times")))
    read = parse_guard(str(guard))
    assert (read.metric, read.relation) == (guard.metric, guard.relation)
    assert read.amount == pytest.approx(guard.amount, rel=1e-9, abs=1e-9)


def start(**fields: object) -> StartRollout:
    return msgspec.convert({"type": "start", "id": ID, "to": 4, "steps": STEPS, **fields}, StartRollout)


MESSAGES: list[RolloutMessage] = [
    start(),
    start(guards=["errors < 1%"], requests_min=0, guard_requests_min=20, revision=7, by="ana", alias="next"),
    PauseRollout(id=ID),
    ResumeRollout(id=ID, by="ana"),
    PromoteRollout(id=ID, rollout=ID),
    AbortRollout(id=ID),
]


@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=lambda codec: codec.name)
@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_is_read_as_it_was_written(message: RolloutMessage, codec: Codec) -> None:
    assert decode_rollout_message(encode_rollout_message(message, codec), codec) == message


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"type": "start", "id": ID, "to": 4}, MalformedError),
        ({"type": "stop", "id": ID}, MalformedError),
        ({"type": "pause"}, MalformedError),
        ({"type": "pause", "id": ID, "why": "x"}, MalformedError),
        ({"type": "pause", "id": "x"}, InvalidIdError),
        ({"type": "pause", "id": ID, "rollout": "x"}, InvalidIdError),
        ({"type": "pause", "id": ID, "by": "x" * 129}, InvalidValueError),
        ({"type": "start", "id": ID, "to": 0, "steps": STEPS}, InvalidValueError),
        ({"type": "start", "id": ID, "to": 4, "steps": []}, InvalidValueError),
        ({"type": "start", "id": ID, "to": 4, "steps": STEPS, "guards": ["x"]}, InvalidValueError),
        ({"type": "start", "id": ID, "to": 4, "steps": STEPS, "guard_requests_min": 0}, InvalidValueError),
        ({"type": "start", "id": ID, "to": 4, "steps": STEPS, "alias": "a/b"}, InvalidIdError),
    ],
)
def test_an_invalid_message_is_rejected(fields: dict[str, object], error: type[InferenceError]) -> None:
    for codec in (JSON, MSGPACK):
        with pytest.raises(error):
            decode_rollout_message(codec.encode(fields), codec)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_message_or_a_typed_error(data: bytes) -> None:
    for codec in (JSON, MSGPACK):
        for decode in (decode_rollout_message, decode_rollout_status):
            with contextlib.suppress(InferenceError):
                decode(data, codec)


@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=lambda codec: codec.name)
def test_a_status_is_read_as_it_was_written(codec: Codec) -> None:
    rollout = Rollout(
        id=ID, model_id="m", alias="champion", version=4, base=AliasTarget(version=3), base_revision=2, steps=STEPS,
        guards=[], requests_min=1, guard_requests_min=1, started_at=5, move=Move(3, AliasTarget(version=3)),
    )  # fmt: skip
    status = RolloutStatus(rollout=rollout, answers=[Answer(ID), Answer("x", "invalid_value", "why")], at=6)
    read = decode_rollout_status(encode_rollout_status(status, codec), codec)
    assert read == status
    assert (read.answer("x"), read.answer("y")) == (Answer("x", "invalid_value", "why"), None)


def test_the_key_is_the_model() -> None:
    assert parse_rollout_key(b"churn") == "churn"
    for key in (None, b"", b"a@b", b"\xff"):
        with pytest.raises(MalformedError, match="expected the name of a model"):
            parse_rollout_key(key)
