"""Cache keys: equal for rows that no model distinguishes, and different if the predictions may differ."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.models.model import (
    CacheSpec,
    Feature,
    Manifest,
    Postprocess,
    Preprocess,
)
from inferd.schemas.requests.request import Output
from inferd.streams.inference.cache import keys as cache_keys
from inferd.streams.inference.cache.keys import (
    KEY_BYTES,
    KeySpace,
    canonical,
    key_space,
    version_prefix,
)
from inferd.streams.inference.formats.lightgbm.runtime import LightGBMRuntime
from inferd.streams.inference.registry import format_named
from tests.unit.streams.inference.trained_models import KINDS, Trained

MANIFEST = Manifest("m", 1, "lightgbm", "a" * 64, 10, [Feature("x"), Feature("y")], "binary", 1)
ROW = np.array([[1.0, 2.0]])


def keys(matrix: np.ndarray, manifest: Manifest = MANIFEST, tenant: str = "t", *outputs: Output) -> list[bytes]:
    return key_space(tenant, manifest, outputs or ("prediction",)).keys(matrix)


def changed(**fields: Any) -> Manifest:
    return msgspec.structs.replace(MANIFEST, **fields)


OTHERS: dict[str, tuple[Any, ...]] = {
    "tenant": (MANIFEST, "u", "prediction"),
    "model": (changed(model_id="n"), "t", "prediction"),
    "version": (changed(version=2), "t", "prediction"),
    "digest": (changed(sha256="b" * 64), "t", "prediction"),
    "outputs": (MANIFEST, "t", "raw"),
    "more outputs": (MANIFEST, "t", "prediction", "raw"),
    "features": (changed(features=[Feature("x"), Feature("z")]), "t", "prediction"),
    "dtype": (changed(features=[Feature("x"), Feature("y", "float32")]), "t", "prediction"),
    "preprocess": (changed(preprocess=Preprocess(out_of_range="clip")), "t", "prediction"),
    "labels": (changed(postprocess=Postprocess(labels=["no", "yes"])), "t", "prediction"),
    "other labels": (changed(postprocess=Postprocess(labels=["yes", "no"])), "t", "prediction"),
    "threshold": (changed(postprocess=Postprocess(threshold=0.25)), "t", "prediction"),
    "top_k": (changed(postprocess=Postprocess(top_k=1)), "t", "prediction"),
}


def test_everything_that_may_change_a_prediction_changes_the_key() -> None:
    all_keys = [keys(ROW), *(keys(ROW, *other) for other in OTHERS.values())]
    for one, other in itertools.combinations(all_keys, 2):
        assert one != other


def test_the_library_that_sums_is_part_of_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = keys(ROW)
    other = dataclasses.replace(format_named("lightgbm"), library_version=lambda: "0.0")
    monkeypatch.setattr(cache_keys, "format_named", lambda _: other)
    assert keys(ROW) != before


def test_what_does_not_change_a_prediction_does_not_change_the_key() -> None:
    other = changed(cache=CacheSpec(60.0, 10), warmup=[[1, 2]], labels={"team": "x"}, created_at="2026-01-01T00:00:00Z")
    assert keys(ROW, other) == keys(ROW)


def test_all_keys_of_a_version_share_the_prefix_that_its_announcement_gives() -> None:
    announced = msgspec.structs.replace(MANIFEST, features=[], objective=None, outputs=None)
    asked: tuple[Output, ...] = ("raw", "leaves")
    for manifest, output in itertools.product((MANIFEST, changed(postprocess=Postprocess(top_k=1))), asked):
        (key,) = keys(ROW, manifest, "t", output)
        assert key.startswith(version_prefix("t", announced))
        assert len(key) == KEY_BYTES
    for other in ("tenant", "model", "version", "digest"):
        manifest, tenant, *_ = OTHERS[other]
        assert version_prefix(tenant, manifest) != version_prefix("t", MANIFEST)


VALUES = st.one_of(st.floats(), st.sampled_from([0.0, -0.0, float("nan"), -float("nan"), 1e-35, 5e-324]))


@given(st.tuples(VALUES, VALUES), st.tuples(VALUES, VALUES))
def test_rows_have_the_same_key_if_their_values_are_equal(one: tuple[float, ...], other: tuple[float, ...]) -> None:
    same = all(a == b or (math.isnan(a) and math.isnan(b)) for a, b in zip(one, other, strict=True))
    first, second = keys(np.array([one, other]))
    assert (first == second) == same


def test_zeros_share_a_key_only_in_formats_that_do_not_distinguish_them() -> None:
    zeros = np.array([[0.0], [-0.0]])
    shared, apart = (KeySpace(b"p" * 8, b"s" * 32, equal_zeros) for equal_zeros in (True, False))
    assert len(set(shared.keys(zeros))) == 1
    assert len(set(apart.keys(zeros))) == 2
    assert len(set(apart.keys(np.array([[np.nan], [-np.nan]])))) == 1


def test_every_nan_has_the_same_key_and_rows_are_not_changed() -> None:
    payloads = [[0x7FF8000000000000], [0xFFF8000000000000], [0x7FF8000000000123], [0x7FF0000000000001]]
    matrix = np.array(payloads, dtype=np.uint64).view(np.float64)
    before = matrix.tobytes()
    assert len(set(keys(matrix))) == 1
    assert len({row.tobytes() for row in canonical(matrix)}) == 1
    assert matrix.tobytes() == before


def test_a_row_is_hashed_as_a_whole_and_by_itself() -> None:
    matrix = np.random.default_rng(0).normal(size=(50, 2))
    together = keys(matrix)
    assert together == [keys(matrix[place : place + 1])[0] for place in range(50)]
    assert len(set(together)) == 50
    seed = key_space("t", MANIFEST, ("prediction",)).seed
    expected = hashlib.blake2b(matrix[7].tobytes(), key=seed, digest_size=23).digest()
    assert together[7] == version_prefix("t", MANIFEST) + expected


@pytest.mark.parametrize("kind", KINDS)
def test_no_model_distinguishes_rows_that_share_a_key(trained: Callable[[str], Trained], kind: str) -> None:
    """Zeros of both signs, and NaN of any payload, give the same bytes."""
    model = trained(kind)
    runtime = LightGBMRuntime(model.text)
    random = np.random.default_rng(5)
    rows = np.ascontiguousarray(model.rows[:100])
    rows[random.random(rows.shape) < 0.3] = 0.0
    signed = rows.copy()
    signed[(rows == 0.0) & (random.random(rows.shape) < 0.5)] = -0.0
    odd = np.array([0xFFF8000000000777], dtype=np.uint64).view(np.float64)[0]
    rows[random.random(rows.shape) < 0.1] = np.nan
    signed[np.isnan(rows)] = odd
    outputs: tuple[Output, ...] = tuple(
        o for o in ("prediction", "raw", "probabilities", "contributions", "leaves") if runtime.supports(o)
    )
    assert keys(rows) == keys(signed)
    assert rows.tobytes() != signed.tobytes()
    plain, other = runtime.predict(rows, outputs), runtime.predict(signed, outputs)
    assert {o: a.tobytes() for o, a in plain.items()} == {o: a.tobytes() for o, a in other.items()}
    runtime.close()
