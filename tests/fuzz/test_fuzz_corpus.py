"""Every stored input of the corpus, and every seed, passes the checks."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from inferd.schemas.errors import InternalError, MalformedError, ModelServingError
from tests.fuzz.checks import ACCEPTED, FindingError, Meter, check_memory, check_time, judge
from tests.fuzz.corpus import keep, kept
from tests.fuzz.frames import pack_headers, pack_record, unpack_headers, unpack_record
from tests.fuzz.mutators import mutate
from tests.fuzz.target import Target
from tests.fuzz.targets import all_targets

TARGETS = all_targets()
MUTANTS = 1_500


@pytest.mark.parametrize("name", TARGETS)
def test_stored_inputs_and_seeds_pass_the_checks(name: str) -> None:
    target = TARGETS[name]
    for data in kept(name):
        judge(target, data)
    said = {judge(target, data) for data in target.seeds()}
    assert ACCEPTED in said, "some seed must be good"
    assert len(said) > 1 or name.startswith("result"), "some seed must be bad"


@pytest.mark.parametrize("name", TARGETS)
def test_mutants_of_the_seeds_hold(name: str) -> None:
    target, random = TARGETS[name], Random(name)
    seeds = list(target.seeds())
    for _ in range(int(MUTANTS * min(1.0, target.weight))):
        judge(target, mutate(random, random.choice(seeds), target.shape, lambda: random.choice(seeds)))


@pytest.mark.parametrize("name", TARGETS)
def test_the_largest_seed_takes_little_time_and_memory(name: str) -> None:
    target = TARGETS[name]
    largest = max(target.seeds(), key=len)
    check_time(target, largest)
    check_memory(target, largest)


def target_that(raises: Exception | None = None, hoards: int = 0) -> Target:
    def run(_data: bytes) -> None:
        list(range(hoards))
        if raises is not None:
            raise raises

    return Target("broken", "bytes", run, lambda: [b""])


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (InternalError("a bug"), "code internal"),
        (ModelServingError("no type"), "code internal"),
        (MalformedError(""), "0 characters"),
        (MalformedError("line\nbreak"), "does not print"),
    ],
)
def test_errors_that_are_not_the_wires_are_found(error: Exception, says: str) -> None:
    with pytest.raises(FindingError, match=says):
        judge(target_that(error), b"x")


def test_errors_of_other_kinds_are_found() -> None:
    with pytest.raises(KeyError):
        Meter(target_that(KeyError("x")))(b"x")


def test_memory_beyond_the_size_of_the_input_is_found() -> None:
    with pytest.raises(FindingError, match="bytes of memory"):
        check_memory(target_that(hoards=1_000_000), b"x")


def test_a_message_that_is_too_long_is_found() -> None:
    error = MalformedError("x")
    error.message = "x" * 513
    with pytest.raises(FindingError, match="513 characters"):
        judge(target_that(error), b"x")


def test_frames_are_read_as_they_were_written() -> None:
    headers = [("content-type", b"a"), ("é", None), ("", b"")]
    assert unpack_headers(pack_headers(headers))[0] == headers
    for key in (None, b"", b"k" * 254):
        assert unpack_record(pack_record(b"value", headers, key)) == (b"value", headers, key)
    for end in range(30):
        unpack_record(pack_record(b"value", headers, b"key")[:end])


def test_stored_inputs_are_read_and_stored_once(tmp_path: Path) -> None:
    inputs = [b"\x00\xff\n'\"", b"#", b""]
    keep("x", inputs, "found:\na reason", tmp_path)
    keep("x", inputs, "again", tmp_path)
    assert kept("x", tmp_path) == inputs
    assert "again" not in (tmp_path / "x.txt").read_text()
