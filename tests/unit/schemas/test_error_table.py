from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from inferd.schemas.errors import (
    CODES,
    MESSAGE_CHARS_MAX,
    BatchJobError,
    InferenceError,
    InternalError,
    ModelServingError,
    ServerError,
    code_table,
    error_of_code,
)

ROOT = Path(__file__).parents[3]
WIRE_CODES = """
malformed too_large too_deep unsupported_content_type invalid_id invalid_header invalid_value schema_mismatch
schema_not_found
model_not_found version_not_found model_not_ready deadline_exceeded quota_exceeded job_not_found job_conflict
chunk_conflict job_closed job_expired reply_to_refused internal
"""


def test_the_documented_table_is_the_code_table() -> None:
    documented = (ROOT / "docs" / "errors.md").read_text()
    table = [line for line in documented.splitlines() if line.startswith("|")]
    assert table == code_table().splitlines()


def test_the_module_prints_the_table() -> None:
    printed = subprocess.run(
        [sys.executable, "-m", "inferd.schemas.errors"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert printed.stdout == code_table()


def test_the_codes_are_those_of_the_wire() -> None:
    assert list(CODES) == WIRE_CODES.split()


def _subclasses(cls: type[ModelServingError]) -> set[type[ModelServingError]]:
    return {cls}.union(*map(_subclasses, cls.__subclasses__()))


def test_every_class_of_the_contract_has_one_code() -> None:
    ours = {cls for cls in _subclasses(ModelServingError) if cls.__module__ == "inferd.schemas.errors"}
    assert ours - {ModelServingError, ServerError, BatchJobError, InferenceError} == set(CODES.values())


@pytest.mark.parametrize("code", CODES)
def test_an_error_is_recreated_from_its_code(code: str) -> None:
    error = error_of_code(code, "why")
    assert (type(error), error.code, error.message, str(error)) == (CODES[code], code, "why", "why")


def test_an_unknown_code_is_internal_and_named() -> None:
    error = error_of_code("later", "why")
    assert isinstance(error, InternalError)
    assert error.message == "later: why"


def test_messages_are_bounded() -> None:
    message = ModelServingError("x" * 10_000).message
    assert (len(message), message[-1]) == (MESSAGE_CHARS_MAX, "…")
    assert ModelServingError("x" * MESSAGE_CHARS_MAX).message == "x" * MESSAGE_CHARS_MAX
