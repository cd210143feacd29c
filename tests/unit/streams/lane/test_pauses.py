"""Requests to a paused model stay in their partition, with all behind them, until it is resumed."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.schemas.errors import MalformedError, ModelNotReadyError
from inferd.schemas.models import Pause, PauseKey, decode_pause, encode_pause, parse_model_key
from inferd.streams.models.pauses import Pauses
from tests.fixtures.lane import Bench, request, tp

PAUSE = Pause(at=1, by="ana", reason="wrong features")
OF_SUM, OF_SLOW = PauseKey("model", "sum"), PauseKey("model", "other")


def pause(bench: Bench, key: PauseKey = OF_SUM) -> None:
    bench.tenant.pauses.apply(key, PAUSE, 5)


def resume(bench: Bench, key: PauseKey = OF_SUM) -> None:
    bench.tenant.pauses.apply(key, None, 2_000)
    bench.lane.resume("default")


async def test_nothing_of_a_paused_model_is_taken_and_nothing_is_lost(bench: Bench) -> None:
    bench.broker.acknowledges = True
    await bench.own(0, 1)
    pause(bench)
    bench.lane.feed(tp(0), [request(0, model_id="none"), request(1), request(2, model_id="none")])
    bench.lane.feed(tp(1), [request(0, 1, model_id="none")])
    await bench.until(lambda: len(bench.results()) == 2)
    assert {result["id"] for result in bench.results()} == {"r0.0", "r1.0"}
    await bench.until(lambda: bench.lane.partitions[tp(0)].pending == 2)
    assert not bench.lane.busy_besides(["default"])
    assert bench.lane.busy_besides([])
    resume(bench)
    await bench.until(lambda: len(bench.results()) == 4)
    assert [result["id"] for result in bench.results() if result["id"][1] == "0"] == ["r0.0", "r0.1", "r0.2"]
    await bench.until(lambda: bench.consumer.committed_offsets.get(tp(0)) == 3)


async def test_requests_over_http_to_a_paused_model_fail_at_once(bench: Bench) -> None:
    bench.broker.acknowledges = True
    pause(bench)
    asked = [
        bench.tenant.direct.ask(cast(bytes, request(0, model_id=name).value), (), 1_000) for name in ("sum", "none")
    ]
    bench.lane.wake(bench.tenant.topic)
    await bench.until(lambda: all(each.answer.done() for each in asked))
    with pytest.raises(ModelNotReadyError, match=r"model sum was paused by ana \(wrong features\).*inferd resume"):
        asked[0].answer.result()
    assert "none" in str(asked[1].answer.exception())
    counters = bench.tenant.counters
    assert (counters.requests_in, counters.results + sum(counters.errors.values())) == (2, 2)
    await asyncio.sleep(0)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([OF_SUM, OF_SLOW, PauseKey("route", "sum")]), st.booleans(), st.integers(0, 9)))
)
def test_pauses_are_those_of_the_last_records(records: list[tuple[PauseKey, bool, int]]) -> None:
    pauses, model = Pauses(), dict[PauseKey, Pause]()
    for key, is_set, at in records:
        changed = pauses.apply(key, PAUSE if is_set else None, at)
        assert changed == ((key in model) != is_set)
        model.pop(key, None)
        if is_set:
            model[key] = PAUSE
    assert pauses.all == model
    assert pauses.models == {key.name for key in model if key.kind == "model"}
    assert (pauses.reason("route", "sum") is None) == (PauseKey("route", "sum") not in model)
    assert pauses.resumed_ms == max((at for _, is_set, at in records if not is_set), default=0)
    pauses.clear()
    assert not pauses.models
    assert not pauses.all


def test_records_of_pauses() -> None:
    for key in (OF_SUM, PauseKey("route", "a.b")):
        assert parse_model_key(str(key).encode()) == key
    for wrong in (b"!pause/job/x", b"!pause/model/", b"!pause/model/a b"):
        with pytest.raises(MalformedError):
            parse_model_key(wrong)
    assert decode_pause(encode_pause(PAUSE)) == PAUSE
    with pytest.raises(MalformedError):
        decode_pause(b"\x80")
