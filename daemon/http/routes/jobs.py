"""`/jobs…`: a tenant's batch jobs. Any worker accepts a request and forwards it to the owner of the job."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from types import MappingProxyType
from typing import Any, cast

import msgspec
from aiohttp import web

from inferd.daemon.http.core import (
    LIMITS,
    SAFE_HEADERS,
    Respond,
    codec_of_request,
    json_bytes,
    read_body,
    send_streamed,
    tenant_of,
)
from inferd.daemon.http.routes.forwarding import (
    JSON,
    PARTITIONS,
    Body,
    Forwarding,
    is_forwarded,
    merge_jobs,
    partitions_header,
)
from inferd.daemon.http.routes.jobs_formats import (
    CONTENT_TYPES,
    NDJSON,
    accepted_format,
    csv_pieces,
    parquet_pieces,
)
from inferd.daemon.http.routes.jobs_upload import (
    BLOCK_ROWS,
    LinePacker,
    body_pieces,
    row_messages,
)
from inferd.daemon.http.routes.operating import audited
from inferd.daemon.http.routes.predictions import named_headers
from inferd.daemon.http.routes.services import Jobs
from inferd.schemas.codecs import (
    DECODE_ERRORS,
    Codec,
    Decoders,
    check_nesting,
    repeats_key,
)
from inferd.schemas.errors import InvalidValueError, MalformedError, TooLargeError
from inferd.schemas.headers import CORRELATION_HEADERS, DEADLINE_MS_MAX
from inferd.schemas.jobs import PHASES, encode_open
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.requests import check_job_id
from inferd.streams.jobs.errors import NotOwnerError
from inferd.streams.telemetry import CALLER

JOBS: web.AppKey[Jobs] = web.AppKey("jobs", Jobs)
FORWARDING = web.AppKey("forwarding", Forwarding)
ROWS: web.AppKey[Limits] = web.AppKey("rows", Limits)
"""Limits of uploads."""
BODY: web.RequestKey[bytes | Body] = web.RequestKey("body", cast(Any, object))
"""The body of a request that may have to be forwarded: the bytes read, or the stream still to be read."""
LISTED_MAX, LISTED_DEFAULT = 1_000, 100
PROPAGATED_HEADERS = {name: name for name in CORRELATION_HEADERS}
"""HTTP headers that are propagated to the records of the job's messages, chunks and results."""
NUMBER_MAX = DEADLINE_MS_MAX
_NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)
_LABELS = msgspec.json.Decoder(dict[str, str]).decode
_FIELDS, _TEXT = Decoders(dict[str, msgspec.Raw]), Decoders(str | None)


def add_jobs(
    app: web.Application, jobs: Jobs, forwarding: Forwarding | None = None, limits: Limits = DEFAULT_LIMITS
) -> None:
    """Adds `/jobs…`, backed by `jobs`; a request for which it raises `NotOwnerError` is forwarded by `forwarding`.

    `limits` apply to rows uploaded as NDJSON.
    """
    app[JOBS], app[ROWS] = jobs, limits
    if forwarding is not None:
        app[FORWARDING] = forwarding
        app.cleanup_ctx.append(forwarding.running)
    app.add_routes(
        [
            web.post("/jobs", by_owner(submit_job)),
            web.get("/jobs", list_jobs),
            web.get("/jobs/{job_id}", by_owner(show_job)),
            web.get("/jobs/{job_id}/results", by_owner(job_results, results_type), allow_head=False),
            web.post("/jobs/{job_id}/cancel", audited("cancel", by_owner(cancel_job))),
            web.post("/jobs/{job_id}/retry", audited("retry", by_owner(retry_job))),
        ]
    )


def by_owner(respond: Respond, media_type: Callable[[web.Request], str] = lambda _request: JSON) -> Respond:
    """`respond`, or the response of the worker that owns the job, which has that media type."""

    @wraps(respond)
    async def respond_or_forward(request: web.Request) -> web.StreamResponse:
        CALLER.set(tuple(named_headers(request, PROPAGATED_HEADERS)))
        try:
            return await respond(request)
        except NotOwnerError as error:
            if error.url is None or FORWARDING not in request.app:
                raise
            url = error.url
        return await request.app[FORWARDING].forward(request, url, request.get(BODY), media_type(request))

    return respond_or_forward


async def submit_job(request: web.Request) -> web.StreamResponse:
    """Opens a job with all its rows: 202 and its status."""
    tenant = tenant_of(request)
    if request.content_type == NDJSON:
        return await _upload(request, tenant)
    codec = codec_of_request(request)
    try:
        body = request[BODY] = await read_body(request, request.app[LIMITS].body)
    except TooLargeError as error:
        raise TooLargeError(f"{error.message}; send more rows as {NDJSON}, one per line") from None
    job_id, message = submission(body, codec)
    return json_bytes(await request.app[JOBS].submit(tenant, job_id, message, codec), 202)


async def _upload(request: web.Request, tenant: str) -> web.StreamResponse:
    """Opens a job from the query parameters; each line of the body is a row."""
    job_id, chunk_rows = request.query.get("job_id"), _optional_number(request, "chunk_rows")
    opening, limits = _opening(request, chunk_rows), request.app[ROWS]
    pieces = body_pieces(request, limits.jobs_bytes_max)
    rows = row_messages(pieces, LinePacker(limits, chunk_rows or BLOCK_ROWS))
    # The body is read only once it is known that this worker owns the job.
    request[BODY] = Body(pieces)
    named = None if job_id is None else check_job_id(job_id)
    return json_bytes(await request.app[JOBS].upload(tenant, named, opening, rows), 202)


