"""Rewrites the lock files: `python -m inferd.daemon.broker.lock_jars`. For maintainers who upgrade a product."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from inferd.daemon.broker.jars import (
    APICURIO,
    KAFKA,
    Jar,
    Product,
    fetch_with_jgo,
    sha256_of,
)

KAFKA_ROOT = "org.apache.kafka:kafka_2.13:4.4.0"
KAFKA_HEADER = f"""\
# Every jar of the embedded broker: SHA-256, bytes, group:artifact:version.
# Written by `make lock-jars` from {KAFKA_ROOT} and the slf4j binding of its log4j.
"""
APICURIO_ARCHIVE = "io.apicurio:apicurio-registry-app:3.0.9:all:zip"
APICURIO_HEADER = """\
# The schema registry of `inferd up --registry`: SHA-256, bytes, group:artifact:version:classifier:type.
# Written by `make lock-jars`. The archive holds all jars, as Apicurio's developers built them.
"""


def kafka_coordinates() -> list[str]:
    """Sorted coordinates of Kafka, its run-time dependencies and the logging binding."""
    from jgo.maven import MavenContext

    maven = MavenContext()
    inputs, needed = maven.resolver.resolve([maven.create_dependency(KAFKA_ROOT)])
    artifacts = [dependency.artifact for dependency in inputs]
    artifacts += [dependency.artifact for dependency in needed if dependency.scope in ("compile", "runtime")]
    coordinates = {f"{each.groupId}:{each.artifactId}:{each.version}" for each in artifacts}
    return sorted(coordinates | {_logging_binding(coordinates)})


def _logging_binding(coordinates: set[str]) -> str:
    # Kafka logs through slf4j. Its distribution adds this binding; its Maven coordinate does not depend on it.
    core = next(each for each in coordinates if each.startswith("org.apache.logging.log4j:log4j-core:"))
    return core.replace(":log4j-core:", ":log4j-slf4j-impl:")


def apicurio_coordinates() -> list[str]:
    """The archive of the registry."""
    return [APICURIO_ARCHIVE]


PRODUCTS: Sequence[tuple[Product, str, Callable[[], list[str]]]] = (
    (KAFKA, KAFKA_HEADER, kafka_coordinates),
    (APICURIO, APICURIO_HEADER, apicurio_coordinates),
)


def lock_jar(coordinate: str, directory: Path) -> Jar:
    """Download one file and compute its SHA-256."""
    path = fetch_with_jgo(coordinate, directory)
    return Jar(coordinate, sha256_of(path), path.stat().st_size)


def main() -> None:
    """Resolve and download the jars, and write the lock files beside this module."""
    with tempfile.TemporaryDirectory() as directory, ThreadPoolExecutor(8) as pool:
        for product, header, coordinates in PRODUCTS:
            jars = list(pool.map(lambda each: lock_jar(each, Path(directory)), coordinates()))
            lines = [f"{jar.sha256} {jar.size_bytes} {jar.coordinate}\n" for jar in jars]
            Path(__file__).with_name(product.lock_file).write_text(header + "".join(lines), encoding="utf-8")
            print(f"{product.lock_file}: {len(jars)} files, {sum(jar.size_bytes for jar in jars) / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
