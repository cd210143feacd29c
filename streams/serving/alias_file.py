"""The aliases of one model in a JSON file: `{"champion": {"version": 2}}`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import msgspec
import structlog

from inferd.schemas.codec import check_alias
from inferd.schemas.errors import InferenceError
from inferd.schemas.models import Alias, check_model_name

log = structlog.get_logger(__name__)


def read_aliases(path: Path) -> dict[str, Alias]:
    """The aliases in a file; empty if the file is missing, or unreadable, which is logged."""
    try:
        aliases = msgspec.json.decode(path.read_bytes(), type=dict[str, Alias])
        for name, alias in aliases.items():
            check_model_name(name)
            check_alias(alias)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, InferenceError) as error:
        log.warning("aliases_unreadable", path=str(path), reason=str(error))
        return {}
    return aliases


def write_aliases(path: Path, aliases: Mapping[str, Alias]) -> None:
    """Replace the file atomically."""
    handle, temporary = tempfile.mkstemp(prefix="~aliases-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(dict(aliases), order="sorted")))
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
