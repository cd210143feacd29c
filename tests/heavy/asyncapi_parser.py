"""AsyncAPI documents by AsyncAPI's own parser and JSON Schema, which are packages of npm. `make test-asyncapi`."""

from __future__ import annotations

import copy
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from jsonschema import Draft7Validator

from inferd.schemas.asyncapi import Application, describe, route_channels
from inferd.schemas.connection import KafkaConnection
from inferd.schemas.routes import Format, Route, Sink, Source
from tests.fixtures.asyncapi_rules import faults
from tests.unit.schemas.test_asyncapi import CHANGES, ROUTES

ENVIRONMENT = Path(__file__).parents[2] / ".venv-asyncapi"
NPM = ENVIRONMENT / "npm"
CHECK = Path(__file__).with_name("asyncapi") / "check.mjs"
PROTOBUF = 'syntax = "proto3"; message Order { double amount = 1; }'
FORMATS = ("json", "msgpack", "avro", "protobuf", "cloudevents", "oip")
NOT_OF_THE_SPECIFICATION = {"is that of another one", "keyword prefixItems", "other characters", "other parameters"}
"""Faults that the parser does not look for."""


def parsed(document: Any, directory: Path) -> dict[str, Any]:
    """What AsyncAPI's parser says of a document."""
    path = directory / "asyncapi.json"
    path.write_bytes(msgspec.json.encode(document))
    command = [ENVIRONMENT / "bin" / "node", CHECK, path]
    done = subprocess.run(command, cwd=NPM, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def schema_faults(document: Any) -> list[str]:
    """What the specification's JSON Schema objects to."""
    schema = json.loads((NPM / "node_modules/@asyncapi/specs/schemas/3.0.0-without-$id.json").read_text())
    plain = json.loads(msgspec.json.encode(document))
    return [f"{error.json_path}: {error.message}" for error in Draft7Validator(schema).iter_errors(plain)]


def application(connection: KafkaConnection) -> Application:
    return Application(version="1.0", namespace="inferd", tenants=["a", "b"], connection=connection)


@pytest.mark.parametrize("protocol", ["PLAINTEXT", "SSL", "SASL_SSL"])
def test_documents_are_valid(tmp_path: Path, protocol: Any) -> None:
    others = [Route(name, Source([f"{name}.in"], Format(name)), "m", Sink(f"{name}.out")) for name in FORMATS]
    others.append(Route("proto", Source(["p"], Format("protobuf", schema=PROTOBUF)), "m", Sink("p.out")))
    document = describe(
        application(KafkaConnection("k1:9092,k2:9092", protocol)), route_channels("a", [*ROUTES, *others])
    )
    assert faults(document) == []
    assert schema_faults(document) == []
    said = parsed(document, tmp_path)
    assert said["problems"] == []
    assert said["found"]["channels"] == len(document["channels"])
    assert said["found"]["operations"] == len(document["operations"])
    assert said["found"]["messages"] >= len(document["components"]["messages"])


@pytest.mark.parametrize("fault", sorted(CHANGES.keys() - NOT_OF_THE_SPECIFICATION))
def test_what_our_rules_object_to_is_invalid(tmp_path: Path, fault: str) -> None:
    document = msgspec.json.decode(msgspec.json.encode(describe(application(KafkaConnection()))))
    change: Callable[[dict[str, Any]], Any] = CHANGES[fault]
    changed = copy.deepcopy(document)
    change(changed)
    said = parsed(changed, tmp_path)
    assert said["found"] is None, said
