"""Jobs that move to a new partition: offsets of the old one stay places there, and everything continues at new ones."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from inferd.schemas.codecs import MSGPACK
from inferd.schemas.jobs import CloseJob, RetryJob, SubmitJob, decode_status
from inferd.schemas.topics import TenantTopics
from inferd.streams.jobs.moving import move_job
from inferd.streams.jobs.state import decode_state, encode_state, moved, place_of, status_of
from inferd.streams.jobs.state.places import Place
from tests.unit.streams.jobs.test_transitions import OPEN, TERMS, Job, rows

TOPICS = TenantTopics("ns", "default")


def move(job: Job, number: int, offset: int = 0) -> None:
    """The job continues in partition `number`, whose offsets are lower."""
    assert job.state is not None
    job.state = decode_state(encode_state(moved(job.state, job.terms.partition)))
    job.terms, job.at = replace(job.terms, partition=number), offset


@given(st.integers(0, 10_000), st.integers(0, 2**48 - 1), st.integers(0, 10_000))
def test_a_place_keeps_its_partition_however_often_its_job_moves(first: int, offset: int, second: int) -> None:
    job = Job(replace(TERMS, partition=first))
    job.at = offset - 1
    (chunk,) = job.take(SubmitJob(OPEN, rows(0, 1.0, 2.0).batch)).chunks
    job.score(chunk)
    assert job.state is not None
    assert place_of(int(job.state.messages["offset"][0])) == Place(None, offset)
    for number in (second, second + 1):
        move(job, number)
        assert place_of(int(job.state.messages["offset"][0])) == Place(first, offset)
    assert status_of(job.state).results_in == [first]


def test_an_open_job_continues_in_its_new_partition() -> None:
    job = Job()
    job.at = 1_000
    job.take(OPEN)
    first, second = job.take(rows(0, 1.0, 2.0, 3.0)).chunks
    job.score(first)
    assert job.state is not None
    assert status_of(job.state).results_in is UNSET
    move(job, 3)
    job.score(second)
    (third,) = job.take(rows(1, 4.0)).chunks
    assert third.partition == 3
    job.take(CloseJob(2))
    assert job.score(third, True).due
    status = job.tick().status
    assert status is not None
    assert (status.status, status.succeeded, status.failed) == ("completed_with_errors", 3, 1)
    assert status.results_in == [1]
    assert [place_of(int(each)) for each in job.state.chunks["result"]] == [
        Place(1, 1_003), Place(None, 1), Place(None, 4)
    ]  # fmt: skip


def test_a_retry_reads_rows_and_results_where_they_are() -> None:
    job = Job()
    (chunk,) = job.take(SubmitJob(OPEN, rows(0, 1.0, 2.0).batch)).chunks
    job.score(chunk, True)
    job.tick()
    move(job, 3)
    assert job.take(RetryJob()).due
    (again,) = job.tick().chunks
    assert (again.partition, again.previous, again.previous_partition) == (3, 2, 1)
    assert again.source is not None
    assert (again.source.offset, again.source.partition) == (1, 1)
    job.score(again)
    status = job.tick().status
    assert status is not None
    assert (status.status, status.results_in) == ("completed", UNSET)


def test_the_status_moves_with_a_job_unless_it_is_an_end_that_was_not_published() -> None:
    job = Job()
    (chunk,) = job.take(SubmitJob(OPEN, rows(0, 1.0, 2.0).batch)).chunks
    for announced in (True, False, True):
        assert job.state is not None
        found = move_job(TOPICS, b"j", encode_state(job.state), 1, 3)
        assert found is not None
        old, *new = found.also
        assert old == ("ns.default.job-status", 1, (b"j", None, []))
        assert bool(new) is announced
        for topic, number, (key, value, headers) in new:
            assert (topic, number, key, headers) == ("ns.default.job-status", 3, b"j", [MSGPACK.header])
            assert decode_status(value, MSGPACK) == status_of(decode_state(found.value))
        job.score(chunk) if announced and not job.state.ended else job.tick()
    assert move_job(TOPICS, b"j", b"garbage", 1, 3) is None, "it stays where it is"
