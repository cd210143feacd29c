"""inferd with default settings: deploys the model through Kafka, then runs `inferd worker`."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from bench.errors import BenchError
from bench.peers.task import PeerTask
from bench.processes import PeerProcess, running
from inferd.daemon.broker.probe import free_port

CLI = (sys.executable, str(Path(sysconfig.get_path("scripts")) / "inferd"))
HOST = "127.0.0.1"
COMMAND_TIMEOUT_S = 300.0
READY_TIMEOUT_S = 300.0
POLL_S = 0.05


def environment(task: PeerTask) -> dict[str, str]:
    """Broker, topics and directory of the worker; all other settings are defaults."""
    return {
        "INFERD_BROKER": task.bootstrap_servers,
        "INFERD_NAMESPACE": task.namespace,
        "INFERD_TENANTS": task.tenant,
        "INFERD_DATA_DIR": f"{task.work_dir}/inferd-{task.group}",
    }


def create_topics(task: PeerTask) -> None:
    """Creates the topics of the task's tenant."""
    _run_command(["topics", "create"], environment(task))


def deploy_model(task: PeerTask) -> None:
    """Deploys the model to the tenant."""
    _run_command(
        ["models", "deploy", task.model_path, "--name", task.model_id, "--tenant", task.tenant], environment(task)
    )


@contextmanager
def running_worker(
    task: PeerTask, settings: Mapping[str, str] = MappingProxyType({}), command: Sequence[str] = (*CLI, "worker")
) -> Iterator[PeerProcess]:
    """A ready worker, in the task's own consumer group, so that it reads from the beginning.

    `settings`: variables that differ from the defaults.
    """
    port = free_port(HOST)
    place = environment(task) | {
        **settings,
        "INFERD_GROUP_ID": task.group,
        "INFERD_HTTP_HOST": HOST,
        "INFERD_HTTP_PORT": str(port),
    }
    with running("inferd", command, _without_inherited(place), Path(task.work_dir)) as process:
        _await_ready(process, f"http://{HOST}:{port}/readyz")
        yield process


def _without_inherited(place: Mapping[str, str]) -> dict[str, str]:
    inherited = sorted(name for name in os.environ if name.startswith("INFERD_") and name not in place)
    if inherited := [name for name in inherited if name != "INFERD_CACHE_DIR"]:
        raise BenchError(f"{', '.join(inherited)} in the environment: unset them, since default settings are measured")
    return dict(place)


def _await_ready(process: PeerProcess, url: str) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    answer = "no answer"
    while time.monotonic() < deadline:
        process.check_alive()
        try:
            with urllib.request.urlopen(url, timeout=5):  # noqa: S310  (an http URL on loopback)
                return
        except urllib.error.HTTPError as error:
            answer = f"{error.code} {error.read(300).decode(errors='replace')}"
        except OSError as error:
            answer = str(error)
        time.sleep(POLL_S)
    raise BenchError(f"{url} not ready within {READY_TIMEOUT_S:.0f} s: {answer}\n{process.log_tail()}")


def _run_command(arguments: Sequence[str], place: Mapping[str, str]) -> None:
    done = subprocess.run(
        [*CLI, *arguments],
        check=False,
        env={**os.environ, **place},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
    )
    if done.returncode:
        raise BenchError(f"inferd {' '.join(arguments)} exited with {done.returncode}: {done.stderr[-2_000:]}")
