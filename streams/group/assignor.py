"""Faust's assignor for topics that are deleted, created again or grown while workers run.

The topics of a tenant's jobs are assigned as one group of `INFERD_TOPIC_PARTITIONS` partitions, however many somebody
adds to one of them: a worker that owns partition n of `jobs` owns partition n of `job-results` too, and a job is found
by its id among these partitions alone.

Private names used, each covered by `tests/unit/streams/group/test_assignor.py`:
`PartitionAssignor._get_client_metadata` (overridden: Faust asserts that what a member had before still exists),
`_decompress` and `_url`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from faust.assignor import PartitionAssignor
from faust.assignor.client_assignment import ClientMetadata


class _Cluster:
    """The partitions that may be assigned."""

    def __init__(self, cluster: Any, most: Mapping[str, int]) -> None:
        self._cluster, self._most = cluster, most

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        found: set[int] | None = self._cluster.partitions_for_topic(topic)
        most = self._most.get(topic)
        return found if found is None or most is None else {number for number in found if number < most}


class LaneAssignor(PartitionAssignor):
    """Assigns existing partitions; of some topics at most `app.partitions_max`."""

    _now: Any = None

    def assign(self, cluster: Any, member_metadata: Any) -> Any:  # type: ignore[override]
        """As Faust's own."""
        self._now = _Cluster(cluster, self.app.partitions_max)  # type: ignore[attr-defined]
        return super().assign(self._now, member_metadata)

    def on_assignment(self, assignment: Any) -> None:  # type: ignore[override]
        """As Faust's own, which asserts that the assignment was made for our URL.

        A worker that joins with an instance id gets the assignment of the member that had it, which may have answered
        at another URL: it joins again, so that the others learn ours.
        """
        try:
            super().on_assignment(assignment)
        except AssertionError:
            if ClientMetadata.loads(self._decompress(assignment.user_data)).url == str(self._url):
                raise
            self.app.consumer.rejoin()  # type: ignore[attr-defined]

    def _get_client_metadata(self, metadata: Any) -> ClientMetadata:  # type: ignore[override]
        """The previous assignment of a member, without deleted partitions."""
        client = super()._get_client_metadata(metadata)
        for assigned in (client.assignment.actives, client.assignment.standbys):
            for topic, numbers in assigned.items():
                assigned[topic] = [n for n in numbers if n in (self._now.partitions_for_topic(topic) or ())]
        return client
