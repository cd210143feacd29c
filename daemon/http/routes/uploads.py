"""Receives model files over HTTP into temporary files; memory use does not depend on their size.

The body is the model file itself (`application/octet-stream` or `text/plain`), with a manifest in the query parameter
`manifest` (JSON); or `multipart/form-data` with the parts `model` and, optionally, `manifest`. The query parameter
`alias` names an alias to point at the version.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO, Any

import msgspec
from aiohttp import BodyPartReader, web

from inferd.daemon.http.core import LIMITS, BodyReader, Shares, UnavailableError, charged_tenant
from inferd.daemon.http.routes.services import Deploy
from inferd.schemas.codecs import (
    DECODE_ERRORS,
    JSON,
    structural_fault,
)
from inferd.schemas.errors import (
    InvalidIdError,
    MalformedError,
    TooLargeError,
    UnsupportedContentTypeError,
)
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.models import check_model_name
from inferd.schemas.requests import ModelReference
from inferd.streams.private_directory import private_directory

FILE_TYPES = ("application/octet-stream", "text/plain")
FORM_TYPE = "multipart/form-data"
UPLOADS_MAX = 4
FULL = "too many uploads of model files by this tenant: retry when one of them has finished"
WRITE_BYTES = 1_048_576
FORM_OVERHEAD_BYTES = 16_384
"""Boundaries and headers of a form's parts."""
_decode_manifest = msgspec.json.Decoder(dict[str, Any]).decode


class Uploads:
    """Receives up to `UPLOADS_MAX` model files at once, or one per tenant if there are more; removes them after use."""

    def __init__(self, directory: Path, tenants: int = 1) -> None:
        """`directory` is created at the first upload; files that an earlier process left in it are then removed."""
        self._directory = directory
        self._shares = Shares(UPLOADS_MAX, tenants)
        self._is_clean = False

    @asynccontextmanager
    async def receive(self, request: web.Request, reference: ModelReference) -> AsyncIterator[Deploy]:
        """The deploy of a request; its file is removed afterwards.

        Raises the errors of `BodyReader`, `MalformedError` for an invalid form or manifest, and `QuotaExceededError`
        if the tenant has no free slot.
        """
        form = _is_form(request)
        with self._shares.slot(charged_tenant(request), FULL), self._file() as file:
            manifest = await (_receive_form if form else _receive_file)(request, file)
            await asyncio.to_thread(file.flush)
            yield Deploy(
                name=reference.name,
                version=reference.version,
                model=Path(file.name),
                manifest=manifest,
                alias=_alias(request),
            )

    def _file(self) -> IO[bytes]:
        try:
            private_directory(self._directory)
            if not self._is_clean:
                _remove_files(self._directory)
                self._is_clean = True
            return tempfile.NamedTemporaryFile(dir=self._directory, prefix="model-")
        except OSError as error:
            raise UnavailableError(f"cannot store an upload in INFERD_DATA_DIR: {error.strerror or error}") from error


def _remove_files(directory: Path) -> None:
    for path in directory.glob("model-*"):
        path.unlink(missing_ok=True)


def _is_form(request: web.Request) -> bool:
    if request.content_type == FORM_TYPE:
        return True
    if request.content_type not in FILE_TYPES or "Content-Type" not in request.headers:
        raise UnsupportedContentTypeError(
            f"header content-type: {request.headers.get('Content-Type', '')[:80]!r}; send a model file as"
            f" {FILE_TYPES[0]}, or together with a manifest as {FORM_TYPE}"
        )
    return False


def _alias(request: web.Request) -> str | None:
    alias = request.query.get("alias")
    if alias is None:
        return None
    try:
        return check_model_name(alias)
    except InvalidIdError as error:
        raise InvalidIdError(f"query parameter alias: {error.message}") from None


async def _receive_file(request: web.Request, file: IO[bytes]) -> dict[str, Any] | None:
    manifest = request.query.get("manifest")
    found = None if manifest is None else _manifest(manifest.encode("utf-8", "surrogateescape"))
    await _save(BodyReader(request, request.app[LIMITS].upload).pieces(), file)
    return found


async def _receive_form(request: web.Request, file: IO[bytes]) -> dict[str, Any] | None:
    limits = request.app[LIMITS]
    allowance = DEFAULT_LIMITS.manifest_bytes_max + FORM_OVERHEAD_BYTES
    reader = BodyReader(request, limits.of_bytes(limits.upload_bytes_max + allowance))
    if reader.compressed:
        raise UnsupportedContentTypeError(f"header content-encoding: a body of {FORM_TYPE} must not be compressed")
    form = await reader.within(request.multipart())
    seen: dict[str, Any] = {}
    while (found := await reader.within(form.next())) is not None:
        part = _known_part(found, seen)
        if part.name == "manifest":
            seen["manifest"] = _manifest(await _read_field(reader, part))
        else:
            seen["model"] = True
            await _save(_part_pieces(reader, part), file)
    if "model" not in seen:
        raise MalformedError("body: the form has no part named model")
    return seen.get("manifest")


async def _part_pieces(reader: BodyReader, part: BodyPartReader) -> AsyncIterator[bytes]:
    while piece := await reader.within(part.read_chunk()):
        reader.receive(piece)
        yield piece


async def _save(pieces: AsyncIterator[bytes], file: IO[bytes]) -> None:
    buffer = bytearray()
    async for piece in pieces:
        buffer += piece
        if len(buffer) >= WRITE_BYTES:
            await _write(file, buffer)
            buffer.clear()
    await _write(file, buffer)


async def _write(file: IO[bytes], buffer: bytearray) -> None:
    try:
        await asyncio.to_thread(file.write, bytes(buffer))
    except OSError as error:
        raise UnavailableError(f"cannot store an upload in INFERD_DATA_DIR: {error.strerror or error}") from error


async def _read_field(reader: BodyReader, part: BodyPartReader) -> bytes:
    content = bytearray()
    async for piece in _part_pieces(reader, part):
        content += piece
        if len(content) > DEFAULT_LIMITS.manifest_bytes_max:
            raise TooLargeError(f"manifest: it exceeds the limit of {DEFAULT_LIMITS.manifest_bytes_max} bytes")
    return bytes(content)


def _known_part(part: object, seen: Collection[str]) -> BodyPartReader:
    """A part of the form; raises `MalformedError` if it is unknown, repeated, or encoded."""
    if not isinstance(part, BodyPartReader) or part.name not in ("model", "manifest"):
        name = getattr(part, "name", None)
        raise MalformedError(f"body: the form has an unknown part {str(name)[:80]!r}; expected model and manifest")
    if part.name in seen:
        raise MalformedError(f"body: the form has more than one part {part.name}")
    transfer = part.headers.get("Content-Transfer-Encoding", "binary").lower()
    if transfer not in ("binary", "7bit", "8bit") or "Content-Encoding" in part.headers:
        raise MalformedError(f"body: part {part.name} of the form is encoded; send it without an encoding")
    return part


def _manifest(content: bytes) -> dict[str, Any]:
    if fault := structural_fault(content, JSON, DEFAULT_LIMITS.depth_max, values_max=len(content)):
        raise type(fault)(f"manifest: {fault.message}")
    try:
        found: dict[str, Any] = _decode_manifest(content)
    except DECODE_ERRORS as error:
        raise MalformedError(f"manifest: expected a JSON object: {error}") from None
    return found
