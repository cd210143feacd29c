"""The version of a split for each key: the vectorised choice against the definition, one key at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.models import SplitShare
from inferd.streams.inference import kernels_fault, kernels_in_use, use_kernels
from inferd.streams.inference.kernels import key_digests, library
from inferd.streams.inference.spans import AsciiTexts, Spans
from inferd.streams.inference.splits import versions_of

pytestmark = pytest.mark.filterwarnings("error")

KNOWN = [
    "customer-1",
    "customer-21",
    "customer-39",
    "customer-46",
    "customer-56",
    "customer-64",
    "customer-65",
    "customer-67",
    "customer-69",
    "customer-98",
    "customer-102",
    "customer-109",
    "customer-117",
    "customer-122",
    "customer-123",
    "customer-133",
    "customer-146",
    "customer-177",
]


@pytest.fixture(params=[True, False], ids=["kernels", "no kernels"])
def switch(request: pytest.FixtureRequest) -> Iterator[bool]:
    before = kernels_in_use()
    use_kernels(request.param)
    if request.param and kernels_fault() is not None:
        pytest.skip("there are no kernels")
    yield request.param
    use_kernels(before)


def by_definition(split: Sequence[SplitShare], key: bytes) -> int:
    point = int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") / 2**64
    point *= sum(share.weight for share in split)
    for share in split:
        point -= share.weight
        if point < 0:
            return share.version
    return split[-1].version


weights = st.one_of(
    st.floats(min_value=0, exclude_min=True, allow_infinity=False), st.integers(1, 100).map(float), st.just(5e-324)
)
splits = st.lists(weights, min_size=1, max_size=12).map(
    lambda found: [SplitShare(version, weight) for version, weight in enumerate(found, 1)]
)
keys = st.lists(st.binary(max_size=400), min_size=1, max_size=40)


@given(split=splits, keys=keys)
@pytest.mark.usefixtures("switch")
def test_the_choice_is_that_of_the_definition(split: list[SplitShare], keys: list[bytes]) -> None:
    if sum(share.weight for share in split) == float("inf"):
        return  # rejected when the alias is decoded
    assert versions_of(split, keys).tolist() == [by_definition(split, key) for key in keys]


@given(ids=st.lists(st.text("abcXYZ019._:-", min_size=1, max_size=64), min_size=1))
@pytest.mark.usefixtures("switch")
def test_an_id_counts_as_its_bytes(ids: list[str]) -> None:
    split = [SplitShare(3, 9.0), SplitShare(1, 1.0), SplitShare(2, 5.0)]
    assert versions_of(split, ids).tolist() == versions_of(split, [each.encode() for each in ids]).tolist()


@pytest.mark.usefixtures("switch")
def test_keys_of_known_answers() -> None:
    """Their versions never change: requests of a key stay with their version through upgrades."""
    split = [SplitShare(1, 90.0), SplitShare(2, 10.0)]
    found = [f"customer-{number}" for number in range(200) if versions_of(split, [f"customer-{number}"])[0] == 2]
    assert found == KNOWN


@given(keys=keys)
@pytest.mark.usefixtures("switch")
def test_spans_count_as_their_strings(keys: list[bytes]) -> None:
    shifted = Spans.of([b"before", *keys, b"behind"])[1:-1]
    assert key_digests(shifted).tolist() == key_digests(keys).tolist()
    digits = [key.hex() for key in keys]
    ascii_ids = AsciiTexts(Spans.of([each.encode() for each in digits]))
    assert key_digests(ascii_ids).tolist() == key_digests(digits).tolist()


@pytest.mark.parametrize("ends", [[2, 9], [2, -1]])
def test_spans_outside_of_their_content_are_refused(ends: list[int]) -> None:
    if kernels_fault() is not None:
        pytest.skip("there are no kernels")
    with pytest.raises(ValueError, match="keys"):
        key_digests(Spans(b"abcdef", np.zeros(2, np.int64), np.array(ends, np.int64)))


def test_every_version_of_the_kernel_gives_the_digests_of_hashlib() -> None:
    if kernels_fault() is not None:
        pytest.skip("there are no kernels")
    found = library()
    keys = [bytes([number % 256]) * number for number in range(300)] + [b"k" * 24_576]
    expected = [int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") for key in keys]
    best = found.version
    try:
        for version in range(best + 1):
            found.version = version
            assert key_digests(keys).tolist() == expected
    finally:
        found.version = best
