"""The environment of a run: cluster, model, names of topics and groups."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from bench.cluster import Cluster, running_broker
from bench.layouts import DEFAULT, LAYOUTS, MODEL_ID
from bench.libraries import TEXT
from bench.model import DEFAULT_SIZE, MODEL_VERSION, BenchModel, train_model
from bench.peers import inferd_worker
from bench.peers.task import PeerTask
from bench.requests import Requests, make_requests, make_text_requests


@dataclass(frozen=True, slots=True)
class Lab:
    """The environment of a run."""

    cluster: Cluster
    model: BenchModel
    work_dir: Path
    namespace: str
    layout: str = DEFAULT
    """A name of `LAYOUTS`."""

    def task(self, tenant: str, group: str) -> PeerTask:
        """The task of a peer, with a consumer group of this run."""
        return PeerTask(
            bootstrap_servers=self.cluster.bootstrap_servers,
            namespace=self.namespace,
            tenant=tenant,
            group=f"{self.namespace}-{tenant}-{group}",
            model_path=str(self.model.path),
            model_id=MODEL_ID,
            version=MODEL_VERSION,
            digest=self.model.digest,
            library=self.model.library,
            layout=self.layout,
            work_dir=str(self.work_dir),
        )

    def prepare_tenant(self, tenant: str, *, with_inferd: bool) -> None:
        """Creates the tenant's topics and, for inferd, deploys the model."""
        task = self.task(tenant, "setup")
        if with_inferd:
            inferd_worker.create_topics(task)
        self.cluster.ensure_topics(task.requests, task.results)
        if with_inferd:
            inferd_worker.deploy_model(task)

    def requests(self, count: int, prefix: str) -> tuple[Requests, NDArray[Any]]:
        """Requests whose ids begin with `prefix`, and their correct predictions, (count,)."""
        if self.model.library == TEXT:
            requests = make_text_requests(count, prefix, self.layout)
        else:
            requests = make_requests(count, prefix, self.layout)
        return requests, self.model.predict(requests.rows)


@contextmanager
def open_lab(broker: str | None, layout: str = DEFAULT, size: str = DEFAULT_SIZE) -> Iterator[Lab]:
    """A broker (given or embedded), a trained model of a size, and a temporary directory."""
    with tempfile.TemporaryDirectory(prefix="inferd-bench-") as directory:
        work_dir = Path(directory)
        with running_broker(broker, work_dir) as (bootstrap_servers, description):
            cluster = Cluster.connect(bootstrap_servers, description)
            try:
                model = train_model(work_dir, size, LAYOUTS[layout].categories)
                yield Lab(cluster, model, work_dir, f"bench-{secrets.token_hex(3)}", layout)
            finally:
                cluster.close()
