"""Rewrites the lock file: `python -m inferd.daemon.broker.lock_jars`. For maintainers who upgrade Kafka."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from inferd.daemon.broker.jars import (
    LOCK_FILE,
    Jar,
    fetch_with_jgo,
    sha256_of,
)

ROOT = "org.apache.kafka:kafka_2.13:4.4.0"
HEADER = f"""\
# Every jar of the embedded broker: SHA-256, bytes, group:artifact:version.
# Written by `make lock-jars` from {ROOT} and the slf4j binding of its log4j.
"""


def resolve(root: str) -> list[str]:
    """Sorted coordinates of `root`, its run-time dependencies and the logging binding."""
    from jgo.maven import MavenContext

    maven = MavenContext()
    inputs, needed = maven.resolver.resolve([maven.create_dependency(root)])
    artifacts = [dependency.artifact for dependency in inputs]
    artifacts += [dependency.artifact for dependency in needed if dependency.scope in ("compile", "runtime")]
    coordinates = {f"{each.groupId}:{each.artifactId}:{each.version}" for each in artifacts}
    return sorted(coordinates | {_logging_binding(coordinates)})


def _logging_binding(coordinates: set[str]) -> str:
    # Kafka logs through slf4j. Its distribution adds this binding; its Maven coordinate does not depend on it.
    core = next(each for each in coordinates if each.startswith("org.apache.logging.log4j:log4j-core:"))
    return core.replace(":log4j-core:", ":log4j-slf4j-impl:")


def lock_jar(coordinate: str, directory: Path) -> Jar:
    """Download one jar and compute its SHA-256."""
    path = fetch_with_jgo(coordinate, directory)
    return Jar(coordinate, sha256_of(path), path.stat().st_size)


def main() -> None:
    """Resolve and download the jars, and write the lock file beside this module."""
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(8) as pool:
        jars = list(pool.map(lambda each: lock_jar(each, Path(directory)), resolve(ROOT)))
    lines = [f"{jar.sha256} {jar.size_bytes} {jar.coordinate}\n" for jar in jars]
    Path(__file__).with_name(LOCK_FILE).write_text(HEADER + "".join(lines), encoding="utf-8")
    print(f"{LOCK_FILE}: {len(jars)} jars, {sum(jar.size_bytes for jar in jars) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