def _opening(request: web.Request, chunk_rows: int | None) -> bytes:
    """The `open` message of the query parameters."""
    query = request.query
    if "model" not in query:
        raise InvalidValueError(f"query parameter model is missing: name the model that scores the {NDJSON} rows")
    outputs = query["outputs"].split(",") if "outputs" in query else None
    return encode_open(
        query["model"],
        outputs=outputs,
        row_count=_optional_number(request, "row_count"),
        chunk_rows=chunk_rows,
        deadline_ms=_optional_number(request, "deadline"),
        labels=_labels(query["labels"].encode()) if "labels" in query else None,
    )


def _labels(text: bytes) -> dict[str, str]:
    try:
        labels = _LABELS(text)
    except DECODE_ERRORS as error:
        raise InvalidValueError(f"query parameter labels: expected a JSON object of strings: {error}") from None
    if repeats_key(text):
        raise InvalidValueError("query parameter labels: duplicate name")
    return labels


async def list_jobs(request: web.Request) -> web.StreamResponse:
    """Statuses of the tenant's jobs by job id, one page."""
    tenant, query = tenant_of(request), request.query
    limit = _number(query.get("limit", str(LISTED_DEFAULT)), "limit", LISTED_MAX)
    status, after = query.get("status"), query.get("after")
    if status is not None and status not in PHASES:
        raise InvalidValueError(f"query parameter status={status[:80]!r}: expected one of {', '.join(PHASES)}")
    if after is not None:
        check_job_id(after)
    found = await request.app[JOBS].list_jobs(tenant, status=status, limit=limit, after=after)
    forwarding = request.app.get(FORWARDING)
    if forwarding is None:
        return _listed(found)
    if is_forwarded(request):
        return _listed(found, {PARTITIONS: partitions_header(forwarding.group, tenant)})
    return _listed(merge_jobs(found, await forwarding.jobs_of_peers(request, tenant), limit))


async def show_job(request: web.Request) -> web.StreamResponse:
    """The job's latest status."""
    tenant, job_id = tenant_of(request), check_job_id(request.match_info["job_id"])
    return json_bytes(await request.app[JOBS].status(tenant, job_id))


def results_type(request: web.Request) -> str:
    """The media type of a job's results that the caller accepts."""
    return CONTENT_TYPES[accepted_format(request)]


async def job_results(request: web.Request) -> web.StreamResponse:
    """Streams the result of every row, in row order, in the format that the caller accepts."""
    tenant, job_id = tenant_of(request), check_job_id(request.match_info["job_id"])
    from_row = _number(request.query.get("from_row", "0"), "from_row", 10**12)
    format_, jobs = accepted_format(request), request.app[JOBS]
    outputs = await jobs.outputs(tenant, job_id)
    pieces = jobs.results(tenant, job_id, from_row=from_row)
    if format_ == "csv":
        pieces = csv_pieces(pieces, outputs)
    elif format_ == "parquet":
        pieces = parquet_pieces(pieces, outputs)
    response = web.StreamResponse(headers={**SAFE_HEADERS, "Content-Type": CONTENT_TYPES[format_]})
    return await send_streamed(request, response, pieces)


async def cancel_job(request: web.Request) -> web.StreamResponse:
    """Cancels a job: 202 and its status."""
    tenant, job_id = tenant_of(request), check_job_id(request.match_info["job_id"])
    return json_bytes(await request.app[JOBS].cancel(tenant, job_id), 202)


async def retry_job(request: web.Request) -> web.StreamResponse:
    """Scores the failed rows of a job again: 202 and its status."""
    tenant, job_id = tenant_of(request), check_job_id(request.match_info["job_id"])
    return json_bytes(await request.app[JOBS].retry(tenant, job_id), 202)


def submission(body: bytes, codec: Codec) -> tuple[str | None, bytes]:
    """The job id, if the body has one, and the rest of the body as a `submit` message.

    Raises `MalformedError` if the body is not an object with unique fields, and `InvalidIdError` for the job id.
    """
    try:
        fields: dict[str, msgspec.Raw] = _FIELDS[codec](body)
        given = fields.pop("job_id", None)
        job_id = None if given is None else _TEXT[codec](given)
    except DECODE_ERRORS as error:
        check_nesting(body, codec, "body", DEFAULT_LIMITS.depth_max)
        raise MalformedError(
            f"body: expected an object with job_id (string) and the fields of a job: {error}"
        ) from None
    count = len(fields) + (given is not None)
    if codec.repeats_key(body, count, fields.values()):
        raise MalformedError("body: duplicate field")
    if "type" in fields:
        raise MalformedError("body: unknown field type")
    message = codec.encode({"type": "submit", **fields})
    return None if job_id is None else check_job_id(job_id), message


def _listed(jobs: Sequence[bytes], headers: Mapping[str, str] = MappingProxyType({})) -> web.Response:
    response = json_bytes(b'{"jobs":[%s]}' % b",".join(jobs))
    response.headers.update(headers)
    return response


def _optional_number(request: web.Request, name: str) -> int | None:
    given = request.query.get(name)
    return None if given is None else _number(given, name, NUMBER_MAX)


def _number(text: str, name: str, most: int) -> int:
    if not _NUMBER.fullmatch(text) or int(text) > most:
        raise InvalidValueError(f"query parameter {name}={text[:80]!r}: expected a number from 0 to {most}")
    return int(text)
