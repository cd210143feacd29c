"""Faust's assignor for topics that are deleted, created again or grown while workers run, and for workers that join.

Faust lets each member keep up to the rounded-up share of the partitions, so that a fourth member beside three that have
two of six each would get none. Here as many members keep that share as must; the others give up one partition.

The topics of a tenant's jobs are assigned as one group of as many partitions as are used, however many somebody adds to
one of them (`streams/kafka/used_partitions.py`): a worker that owns partition n of `jobs` owns partition n of
`job-results` too.

Private names used, each covered by `tests/unit/streams/group/test_assignor.py`: `PartitionAssignor._perform_assignment`
and `_get_client_metadata` (overridden: Faust asserts that what a member had before still exists), `_decompress` and
`_url`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from typing import Any

from faust.assignor import PartitionAssignor
from faust.assignor.client_assignment import ClientMetadata


class _Cluster:
    """The partitions that may be assigned."""

    def __init__(self, cluster: Any, most: Callable[[str], int | None]) -> None:
        self._cluster, self._most = cluster, most

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        found: set[int] | None = self._cluster.partitions_for_topic(topic)
        most = self._most(topic)
        return found if found is None or most is None else {number for number in found if number < most}


def keep_fair_shares(before: Sequence[MutableMapping[str, list[int]]], counts: Mapping[str, int]) -> None:
    """Removes from previous assignments, one for each member, partitions beyond a fair share of each topic.

    `counts`: number of partitions by topic. The shares of two members differ by at most one partition, and no member
    loses more partitions than necessary. Topics with the same numbers before have the same ones afterwards.
    """
    for topic, count in counts.items():
        share, more = divmod(count, len(before))
        largest_first = sorted(before, key=lambda assigned: -len(assigned.get(topic, ())))
        for place, assigned in enumerate(largest_first):
            if topic in assigned:
                assigned[topic] = sorted(assigned[topic])[: share + (place < more)]


class LaneAssignor(PartitionAssignor):
    """Assigns existing partitions; of some topics at most as many as `app.partitions_max` says."""

    _now: Any = None
    _before: Mapping[int, ClientMetadata] = {}
    """The previous assignments, by the id of a member's metadata."""

    def assign(self, cluster: Any, member_metadata: Any) -> Any:  # type: ignore[override]
        """Like Faust's own."""
        self._now = _Cluster(cluster, self.app.partitions_max)  # type: ignore[attr-defined]
        return super().assign(self._now, member_metadata)

    def on_assignment(self, assignment: Any) -> None:  # type: ignore[override]
        """Like Faust's own, which asserts that the assignment was made for our URL.

        A worker that joins with an instance id gets the assignment of the member that had it, which may have answered
        at another URL: it joins again, so that the others learn ours.
        """
        try:
            super().on_assignment(assignment)
        except AssertionError:
            if ClientMetadata.loads(self._decompress(assignment.user_data)).url == str(self._url):
                raise
            self.app.consumer.rejoin()  # type: ignore[attr-defined]

    def _perform_assignment(self, cluster: Any, member_metadata: Any) -> Any:
        """Like Faust's own, from previous assignments without deleted partitions and without more than a fair share."""
        self._before = {id(metadata): self._existing(metadata) for metadata in member_metadata.values()}
        before = [client.assignment.actives for client in self._before.values()]
        topics = {topic for assigned in before for topic in assigned}
        keep_fair_shares(before, {topic: len(self._now.partitions_for_topic(topic) or ()) for topic in topics})
        return super()._perform_assignment(cluster, member_metadata)

    def _get_client_metadata(self, metadata: Any) -> ClientMetadata:  # type: ignore[override]
        return self._before[id(metadata)]

    def _existing(self, metadata: Any) -> ClientMetadata:
        """The previous assignment of a member, without deleted partitions. Standbys, which the lane has no use for, are
        left out: Faust would prefer them to members that have less."""
        client = super()._get_client_metadata(metadata)
        client.assignment.standbys = {}
        for topic, numbers in client.assignment.actives.items():
            client.assignment.actives[topic] = [
                n for n in numbers if n in (self._now.partitions_for_topic(topic) or ())
            ]
        return client
