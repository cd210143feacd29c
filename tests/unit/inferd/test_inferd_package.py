"""The exports of `inferd`, and the cost of importing it."""

from __future__ import annotations

import subprocess
import sys

import pytest

import inferd
from inferd.errors import typed_kafka_error


def loaded_by(statement: str) -> set[str]:
    script = f"{statement}; import sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


@pytest.mark.parametrize("name", inferd.__all__)
def test_every_name_is_exported(name: str) -> None:
    assert getattr(inferd, name).__name__ == name
    assert name in dir(inferd)


def test_unknown_names_are_not_exported() -> None:
    with pytest.raises(AttributeError, match="Servant"):
        _ = inferd.Servant


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not loaded_by("import inferd") & {"aiokafka", "asyncio", "msgspec"}


def test_a_client_does_not_import_numpy() -> None:
    assert not loaded_by("from inferd import Client, SyncClient") & {"faust", "lightgbm", "numpy", "pandas"}


def test_kafka_errors_become_typed() -> None:
    from aiokafka import errors as kafka

    from inferd.errors import AccessDeniedError, BrokerUnreachableError
    from inferd.schemas.connection import KafkaConnection
    from inferd.schemas.errors import ServerError, TooLargeError

    for error, typed in (
        (kafka.KafkaConnectionError("no"), BrokerUnreachableError),
        (TimeoutError(), BrokerUnreachableError),
        (kafka.TopicAuthorizationFailedError("t"), AccessDeniedError),
        (kafka.MessageSizeTooLargeError(), TooLargeError),
        (kafka.UnknownError("?"), ServerError),
    ):
        assert type(typed_kafka_error(error, "sending", KafkaConnection("host:1"))) is typed
    own = ServerError("said already")
    assert typed_kafka_error(own, "sending", KafkaConnection("host:1")) is own
